"""Erased people are recognised in documents by the index of their requests, whatever their ids are."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, ObjectId
from deployment import Deployment
from members import ANN, BOB, found_club, name_of
from migrated import write_scripts

from compliance.datamap.pseudonym import PseudonymKey, Pseudonyms
from compliance.erasure.erased import BEING_ERASED, LOOKED_UP, Erased
from compliance.erasure.stage import COMPLETE, Stage
from compliance.erasure.sweep import normalise
from compliance.errors import ConfigurationError
from migrations.ops.difference import digest

OLD, NEW = PseudonymKey("old", "a1" * 20), PseudonymKey("new", "b2" * 20)
BOTH = Pseudonyms("members", (NEW, OLD))
UUID_ = UUID("6f7a8b9c-0d1e-4f2a-8b3c-4d5e6f7a8b9c")
OID = ObjectId("65e5f0a1b2c3d4e5f6a7b8c1")
LOWER = '''
        """Write the letters anew."""

        from migrations.context import timedelta


        def up(ctx):
            """Overwrite."""
            ctx.walk("letters", where={}, update={"$set": {"text": "-"}}, keep_before=timedelta(days=1))


        def down(ctx):
            """Give back."""
            ctx.restore("letters")
'''


def received(deployment: Deployment, *names: Any, state: Stage = Stage.COMPLETED, **more: Any) -> None:
    requests = [{"_id": f"{state}-{n}-{name}", "subject_id": name, "state": state} for n, name in enumerate(names)]
    deployment.admin.compliance["erasure_requests"].insert_many(
        [{"dry_run": False} | request | more for request in requests]
    )


def is_found(erased: Erased, *documents: dict[str, Any]) -> list[bool]:
    encoded = [bson.encode(document) for document in documents]
    finder = erased.among(encoded)
    return [finder.found_in(raw) for raw in encoded]


HELD: list[tuple[Any, Any]] = [
    (OID, OID),
    (OID, f"user_{OID}".upper()),
    (Binary.from_uuid(UUID_), Binary.from_uuid(UUID_)),
    (Binary.from_uuid(UUID_), Binary(UUID_.bytes, 3)),
    (Binary.from_uuid(UUID_), f"<{UUID_}>"),
    ("u-7", "u-7"),
    ("customer-00000001", "customer-00000001"),
    ("customer-00000001", "see /x:customer-00000001.y, please"),
]


def test_an_id_is_recognised_wherever_it_stands(empty: Deployment) -> None:
    erased, requests = Erased(databases=empty.worker, pseudonyms=None), empty.admin.compliance["erasure_requests"]
    found = []
    for id_, value in HELD:
        received(empty, id_, "u-8", ObjectId())
        found.append(is_found(erased, {"a": 1}, {"_id": 1, "deep": [{"who": value}]}, {"a": "u-77"}))
        requests.delete_many({})

    assert found == [[False, True, False]] * len(HELD)


def test_the_stage_of_the_request_decides(empty: Deployment) -> None:
    ids = {state: ObjectId() for state in Stage}
    for state, id_ in ids.items():
        received(empty, id_, state=state)
    documents = [{"_id": id_} for id_ in ids.values()]
    erased = Erased(databases=empty.worker, pseudonyms=None)

    assert is_found(erased, *documents) == [state in COMPLETE for state in Stage]
    assert is_found(replace(erased, stages=BEING_ERASED), *documents) == [state in BEING_ERASED for state in Stage]


def test_a_plan_erases_nobody(empty: Deployment) -> None:
    received(empty, OID, dry_run=True)

    assert is_found(Erased(databases=empty.worker, pseudonyms=None), {"_id": OID}) == [False]


@pytest.mark.parametrize("key", [OLD, NEW], ids=["old", "new"])
def test_a_pseudonym_of_any_key_is_enough_in_any_letter_case(empty: Deployment, key: PseudonymKey) -> None:
    mine = Pseudonyms("members", (key,))
    received(empty, mine.make(ANN), normalised_id=mine.make(normalise(ANN)))
    erased = Erased(databases=empty.worker, pseudonyms=BOTH)
    texts = (BOB, ANN, ANN.upper(), f"mail <{ANN.lower()}>", "nobody")

    assert is_found(erased, *({"a": {"b": text}} for text in texts)) == [False, True, True, True, False]


def test_a_pseudonym_without_the_normalised_one_is_enough_as_the_id_stands(empty: Deployment) -> None:
    received(empty, BOTH.make(ANN))
    erased = Erased(databases=empty.worker, pseudonyms=BOTH)

    assert is_found(erased, {"a": ANN}, {"a": BOB}) == [True, False]


@pytest.mark.parametrize("named", ["id", "pseudonym"])
def test_the_requests_are_not_read_but_looked_up_and_no_query_states_a_text(empty: Deployment, named: str) -> None:
    empty.runner().up("000")
    people = 2 * LOOKED_UP
    if named == "id":
        received(empty, *(ObjectId() for _ in range(people)), OID)
        erased, document = Erased(databases=empty.worker, pseudonyms=None), {"a": ANN, "b": OID}
    else:
        received(empty, *(BOTH.make(f"{n}@x.org") for n in range(people)), BOTH.make(ANN))
        erased, document = Erased(databases=empty.worker, pseudonyms=BOTH), {"a": ANN, "b": OID}

    with profiled(empty) as commands:
        assert is_found(erased, {"a": "other"}, document) == [False, True]

    assert len(commands) >= 2
    assert {command["planSummary"].split()[0] for command in commands} <= {"IXSCAN", "COUNT"}
    assert sum(command["docsExamined"] for command in commands) <= 6
    assert ANN.lower() not in str(commands).lower()


@contextmanager
def profiled(deployment: Deployment) -> Iterator[list[dict[str, Any]]]:
    """Yield what is filled behind the block with the reads of the requests as the server carried them out."""
    own, found = deployment.admin.compliance, list[dict[str, Any]]()
    own.command("profile", 2)
    yield found
    own.command("profile", 0)
    found += own["system.profile"].find({"ns": f"{own.name}.erasure_requests", "op": "query"})


def test_many_documents_are_looked_up_in_parts(empty: Deployment) -> None:
    ids = [ObjectId() for _ in range(2 * LOOKED_UP + 10)]
    received(empty, ids[0], ids[LOOKED_UP], ids[-1])
    documents = [{"_id": id_} for id_ in ids]

    found = is_found(Erased(databases=empty.worker, pseudonyms=None), *documents)

    assert [n for n, is_one in enumerate(found) if is_one] == [0, LOOKED_UP, len(ids) - 1]


def lettered(empty: Deployment, folder: Path) -> Deployment:
    """A club whose letters were overwritten, and kept for a way back."""
    club = found_club(empty, folder)
    club.admin.app["letters"].insert_many([{"_id": 1, "text": f"to {ANN}"}, {"_id": 2, "text": "to nobody"}])
    write_scripts(folder / "club", {"v002_data_letters.py": LOWER})
    club.runner(pseudonyms=club.services().pseudonyms).up()
    return club


def erase_and_keep(club: Deployment) -> None:
    """Erase a member, and bring what was kept of a letter back as a backup would."""
    kept = list(club.admin.app["compliance_pre_images"].find({"document_id": 1}))
    job = club.run("erasure.request", {"subject_id": name_of(club, ANN)})
    assert job.state == "done", job.error
    assert club.admin.app["compliance_pre_images"].count_documents({}) == 1
    kept[0]["after"] = digest({"text": "-"}, ["text"])
    club.admin.app["compliance_pre_images"].insert_many(kept)


def letters(club: Deployment) -> list[str]:
    return [letter["text"] for letter in club.admin.app["letters"].find(sort=[("_id", 1)])]


def test_who_is_known_by_a_pseudonym_only_is_not_brought_back(empty: Deployment, tmp_path: Path) -> None:
    club = lettered(empty, tmp_path)
    erase_and_keep(club)

    club.runner(pseudonyms=club.services().pseudonyms).down("001")

    assert letters(club) == ["-", "to nobody"]
    assert club.admin.app["compliance_pre_images"].count_documents({}) == 0


def test_nothing_is_given_back_where_nobody_could_be_recognised(empty: Deployment, tmp_path: Path) -> None:
    club = lettered(empty, tmp_path)
    erase_and_keep(club)

    with pytest.raises(ConfigurationError, match="has no COMPLIANCE_PSEUDONYM_KEYS with the key"):
        club.runner(pseudonyms=None).down("001")

    assert letters(club) == ["-", "-"]
    assert club.entries(action="migration.reverting") == []


@pytest.mark.parametrize(
    ("named", "held", "is_enough"),
    [
        ("k1", (), False),
        ("k1", ("k1",), True),
        ("k1", ("k2", "k1"), True),
        ("k1", ("k2",), False),
        ("k2", ("k1",), False),
        ("k1", ("k0", "k2"), False),
        ("k1", ("k", "k1-", "k10", "k1x"), False),
        ("k1-a", ("k1",), False),
        ("k1-a", ("k1-a", "k1"), True),
    ],
)
def test_the_key_that_names_somebody_who_was_erased_has_to_be_there(
    empty: Deployment,
    named: str,
    held: tuple[str, ...],
    is_enough: bool,  # noqa: FBT001
) -> None:
    requests, secret = empty.admin.compliance["erasure_requests"], "s" * 40
    name = Pseudonyms("members", (PseudonymKey(named, secret),)).make(ANN)
    other = Pseudonyms("members", (PseudonymKey("unused", secret),)).make(ANN)
    requests.insert_many(
        [
            {"_id": "done", "subject_id": name, "state": "completed"},
            {"_id": "plan", "subject_id": other, "state": "completed", "dry_run": True},
            {"_id": "open", "subject_id": other, "state": "received"},
            {"_id": "plain", "subject_id": ObjectId(), "state": "completed"},
        ]
    )
    keys = tuple(PseudonymKey(one, secret) for one in held)
    erased = Erased(databases=empty.worker, pseudonyms=Pseudonyms("members", keys) if keys else None)

    with nullcontext() if is_enough else pytest.raises(ConfigurationError, match=f"with the key {named}: "):
        erased.require_keys()


def test_without_an_erasure_no_key_is_needed(empty: Deployment, tmp_path: Path) -> None:
    club = lettered(empty, tmp_path)

    club.runner(pseudonyms=None).down("001")

    assert letters(club) == [f"to {ANN}", "to nobody"]
