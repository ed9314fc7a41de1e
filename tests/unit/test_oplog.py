"""What entries of the oplog mean; the queries themselves run against a server in tests/integration/test_oplog.py."""

from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.incident import Kind
from compliance.audit.oplog import (
    USERS,
    is_split,
    judge,
    operations_of,
    part_before,
    query,
    user_digest,
)
from compliance.roles import Role

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
WORKER = {"uid": user_digest(Role.WORKER, "app")}
SOMEBODY = {"uid": b"\x00" * 32}
DOCUMENT = ("update", "app.users")
ENTRY = ("insert", "app_audit.audit_log")
WORK = ("update", "app_compliance.jobs")


def entry(**fields: Any) -> dict[str, Any]:
    return {"ts": Timestamp(7, 3), "t": 1, "wall": NOON, "op": "c", "ns": "admin.$cmd", **fields}


def kind_of(found: dict[str, Any], *operations: tuple[str, str]) -> Kind | None:
    incident = judge(found, operations, app="app")
    return incident.kind if incident else None


@pytest.mark.parametrize(
    ("session", "operations", "expected"),
    [
        (WORKER, [DOCUMENT], Kind.UNAUDITED_WRITE),
        (WORKER, [DOCUMENT, WORK], Kind.UNAUDITED_WRITE),
        (SOMEBODY, [DOCUMENT, WORK], Kind.UNAUDITED_WRITE),
        (WORKER, [DOCUMENT, ("update", "app_audit.audit_log")], Kind.UNAUDITED_WRITE),
        (WORKER, [DOCUMENT, ("insert", "app_audit.other")], Kind.UNAUDITED_WRITE),
        (WORKER, [DOCUMENT, ("insert", "other_audit.audit_log")], Kind.UNAUDITED_WRITE),
        (WORKER, [DOCUMENT, ENTRY], None),
        (SOMEBODY, [DOCUMENT, WORK, ENTRY], None),
        (SOMEBODY, [DOCUMENT], None),
        (SOMEBODY, [DOCUMENT, ("insert", "app_compliance.outbox")], None),
        (SOMEBODY, [DOCUMENT, ("command", "app_compliance.$cmd")], None),
        (WORKER, [("command", "app.$cmd")], None),
        (WORKER, [WORK], None),
        (WORKER, [("update", "apps.users")], None),
        (WORKER, [("update", "app_audit.users")], None),
        ({}, [DOCUMENT], None),
    ],
)
def test_a_write_of_ours_needs_its_entry(
    session: dict[str, Any], operations: list[tuple[str, str]], expected: Kind | None
) -> None:
    assert kind_of(entry(lsid=session), *operations) is expected


def test_what_no_session_wrote_was_applied_by_hand() -> None:
    assert kind_of(entry(), ENTRY) is Kind.APPLY_OPS
    assert kind_of(entry(lsid=WORKER, fromMigrate=True), ENTRY) is Kind.APPLY_OPS


def test_the_digest_is_the_one_that_a_server_wrote() -> None:
    """The name of the user and its database, as measured on MongoDB 6.0.5."""
    expected = "fbeb4bbeeb3197d8645dafd0a9ee2d6f"

    assert user_digest(Role.WORKER, "t_x").hex().startswith(expected)
    assert len({user_digest(role, app) for role in USERS for app in ("a", "b")}) == 2 * len(USERS)


def test_the_same_entry_is_one_incident_and_another_one_is_another() -> None:
    first = judge(entry(), [ENTRY], app="app")
    again = judge(entry(), [ENTRY], app="app")
    others = [entry(ts=Timestamp(7, 4)), entry(ts=Timestamp(8, 3)), entry(t=2)]

    assert first is not None
    assert first == again
    assert all((judge(other, [ENTRY], app="app") or first).id != first.id for other in others)


def test_a_large_transaction_is_followed_back_to_its_first_part() -> None:
    last = entry(prevOpTime={"ts": Timestamp(7, 2)}, o={"count": 3, "applyOps": []})
    first = entry(prevOpTime={"ts": Timestamp(0, 0)}, o={"applyOps": [], "partialTxn": True})

    assert (is_split(last), part_before(last)) == (True, Timestamp(7, 2))
    assert (is_split(first), part_before(first)) == (False, None)
    assert part_before(entry()) is None


def test_many_operations_are_counted_and_not_all_shown() -> None:
    applied = [{"op": op, "ns": f"app.c{number}"} for op in "iud" for number in range(4)]
    found = judge(entry(), operations_of(entry(o={"applyOps": applied + applied})), app="app")

    assert found is not None
    assert "2 x delete app.c0" in found.what
    assert found.what.endswith("and 7 more")


def test_what_a_server_batches_by_itself_is_looked_at_only_where_a_command_asked_for_it() -> None:
    def conditions(version: list[int]) -> list[dict[str, Any]]:
        return [found for found in query("app", version=version)["$or"] if found.get("op") == "c" and "o.lsid" in found]

    assert conditions([6, 0, 5, 0]) == []
    assert [found["o.applyOps.ns"] for found in conditions([6, 1, 0, 0])] == [{"$regex": r"^app\."}]
    assert len(conditions([8, 0, 4, 0])) == 1


def test_the_name_of_the_application_is_no_pattern() -> None:
    assert r"^a\.b" in str(query("a.b", version=[6, 0])).replace("\\\\", "\\")


@given(
    st.dictionaries(
        st.sampled_from(["o", "op", "ns", "fromMigrate", "prevOpTime", "lsid"]),
        st.none() | st.dictionaries(st.sampled_from(["applyOps", "count", "uid", "ts"]), st.none() | st.binary()),
    )
)
def test_no_entry_whatever_it_lacks_ends_the_watch(fields: dict[str, Any]) -> None:
    found = entry(**fields)

    judge(found, [DOCUMENT], app="app")
    is_split(found)
    part_before(found)
