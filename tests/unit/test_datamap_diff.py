"""What another data map means for people is said, and whether less is erased."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from compliance.datamap.diff import compare
from compliance.datamap.model import DataMap, load_data_map
from compliance.settings import DATA_MAP
from worker.cli import build_cli

MAIL = "{type: string, categories: [user.contact.email]}"
BASE = """
apiVersion: datamap/v1
subject: {collection: people, key: id, keys: {id: {path: _id, type: objectId}}, tombstone: {$oid: "%s"}}
collections: {orders: {rules: [%s], fields: {who: {categories: [user]}, email: %s, total: {categories: [none]}}%s}}
%s
"""
FOUND = "locate: {path: who, key: id%s}, on_erase: %s"
UNSET = "{action: update, relabel: [who], unset: [email]}"
RELABEL = "{action: update, relabel: [who]%s}"
KEPT = ", kept: {fields: [email], ground: GDPR Art. 17(3)(b), why: books%s}"
DELETE = "{action: delete}"
NO_RULES = ""
ARTICLE = "Art. 17(3)(b)"
SPAN = "every month, 2026-01-01 to 2026-"


def text(rules: str, *, more: str = "", around: str = "") -> str:
    return BASE % ("0" * 24, rules, MAIL, more, around)


def rule(action: str, *, more: str = "", locate: str = "") -> str:
    return f"{{{FOUND % (locate, action)}{more}}}"


def parse(written: str) -> DataMap:
    return DataMap.model_validate(yaml.safe_load(written))


def told(old: str, new: str) -> list[str]:
    return [f"{change.effect} {change}" for change in compare(parse(old), parse(new))]


def kept(end: str = "") -> str:
    return rule(RELABEL % "", more=KEPT % end)


RULES: list[tuple[str, str, list[str]]] = [
    (rule(UNSET), kept(), ["less orders.email: unset before, kept (Art. 17(3)(b)) now"]),
    (kept(), rule(UNSET), ["more orders.email: kept (Art. 17(3)(b)) before, unset now"]),
    (
        kept(),
        rule(RELABEL % ""),
        ["less orders.email: kept (Art. 17(3)(b)) before, left without a ground now"],
    ),
    (
        rule(RELABEL % ""),
        kept(),
        ["same orders.email: left without a ground before, kept (Art. 17(3)(b)) now"],
    ),
    (
        rule(DELETE),
        rule(RELABEL % ", unset: [email]"),
        [
            "same orders.who: deleted before, relabelled now",
            "same orders.email: deleted before, unset now",
            "less orders, what is not listed: deleted before, left without a ground now",
        ],
    ),
    (
        rule(UNSET),
        rule("{action: update, relabel: [who], mask: {email: hmac_sha256_v1}}"),
        ["less orders.email: unset before, masked by hmac_sha256_v1 now"],
    ),
    (
        rule(DELETE),
        rule("{action: archive, to: old, fields: [email]}"),
        ["less orders.email: deleted before, copied to old now"],
    ),
    (
        kept(", until: 2030-01-01"),
        kept(", until: 2031-01-01"),
        [
            f"less orders.email: kept ({ARTICLE}, until 2030-01-01) before, kept ({ARTICLE}, until 2031-01-01) now",
        ],
    ),
    (
        kept(", period: P10Y"),
        kept(", period: P8Y"),
        ["more orders.email: kept (Art. 17(3)(b), for P10Y) before, kept (Art. 17(3)(b), for P8Y) now"],
    ),
    (
        kept(", period: P8Y"),
        kept(),
        ["less orders.email: kept (Art. 17(3)(b), for P8Y) before, kept (Art. 17(3)(b)) now"],
    ),
    (
        kept(),
        kept(", until: 2030-01-01"),
        ["more orders.email: kept (Art. 17(3)(b)) before, kept (Art. 17(3)(b), until 2030-01-01) now"],
    ),
    (
        kept(", until: 2030-01-01"),
        kept(", period: P1Y"),
        ["less orders.email: kept (Art. 17(3)(b), until 2030-01-01) before, kept (Art. 17(3)(b), for P1Y) now"],
    ),
    (rule(DELETE), NO_RULES, ["less orders by who of id: found, deleted before, not found now"]),
    (NO_RULES, rule(DELETE), ["more orders by who of id: not found before, found, deleted now"]),
    (
        rule(DELETE),
        rule(DELETE, more=", where: {paid: true}"),
        ['less orders by who of id where {"paid": true}: all before, {"paid": true} now'],
    ),
    (
        rule(DELETE, more=", where: {paid: true}"),
        rule(DELETE),
        ['more orders by who of id: {"paid": true} before, all now'],
    ),
    (
        rule(DELETE),
        rule(DELETE, locate=", edge: shallow"),
        ["less orders by who of id, edge: deep before, shallow now"],
    ),
    (
        rule(DELETE, locate=", edge: shallow"),
        rule(DELETE),
        ["more orders by who of id, edge: shallow before, deep now"],
    ),
    (
        rule(DELETE, locate=", stored: [objectId, string]"),
        rule(DELETE, locate=", stored: [objectId]"),
        ["less orders by who of id, stored: objectId, string before, objectId now"],
    ),
    (
        rule(DELETE, locate=", stored: [objectId]"),
        rule(DELETE, locate=", stored: [objectId, string]"),
        ["more orders by who of id, stored: objectId before, objectId, string now"],
    ),
]


@pytest.mark.parametrize(("old", "new", "expected"), RULES)
def test_what_becomes_of_a_field_is_told(old: str, new: str, expected: list[str]) -> None:
    assert told(text(old), text(new)) == expected


def test_a_field_that_is_not_personal_is_not_told_of() -> None:
    closed = ", closed: true"

    assert told(text(rule(DELETE), more=closed), text(rule(UNSET), more=closed)) == [
        "same orders.who: deleted before, relabelled now",
        "same orders.email: deleted before, unset now",
    ]


def test_two_rules_of_a_collection_are_told_apart() -> None:
    def both(second: str) -> str:
        first = rule(DELETE, more=", where: {paid: true}")
        return text(f"{first}, {rule(second, more=', where: {paid: false}')}")

    assert told(both(UNSET), both(RELABEL % "")) == [
        'less orders.email (by who of id where {"paid": false}): unset before, left without a ground now'
    ]


def test_a_rule_that_only_says_it_otherwise_is_no_change() -> None:
    old = rule("{action: update, unset: [who, phone, note]}", more=KEPT % "")
    new = rule("{action: update, unset: [note, phone, who]}", more=KEPT.replace("books", "the law") % "")

    assert told(text(old), text(new)) == []


BUCKETS = "buckets: {orders: {every: month, since: 2026-01-01, until: 2026-%s-01}}"
SURFACES = "surfaces: {backups: %s}"
PURPOSE = "purposes: {books: {basis: contract, why: books%s}}"
TOLD = "recipients: [{id: crm, holds: people%s}]"
BESIDE = "kept_elsewhere: [{fields: [log], ground: GDPR Art. 17(3)(b), why: law%s}]"
HISTORY = "history: {suffix: _%s, id_path: of}"

AROUND: list[tuple[str, str, list[str]]] = [
    (SURFACES % "P35D", SURFACES % "P36D", ["less surfaces.backups: P35D before, P36D now"]),
    (SURFACES % "P1M", SURFACES % "P30D", ["more surfaces.backups: P1M before, P30D now"]),
    ("", SURFACES % "P30D", ["more surfaces.backups: not known before, P30D now"]),
    (
        PURPOSE % ", retention: P2Y",
        PURPOSE % "",
        ["less purposes.books.retention: P2Y before, without an end now"],
    ),
    (TOLD % "", "", ["less recipients.crm: told by manual before, absent now"]),
    (
        TOLD % "",
        TOLD % ", protocol: webhook",
        ["same recipients.crm: told by manual before, told by webhook now"],
    ),
    (
        BUCKETS % "10",
        BUCKETS % "09",
        [
            f"less buckets.orders: {SPAN}10-01 before, {SPAN}09-01 now",
        ],
    ),
    (
        BUCKETS % "09",
        BUCKETS % "10",
        [
            f"more buckets.orders: {SPAN}09-01 before, {SPAN}10-01 now",
        ],
    ),
    ("", HISTORY % "old", ["more history: absent before, <collection>_old by of now"]),
    (HISTORY % "old", "", ["less history: <collection>_old by of before, absent now"]),
    ("", BESIDE % "", ["less kept_elsewhere: log: absent before, GDPR Art. 17(3)(b), until without an end now"]),
    (
        BESIDE % "",
        BESIDE % ", period: P1Y",
        [
            f"more kept_elsewhere: log: GDPR {ARTICLE}, until without an end before, GDPR {ARTICLE}, until P1Y now",
        ],
    ),
    ("tenant: {field: org, type: string}", "", ["less tenant: org (string) before, absent now"]),
]


@pytest.mark.parametrize(("old", "new", "expected"), AROUND)
def test_what_stands_around_the_rules_is_told(old: str, new: str, expected: list[str]) -> None:
    assert told(text(rule(DELETE), around=old), text(rule(DELETE), around=new)) == expected


def test_a_key_that_is_gone_finds_nobody_any_more() -> None:
    old = text(rule(DELETE)).replace("keys: {", "keys: {mail: {path: mail, type: string, personal: true}, ")

    assert told(old, text(rule(DELETE))) == ["less subject.keys.mail: mail (string) personal before, absent now"]


def test_the_reference_map_is_the_same_as_itself_and_less_without_a_collection() -> None:
    whole = yaml.safe_load(DATA_MAP.read_text())
    less = {**whole, "collections": {**whole["collections"]}}
    del less["collections"]["analytics"]

    assert list(compare(load_data_map(DATA_MAP), DataMap.model_validate(whole))) == []
    assert [str(one) for one in compare(DataMap.model_validate(whole), DataMap.model_validate(less))] == [
        "analytics by user_id of user_id: found, deleted before, not found now"
    ]


def run(tmp_path: Path, old: str, new: str, *options: str) -> Any:
    for name, content in (("old", old), ("new", new)):
        (tmp_path / f"{name}.yaml").write_text(content)
    files = [str(tmp_path / f"{name}.yaml") for name in ("old", "new")]
    return CliRunner().invoke(build_cli(), ["datamap", "diff", *files, *options])


def test_the_command_exits_3_where_less_is_erased(tmp_path: Path) -> None:
    less = run(tmp_path, text(rule(UNSET)), text(kept()))
    more = run(tmp_path, text(kept()), text(rule(UNSET)), "--json")
    same = run(tmp_path, text(kept()), text(kept()))

    assert (less.exit_code, less.stdout) == (3, "less  orders.email: unset before, kept (Art. 17(3)(b)) now\n")
    assert more.exit_code == 0
    assert json.loads(more.stdout) == {
        "old": parse(text(kept())).digest,
        "new": parse(text(rule(UNSET))).digest,
        "changes": [
            {
                "place": "orders.email",
                "before": "kept (Art. 17(3)(b))",
                "now": "unset",
                "effect": "more",
                "text": "orders.email: kept (Art. 17(3)(b)) before, unset now",
            }
        ],
    }
    assert (same.exit_code, same.stdout) == (0, "the same is erased as before\n")
