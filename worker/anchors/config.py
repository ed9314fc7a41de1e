"""The file of anchors (``anchors/v1``), validated."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from compliance.clock import Clock
from compliance.errors import ConfigurationError, UnknownName
from worker.anchors.anchor import AnchorOptions, Place
from worker.anchors.kinds import KINDS


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    apiVersion: Literal["anchors/v1"]  # noqa: N815 - the name in the file
    anchors: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)]


def load_anchors(path: Path, *, clock: Clock) -> tuple[Place, ...]:
    """Return the anchors of the file at *path*; none of them is asked anything yet.

    Raises:
        ConfigurationError: With every fault and where it stands, never a value.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"COMPLIANCE_ANCHORS: cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"the anchors {path.name} are not valid YAML") from None
    faults: list[str] = []
    found = list(_options(document, faults))
    counted = Counter(options.name for options in found)
    faults += [f"anchors: {name} stands there {times} times" for name, times in counted.items() if times > 1]
    if faults:
        raise ConfigurationError(f"the anchors {path.name} are wrong: {'; '.join(faults)}")
    return tuple(
        Place(name=options.name, anchor=options.open(clock), every=timedelta(seconds=options.every_seconds))
        for options in found
    )


def _options(document: Any, faults: list[str]) -> Iterator[AnchorOptions]:
    try:
        listed = _File.model_validate(document).anchors
    except ValidationError as error:
        faults += _describe(error)
        return
    for number, entry in enumerate(listed):
        try:
            yield KINDS[str(entry.get("kind"))].model_validate(entry)
        except UnknownName as error:
            faults.append(f"anchors.{number}.kind: {error}")
        except ValidationError as error:
            faults += _describe(error, "anchors", number)


def _describe(error: ValidationError, *place: str | int) -> Iterator[str]:
    for fault in error.errors(include_input=False):
        where = ".".join(map(str, (*place, *fault["loc"]))) or "file"
        yield f"{where}: {fault['msg'].removeprefix('Value error, ')}"
