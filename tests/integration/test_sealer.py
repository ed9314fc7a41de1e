"""Entries become leaves in the order of their commits; nobody signs a tree that did not grow from the last one."""

import json
import re
import struct
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import DatetimeMS, ObjectId
from bson.raw_bson import RawBSONDocument
from deployment import Deployment
from faults import Died, mortal
from pymongo import WriteConcern
from sealed import SealedLog, an_entry, in_parallel
from signing import signed
from waiting import wait_until

from compliance.audit.keys import SigningKey
from compliance.audit.leaf import entry_hash
from compliance.audit.merkle import Frontier
from compliance.audit.sealer import RECOVERING
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


def put_back(sealed: SealedLog, ids: list[str], *, slowly: bool) -> None:
    """Remove entries, and insert them again as they were."""
    entries = sealed.deployment.admin.audit["audit_log"]
    lost = [entries.find_one({"_id": id_}) for id_ in ids]
    entries.delete_many({"_id": {"$in": ids}})
    for entry in lost:
        assert entry is not None
        entries.insert_one(entry)
        if slowly:
            sealed.deployment.services().clock.sleep(timedelta(seconds=0.6))


@pytest.mark.parametrize("slowly", [True, False], ids=["in several batches", "in one batch"])
@pytest.mark.parametrize("restarted", [True, False], ids=["a new sealer", "the same sealer"])
def test_entries_that_were_put_back_are_sealed_once(sealed: SealedLog, restarted: bool, slowly: bool) -> None:  # noqa: FBT001
    ids = sealed.append(8)
    with sealed.running():
        wait_until(lambda: sealed.size == 8, timeout=30, what="all are sealed")
        if not restarted:
            put_back(sealed, ids[2:6], slowly=slowly)
            sealed.append(1)
            wait_until(lambda: sealed.size == 9, timeout=30, what="the next one is sealed")
    if restarted:
        with sealed.running():
            put_back(sealed, ids[2:6], slowly=slowly)
            sealed.append(1)
            wait_until(lambda: sealed.size == 9, timeout=30, what="the next one is sealed")

    assert_whole(sealed, 9)
    assert sealed.findings() == []


def test_an_entry_that_is_put_back_before_it_is_sealed_is_sealed_once(sealed: SealedLog) -> None:
    entries = sealed.deployment.admin.audit["audit_log"]
    sealed.append(1)
    sealed.seal_all()
    (id_,) = sealed.append(1)
    lost = entries.find_one({"_id": id_})
    assert lost is not None
    for _ in range(3):
        entries.delete_one(lost)
        entries.insert_one(lost)
    sealed.append(1)

    sealed.seal_all()
    assert_whole(sealed, 3)
    assert sealed.findings() == []


class Killed(Exception):
    pass


def test_a_recovery_that_was_interrupted_begins_again(sealed: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compliance.audit.sealer.MAX_LEAVES", 5)
    sealed.append(23)

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        sealed.sealing(on_read=die).follow(lambda: False)
    assert sealed.size == 5
    assert [batch.token for batch in sealed.seals.batches(sealed.log)] == [RECOVERING]

    sealed.append(2)
    assert sealed.seal_all() == 25
    assert_whole(sealed, 25)
    sealed.append(3)
    assert sealed.seal_all() == 28
    assert_whole(sealed, 28)


def test_whoever_recovers_says_that_it_lives(sealed: SealedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compliance.audit.sealer.MAX_LEAVES", 5)
    sealed.append(23)
    sizes: list[int] = []

    with sealed.running(on_read=lambda: sizes.append(sealed.size)):
        wait_until(lambda: sealed.size == 23, timeout=30, what="all are sealed")

    assert sizes[:4] == [5, 10, 15, 20]


def test_entries_that_waited_long_are_recovered_when_the_history_is_lost(sealed: SealedLog) -> None:
    """How far the log was sealed says what was sealed last, not when: the sealer may have been late."""
    log, now = sealed.deployment.services().log, sealed.deployment.services().clock.now()

    def append(age: int) -> None:
        entry = an_entry(sealed.deployment, created_at=now - timedelta(hours=age))
        log.databases.transact(lambda session: log.append(entry, session=session))

    append(4)
    sealed.seal_all()
    append(3)
    sealed.seal_all()
    batch = sealed.seals.last_batch(sealed.log)
    assert batch is not None
    lost = re.sub("5A1004[0-9A-F]{32}", "5A1004" + "0" * 32, batch.token)  # of a collection that never was
    sealed.deployment.admin.audit["audit_batches"].update_one({"token": batch.token}, {"$set": {"token": lost}})
    append(2)
    append(1)

    assert sealed.seal_all() == 4
    assert [incident.kind for incident in sealed.incidents] == ["WATCH-LOST"]
    assert_whole(replace(sealed, incidents=[]), 4)


def test_a_batch_that_names_a_time_to_come_does_not_stop_the_seal(sealed: SealedLog) -> None:
    sealed.append(2)
    sealed.seal_all()
    batches = sealed.deployment.admin.audit["audit_batches"]
    (batch,) = batches.find()
    seconds = int(batch["token"][2:10], 16) + 30 * 24 * 3600
    batches.update_one({}, {"$set": {"token": f"{batch['token'][:2]}{seconds:08X}{batch['token'][10:]}"}})
    sealed.append(3)

    assert sealed.seal_all() == 5
    assert [incident.kind for incident in sealed.incidents] == ["WATCH-LOST"]


def joined(*elements: tuple[str, object]) -> RawBSONDocument:
    """A document that may name a field twice."""
    body = b"".join(bson.encode({name: value})[4:-1] for name, value in elements)
    return RawBSONDocument(struct.pack("<i", len(body) + 5) + body + b"\0")


def odd_documents(entry: dict[str, Any]) -> list[Any]:
    """Documents that a validator lets pass, or that somebody wrote around it."""
    fields = list(entry.items())
    broken = bson.encode(entry | {"_id": "1" * 32, "performed_by": "xyz"}).replace(b"xyz\0", b"x\xffz\0")
    return [
        joined(("_id", "0" * 32), *fields[1:], ("outcome", "denied")),
        RawBSONDocument(broken),
        entry | {"_id": ObjectId()},
        entry | {"_id": {"a": 1}},
        entry | {"_id": "2" * 32, "created_at": DatetimeMS(2**62)},
        entry | {"_id": "3" * 32, "writer": "nobody"},
        entry | {"_id": "4" * 32, "details": {"a": 1.5}},
        {"_id": "5" * 32},
    ]


def test_what_is_no_entry_is_reported_and_ends_nothing(sealed: SealedLog) -> None:
    """In the stream, and when the log is scanned."""
    audit = sealed.deployment.admin.audit
    sealed.append(2)
    entry = audit["audit_log"].find_one({})
    assert entry is not None
    audit["audit_log"].with_options(write_concern=WriteConcern("majority")).insert_many(
        odd_documents(entry), bypass_document_validation=True
    )
    with sealed.running():
        wait_until(lambda: sealed.size == 2, timeout=30, what="the log is scanned")
        audit["audit_log"].delete_many({"sig": entry["sig"], "_id": {"$ne": entry["_id"]}})
        audit["audit_log"].delete_one({"_id": "5" * 32})
        audit["audit_log"].insert_many(odd_documents(entry), bypass_document_validation=True)
        sealed.append(1)
        wait_until(lambda: sealed.size == 3, timeout=30, what="the next one is sealed")

    kinds = Counter(incident.kind.value for incident in sealed.incidents)
    assert kinds == {"MODIFIED": 2 * 3, "FORGED": 2 * 5}


def test_an_altered_tile_is_reported_and_does_not_stop_the_seal(sealed: SealedLog) -> None:
    sealed.append(WIDTH + 3)
    sealed.seal_all()
    sealed.deployment.admin.audit["audit_tiles"].update_one({}, {"$set": {"hashes": bytes(8192)}})
    sealed.append(1)

    assert sealed.seal_all() == WIDTH + 4
    assert [(incident.kind, "a tile of" in incident.what) for incident in sealed.incidents] == [("MODIFIED", True)]


def test_a_tile_that_somebody_put_in_the_way_stops_the_seal_and_rings(sealed: SealedLog) -> None:
    sealed.append(WIDTH - 2)
    sealed.seal_all()
    tile = {"_id": {"log": sealed.log, "level": 0, "index": 0}, "hashes": bytes(8192)}
    sealed.deployment.admin.audit["audit_tiles"].insert_one(tile)
    sealed.append(4)

    with sealed.running():
        wait_until(lambda: bool(sealed.incidents), timeout=30, what="the alarm rings")

    assert sealed.incidents[0].kind == "FORK"
    assert "a tile of" in sealed.incidents[0].what
    assert sealed.size == WIDTH - 2


def test_an_entry_that_says_that_the_present_log_is_closed_closes_nothing(sealed: SealedLog) -> None:
    sealed.append(1)
    sealed.seal_all()
    log = sealed.deployment.services().log
    closing = an_entry(
        sealed.deployment, event=f"{sealed.log}#closed", entity_type="log", entity_id=sealed.log, action="log.closed"
    )
    log.databases.transact(lambda session: log.append(closing, session=session))
    sealed.seal_all()
    sealed.append(1)

    assert sealed.seal_all() == 3
    assert sealed.incidents == []


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
