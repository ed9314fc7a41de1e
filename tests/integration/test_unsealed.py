"""Which entries no batch holds: of the whole log, and since a checkpoint."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from deployment import provision_database
from sealed import SealedLog, an_entry
from signing import signed
from waiting import wait_until

from compliance.audit.batch import MAX_LEAVES, to_document
from compliance.audit.verification.finding import Findings
from compliance.audit.verification.tally import Tally
from compliance.audit.verification.unsealed import Unsealed
from compliance.mongo import Document
from worker.embedded import Stack

MANY = MAX_LEAVES + 300


@pytest.fixture
def sealed(stack: Stack, tmp_path: Path) -> Iterator[SealedLog]:
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        yield SealedLog(deployment, tmp_path / "guard.json")


def write(sealed: SealedLog, count: int, **changes: object) -> list[str]:
    """Write entries in one go; return their ids."""
    writer = sealed.deployment.addresses.writer("test")
    documents = signed(*(an_entry(sealed.deployment, **changes) for _ in range(count)), writer=writer)
    sealed.deployment.admin.audit["audit_log"].insert_many(documents)
    return [document["_id"] for document in documents]


def kept(sealed: SealedLog, log: str) -> bytes:
    note = sealed.seals.checkpoints.note(log)
    assert note is not None
    return note


def looking(sealed: SealedLog, *, now: datetime | None = None, held: int = 250_000) -> Unsealed:
    admin = sealed.deployment.admin
    return Unsealed(
        databases=admin,
        trust=sealed.deployment.addresses.trust(),
        now=now or admin.server_time(),
        findings=Findings(),
        held=held,
    )


def test_many_entries_just_before_a_checkpoint_are_not_named_behind_it(sealed: SealedLog) -> None:
    write(sealed, MANY)
    sealed.seal_all()
    note = kept(sealed, sealed.log)
    sealed.append(1)
    sealed.seal_all()
    later = sealed.deployment.admin.server_time() + timedelta(minutes=2)
    (odd,) = write(sealed, 1)

    assert [what for _, what in sealed.findings(since=note, now=later)] == [f"entry {odd}"]
    assert [what for _, what in sealed.findings(now=later)] == [f"entry {odd}"]


def test_entries_in_the_log_of_another_year_are_sealed_too(sealed: SealedLog) -> None:
    now = sealed.deployment.admin.server_time()
    sealed.append(3)
    write(sealed, 1, created_at=now.replace(year=now.year + 1))
    with sealed.running():
        wait_until(lambda: len(sealed.seals.logs()) == 2, timeout=30, what="two logs")
    last, _ = reversed(sealed.seals.logs()), None
    note = kept(sealed, next(last))

    assert [kind for kind, _ in sealed.findings(since=note)] == []


@pytest.mark.parametrize("held", [1, 2, 100])
def test_however_few_ids_are_held_the_same_is_found(sealed: SealedLog, held: int) -> None:
    write(sealed, 5)
    sealed.seal_all()
    late = sealed.deployment.admin.server_time() + timedelta(minutes=2)
    odd = {f"entry {id_}" for id_ in write(sealed, 4)}
    everything = looking(sealed, now=late, held=held)
    newest = looking(sealed, now=late, held=held)

    assert everything.look_at_all(Tally(), verified={}) == newest.look_since(late - timedelta(hours=1)) == 0
    assert {found.what for found in everything.findings} == {found.what for found in newest.findings} == odd


@pytest.mark.parametrize("held", [1, 1000])
def test_neighbours_are_told_apart(sealed: SealedLog, held: int) -> None:
    """Several ids of one group differ, so that sums say nothing."""
    ids = write(sealed, 6)
    sealed.seal_all()
    (batch,) = sealed.seals.batches(sealed.log)
    entries = sealed.deployment.admin.audit["audit_log"]
    renamed = [f"{number:032x}" for number in range(6)]
    documents: list[Document] = [
        entries.find_one_and_delete({"_id": id_}) | {"_id": new} for id_, new in zip(ids, renamed, strict=True)
    ]
    entries.insert_many(documents)
    batches = sealed.deployment.admin.audit["audit_batches"]
    batches.replace_one({}, to_document(replace(batch, ids=(*renamed[:4], *renamed[2:4]))))
    look = looking(sealed, now=sealed.deployment.admin.server_time() + timedelta(minutes=2), held=held)

    tally = Tally()
    tally.add([*renamed[:4], *renamed[2:4]])
    look.look_at_all(tally, verified={sealed.log: 6})

    twice = [(found.what, found.why) for found in look.findings if found.why == "it is sealed twice"]
    assert sorted(twice) == [(f"entry {id_}", "it is sealed twice") for id_ in renamed[2:4]]
    others = {found.what for found in look.findings if "it is not sealed" in found.why}
    assert others == {f"entry {id_}" for id_ in renamed[4:]}


def test_one_entry_that_is_sealed_twice_is_named_alone(sealed: SealedLog) -> None:
    (id_,) = write(sealed, 1)
    look, tally = looking(sealed), Tally()
    tally.add([id_, id_])

    look.look_at_all(tally, verified={})

    assert [(found.what, found.why) for found in look.findings] == [(f"entry {id_}", "it is sealed twice")]


def test_an_entry_that_was_sealed_meanwhile_is_sealed(sealed: SealedLog) -> None:
    write(sealed, 3)
    sealed.seal_all()
    late = sealed.deployment.admin.server_time() + timedelta(minutes=2)
    look = looking(sealed, now=late)

    assert look.look_at_all(Tally(), verified={sealed.log: 0}) == 0
    assert list(look.findings) == []


def test_places_are_found_newest_first(sealed: SealedLog) -> None:
    ids = [*sealed.append(2), *write(sealed, 3)]
    sealed.seal_all()
    sealed.append(1)
    sealed.seal_all()
    seals, log = sealed.seals, sealed.log
    held = list(seals.ids_since(log, None))

    assert [batch.start for batch in held] == sorted((batch.start for batch in held), reverse=True)
    assert held[-1].start == 0
    assert held[0].end == 6
    assert [one.ids for one in reversed(held)] == [batch.ids for batch in seals.batches(log)]
    assert seals.place_of(ids[4]) == (log, 4)
    assert seals.place_of("0" * 32) is None
    assert seals.place_of("no id") is None
    newest = held[0].sealed_at
    assert newest is not None
    assert list(seals.ids_since(log, newest + timedelta(minutes=9))) == held
    assert list(seals.ids_since(log, newest + timedelta(minutes=11))) == []
