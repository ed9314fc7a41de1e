"""A plan as people and machines read it."""

from dataclasses import replace
from typing import Any

import pytest
from bson import Int64

from migrations.command import Command, alteration, update_many
from migrations.plan import Direction
from migrations.preview import OPLOG_SHARE, PlannedScript, Preview, describe, extended, lines
from migrations.revision import Code, Phase, Revision
from migrations.sketch import Estimate, Oplog, PlannedStep
from migrations.step import Kind

COST = Estimate(
    collection="users",
    documents=30,
    is_counted=True,
    collection_documents=120,
    scan="IXSCAN _id_",
    seconds=2.4,
    rate=50,
    is_measured=True,
    batch_docs=50,
    batches=3,
    oplog_bytes=2_500_000,
)


FOUND, AT_RATE = "found by IXSCAN _id_", "about 2 s at 50 documents a second"


def never() -> Code:
    raise AssertionError


SCRIPT = Revision(
    name="v001_data_x",
    number=1,
    phase=Phase.DATA,
    summary="Fill.",
    checksum="",
    irreversible=None,
    depends_on=None,
    source=b"",
    load=never,
)


def preview(*steps: PlannedStep, oplog: Oplog | None = None) -> Preview:
    return Preview(direction=Direction.UP, scripts=(PlannedScript(revision=SCRIPT, steps=steps),), oplog=oplog)


def step(**changes: Any) -> PlannedStep:
    return PlannedStep(number=1, kind=Kind.BACKFILL, what="backfill users", **changes)


def test_a_command_keeps_its_types_in_extended_json() -> None:
    command = Command(body={"collMod": "x", "maxTimeMS": Int64(1), "n": 1, "f": 1.0})

    assert extended(command) == (
        '{"collMod": "x", "maxTimeMS": {"$numberLong": "1"}, "n": {"$numberInt": "1"}, "f": {"$numberDouble": "1.0"}}'
    )


def test_people_read_what_it_does_what_it_costs_and_what_is_sent() -> None:
    shown = step(
        commands=[update_many("users", {}, {"$set": {"a": "ö"}})],
        notes=["30 to do"],
        locks=["users: for a moment"],
        opaque="a function",
        estimate=COST,
    )

    assert list(lines(preview(shown, oplog=Oplog(size_bytes=100_000_000, seconds=7200)))) == [
        "v001_data_x: Fill.",
        "  1. backfill users",
        "     opaque: a function",
        "     30 to do",
        "     locks users: for a moment",
        f"     30 of 120 documents, {FOUND}, 3 batches of 50 or more, {AT_RATE} (measured here), oplog 2.5 MB",
        f"     first batch, in a transaction: {extended(shown.commands[0])}",
        "about 2.5 MB of oplog in all, 2.50% of its 100.0 MB; it reaches back 2.0 h now",
    ]


def test_a_command_of_another_database_says_so_and_what_costs_nothing_says_nothing() -> None:
    shown = step(commands=[alteration("create", "jobs", database="compliance")])

    assert list(lines(preview(shown)))[2:] == ['     compliance: {"create": "jobs", "writeConcern": {"w": "majority"}}']


def test_what_was_not_counted_or_measured_says_so() -> None:
    guessed = replace(COST, is_counted=False, is_measured=False, batches=None, oplog_bytes=900)

    assert list(lines(preview(step(estimate=guessed))))[2:] == [
        f"     about 30 of 120 documents, {FOUND}, {AT_RATE} (assumed), oplog 0.9 kB",
        "about 0.9 kB of oplog in all; how large the oplog is cannot be read by this user",
    ]


@pytest.mark.parametrize(("size", "warns"), [(2_500_000 / OPLOG_SHARE, True), (2_500_000 / OPLOG_SHARE + 1, False)])
def test_a_plan_warns_from_its_share_of_the_oplog_on(size: float, *, warns: bool) -> None:
    found = preview(step(estimate=COST), step(), oplog=Oplog(size_bytes=int(size), seconds=60))

    assert bool(found.warnings) == warns
    warning = "warning: this writes about 2.5 MB to an oplog of 25.0 MB (10%)"
    is_told = any(line.startswith(warning) for line in lines(found))
    assert is_told == warns
    assert preview(step(estimate=COST)).warnings == ()


def test_machines_get_everything() -> None:
    shown = step(commands=[alteration("drop", "users", maxTimeMS=500)], estimate=COST, line=7)

    assert describe(preview(shown, oplog=Oplog(size_bytes=9_000_000, seconds=60.0))) == {
        "direction": "up",
        "oplog_bytes": 2_500_000,
        "oplog": {"size_bytes": 9_000_000, "seconds": 60.0},
        "warnings": list(preview(shown, oplog=Oplog(size_bytes=9_000_000, seconds=60.0)).warnings),
        "scripts": [
            {
                "name": "v001_data_x",
                "steps": [
                    {
                        "number": 1,
                        "kind": "backfill",
                        "what": "backfill users",
                        "line": 7,
                        "opaque": None,
                        "locks": [],
                        "notes": [],
                        "estimate": {
                            "collection": "users",
                            "documents": 30,
                            "is_counted": True,
                            "collection_documents": 120,
                            "scan": "IXSCAN _id_",
                            "batch_docs": 50,
                            "batches": 3,
                            "seconds": 2.4,
                            "rate": 50,
                            "is_rate_measured": True,
                            "oplog_bytes": 2_500_000,
                        },
                        "commands": [
                            {
                                "database": "application",
                                "in_transaction": False,
                                "is_masked": False,
                                "command": {
                                    "drop": "users",
                                    "maxTimeMS": {"$numberInt": "500"},
                                    "writeConcern": {"w": "majority"},
                                },
                            }
                        ],
                    }
                ],
            }
        ],
    }
