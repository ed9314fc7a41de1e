"""Somebody who holds the key of the log and no key of a writer seals what nobody wrote."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from attacked import SIZE, STRANGER, Scene, arrange, forge
from bson import Int64
from sealed import an_entry
from signing import signed

from compliance.audit.leaf import entry_hash
from compliance.audit.trust import yearly
from compliance.audit.wire import encode_base64
from compliance.audit.writer import Writer
from compliance.mongo import Document
from worker.embedded import Stack


@pytest.fixture
def scene(stack: Stack, tmp_path: Path) -> Iterator[Scene]:
    with ExitStack() as cleanup:
        yield arrange(stack, cleanup, tmp_path)


def reseal(scene: Scene, documents: list[Document]) -> None:
    """Seal *documents* in the place of the log, with its own key."""
    scene.rewrite(documents, [yearly(scene.sealed.deployment.addresses.log_key(), scene.sealed.log)])


def entries(scene: Scene) -> list[Document]:
    return [scene.entry(index) for index in range(SIZE)]


def altered(document: Document) -> Document:
    return document | {"outcome": "denied"}


def linked(documents: list[Document]) -> list[Document]:
    """Name in each entry the hash of the one before, as its writer would."""
    found: list[Document] = []
    for document in documents:
        prev = encode_base64(entry_hash(found[-1])) if found else None
        found.append(document | {"writer": document["writer"] | {"prev": prev}})
    return found


def strange(scene: Scene) -> list[Document]:
    """As many entries, by a key that nobody knows."""
    writer = Writer(origin=scene.sealed.deployment.addresses.trust().origin, key=STRANGER, process="x")
    return signed(*(an_entry(scene.sealed.deployment) for _ in range(SIZE)), writer=writer)


def behind(scene: Scene) -> Document:
    """An entry that continues the stream of a writer, in its name."""
    last = scene.entry(SIZE - 1)
    writer = last["writer"] | {"seq": SIZE, "prev": encode_base64(entry_hash(last))}
    return forge(scene, created_at=last["created_at"], writer=writer)


Rewriting = Callable[[Scene], list[Document]]

FORGED: dict[str, tuple[Rewriting, list[int]]] = {
    "the last entry": (lambda scene: [*entries(scene)[:-1], altered(scene.entry(SIZE - 1))], [SIZE - 1]),
    "an entry in the middle": (
        lambda scene: [*entries(scene)[:5], altered(scene.entry(5)), *entries(scene)[6:]],
        [5],
    ),
    "an entry in the middle, and the links behind it": (
        lambda scene: linked([*entries(scene)[:5], altered(scene.entry(5)), *entries(scene)[6:]]),
        [SIZE - 1],
    ),
    "another entry behind the last": (lambda scene: [*entries(scene), behind(scene)], [SIZE]),
    "entries of a stranger": (strange, [SIZE - 1]),
    "an entry of a stranger among others": (
        lambda scene: [*entries(scene)[:5], forge(scene, created_at=scene.entry(5)["created_at"]), *entries(scene)[5:]],
        [5],
    ),
    "the first entry, without a place": (
        lambda scene: [{**scene.entry(0), "writer": "nobody"}, *entries(scene)[1:]],
        [0],
    ),
    "the time of an entry that is none": (
        lambda scene: [*entries(scene)[:-1], scene.entry(SIZE - 1) | {"created_at": "now"}],
        [SIZE - 1],
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_no_writer_signed_is_forged_though_it_is_sealed(scene: Scene, name: str) -> None:
    rewriting, expected = FORGED[name]
    documents = rewriting(scene)
    scene.audit.command("collMod", "audit_log", validationLevel="off")
    reseal(scene, documents)
    scene.audit.command("collMod", "audit_log", validationLevel="strict")

    found = [(kind, what.split(" (")[0]) for kind, what in scene.sealed.findings() if kind != "STREAM-GAP"]

    assert found == [("FORGED", f"entry {documents[index]['_id']}") for index in expected]


def test_a_finding_says_for_what_the_entry_stands(scene: Scene) -> None:
    reseal(scene, strange(scene))

    (finding,) = scene.sealed.verify().findings

    assert finding.why.startswith(f"it ends numbers 0 to {SIZE - 1} of stream ")
    assert finding.why.endswith(", and no known writer signed it")


def test_the_same_log_sealed_anew_is_no_finding(scene: Scene) -> None:
    """Numbers of another width are the same entry."""
    scene.entries.update_many({}, [{"$set": {"writer.seq": {"$toLong": "$writer.seq"}}}])
    assert isinstance(scene.entry(3)["writer"]["seq"], Int64)
    reseal(scene, entries(scene))

    assert scene.sealed.findings() == []


def test_an_entry_that_is_left_out_is_a_gap(scene: Scene) -> None:
    reseal(scene, [*entries(scene)[:5], *entries(scene)[6:]])

    assert [kind for kind, _ in scene.sealed.findings()] == ["STREAM-GAP"]


def test_signatures_are_looked_at_since_a_checkpoint_too(scene: Scene) -> None:
    sealed = scene.sealed
    reseal(scene, entries(scene))
    kept = sealed.seals.checkpoints.note(sealed.log)
    reseal(scene, [*entries(scene), behind(scene)])

    crossing, finding = sealed.verify(since=kept).findings

    assert str(crossing) == f"FORGED batch 0 of {sealed.log}: a checkpoint ends within it"
    assert finding.fault == "FORGED"
    assert finding.why.startswith(f"it ends numbers 0 to {SIZE} of stream ")
