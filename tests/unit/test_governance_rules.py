"""Each rule finds what it is about, and nothing in what it asks for; a table holds what lies close to either."""

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest
from linted import codes, reference_map, violations

from compliance.settings import MIGRATIONS
from migrations.governance import RULES, lint, parse_script
from migrations.governance.catalogue import Collection, Index
from migrations.governance.document import explain, page
from migrations.governance.sample import Sample, data, post, pre

ROOT = Path(__file__).parents[2]
rules = pytest.mark.parametrize("code", sorted(RULES))

FILL = 'ctx.backfill("albums", where={"a": {"$exists": False}}, update={"$set": {"a": 1}})'
ALBUMS = 'ctx.databases.app["albums"]'
CREATE = 'ctx.create_collection("albums", schema={"required": ["title"]}, level="moderate")'
DROP = 'ctx.drop_collection("albums")'
FREEZE = 'ctx.set_schema("albums", schema={"not": {}}, level="moderate")'


@rules
def test_a_rule_finds_its_bad_example(code: str) -> None:
    found = [violation for violation in violations(RULES[code].bad) if violation.rule == code]

    assert found
    assert all(violation.why and violation.fix for violation in found)
    assert all(1 <= violation.line <= len(RULES[code].bad.source.splitlines()) for violation in found)


@rules
def test_no_rule_finds_anything_in_a_good_example(code: str) -> None:
    assert codes(RULES[code].good) == []


@rules
def test_a_rule_says_what_it_finds_and_why(code: str) -> None:
    rule = RULES[code]

    assert re.fullmatch(r"MX[0-9]{3}", code)
    assert len(rule.title) < 80
    assert len(rule.reason.split()) >= 6
    assert rule.reason.endswith(".")
    assert rule.bad.source in explain(rule)
    assert rule.good.source in explain(rule)


@rules
def test_the_examples_are_python_but_for_the_one_that_is_about_it(code: str) -> None:
    ast.parse(RULES[code].good.source)
    if code != "MX001":
        ast.parse(RULES[code].bad.source)


def test_there_are_more_than_thirty_rules() -> None:
    assert len(RULES) > 30


def test_the_page_of_the_rules_is_that_of_the_code() -> None:
    written = (ROOT / "docs" / "migration-rules.md").read_text(encoding="utf-8")

    assert written == page(), "run python -m migrations.governance > docs/migration-rules.md"


def test_the_reference_folder_has_no_findings() -> None:
    scripts = [parse_script(path.name, path.read_text(encoding="utf-8")) for path in sorted(MIGRATIONS.glob("v*.py"))]

    assert lint(scripts, data_map=reference_map()) == ()


def test_the_script_of_the_readme_has_no_findings() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (source,) = [block for block in blocks if "def up(" in block]

    assert codes(Sample("v001_pre_reviews.py", source)) == []


def walk(name: str, more: str) -> str:
    return f"for album in {ALBUMS}.{name}:\n    {more}"


NEAR: list[tuple[str, Sample, list[str]]] = [
    # updates
    ("inc under a filter of another field", data(
        'ctx.databases.app["albums"].bulk_write([])\n' + FILL.replace('{"$set": {"a": 1}}', '{"$inc": {"n": 1}}')
    ), ["MX059", "MX040", "MX041"]),
    ("inc of a field that was not there", data(FILL.replace('{"$set": {"a": 1}}', '{"$inc": {"a": 1}}')), []),
    ("inc of the field that the filter compares", data(
        'ctx.backfill("albums", where={"n": {"$lt": 5}}, update={"$inc": {"n": 1}})'
    ), ["MX040"]),
    ("inc where the filter is only known at run time", data(
        'ctx.backfill("albums", where=narrow(), update={"$inc": {"n": 1}})',
        top="def narrow():\n    return {}",
    ), []),
    ("inc by a walk, which visits each document once", data(
        'ctx.walk("albums", where={"lang": "en"}, update={"$inc": {"n": 1}})'
    ), []),
    ("inc without a filter", data('ctx.backfill("albums", where={}, update={"$inc": {"n": 1}})'), ["MX040", "MX041"]),
    ("a pipeline that adds to itself", data(
        'ctx.backfill("albums", where={"n": 1}, update=[{"$set": {"n": {"$add": ["$n", 1]}}}])'
    ), ["MX040"]),
    ("a pipeline that adds to itself once", data(
        'ctx.backfill("albums", where={"v": 1}, update=[{"$set": {"n": {"$add": ["$n", 1]}, "v": 2}}])'
    ), []),
    ("a pipeline that computes from another field", data(
        'ctx.backfill("albums", where={"n": None}, update=[{"$set": {"n": {"$add": ["$m", 1]}}}])'
    ), []),
    ("a push", data('ctx.backfill("albums", where={"l": 1}, update={"$push": {"l": 1}})'), ["MX040"]),
    ("addToSet", data('ctx.backfill("albums", where={"l": {"$ne": 1}}, update={"$addToSet": {"l": 1}})'), []),
    ("a filter in and", data(
        'ctx.backfill("albums", where={"$and": [{"x": 1}, {"a": None}]}, update={"$set": {"a.b": 1}})'
    ), []),
    ("a filter by an expression", data(
        'ctx.backfill("albums", where={"$expr": {"$ne": ["$a", "$b"]}}, update=[{"$set": {"a": "$b"}}])'
    ), []),
    ("a rename of nested fields", data(
        'ctx.backfill("albums", where={"a.b": {"$exists": True}}, update={"$rename": {"a.b": "a.c"}})'
    ), []),
    ("a rename of an element", data(
        'ctx.backfill("albums", where={"a.$[].b": 1}, update={"$rename": {"a.$[].b": "a.$[].c"}})'
    ), ["MX042"]),
    ("_id among the fields of a walk", data(
        'ctx.transform("albums", where={"a": 1}, fields=("_id",), function=f)', top="def f(document):\n    return {}"
    ), ["MX043"]),
    ("a dotted path of an update", data(FILL.replace('{"a": 1}', '{"a.b": 1}')), []),
    ("a dotted name in a document", data(f'{ALBUMS}.insert_one({{"_id": 1, "a": [{{"b.c": 1}}]}})'), ["MX044"]),
    ("a dotted property", pre(
        'ctx.set_schema("albums", schema={"properties": {"a.b": {}}}, level="moderate")',
    ), ["MX044"]),
    # paging
    ("a constant bound of _id", data(FILL.replace('{"a": {"$exists": False}}', '{"_id": {"$gt": 5}, "a": None}')), []),
    ("a bound of another field", data(
        "last = 5\n" + FILL.replace('{"a": {"$exists": False}}', '{"a": {"$gt": last}}')
    ), []),
    ("a walk by _id that writes", data(
        walk('find().sort("_id")', f'{ALBUMS}.delete_one({{"_id": album["_id"]}})')
    ), []),
    ("a walk by another field that writes", data(
        walk('find().sort([("n", 1)])', f'{ALBUMS}.delete_one({{"_id": album["_id"]}})')
    ), ["MX052"]),
    ("a walk by another field that reads", data(walk('find().sort("n")', 'ctx.report("one more")')), []),
    # clocks, chance and the world
    ("a time that is written down", data(
        "datetime(2026, 1, 1)\n" + FILL, top="from bson import datetime"
    ), []),
    ("an id that is written down", data(
        FILL.replace('{"a": 1}', '{"a": ObjectId("0" * 24)}'), top="from bson import ObjectId"
    ), []),
    ("an import of random", data(FILL, top="import random"), ["MX013", "MX017"]),
    ("an import of a neighbour", data(FILL, top="from . import other"), ["MX017"]),
    ("an import for types", data(
        FILL, top="from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from migrations.context import Context"
    ), []),
    ("an import of the package alone", data(FILL, top="import migrations"), ["MX017"]),
    ("an error that goes on", data(f"try:\n    {FILL}\nexcept Exception:\n    raise"), []),
    ("an error of one kind", data(f"try:\n    {FILL}\nexcept KeyError:\n    pass"), []),
    # phases
    ("a moderate validator before", pre('ctx.set_schema("albums", schema={}, level="moderate")'), []),
    ("a validator without level", pre('ctx.set_schema("albums", schema={})'), ["MX034"]),
    ("a drop before", pre('ctx.drop_index("albums", "ix_a")'), ["MX030", "MX074"]),
    ("a unique index after", post(
        'ctx.create_index("albums", "ix_a", [("a", 1)], unique=True)', 'ctx.drop_index("albums", "ix_a")'
    ), []),
    ("a drop on the way back", pre(CREATE, DROP), []),
    ("nothing required anew", pre(CREATE, DROP, number=11).after(pre(CREATE, DROP, number=1)), []),
    ("a field required after it was filled by a walk", post(
        'ctx.set_schema("albums", schema={"required": ["title", "a"]})'
    ).after(pre(CREATE, DROP, number=1), data(
        'ctx.transform("albums", where={}, fields=("a",), function=f)',
        top="def f(document):\n    return {}",
        number=2,
    )), []),
    ("a field required after another one was filled", post(
        'ctx.set_schema("albums", schema={"required": ["title", "b"]})'
    ).after(pre(CREATE, DROP, number=1), data(FILL, number=2)), ["MX036"]),
    ("a field required after it was filled elsewhere", post(
        'ctx.set_schema("albums", schema={"required": ["title", "a"]})'
    ).after(pre(CREATE, DROP, number=1), data(FILL.replace("albums", "tracks"), number=2)), ["MX036"]),
    # the driver
    ("a read", data(f'{ALBUMS}.find_one({{"a": 1}})'), []),
    ("one document, written once", data(f'{ALBUMS}.delete_one({{"_id": 1}})'), []),
    ("a write through other names", data(f'albums = {ALBUMS}\nalbums.update_many({{}}, {{"$set": {{"a": 1}}}})'),
     ["MX050", "MX059"]),
    ("a write in a function", data(
        "fill(ctx)", top="def fill(ctx):\n    ctx.databases.app.albums.delete_many({})"
    ), ["MX050"]),
    ("a write concern of the majority", data(FILL, top="W = WriteConcern(w='majority')"), []),
    ("a write concern in a command", data(
        'r = ctx.databases.app.command({"delete": "albums", "deletes": [], "writeConcern": {"w": 1}})\nr["writeErrors"]'
    ), ["MX055"]),
    ("out to another collection", data(f'{ALBUMS}.aggregate([{{"$out": "other"}}])'), []),
    ("merge onto itself", data(f'{ALBUMS}.aggregate([{{"$merge": {{"into": "albums"}}}}])'), ["MX056"]),
    ("a command that reads", data('ctx.databases.app.command("ping")'), []),
    ("a command whose name a run knows", data("ctx.databases.app.command(*[])"), []),
    ("a hidden index", pre(
        'ctx.databases.app.command("collMod", "albums", index={"name": "ix", "hidden": True})'
    ), []),
    ("a validator by command", pre(
        'ctx.databases.app.command("collMod", "albums", validator={"$jsonSchema": {}}, validationLevel="moderate")'
    ), ["MX059"]),
    ("a drop by the driver", post(f"{ALBUMS}.drop()"), ["MX059", "MX075"]),
    ("renames of two things", post(
        f'{ALBUMS}.rename("old_albums")\nctx.databases.app["tracks_new"].rename("songs")'
    ), []),
    ("a rename that keeps its target", post(f'{ALBUMS}.rename("old_albums", dropTarget=False)'), []),
    ("an index of a geo field among others", pre(
        'ctx.create_index("albums", "ix", [("a", 1), ("p", "2dsphere")])', 'ctx.drop_index("albums", "ix")'
    ), ["MX073"]),
    ("another index hidden before", post('ctx.drop_index("albums", "ix")').after(post(
        'ctx.databases.app.command("collMod", "albums", index={"name": "iy", "hidden": True})', number=9
    )), ["MX074"]),
    ("an index that soaked", post(
        'ctx.drop_index("albums", "ix", soaked=timedelta(days=7))', top="from datetime import timedelta"
    ), []),
    ("an index hidden by command", post('ctx.drop_index("albums", "ix")').after(post(
        'ctx.databases.app.command("collMod", "albums", index={"name": "ix", "hidden": True})', number=9
    )), []),
    ("another index hidden by a step", post('ctx.drop_index("albums", "ix")').after(post(
        'ctx.hide_index("albums", "iy")', 'ctx.unhide_index("albums", "iy")', number=9
    )), ["MX074"]),
    ("a unique index by its steps", post(
        'ctx.create_unique("albums", "ix", [("a", 1)])', 'ctx.drop_index("albums", "ix")'
    ), []),
    ("an expiry with its ground", pre(
        'ctx.create_index("analytics", "ix", [("t", 1)], options={"expireAfterSeconds": 5}, expires_because="law")',
        'ctx.drop_index("analytics", "ix")',
    ), []),
    ("an expiry without one", pre(
        'ctx.create_index("analytics", "ix", [("t", 1)], options={"expireAfterSeconds": 5})',
        'ctx.drop_index("analytics", "ix")',
    ), ["MX082"]),
    ("a validator rolled out before the backfill", pre('ctx.roll_out_validator("albums", {})'), ["MX034"]),
    ("a validator rolled out to moderate", pre('ctx.roll_out_validator("albums", {}, to="moderate")'), []),
    ("another collection frozen before", post(DROP).after(post(FREEZE.replace("albums", "tracks"), number=9)),
     ["MX075"]),
    # people
    ("a personal field of the person's own document", pre(
        'ctx.set_schema("users", schema={"properties": {"birthDate": {}}}, level="moderate")'
    ), []),
    ("a personal field that an erasure leaves", pre(
        'ctx.set_schema("tracks", schema={"properties": {"author_email": {}}}, level="moderate")'
    ), ["MX080"]),
    ("a personal field that an erasure takes", pre(
        'ctx.set_schema("security_events", schema={"properties": {"details": {"properties": {"email": {}}}}},'
        ' level="moderate")'
    ), []),
    ("a personal field beside it", pre(
        'ctx.set_schema("security_events", schema={"properties": {"details": {"properties": {"phone": {}}}}},'
        ' level="moderate")'
    ), ["MX080"]),
    ("a personal field in an array", pre(
        'ctx.set_schema("x", schema={"properties": {"l": {"items": {"properties": {"iban": {}}}}}}, level="moderate")'
    ), ["MX080"]),
    ("a personal field that is written", data(
        'ctx.backfill("letters", where={"phone": None}, update={"$rename": {"no": "phone"}})'
    ), ["MX080"]),
    ("a personal field that is taken away", data(
        'ctx.backfill("letters", where={"phone": {"$exists": True}}, update={"$unset": {"phone": ""}})'
    ), []),
    ("names that only look personal", pre(
        'ctx.set_schema("x", schema={"properties": {"zipped": {}, "description": {}, "shipping": {}, "ipsum": {}}},'
        ' level="moderate")'
    ), []),
    ("old versions of a mapped collection", pre(
        'ctx.set_schema("analytics_history", schema={"properties": {"user_id": {}, "ip": {}}}, level="moderate")'
    ), []),
    ("an index that expires in a collection of nobody", pre(
        f'{ALBUMS}.create_index([("t", 1)], name="ix", expireAfterSeconds=5)', 'ctx.drop_index("albums", "ix")'
    ), ["MX059"]),
    ("an expiry by command", pre(
        'ctx.databases.app.command("createIndexes", "consent", indexes=[{"key": {}, "expireAfterSeconds": 1}])'
    ), ["MX082"]),
    ("consent withdrawn", data(
        'ctx.backfill("consent", where={"granted": None}, update={"$set": {"granted": False}})'
    ), []),
    ("consent looked for", data(
        'ctx.backfill("consent", where={"granted": True, "v": 1}, update={"$set": {"v": 2}})'
    ), []),
    ("consent granted by a walk", data(
        'ctx.transform("consent", where={}, fields=("granted",), function=f)',
        top='def f(document):\n    return {"granted": True}',
    ), ["MX083"]),
    ("consent granted by an insert", data(f'{ALBUMS}.insert_many([{{"_id": 1, "opt_in": True}}])'), ["MX083"]),
    ("our own databases, read", data('ctx.databases.compliance["jobs"].find_one()'), ["MX084"]),
    ("another database", data('ctx.databases.client["other"]["things"].find_one()'), ["MX084"]),
    ("our names in theirs", pre('ctx.set_schema("audit_log", schema={}, level="moderate")'), ["MX084"]),
    ("a session", data("with ctx.databases.client.start_session() as session:\n    session.end_session()"), []),
    ("an error without a value", data(
        'ctx.transform("albums", where={}, fields=("a",), function=f)',
        top='def f(document):\n    raise ValueError("a" + "b")',
    ), []),
    ("an error by percent", data(
        'ctx.transform("albums", where={}, fields=("a",), function=f)',
        top='def f(document):\n    raise ValueError("a %s" % document)',
    ), ["MX086"]),
    # form
    ("a docstring of one word", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace(
        "Change what this example is about.", "Albums."
    )), ["MX003"]),
    ("no full stop", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace("about.", "about")), ["MX003"]),
    ("its own reviewer", Sample(
        "v001_pre_a.py", pre(CREATE, DROP).source.replace("platform", "catalogue")
    ), ["MX006"]),
    ("the sentence of a new script", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace(
        "Change what this example is about.", "Albums: Say here what changes, and why."
    )), ["MX003"]),
    ("the sentence of a fix", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace(
        "Change what this example is about.", "Say what v001_pre_a changes, and for whom."
    )), ["MX003"]),
    ("an owner in other letters that nobody wrote", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace(
        "catalogue", " The team that answers for it"
    )), ["MX005"]),
    ("fixes that were pasted as they are", Sample("v001_pre_a.py", pre(CREATE, DROP).source.replace(
        "catalogue", "a team, not a person's name"
    ).replace("platform", "a team, not a person's name")), ["MX005", "MX006"]),
    ("a reason that nobody wrote", Sample("v001_pre_a.py", pre(CREATE).source.partition("def down")[0]
        + 'IRREVERSIBLE = "why it cannot be undone"\n'), ["MX008"]),
    ("another reason that nobody wrote", Sample("v001_pre_a.py", pre(CREATE).source.partition("def down")[0]
        + 'IRREVERSIBLE = "what is gone, and what to do instead"\n'), ["MX008"]),
    ("a way up that was pasted as it is", pre("..."), ["MX023"]),
    ("a way up with a docstring alone, as where branches meet", pre('"""Do nothing."""'), []),
    ("a way back with a docstring alone", pre(CREATE, '"""Keep it."""'), ["MX009", "MX010"]),
    ("a way up that says that it is not written", pre('"""Do it."""\nraise NotImplementedError("later")'), ["MX023"]),
    ("a way back that is not written", pre(CREATE, "raise NotImplementedError"), ["MX010", "MX023"]),
    ("a function for documents that is not written", data(
        'ctx.transform("albums", where={}, fields=("a",), function=f)',
        top="def f(document):\n    raise NotImplementedError",
    ), ["MX023"]),
    ("a function of types alone", data(
        'ctx.transform("albums", where={}, fields=("a",), function=f)', top="def f(document):\n    ..."
    ), []),
    ("another error at once", pre('raise ValueError("never here")'), []),
    ("a case that is not written, among others", pre(
        CREATE + "\nif ctx is None:\n    raise NotImplementedError", DROP
    ), []),
    ("steps before what is not written", pre(CREATE + "\nraise NotImplementedError", DROP), []),
    ("nothing to do", pre("pass"), []),
    ("both ways", Sample(
        "v001_pre_a.py", pre(CREATE, DROP).source + '\nIRREVERSIBLE = "the data is gone"\n'
    ), ["MX007"]),
    ("an index that goes with its collection", pre(
        CREATE + '\nctx.create_index("albums", "ix_a", [("a", 1)])', DROP
    ), []),
    ("an index that stays", pre('ctx.create_index("albums", "ix_a", [("a", 1)])', 'ctx.drop_index("albums", "ix_b")'),
     ["MX010"]),
    ("a way back whose names a run knows", pre(CREATE, "ctx.drop_collection(name())", top="def name(): ..."), []),
    ("a call at load", data(FILL, top="NAMES = tuple('ab')"), []),
    ("the same number in another phase", post(DROP, CREATE).after(data(FILL), post(FREEZE, number=9)), []),
    # the live database
    ("what is there", data(FILL).on({"albums": Collection(documents=99_999)}), []),
    ("what an earlier script creates", data(FILL).on({}).after(pre(CREATE, DROP, number=1)), []),
    ("a collection that is read", data(f"{ALBUMS}.find_one()").on({}), []),
    ("an index of the same name", pre(
        'ctx.create_index("albums", "ix", [("a", 1)])', 'ctx.drop_index("albums", "ix")'
    ).on({"albums": Collection(indexes={"ix": Index(keys=(("a", -1),))})}), ["MX092"]),
    ("the 64th index", pre(
        'ctx.create_index("albums", "ix", [("a", 1)])', 'ctx.drop_index("albums", "ix")'
    ).on({"albums": Collection(indexes={f"i{n}": Index(keys=((f"f{n}", 1),)) for n in range(63)})}), []),
    ("a view", data(FILL).on({"albums": Collection(kind="view")}), ["MX096"]),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "expected"), [case[1:] for case in NEAR], ids=[case[0] for case in NEAR])
def test_a_rule_knows_what_lies_close_to_it(sample: Sample, expected: list[str]) -> None:
    assert sorted(set(codes(sample))) == sorted(set(expected))


SHAPED = '''"""Split the name."""

from migrations.context import Shape

OWNER = "backend"
REVIEWED_BY = "data protection"

CHANGE = Shape(
    collection="COLLECTION",
    old=("name",),
    new=("first", "last"),
    up=[{"$set": {"first": FIRST, "last": "$name"}}],
    down=[{"$set": {"name": {"$concat": ["$first", " ", "$last"]}}}],
    schema_during={"properties": {"name": {"bsonType": "string"}}},
    schema_after={"required": ["first"]},
)
'''


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({'"name",': '"phone",', '{"name": {"$': '{"phone": {"$', "$name": "$phone"}, ["MX080"]),
        ({'"first",': '"phone",', '"first": F': '"phone": F', '["first"]': "[]"}, ["MX080"]),
        ({'"first": FIRST': '"first.phone": FIRST'}, ["MX080"]),
        ({'down=[{"$set": {"name"': 'down=[{"$set": {"name.phone"'}, ["MX080"]),
        ({'"name": {"bsonType"': '"phone": {"bsonType"'}, ["MX080"]),
        ({'"required": ["first"]': '"properties": {"phone": {}}'}, ["MX080"]),
        ({'"required": ["first"]': '"properties": {"a.b": {}}'}, ["MX044"]),
        ({'"first",': '"user_id",', '"first": F': '"user_id": F'}, ["MX081"]),
        ({'"first": FIRST': '"granted": True'}, ["MX083"]),
        ({"COLLECTION": "audit_log"}, ["MX084"]),
    ],
)
def test_rules_about_fields_see_what_an_online_change_writes(changes: dict[str, str], found: list[str]) -> None:
    source = SHAPED
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    source = source.replace("COLLECTION", "letters").replace("FIRST", '{"$literal": "x"}')

    assert codes(replace(data("pass"), source=source)) == found
