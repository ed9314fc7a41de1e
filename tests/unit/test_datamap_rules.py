"""Each rule of data maps finds what it is about, and nothing where that is mended."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from compliance.datamap.catalogue import Held, Index
from compliance.datamap.lint import RULES, lint
from compliance.datamap.model import DataMap, load_data_map
from compliance.settings import DATA_MAP, MIGRATIONS
from migrations.discovery import discover

DOCUMENT = Path(__file__).parents[2] / "docs" / "datamap.md"
OID = '{$oid: "000000000000000000000000"}'
BASE = """
apiVersion: datamap/v1
subject:
  collection: people
  key: id
  keys: {id: {path: _id, type: objectId}}
  tombstone: {$oid: "000000000000000000000000"}
history: {suffix: _history, id_path: document_id}
collections:
"""
ID = Index(name="_id_", keys=("_id",), is_unique=True)
BY_WHO = Index(name="by_who", keys=("who",))
UNIQUE = Index(name="u", keys=("who", "kind"), is_unique=True)
SHALLOW = "{rules: [{locate: {path: who, key: id, edge: shallow}, on_erase: {action: delete}}]}"
UPDATE = f"{{rules: [{{locate: {{path: who, key: id}}, on_erase: {{action: update, set: {{who: {OID}}}}}}}]}}"
DELETE = "{rules: [{locate: {path: who, key: id}, on_erase: {action: delete}}]}"


def parse(text: str, base: str = BASE) -> DataMap:
    lines = "".join(f"  {line.strip()}\n" for line in text.strip().splitlines())
    return DataMap.model_validate(yaml.safe_load(base + lines))


def codes(text: str, live: dict[str, Held] | None = None, base: str = BASE) -> list[str]:
    return [found.code for found in lint(parse(text, base), live or {})]


def updating(change: str, rest: str = "") -> str:
    rule = f"{{locate: {{path: who, key: id}}, on_erase: {{action: update, {change}}}{rest}}}"
    return f"notes: {{rules: [{rule}]}}"


def notes(**values: Any) -> dict[str, Held]:
    return {"notes": Held(**values)}


def schema(**values: Any) -> dict[str, Held]:
    return notes(schema=values)


PERSON = "people: {fields: {mail: {categories: [%s]}}}"
KEYED = BASE.replace("keys: {", "keys: {mail: {path: mail, type: string%s}, ")
FIELDS = f"fields: {{who: {{categories: [user]}}, note: {{categories: [%s]}}}}, {UPDATE[1:-1]}"
KEPT = ", kept: {fields: [%s], ground: GDPR Art. 17(3)(b), why: law}"
CHAIN = "locate: {path: note, of: notes%s}, on_erase: {action: delete}"

BAD: list[tuple[str, str, dict[str, Held], str]] = [
    ("DM001", updating("unset: [who]"), schema(required=["who"]), BASE),
    ("DM002", updating('set: {who: "x"}'), schema(properties={"who": {"bsonType": "objectId"}}), BASE),
    ("DM002", updating("relabel: [who]"), schema(properties={"who": {"bsonType": "string"}}), BASE),
    ("DM003", updating("set: {who: 1}"), schema(properties={"who": {"enum": [2]}}), BASE),
    ("DM004", f"notes: {UPDATE}", notes(indexes=(BY_WHO, UNIQUE)), BASE),
    ("DM004", updating("unset: [who]"), notes(indexes=(UNIQUE,)), BASE),
    ("DM004", updating("relabel: [who]"), notes(indexes=(UNIQUE,)), BASE),
    ("DM005", "notes: {fields: {a.b: {type: string, categories: [none]}}}",
     schema(properties={"a": {"properties": {"b": {"bsonType": ["int", "null"]}}}}), BASE),
    ("DM101", f"notes: {{}}\nreplies: {{rules: [{{{CHAIN % ''}}}]}}", {}, BASE),
    ("DM102", f"notes: {DELETE}", {"people": Held()}, BASE),
    ("DM103", f"notes: {DELETE}", notes(documents=7, indexes=(ID,)), BASE),
    ("DM103", f"notes: {DELETE}", notes(documents=7, indexes=(Index(name="i", keys=("kind", "who")),)), BASE),
    ("DM103", f"notes: {DELETE}", notes(documents=7, indexes=(Index(name="i", keys=("who",), covers=("a",)),)), BASE),
    ("DM103", f"notes: {DELETE}", notes() | {"notes_history": Held(documents=1)}, BASE),
    ("DM104", f"notes: {DELETE}", notes(types={"who": frozenset({"objectId", "string"})}), BASE),
    ("DM104", f"notes: {DELETE}", notes() | {"notes_history": Held(types={"who": frozenset({"string"})})}, BASE),
    ("DM105", f"notes: {DELETE}\nreplies: {{rules: [{{{CHAIN % ''}}}]}}",
     {"notes": Held(types={"_id": frozenset({"objectId"})}),
      "replies": Held(types={"note": frozenset({"string"})})}, BASE),
    ("DM106", PERSON % "user.contact.email", {}, KEYED % ", normalise: [trim, nfkc, casefold]"),
    ("DM107", PERSON % "user.contact.email", {}, KEYED % ", personal: true, normalise: [trim]"),
    ("DM107", PERSON % "user.contact.phone_number", {}, KEYED % ", personal: true"),
    ("DM108", f"notes: {SHALLOW}\nreplies: {{rules: [{{{CHAIN % ''}}}]}}", {}, BASE),
    ("DM109", f"notes: {DELETE}", notes() | {"seen": Held(kind="view", reads=("notes", "secret"))}, BASE),
    ("DM201", f"notes: {{{FIELDS % 'user.content'}}}", {}, BASE),
    ("DM202", updating("unset: [who]", ", kept: {fields: [a], ground: because, why: law}"), {}, BASE),
    ("DM203", updating("unset: [who, a]", KEPT % "a.b"), {}, BASE),
    ("DM203", f"notes: {{rules: [{{locate: {{path: who, key: id}}, on_erase: {{action: delete}}{KEPT % 'a'}}}]}}",
     {}, BASE),
    ("DM204", f"notes: {{rules: [{UPDATE[9:-2]}, {DELETE[9:-2]}]}}", {}, BASE),
    ("DM205", f"notes: {{closed: true, fields: {{_id: {{categories: [none]}}}}, {DELETE[1:-1]}}}", {}, BASE),
    ("DM206", "notes: {fields: {a: {categories: [none], derived_from: [notes.b]}}}", {}, BASE),
]  # fmt: skip
GOOD: list[tuple[str, dict[str, Held], str]] = [
    (updating("unset: [who]"), schema(required=["other"]), BASE),
    (updating("relabel: [who]"), schema(properties={"who": {"bsonType": ["objectId", "null"]}}), BASE),
    (f"notes: {DELETE}", notes(documents=7, indexes=(BY_WHO, UNIQUE)), BASE),
    (f"notes: {UPDATE}", notes(indexes=(Index(name="u", keys=("who", "_id"), is_unique=True),)), BASE),
    (f"notes: {UPDATE}", notes(indexes=(Index(name="u", keys=("kind",), is_unique=True),)), BASE),
    (updating("unset: [who]"), notes(indexes=(Index(name="u", keys=("who",), is_unique=True, is_sparse=True),)), BASE),
    (updating("unset: [who]"), notes(indexes=(Index(name="u", keys=("who",), covers=("who",), is_unique=True),)), BASE),
    ("notes: {fields: {a: {type: int, categories: [none]}}}", schema(properties={"a": {"bsonType": "number"}}), BASE),
    (f"notes: {DELETE}\nreplies: {{rules: [{{{CHAIN % ''}}}]}}", {}, BASE),
    ("notes: {rules: [{locate: {path: who, key: id}, where: {kind: a}, on_erase: {action: delete}}]}",
     notes(documents=7, indexes=(Index(name="i", keys=("kind", "who")),)), BASE),
    ("notes: {rules: [{locate: {path: who, key: id, stored: [objectId, string]}, on_erase: {action: delete}}]}",
     notes(types={"who": frozenset({"objectId", "string", "null"})}), BASE),
    (PERSON % "user.contact.email", {}, KEYED % ", personal: true"),
    (f"notes: {DELETE}", notes() | {"seen": Held(kind="view", reads=("notes_history", "people"))}, BASE),
    (f"notes: {{{FIELDS % 'none'}}}", {}, BASE),
    (updating("unset: [who]", KEPT % "a"), {}, BASE),
    (f"notes: {{closed: true, fields: {{who: {{categories: [user]}}}}, {DELETE[1:-1]}}}", {}, BASE),
    ("notes: {fields: {a: {categories: [none], derived_from: [notes.b.c]}, b: {categories: [none]}}}", {}, BASE),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "live", "base"), BAD)
def test_a_rule_finds_what_it_is_about_and_says_what_mends_it(
    code: str, text: str, live: dict[str, Held], base: str
) -> None:
    found = [violation for violation in lint(parse(text, base), live) if violation.code == code]

    assert found
    assert all(violation.why and violation.fix and "." in violation.place for violation in found)


@pytest.mark.parametrize(("text", "live", "base"), GOOD)
def test_nothing_is_found_in_what_is_right(text: str, live: dict[str, Held], base: str) -> None:
    assert codes(text, live, base) == []


def test_every_rule_has_an_example() -> None:
    assert {code for code, *_ in BAD} == set(RULES)


def test_the_cost_of_a_missing_index_is_told() -> None:
    (found,) = lint(parse(f"notes: {DELETE}"), notes(documents=1234))

    assert "an erasure reads about 1234 documents" in found.why
    assert found.fix == 'ctx.create_index("notes", "ix_notes_who", [("who", 1)])'


def test_of_buckets_nothing_is_said_twice() -> None:
    base = BASE.replace("history:", "buckets: {notes: {every: month, since: 2026-01-01, until: 2026-12-31}}\nhistory:")

    assert codes(f"notes: {UPDATE}", notes(indexes=(UNIQUE,)), base) == ["DM004"]


def test_the_reference_map_has_no_fault_in_itself_and_fits_its_migrations() -> None:
    schemas: dict[str, Any] = {}
    for revision in discover(MIGRATIONS):
        schemas |= revision.up.__globals__.get("SCHEMAS", {})
    data_map = load_data_map(DATA_MAP)

    assert list(lint(data_map, {})) == []
    assert list(lint(data_map, {name: Held(schema=found) for name, found in schemas.items()})) == []


def test_the_table_in_the_documentation_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (DM\d+) \| (\w+) \| (.+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)

    assert rows == [(code, RULES[code].severity.value, RULES[code].title) for code in sorted(RULES)]


@pytest.mark.parametrize("code", sorted(RULES))
def test_a_code_has_its_form(code: str) -> None:
    assert re.fullmatch(r"DM[0-9]{3}", code)
    assert len(RULES[code].title) < 120
