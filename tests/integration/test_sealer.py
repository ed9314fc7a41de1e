"""Entries become leaves in the order of their commits; nobody signs a tree that did not grow from the last one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from faults import Died, mortal
from sealed import SealedLog, an_entry, in_parallel
from signing import signed
from waiting import wait_until

from compliance.audit.keys import SigningKey
from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import Frontier
from compliance.audit.tiles import WIDTH
from compliance.audit.writer import Writer
from compliance.clock import Clock


@pytest.fixture
def sealed(empty: Deployment, tmp_path: Path) -> SealedLog:
    return SealedLog(empty, tmp_path / "guard.json")


def sealed_ids(sealed: SealedLog) -> list[str]:
    return [id_ for batch in sealed.seals.batches(sealed.log) for id_ in batch.ids]


def assert_whole(sealed: SealedLog, count: int) -> None:
    """Every entry is sealed once, with the hash of its bytes, and the tree is the one that was signed."""
    stored = {entry["_id"]: entry_hash(entry) for entry in sealed.deployment.admin.audit["audit_log"].find()}
    batches = list(sealed.seals.batches(sealed.log))
    leaves = [leaf for batch in batches for leaf in batch.leaves]
    frontier = Frontier().extended(leaves)

    assert sorted(sealed_ids(sealed)) == sorted(stored)
    assert leaves == [stored[id_] for id_ in sealed_ids(sealed)]
    assert [batch.start for batch in batches] == [0, *(batch.end for batch in batches)][:-1]
    assert batches[-1].frontier == frontier
    assert (sealed.size, frontier.size) == (count, count)
    assert sealed.incidents == []
    reader = sealed.seals.nodes(sealed.log, count)
    assert [reader(0, index) for index in range(count)] == leaves


def test_entries_are_sealed_in_the_order_of_their_commits(sealed: SealedLog) -> None:
    with sealed.running():
        ids = sealed.append(20)
        wait_until(lambda: sealed.size == 20, timeout=30, what="all are sealed")
        ids += sealed.append(5)
        wait_until(lambda: sealed.size == 25, timeout=30, what="the rest is sealed")

    assert sealed_ids(sealed) == ids
    assert_whole(sealed, 25)


def test_what_was_written_before_the_first_sealer_and_between_two_is_sealed(sealed: SealedLog) -> None:
    sealed.append(7)
    assert sealed.seal_all() == 7
    sealed.append(3)
    assert sealed.seal_all() == 10
    sealed.append(WIDTH)

    assert sealed.seal_all() == 10 + WIDTH
    assert_whole(sealed, 10 + WIDTH)
    assert sealed.deployment.admin.audit["audit_tiles"].count_documents({}) == 1


def test_several_sealers_make_one_log(sealed: SealedLog) -> None:
    with sealed.running(sealers=3):
        in_parallel(*(lambda: sealed.append(75) for _ in range(4)))
        wait_until(lambda: sealed.size == 300, timeout=60, what="all are sealed")

    assert_whole(sealed, 300)


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("committed", [True, False])
def test_a_sealer_that_dies_at_any_transaction_leaves_a_log_that_goes_on(
    sealed: SealedLog,
    at: int,
    committed: bool,  # noqa: FBT001 - a parameter
) -> None:
    dying = sealed.sealing()
    dying = replace(
        dying, services=replace(dying.services, databases=mortal(dying.services.databases, at=at, committed=committed))
    )
    appended = 0

    def append_a_few() -> bool:
        nonlocal appended
        if appended < 12:
            sealed.append(2)
            appended += 2
        return False

    with pytest.raises(Died):
        replace(dying, on_sealed=append_a_few).follow(lambda: False)
    sealed.append(1)

    sealed.seal_all()
    assert_whole(sealed, appended + 1)


def test_an_entry_that_was_altered_before_it_was_sealed_is_sealed_as_it_was_written(sealed: SealedLog) -> None:
    admin = sealed.deployment.admin.audit["audit_log"]
    sealed.append(2)
    sealed.seal_all()
    altered, removed = sealed.append(2)
    written = {entry["_id"]: entry_hash(entry) for entry in admin.find()}
    admin.update_one({"_id": altered}, {"$set": {"outcome": "denied"}})
    admin.delete_one({"_id": removed})

    with sealed.running():
        wait_until(lambda: sealed.size == 4, timeout=30, what="both are sealed")

    leaves = dict(zip(sealed_ids(sealed), sealed.seals.leaves(sealed.log, 0, 4), strict=True))
    assert leaves == written


FORGERIES: dict[str, dict[str, Any]] = {
    "of a stranger": {},
    "under another id": {"_id": "0" * 32},
    "with a signature of another": {"sig": "A" * 86 + "=="},
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_entry_is_not_sealed(sealed: SealedLog, name: str) -> None:
    addresses = sealed.deployment.addresses
    key = addresses.writer("x").key if name == "under another id" else SigningKey.from_seed("writer", bytes(32))
    writer = Writer(origin=addresses.trust().origin, key=key, process="x")
    (forged,) = signed(an_entry(sealed.deployment), writer=writer)
    with sealed.running():
        sealed.append(1)
        sealed.deployment.admin.audit["audit_log"].insert_one(forged | FORGERIES[name])
        sealed.append(1)
        wait_until(lambda: sealed.size == 2, timeout=30, what="the others are sealed")

    assert [incident.kind for incident in sealed.incidents] in (["FORGED"], ["MODIFIED"])
    assert len(sealed_ids(sealed)) == 2


def test_a_state_that_lies_behind_what_was_signed_is_not_signed(sealed: SealedLog) -> None:
    audit = sealed.deployment.admin.audit
    sealed.append(3)
    sealed.seal_all()
    backup = {name: list(audit[name].find()) for name in ("audit_log", "audit_batches", "audit_checkpoints")}
    sealed.append(4)
    sealed.seal_all()
    for name, documents in backup.items():
        audit[name].delete_many({"_id": {"$nin": [document["_id"] for document in documents]}})
    sealed.append(1)

    with sealed.running():
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="the alarm rings")

    assert "7 were signed: was a backup restored?" in sealed.incidents[0].what
    assert sealed.size == 3


def test_another_history_of_the_same_length_is_not_signed(sealed: SealedLog) -> None:
    sealed.append(3)
    sealed.seal_all()
    kept = json.loads(sealed.guard.read_text())
    kept[sealed.log]["root"] = "A" * 43 + "="
    kept[sealed.log]["size"] = 5
    sealed.guard.write_text(json.dumps(kept))
    sealed.append(4)
    batch = next(sealed.seals.batches(sealed.log))
    assert batch.end == 3

    with sealed.running():
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="the alarm rings")

    assert sealed.size == 3


@pytest.mark.parametrize("poisoned", ["frontier", "leaves"])
def test_a_poisoned_state_is_not_signed(sealed: SealedLog, poisoned: str) -> None:
    sealed.append(5)
    sealed.seal_all()
    batch = sealed.deployment.admin.audit["audit_batches"].find_one({})
    assert batch is not None
    sealed.deployment.admin.audit["audit_batches"].update_one(
        {"_id": batch["_id"]}, {"$set": {poisoned: bytes(len(batch[poisoned]))}}
    )
    sealed.append(1)

    with sealed.running():
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="the alarm rings")

    assert "do not lead to what was signed" in sealed.incidents[0].what
    assert sealed.size == 5


def test_a_checkpoint_by_another_key_is_not_gone_on_from(sealed: SealedLog) -> None:
    sealed.append(2)
    sealed.seal_all()
    checkpoints = sealed.deployment.admin.audit["audit_checkpoints"]
    checkpoints.update_many({}, [{"$set": {"note": b"stranger\n2\nAAAA\n\n"}}])
    sealed.append(1)

    with sealed.running():
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="the alarm rings")

    assert "is not ours" in sealed.incidents[0].what


@pytest.fixture
def next_year(sealed: SealedLog) -> Clock:
    """A clock that is a year ahead."""
    clock = sealed.deployment.services().clock

    class Ahead:
        def now(self) -> Any:
            now = clock.now()
            return now.replace(year=now.year + 1)

        def sleep(self, duration: Any) -> None:
            clock.sleep(duration)

    return Ahead()  # type: ignore[misc]


def test_each_year_has_a_log_and_the_old_one_is_closed(sealed: SealedLog, next_year: Any) -> None:
    sealed.append(3)
    sealed.seal_all()
    (old,) = sealed.seals.logs()
    log = sealed.deployment.services().log
    late = an_entry(sealed.deployment)
    ahead = an_entry(sealed.deployment, created_at=next_year.now())
    log.databases.transact(lambda session: log.append(ahead, session=session))

    services = replace(sealed.sealing().services, clock=next_year)
    with sealed.running(services=services):
        wait_until(
            lambda: sealed.deployment.entries(action="log.closed") != [] and len(sealed.seals.logs()) == 2,
            timeout=30,
            what="the old log is closed",
        )
        log.databases.transact(lambda session: log.append(late, session=session))
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="a late entry is noticed")

    (closed,) = sealed.deployment.entries(action="log.closed")
    last = sealed.seals.last_batch(old)
    assert last is not None
    assert closed["log"] > old
    assert (closed["entity_id"], closed["details"]) == (old, {"size": 3, "root": last.frontier.root.hex()})
    assert [incident.kind for incident in sealed.incidents] == ["BACKDATED"]
