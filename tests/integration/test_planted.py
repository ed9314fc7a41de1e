"""Whatever somebody plants among the seals, verification names it and the sealer lives: nothing of it is believed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from sealed import SealedLog
from waiting import wait_until

from compliance.audit.seals import Seals
from compliance.audit.tiles import WIDTH
from compliance.errors import ComplianceError
from compliance.health.check import CHECKS, Scope
from worker.cli.audit_receipts import last_checkpoint

ODD: tuple[Any, ...] = ("text", 7, 7.5, None, b"junk", {"a": 1}, [1])
ENTRIES = WIDTH + 4


@pytest.fixture
def sealed(empty: Deployment, tmp_path: Path) -> SealedLog:
    found = SealedLog(empty, tmp_path / "guard.json")
    found.append(ENTRIES)
    found.seal_all()
    return found


def odd_fields(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield *document* with one field missing or odd, of those that it has and those of its id."""
    for name in document:
        if name != "_id":
            yield {field: value for field, value in document.items() if field != name}
            yield from (document | {name: odd} for odd in ODD)
    for name in document["_id"]:
        place = {field: value for field, value in document["_id"].items() if field != name}
        yield document | {"_id": place}
        yield from (document | {"_id": document["_id"] | {name: odd}} for odd in ODD)


def plant(sealed: SealedLog, collection: str, document: dict[str, Any]) -> int:
    """Insert every odd form of *document* that has a place of its own, and put the others in place of ours."""
    audit = sealed.deployment.admin.audit[collection]
    planted = list(odd_fields(document))
    for number, odd in enumerate(planted):
        if odd["_id"] == document["_id"]:
            odd["_id"] = {**odd["_id"], list(odd["_id"])[-1]: 10**6 + number}
        audit.replace_one({"_id": odd["_id"]}, odd, upsert=True, bypass_document_validation=True)
    return len(planted)


PLANTED = {
    "audit_checkpoints": {"_id": {"log": "", "size": ENTRIES + 1}, "note": b"x"},
    "audit_cosignatures": {"_id": {"log": "", "size": ENTRIES}, "lines": b"x"},
    "audit_tiles": {"_id": {"log": "", "level": 0, "index": 0}, "hashes": bytes(32 * WIDTH)},
}


@pytest.mark.parametrize("collection", PLANTED)
def test_what_is_planted_is_named_and_ends_nothing(sealed: SealedLog, collection: str) -> None:
    document = PLANTED[collection]
    document = document | {"_id": document["_id"] | {"log": sealed.log}}
    note = sealed.seals.checkpoints.note(sealed.log, ENTRIES)
    assert plant(sealed, collection, document)
    trust, databases = sealed.deployment.addresses.trust(), sealed.deployment.admin

    report = sealed.verify()
    assert {found.fault.value for found in report.findings} <= {"FORGED", "MODIFIED", "SCHEMA-DRIFT"}
    assert report.entries == ENTRIES
    assert report.is_ok == (collection == "audit_cosignatures")  # which count for what their signatures show
    assert sealed.verify(since=note).entries == 0
    assert note is not None
    assert last_checkpoint(Seals(databases), trust).startswith(note)
    looked = CHECKS["audit_log_intact"](
        Scope(databases=databases, data_map=sealed.deployment.services().data_map, trust=trust)
    )
    assert bool(looked.problems) == (collection != "audit_cosignatures")


@pytest.mark.parametrize("collection", PLANTED)
def test_the_sealer_goes_on_or_says_why_not(sealed: SealedLog, collection: str) -> None:
    document = PLANTED[collection]
    plant(sealed, collection, document | {"_id": document["_id"] | {"log": sealed.log}})
    sealed.append(1)

    with sealed.running():
        wait_until(
            lambda: bool(sealed.incidents) or sealed.count_sealed() > ENTRIES,
            timeout=30,
            what="it goes on, or the alarm rings",
        )

    with pytest.raises(ComplianceError, match="no audit entry"):
        sealed.deployment.services().log.find("0" * 32)


@pytest.mark.parametrize("hashes", ODD[:3])
def test_a_tile_of_another_type_is_named_and_does_not_stop_the_seal(sealed: SealedLog, hashes: object) -> None:
    tiles = sealed.deployment.admin.audit["audit_tiles"]
    tiles.update_one({}, {"$set": {"hashes": hashes}}, bypass_document_validation=True)
    sealed.append(1)

    assert sealed.seal_all() == ENTRIES + 1
    assert [incident.kind.value for incident in sealed.incidents] == ["MODIFIED"]
    assert sealed.findings() == [("MODIFIED", f"tile tile/0/000 of {sealed.log}")]
