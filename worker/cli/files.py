"""Files that commands read and write."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from compliance.errors import InvalidPayload
from compliance.statefile import replace_file

OutputOption = Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write to this file.")]


def write_output(data: bytes, output: Path | None) -> None:
    """Write *data* to the file *output*, which is then the old one or the new one; without one to stdout.

    Raises:
        InvalidPayload: When it cannot be written.
    """
    if output is None:
        sys.stdout.buffer.write(data)
        return
    target = output.resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe or a device is not replaced
            target.write_bytes(data)
        else:
            replace_file(target, data)
    except OSError as error:
        raise InvalidPayload(f"{output} cannot be written ({error.strerror})") from None
