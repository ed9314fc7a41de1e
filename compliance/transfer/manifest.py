"""A package: a folder of exported files, and the manifest that says what they are.

Manifest (``manifest.json``)::

    {format: "compliance-export/v1", request_id: str, about: "collection" | "subject", database: str, created_at: str,
     files: [{name: str, collection: str, documents: int, size_bytes: int, sha256: hex}], notes: [str]}
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from compliance.errors import InvalidPayload, LeaseLost, ManifestMismatch, RequestConflict

MANIFEST = "manifest.json"
FORMAT: Final = "compliance-export/v1"
OWNER = ".request"
PACKAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"


class File(BaseModel):
    """One file of a package."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(pattern=r"^[^./\\\x00][^/\\\x00]*$")]  # a path could leave the package
    collection: str
    documents: int
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a package holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    format: Literal["compliance-export/v1"] = FORMAT
    request_id: str
    about: str
    database: str
    created_at: str
    files: tuple[File, ...]
    notes: tuple[str, ...] = ()


def default_name(request_id: str) -> str:
    """Return the name of the package of *request_id* where none was asked for."""
    return f"export-{hashlib.sha256(request_id.encode()).hexdigest()[:12]}"


def package_path(directory: Path, name: str) -> Path:
    """Return the folder of the package *name*.

    Raises:
        InvalidPayload: When *name* is no plain name; a path could leave *directory*.
    """
    if not re.fullmatch(PACKAGE_NAME, name):
        raise InvalidPayload("package: expected letters, digits, '-' and '_', at most 64")
    return directory / name


def open_package(directory: Path, name: str, request_id: str, *, attempt: int) -> Path:
    """Create the folder of the package *name* and return it; a repeat of the same request writes it anew.

    What earlier attempts left half written is removed.

    Raises:
        RequestConflict: When another request wrote a package of that name, or is writing it.
    """
    path = package_path(directory, name)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _owner(path, request_id, attempt=attempt) != request_id:
        raise RequestConflict(f"package {name} exists already and belongs to another request; choose another name")
    for left in path.glob(".*.part"):
        left.unlink(missing_ok=True)
    return path


def _owner(path: Path, request_id: str, *, attempt: int) -> str:
    """Return the request that the package at *path* belongs to: *request_id*, unless another was there before."""
    if (path / MANIFEST).exists():
        return read_manifest(path).request_id
    claim = path / f"{OWNER}-{attempt}-{os.getpid()}.claim"
    try:
        with os.fdopen(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(request_id)
        os.link(claim, path / OWNER)  # whole or not at all, and only one wins
    except FileExistsError:
        return (path / OWNER).read_text(encoding="utf-8")
    finally:
        claim.unlink(missing_ok=True)
    return request_id


class HashedFile:
    """A file that is written once, counting and hashing what passes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        """The hex SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Write *data* through."""
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)


@contextmanager
def replacing(path: Path, *, attempt: int) -> Iterator[HashedFile]:
    """Open a file that takes the place of *path* in one step when the block ends well; readable by its owner only.

    Args:
        path: The final name.
        attempt: The fence of the writer: two writers of one package never share a temporary file.
    """
    temporary = path.with_name(f".{path.name}.{attempt}.part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield HashedFile(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except FileNotFoundError:
        raise LeaseLost(
            f"another attempt writes package {path.parent.name} now; nothing was put in its place"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_manifest(manifest: Manifest, path: Path, *, attempt: int) -> None:
    """Write *manifest* into the package at *path*; it comes last, so a package with one is complete."""
    with replacing(path / MANIFEST, attempt=attempt) as file:
        file.write(json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False).encode() + b"\n")


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the package at *path*.

    Raises:
        InvalidPayload: When there is none, or it is not one of ours.
    """
    try:
        return Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except OSError:
        raise InvalidPayload(f"package {path.name} has no {MANIFEST}; export writes one, import needs it") from None
    except ValidationError as error:
        faults = ", ".join(
            ".".join(map(str, fault["loc"])) or "its JSON" for fault in error.errors(include_input=False)
        )
        raise InvalidPayload(f"{MANIFEST} of package {path.name} is wrong in: {faults}") from None


def check_file(path: Path, file: File) -> None:
    """Compare a file of the package at *path* with its line in the manifest.

    Raises:
        ManifestMismatch: When it is missing, or its bytes are not those that were exported.
    """
    try:
        with (path / file.name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        raise ManifestMismatch(f"{file.name} of package {path.name} cannot be read") from None
    if digest != file.sha256:
        raise ManifestMismatch(
            f"{file.name} of package {path.name} is not the file that was exported (SHA-256 differs)"
        )
