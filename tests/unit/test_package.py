"""A package is complete or absent, and says when a byte of it changed."""

import io
import json
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from compliance.errors import InvalidPayload, ManifestMismatch, RequestConflict
from compliance.mongo import CODEC
from compliance.transfer.formats import ndjson
from compliance.transfer.manifest import (
    MANIFEST,
    PACKAGE_NAME,
    File,
    Manifest,
    check_file,
    default_name,
    open_package,
    package_path,
    read_manifest,
    replacing,
    write_manifest,
)

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
NAMES = TEXTS | st.sampled_from(["$oid", "$date", "$bson", "$ref", "$"])
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - as the strategy asks
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-(2**63), 2**63 - 1).map(Int64)
    | st.floats()
    | TEXTS
    | MOMENTS
    | st.binary(min_size=12, max_size=12).map(ObjectId)
    | st.binary(max_size=20)
    | st.builds(Binary, st.binary(max_size=20), st.sampled_from([1, 5, 128]))
    | st.builds(Binary, st.binary(min_size=16, max_size=16), st.sampled_from([3, 4]))
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9).map(Decimal128)
    | st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.builds(Regex, TEXTS, st.sampled_from(["", "i", "im"]))
    | st.builds(Code, TEXTS)
    | st.builds(DBRef, TEXTS.filter(bool), st.integers(0, 9))
    | st.sampled_from([MinKey(), MaxKey(), Decimal128("NaN"), Decimal128("-Infinity")])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4).flatmap(
    lambda rest: SCALARS.map(lambda value: {"_id": value, **{name: rest[name] for name in rest if name != "_id"}})
)


@given(st.lists(DOCUMENTS, max_size=4))
def test_every_bson_value_survives_export_and_import(documents: list[dict[str, Any]]) -> None:
    stored = [bson.decode(bson.encode(document), CODEC) for document in documents]
    file = io.BytesIO()

    assert ndjson.write(stored, file) == len(stored)
    assert len(file.getvalue().splitlines()) >= file.getvalue().count(b"\n") == len(stored)
    assert [bson.encode(found) for found in ndjson.read(io.BytesIO(file.getvalue()))] == list(map(bson.encode, stored))


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"{", b"[]", b"5", b'"ann@x.org"', b'{"a": "ann@x.org"}', b'{"_id": {"$oid": "ann@x.org"}}',
     b'{"_id": 1, "ann@x.org"}', b"\xff", b'{"_id": {"$date": "ann@x.org"}}', b'{"_id": {"$numberInt": "ann@x.org"}}',
     b'{"_id": {"$binary": 1}}', b"nul"],
)  # fmt: skip
def test_a_line_that_is_no_document_is_named_by_its_number_and_not_repeated(line: bytes) -> None:
    with pytest.raises(InvalidPayload, match="line 8 is not a document") as caught:
        list(ndjson.read([b'{"_id": 1}', line], first_line=7))

    assert "ann" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@given(st.from_regex(PACKAGE_NAME.removesuffix("$"), fullmatch=True))
def test_a_plain_name_is_a_folder_of_the_directory(name: str) -> None:
    assert package_path(Path("/exports"), name).parent == Path("/exports")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "a b", "-x", "x" * 65, "a\n", "ä", "a.b", "a\\b"]
)
def test_a_name_that_could_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(InvalidPayload, match="package: expected letters, digits"):
        package_path(Path("/exports"), name)


@given(st.text())
def test_a_request_has_one_default_name(request_id: str) -> None:
    assert re.fullmatch(PACKAGE_NAME, default_name(request_id))
    assert default_name(request_id) == default_name(request_id) != default_name(f"{request_id}x")


def test_a_file_takes_its_place_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    path.write_bytes(b"old")
    with replacing(path, attempt=1) as file:
        file.write(b"new ")
        file.write(b"bytes")
        during = path.read_bytes()

    assert (during, path.read_bytes()) == (b"old", b"new bytes")
    assert file.size_bytes == len(b"new bytes")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["users.ndjson"]


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    path.write_bytes(b"old")

    def fails() -> None:
        with replacing(path, attempt=1) as file:
            file.write(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fails()

    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["users.ndjson"]


def test_two_attempts_do_not_share_their_part_file(tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    with replacing(path, attempt=1) as paused:
        paused.write(b"zombie")
        with replacing(path, attempt=2) as successor:
            successor.write(b"successor")
        between = path.read_bytes()

    assert between == b"successor"
    assert [found.name for found in tmp_path.iterdir()] == ["users.ndjson"]


def a_file(path: Path, content: bytes) -> File:
    with replacing(path / "users.ndjson", attempt=1) as file:
        file.write(content)
    return File(name="users.ndjson", collection="users", documents=1, size_bytes=file.size_bytes, sha256=file.sha256)


def test_an_unchanged_file_passes(tmp_path: Path) -> None:
    check_file(tmp_path, a_file(tmp_path, b"content"))


@given(content=st.binary(min_size=1, max_size=64), data=st.data())
def test_any_changed_byte_is_found(
    content: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("package")
    file = a_file(folder, content)
    at = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    (folder / file.name).write_bytes(content[:at] + bytes([other]) + content[at + 1 :])

    with pytest.raises(ManifestMismatch, match=r"users\.ndjson of package .* is not the file that was exported"):
        check_file(folder, file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"content")
    (tmp_path / file.name).unlink()

    with pytest.raises(ManifestMismatch, match=r"users\.ndjson of package .* cannot be read"):
        check_file(tmp_path, file)


def a_manifest(**changes: Any) -> Manifest:
    values = {"request_id": "r-1", "about": "collection", "database": "app", "created_at": "2026-03-31", "files": ()}
    return Manifest.model_validate(values | changes)


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    manifest = a_manifest(files=(a_file(tmp_path, b"x"),), notes=("a note",))
    write_manifest(manifest, tmp_path, attempt=1)

    assert read_manifest(tmp_path) == manifest


@pytest.mark.parametrize("name", ["../users.ndjson", "/etc/passwd", "a/b", "..", "", ".hidden", "a\\b"])
def test_a_manifest_cannot_name_a_file_outside_its_package(name: str, tmp_path: Path) -> None:
    content = a_manifest(files=(a_file(tmp_path, b"x"),)).model_dump(mode="json")
    content["files"][0]["name"] = name
    (tmp_path / MANIFEST).write_text(json.dumps(content))

    with pytest.raises(InvalidPayload, match=r"manifest\.json of package .* is wrong in: files\.0\.name"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"format": "other/v1"}, "is wrong in: format"),
        ({"extra": 1}, "is wrong in: extra"),
        ({"files": [{"name": "a"}]}, r"is wrong in: files\.0\.collection, files\.0\.documents"),
        (None, "is wrong in: its JSON"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused_by_field(content: Any, fault: str, tmp_path: Path) -> None:
    text = "{" if content is None else json.dumps(a_manifest().model_dump(mode="json") | content)
    (tmp_path / MANIFEST).write_text(text)

    with pytest.raises(InvalidPayload, match=fault):
        read_manifest(tmp_path)


def test_a_folder_without_manifest_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(InvalidPayload, match=r"has no manifest\.json; export writes one"):
        read_manifest(tmp_path)


def test_a_package_belongs_to_the_request_that_wrote_it(tmp_path: Path) -> None:
    path = open_package(tmp_path, "p-1", "r-1", attempt=1)
    write_manifest(a_manifest(), path, attempt=1)

    assert open_package(tmp_path, "p-1", "r-1", attempt=1) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    with pytest.raises(RequestConflict, match="package p-1 exists already and belongs to another request"):
        open_package(tmp_path, "p-1", "r-2", attempt=1)
