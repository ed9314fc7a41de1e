"""A certificate of erasure: whoever alters a field is found out, with one key and no database."""

import copy
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId

from compliance.audit.checkpoint import Checkpoint, Policy, sign_checkpoint
from compliance.audit.keys import SigningKey
from compliance.audit.leaf import canonical_bytes
from compliance.audit.merkle import leaf_hash, nodes_of, root_of
from compliance.audit.receipt import make_receipt
from compliance.audit.trust import policy_of
from compliance.datamap.outside import Recipient
from compliance.datamap.rule import Kept
from compliance.erasure.certificate import (
    LARGEST_BYTES,
    Envelope,
    Fault,
    Verified,
    field_digests,
    json_schema,
    make_certificate,
    statement_digest,
    verify_certificate,
)
from compliance.erasure.page import to_page
from compliance.erasure.statement import compose
from compliance.erasure.surface import ENGINE, OUTSIDE, PACKAGES, Surface, clean, expires, unknown

SCHEMA = Path(__file__).parents[2] / "docs" / "erasure-certificate.schema.json"
ORIGIN = "audit.example/shop"
LOG = f"{ORIGIN}/2026"
KEY = SigningKey.from_seed(LOG, b"l" * 32)
OTHER_KEY = SigningKey.from_seed(LOG, b"o" * 32)
ANN = ObjectId("65f2c0ffee0000000000abcd")
DONE = datetime(2026, 3, 31, 12, 0, 0, 123000, tzinfo=UTC)
SURFACES = (
    *(clean(name, "seen") for name in sorted(ENGINE)),
    expires("backups", DONE + timedelta(days=35), "kept for P35D"),
    unknown(PACKAGES, "1 is about the person", todo="delete it"),
)
REQUEST: dict[str, Any] = {
    "_id": "r-1",
    "state": "completed_with_retention",
    "received_at": DONE - timedelta(days=3),
    "accepted_at": DONE - timedelta(days=2),
    "due_at": DONE + timedelta(days=27),
    "completed_at": DONE,
    "map_digest": "ab" * 32,
    "plan": [
        {"collection": "tracks", "action": "update", "documents": 2},
        {"collection": "tracks", "action": "update", "documents": 1},
        {"collection": "tracks", "action": "delete", "documents": 5},
        {"collection": "users", "action": "delete", "documents": 1},
    ],
    "affected": {"tracks": {"update": 3, "delete": 5}, "users": {"delete": 1}, "compliance_pre_images": {"delete": 4}},
    "kept": [
        {
            "collection": "tracks",
            "documents": 3,
            "fields": ["title"],
            "ground": "GDPR Art. 17(3)(b)",
            "why": "a note that somebody wrote freely",
            "basis": None,
            "until": None,
            "period": "P10Y",
        }
    ],
}


def a_statement(request: dict[str, Any] = REQUEST, surfaces: tuple[Surface, ...] = SURFACES) -> dict[str, Any]:
    return compose(
        request,
        application="shop",
        subject=ANN,
        recipients=[Recipient(id="mailer", holds="addresses"), Recipient(id="index", holds="names")],
        kept_elsewhere=[Kept(fields=("consent_events",), ground="GDPR Art. 7(1)", why="evidence")],
        surfaces=surfaces,
    )


def receipt(details: dict[str, Any], *, key: SigningKey = KEY, log: str = LOG, **changes: Any) -> bytes:
    entry = {"_id": "e", "log": log, "action": "erasure.completed", "request_id": "r-1", "details": details}
    leaves = [b"{}", canonical_bytes(entry | changes), b"[]"]
    hashes = [leaf_hash(leaf) for leaf in leaves]
    note = sign_checkpoint(Checkpoint(origin=LOG, size=3, root=root_of(hashes)), [key])
    return make_receipt(leaves[1], index=1, node=nodes_of(hashes), checkpoint=note)


STATEMENT = a_statement()
FILE = make_certificate(STATEMENT, receipt({"documents": 13, "certificate": statement_digest(STATEMENT)}))
CONTENT = json.loads(FILE)
POINTERS = sorted(field_digests(STATEMENT))


def believing(*keys: SigningKey) -> Any:
    def policy(log: str) -> Policy:
        return policy_of((key.verifier for key in keys), log)

    return policy


def verify(file: bytes | dict[str, Any], key: SigningKey = KEY) -> Verified:
    data = file if isinstance(file, bytes) else json.dumps(file).encode()
    return verify_certificate(data, policy=believing(key))


def fields(found: Verified) -> list[str]:
    return [fault.field for fault in found.faults]


def test_what_was_issued_verifies_whatever_its_white_space() -> None:
    for file in (FILE, json.dumps(CONTENT).encode(), json.dumps(CONTENT, indent=7).encode()):
        found = verify(file)

        assert found.faults == ()
        assert found.statement == STATEMENT
        assert found.inclusion is not None
        assert (found.inclusion.index, found.inclusion.signed.checkpoint.size) == (1, 3)


def test_the_same_is_the_same_bytes() -> None:
    again = a_statement()

    assert make_certificate(again, receipt({"documents": 13, "certificate": statement_digest(again)})) == FILE


def put(content: Any, pointer: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    place = changed["certificate"]
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    place[int(last) if isinstance(place, list) else last] = value
    assert changed != content
    return dict(changed)


def others(pointer: str) -> Iterator[Any]:
    """Yield other values for a field: of the same kind, where there is another, and of others."""
    value: Any = STATEMENT
    for part in pointer.split("/")[1:]:
        value = value[int(part)] if isinstance(value, list) else value[part]
    if isinstance(value, str):
        yield from (f"{value}x", value[:-1], value.swapcase(), None, 1, "")
    elif isinstance(value, int):
        yield from (value + 1, value - 1, str(value), None, True, float(value))
    elif value is None:
        yield from ("2026-03-31", 0, False, {}, [])
    else:
        yield from ({"delete": 1}, ["x"], None, "")


@pytest.mark.parametrize("pointer", POINTERS)
def test_every_alteration_of_every_field_is_found_and_named(pointer: str) -> None:
    for other in others(pointer):
        if json.dumps(put_or_none(pointer, other)) == json.dumps(CONTENT):
            continue
        found = verify(put(CONTENT, pointer, other))

        assert found.faults, (pointer, other)
        if not isinstance(other, float):  # no JSON of ours: the whole file is refused
            assert any(field == pointer or field.startswith(f"{pointer}/") for field in fields(found)), fields(found)


def put_or_none(pointer: str, value: Any) -> Any:
    try:
        return put(CONTENT, pointer, value)
    except AssertionError:
        return CONTENT


@pytest.mark.parametrize("pointer", POINTERS)
def test_every_field_that_is_taken_away_is_named(pointer: str) -> None:
    changed = copy.deepcopy(CONTENT)
    *path, last = pointer.split("/")[1:]
    place = changed["certificate"]
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    del place[int(last) if isinstance(place, list) else last]

    assert any(field.startswith(pointer.rpartition("/")[0]) for field in fields(verify(changed)))


@pytest.mark.parametrize("place", ["", "/request", "/collections/0", "/kept/0", "/recipients/0", "/surfaces/0"])
def test_a_field_that_is_added_is_named(place: str) -> None:
    changed = put(CONTENT, f"{place}/note", "trust me")

    assert Fault(f"{place}/note", "was added after the certificate was issued") in verify(changed).faults


@pytest.mark.parametrize("pointer", POINTERS)
def test_an_alteration_with_its_digest_altered_too_is_found(pointer: str) -> None:
    for other in others(pointer):
        if isinstance(other, float) or put_or_none(pointer, other) == CONTENT:
            continue
        changed = put(CONTENT, pointer, other)
        changed["fields"] = field_digests(changed["certificate"])

        assert verify(changed).faults, (pointer, other)


def test_a_list_of_digests_that_alone_was_altered_does_not_put_the_certificate_in_doubt() -> None:
    changed = copy.deepcopy(CONTENT)
    changed["fields"]["/level"] = "0" * 64

    assert [str(fault) for fault in verify(changed).faults] == [
        "fields/level: does not fit the certificate, which is as it was issued"
    ]


def test_rows_that_change_places_are_found() -> None:
    changed = copy.deepcopy(CONTENT)
    changed["certificate"]["recipients"].reverse()

    assert {"/recipients/0/id", "/recipients/1/id"} <= set(fields(verify(changed)))


@pytest.mark.parametrize("part", ["certificate", "fields", "proof"])
def test_a_part_that_was_stripped_is_named(part: str) -> None:
    stripped = {name: value for name, value in CONTENT.items() if name != part}

    assert part in fields(verify(stripped))
    assert any(field.startswith(part) for field in fields(verify(CONTENT | {part: None})))
    assert fields(verify(CONTENT | {"more": 1})) == ["more"]


def test_the_key_of_somebody_else_proves_nothing() -> None:
    assert fields(verify(FILE, OTHER_KEY)) == ["proof"]


def test_a_proof_of_another_log_proves_nothing() -> None:
    details = {"certificate": statement_digest(STATEMENT)}
    forged = make_certificate(STATEMENT, receipt(details, key=OTHER_KEY))
    misplaced = make_certificate(STATEMENT, receipt(details, log=f"{ORIGIN}/2025"))

    assert fields(verify(forged)) == ["proof"]
    assert [str(fault) for fault in verify(misplaced).faults] == [
        "proof: its entry is of another log than the one that was signed"
    ]


def test_a_proof_of_another_certificate_proves_nothing() -> None:
    other = receipt({"certificate": statement_digest({**STATEMENT, "level": "E4"})})

    assert [str(fault) for fault in verify(make_certificate(STATEMENT, other)).faults] == [
        "certificate: is not the one that the audit log names for this erasure"
    ]


@pytest.mark.parametrize(
    "proof",
    [receipt({"documents": 1}), receipt({"certificate": statement_digest(STATEMENT)}, action="export.completed")],
)
def test_a_proof_of_another_entry_proves_nothing(proof: bytes) -> None:
    assert fields(verify(make_certificate(STATEMENT, proof))) == ["proof"]


@pytest.mark.parametrize("at", range(0, len(CONTENT["proof"]), 3))
def test_every_altered_character_of_the_proof_is_found(at: int) -> None:
    proof = CONTENT["proof"]
    changed = proof[:at] + ("A" if proof[at] != "A" else "B") + proof[at + 1 :]

    assert verify(CONTENT | {"proof": changed}).faults


@pytest.mark.parametrize(
    "file",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'{"certificate": NaN}',
        b"[" * 100_000,
        b'{"certificate": {}, "certificate": {}}',
        FILE.replace(b'"remaining": 0', b'"remaining": -0', 1),
        FILE.replace(b'"remaining": 0', b'"remaining": 0.0', 1),
        FILE.replace(b'"level": "E3"', b'"level": "E4", "level": "E3"', 1),
        b" " * (LARGEST_BYTES + 1),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_no_certificate(file: bytes) -> None:
    assert file != FILE
    assert fields(verify(file)) == ["file"]


def test_it_states_counts_grounds_and_dates_and_nothing_that_people_wrote() -> None:
    request, kept = STATEMENT["request"], STATEMENT["kept"]

    assert request == {
        "id": "r-1",
        "subject": str(ANN),
        "state": "completed_with_retention",
        "received_at": "2026-03-28T12:00:00.123Z",
        "accepted_at": "2026-03-29T12:00:00.123Z",
        "due_at": "2026-04-27T12:00:00.123Z",
        "completed_at": "2026-03-31T12:00:00.123Z",
    }
    assert STATEMENT["collections"][1] == {
        "name": "tracks",
        "planned": {"update": 3, "delete": 5},
        "affected": {"update": 3, "delete": 5},
        "remaining": 0,
    }
    assert [found["name"] for found in STATEMENT["collections"]] == ["compliance_pre_images", "tracks", "users"]
    assert (kept[0]["article"], kept[0]["until"]) == ("17(3)(b)", "2036-03-31")
    assert (kept[1]["collection"], kept[1]["article"], kept[1]["until"]) == (None, None, None)
    assert {(told["id"], told["state"]) for told in STATEMENT["recipients"]} == {("mailer", "open"), ("index", "open")}
    assert STATEMENT["level"] == "E3"
    assert "freely" not in str(STATEMENT)
    assert "addresses" not in str(STATEMENT)


def test_a_day_until_which_something_is_kept_is_told_as_it_is() -> None:
    kept = Kept(fields=("a",), ground="GDPR Art. 17(3)(e)", why="a case", until=date(2027, 6, 30))
    request = REQUEST | {"kept": [{"collection": "t", "documents": 1, **kept.model_dump(mode="json")}]}

    assert a_statement(request)["kept"][0]["until"] == "2027-06-30"


def test_an_id_that_could_be_an_address_is_not_repeated() -> None:
    found = a_statement(REQUEST | {"_id": "ann@example.org"})

    assert "@" not in json.dumps(found)
    assert re.fullmatch("sha256:[0-9a-f]{64}", found["request"]["id"])


def test_a_plan_of_other_counts_has_another_digest() -> None:
    other = REQUEST | {"plan": [*REQUEST["plan"][:-1], {"collection": "users", "action": "delete", "documents": 2}]}

    assert a_statement(other)["plan"] != STATEMENT["plan"]


def test_the_published_schema_is_that_of_the_code() -> None:
    wanted = json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"

    assert SCHEMA.read_text() == wanted, "write json_schema() to docs/erasure-certificate.schema.json"
    assert Envelope.model_validate(CONTENT).model_dump(mode="json") == CONTENT


def test_the_schema_closes_every_object_and_demands_every_field() -> None:
    schema = json_schema()
    parts = [schema, *schema["$defs"].values()]

    assert len(parts) == 7
    for part in parts:
        assert part["additionalProperties"] is False
        assert set(part["required"]) == set(part["properties"])


def test_the_page_says_it_in_words_and_escapes_what_it_repeats() -> None:
    evil = a_statement(REQUEST | {"_id": "<script>alert(1)</script>"})
    file = make_certificate(evil, receipt({"certificate": statement_digest(evil)}))
    page = to_page(verify(file)).decode()

    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "13 documents in 3 collections were deleted or changed" in page
    assert "2 other systems that may hold data about you" in page
    assert "gone after 2026-05-05" in page
    assert "To do: delete it" in page
    assert statement_digest(evil) in page
    assert "$" not in page


def test_a_page_of_one_document_and_nothing_kept_speaks_in_the_singular() -> None:
    bare = compose(
        REQUEST | {"affected": {"users": {"delete": 1}}, "plan": [], "kept": [], "state": "completed"},
        application="shop",
        subject=ANN,
        recipients=[],
        kept_elsewhere=[],
        surfaces=[clean(name, "seen") for name in sorted(ENGINE | OUTSIDE)],
    )
    page = to_page(verify(make_certificate(bare, receipt({"certificate": statement_digest(bare)})))).decode()

    assert "1 document in 1 collection was deleted or changed" in page
    assert "Nothing about you is kept." in page
    assert "No other system holds data about you" in page
    assert "and from backups" in page


def test_what_does_not_verify_has_no_page() -> None:
    with pytest.raises(ValueError, match="verified"):
        to_page(verify(FILE, OTHER_KEY))
