"""A command that takes the signed checkpoint on its standard input: an upload, a mail, a printer."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from compliance.clock import Clock
from compliance.errors import AnchorUnavailable, ConfigurationError
from worker.anchors.anchor import KINDS, AnchorOptions, Head


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandAnchor:
    """Runs a command; that it ends with 0 is all that is known of what became of the checkpoint.

    Attributes:
        environment: All that it gets beside a plain ``PATH``: ours holds passwords. Sentry adds the ids of its trace.
    """

    name: str
    command: tuple[str, ...]
    timeout_seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)

    def push(self, head: Head) -> bytes:
        """Run the command; see ``Anchor``."""
        try:
            process = subprocess.Popen(  # noqa: S603 - the command is of the settings, and no shell reads it
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # who knows what it prints
                stderr=subprocess.DEVNULL,
                env={"PATH": os.defpath, **self.environment},
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigurationError(
                f"the command of anchor {self.name} cannot be started ({type(error).__name__})"
            ) from None
        try:
            process.communicate(head.note, timeout=self.timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AnchorUnavailable(
                f"the command of anchor {self.name} did not end within {self.timeout_seconds:g} s"
            ) from None
        finally:
            _end(process)
        if process.returncode:
            raise AnchorUnavailable(f"the command of anchor {self.name} ended with {process.returncode}")
        return b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing behind, not what the command has started either."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class CommandOptions(AnchorOptions):
    """A program with its arguments; ``~`` and variables mean nothing in them."""

    kind: Literal["command"]
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10
    environment: Annotated[dict[str, str], Field(default_factory=dict)]

    def open(self, clock: Clock) -> CommandAnchor:
        """Return the anchor."""
        del clock
        return CommandAnchor(
            name=self.name,
            command=self.command,
            timeout_seconds=self.timeout_seconds,
            environment=self.environment,
        )


KINDS.add("command", CommandOptions)
