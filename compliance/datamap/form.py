"""The forms of which a data map is made: names, paths and literal values; pure."""

import json
from datetime import UTC, date
from typing import Annotated, Any

from bson import json_util
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints, WithJsonSchema

from compliance.period import Period, parse_period

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,119}$")]
Path_ = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_]*(\[\])?)*(\{\})?$"),
]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
Reason = Annotated[str, StringConstraints(min_length=3)]
_OPTIONS = json_util.JSONOptions(tz_aware=True, tzinfo=UTC)


def _from_extended_json(value: Any) -> Any:
    try:
        return json_util.loads(json.dumps(value), json_options=_OPTIONS)
    except Exception:  # noqa: BLE001 - json_util lets many types escape for wrong wrappers
        raise ValueError('expected a value in Extended JSON, such as {$oid: "..."} or {$date: "..."}') from None


def _to_period(value: Any) -> Any:
    return parse_period(value) if isinstance(value, str) else value


PERIOD = r"^P(?=\d)(\d{1,3}Y)?(\d{1,3}M)?(\d{1,5}D)?$"  # for other tools; ``parse_period`` decides

Day = Annotated[date, PlainSerializer(str)]
Span = Annotated[
    Period,
    BeforeValidator(_to_period),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": PERIOD}),
]
Literal_ = Annotated[Any, BeforeValidator(_from_extended_json)]


class Part(BaseModel):
    """A part of a map: unknown fields are errors, values that are refused are not repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


def parts_of(path: str) -> tuple[str, ...]:
    """Return the names of *path* without its marks for arrays and maps."""
    return tuple(path.replace("[]", "").removesuffix("{}").split("."))


def is_under(path: str, whole: str) -> bool:
    """Whether *path* is *whole* or stands within it."""
    return path == whole or path.startswith((f"{whole}.", f"{whole}[", f"{whole}{{"))
