"""The file that lists the anchors is read, or every fault of it is named."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from witnesses import LOG, WITNESS, StillClock

from compliance.errors import (
    ConfigurationError,
)
from worker.anchors import KINDS, load_anchors
from worker.anchors import loop as looping
from worker.anchors.kinds.command import CommandAnchor
from worker.anchors.kinds.file import FileAnchor
from worker.anchors.kinds.witness import WitnessAnchor
from worker.remote import Remote

PAGE = (Path(__file__).parents[2] / "docs/anchors.md").read_text(encoding="utf-8")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").touch()
    path = tmp_path / "anchors.yaml"
    path.write_text(f"""
apiVersion: anchors/v1
anchors:
  - {{name: disk, kind: file, path: {tmp_path}, every_seconds: 60}}
  - {{name: upload, kind: command, command: [upload, -v], timeout_seconds: 5, environment: {{HOME: /tmp}}}}
  - {{name: outside, kind: witness, url: "https://w.example/p", vkey: {WITNESS.verifier.vkey},
      ca_file: {tmp_path}/ca.pem}}
""")
    return path


def test_anchors_are_read(listed: Path, tmp_path: Path) -> None:
    disk, upload, outside = load_anchors(listed, clock=StillClock())

    assert (disk.name, disk.every, disk.anchor) == ("disk", timedelta(minutes=1), FileAnchor("disk", tmp_path))
    assert (upload.every, upload.anchor) == (
        timedelta(seconds=10),
        CommandAnchor(name="upload", command=("upload", "-v"), timeout_seconds=5, environment={"HOME": "/tmp"}),
    )
    assert isinstance(outside.anchor, WitnessAnchor)
    assert (outside.anchor.witness, outside.anchor.server) == (
        WITNESS.verifier,
        Remote(url="https://w.example/p", ca_file=tmp_path / "ca.pem", timeout_seconds=10),
    )


def test_there_are_three_kinds() -> None:
    assert list(KINDS) == ["command", "file", "witness"]


SECRET = "s3cr3t"
TWO_WRONG = f"""
apiVersion: anchors/v1
anchors:
  - {{name: a, kind: command, command: []}}
  - {{name: b, kind: witness, url: {SECRET}, vkey: {SECRET}, timeout_seconds: 0}}
"""


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["file: "]),
        ("a: [", ["not valid YAML"]),
        ("apiVersion: anchors/v2\nanchors: []", ["apiVersion: ", "anchors: "]),
        (f"apiVersion: anchors/v1\nanchors: [{{name: a, kind: {SECRET}}}]", ["anchors.0.kind: ", "command, file, wit"]),
        ("apiVersion: anchors/v1\nanchors: [{name: a}]", ["anchors.0.kind: "]),
        (
            f"apiVersion: anchors/v1\nanchors: [{{name: A, kind: file, path: {SECRET}, more: {SECRET}}}]",
            ["anchors.0.name: ", "anchors.0.path: expected an absolute path", "anchors.0.more: "],
        ),
        (
            TWO_WRONG,
            [
                "anchors.0.command: ",
                "anchors.1.url: ",
                "anchors.1.vkey: a verifier key is",
                "anchors.1.timeout_seconds",
            ],
        ),
        (
            "apiVersion: anchors/v1\nanchors: [{name: a, kind: file, path: /a}, {name: a, kind: file, path: /b}]",
            ["anchors: a stands there 2 times"],
        ),
        ("apiVersion: anchors/v1\nanchors: [{name: a, kind: file, path: /a, every_seconds: 0.5}]", ["every_seconds: "]),
        (
            f"apiVersion: anchors/v1\nanchors: [{{name: w, kind: witness, url: https://w, vkey: {LOG.verifier.vkey}}}]",
            ["anchors.0.vkey: the key of a witness is of type 0x04"],
        ),
    ],
    ids=range(10),
)
def test_every_fault_of_the_file_is_named_at_once_and_no_value(text: str, faults: list[str], tmp_path: Path) -> None:
    path = tmp_path / "anchors.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError) as caught:
        load_anchors(path, clock=StillClock())

    assert [fault for fault in faults if fault not in str(caught.value)] == []
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_told_by_the_name_of_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^COMPLIANCE_ANCHORS: cannot be read \(FileNotFoundError\)$"):
        load_anchors(tmp_path / "nowhere", clock=StillClock())


def test_the_example_of_the_page_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "anchors.yaml"
    path.write_text(example)

    places = load_anchors(path, clock=StillClock())

    assert sorted(example.count(f"kind: {kind}") for kind in KINDS) == [1, 1, 1]
    assert [place.name for place in places] == ["disk", "bucket", "outside"]


def test_the_page_lists_exactly_the_fields_and_the_outcomes() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    fields = {name for options in KINDS.values() for name in options.model_fields}

    assert set(listed) == fields | {outcome for _, outcome in looping.OUTCOMES} | {looping.TAKEN, looping.CRASHED}


@pytest.mark.parametrize(
    "url",
    [
        "http://w.example/",
        "http://127.0.0.2.example/",
        "ftp://localhost/",
        "https://",
        "https:///path",
        "https://user@w.example/",
        "https://:p@w.example/",
        "https://w.example:0/",
        "https://w.example:x/",
        "https://w.example/?a",
        "https://w.example/#a",
        "https://w.example/a b",
        "https://w.example/\u00e9",
        f"https://{'a' * 64}.example/",
        "w.example",
    ],
)
def test_a_witness_is_reached_by_https(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        KINDS["witness"].model_validate({"name": "w", "kind": "witness", "url": url, "vkey": WITNESS.verifier.vkey})


@pytest.mark.parametrize(
    "url",
    ["https://w.example", "https://w.example:8443/a/b/", "http://localhost:1/", "http://127.0.0.1", "http://[::1]/"],
)
def test_on_this_machine_a_witness_may_be_reached_in_the_clear(url: str) -> None:
    KINDS["witness"].model_validate({"name": "w", "kind": "witness", "url": url, "vkey": WITNESS.verifier.vkey})


# A witness, without a network
