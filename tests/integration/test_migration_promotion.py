"""From staging to production: only what staging ran and found verified runs there, or what a person answers for."""

import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from bson import ObjectId
from deployment import Deployment, Stack, provision_database
from faults import Died, mortal
from migrated import NOON, names, write_scripts
from quiet import quiet
from receiving import Receiver, receiving
from typer.testing import CliRunner, Result

from compliance.audit.keys import SigningKey
from compliance.audit.log import AuditLog
from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError, InvalidPayload, PromotionRefused, RejectedError
from compliance.operators import name_operator
from compliance.settings import load_settings
from migrations import promotion
from migrations.migrate import build_gate, main
from migrations.promotion import Promoted
from migrations.runner import Runner
from migrations.wish import Wish
from worker.cli import build_cli

REASON = "the index is missing and orders are lost"
OTHER = SigningKey.from_seed("writer", bytes(32))
ONE, TWO = "v001_data_one", "v002_data_two"
SCRIPT = '''
        """Number {number}."""


        def up(ctx):
            """Change."""
            ctx.backfill("things", where={{"{field}": {{"$exists": False}}}}, update={{"$set": {{"{field}": 1}}}})
            ctx.verify("things", none={{"{field}": {{"$ne": 1}}}})


        def down(ctx):
            """Nothing."""
'''


class Pair:
    """Staging, and production that believes it, with one folder of scripts."""

    def __init__(self, staging: Deployment, production: Deployment, home: Path) -> None:
        writer = staging.addresses.writer("test")
        self.home = home
        self.key = writer.key
        self.folder = write_scripts(
            home / "scripts",
            {f"{ONE}.py": SCRIPT.format(number=1, field="a"), f"{TWO}.py": SCRIPT.format(number=2, field="b")},
        )
        self.staging = staging.with_settings(migrations=self.folder, environment="staging")
        self.production = production.with_settings(
            migrations=self.folder,
            environment="live",
            staging_keys=writer.key.verifier.vkey,
            staging_database=staging.name,
        )
        for deployment in (staging, production):
            deployment.admin.app["things"].insert_many([{"_id": n} for n in range(4)])

    def attest(self) -> bytes:
        runner = self.staging.runner()
        return promotion.attest(
            runner.databases, runner.verify(), key=self.key, environment="staging", by="test", clock=runner.clock
        )[1]

    def promote(self, note: bytes) -> Promoted:
        runner = self.production.runner()
        log = AuditLog(runner.databases)
        return promotion.promote(runner.databases, log, note, gate=runner.gate, by="test", clock=runner.clock)

    def kept(self) -> list[dict[str, Any]]:
        return list(self.production.admin.compliance["migration_promotions"].find())

    def edit(self, name: str) -> None:
        path = self.folder / f"{name}.py"
        path.write_text(path.read_text().replace('"$set"', '"$inc"'))


@pytest.fixture
def pair(stack: Stack, empty: Deployment, tmp_path: Path) -> Any:
    with ExitStack() as cleanup:
        yield Pair(empty, provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup), tmp_path)


def test_what_staging_has_applied_and_verified_runs_and_nothing_else(pair: Pair) -> None:
    with pytest.raises(PromotionRefused, match=f"not promoted: v000_pre_foundation, {ONE}, {TWO}; apply them in"):
        pair.production.runner().up()
    assert pair.production.admin.compliance["migration_history"].count_documents({}) == 0

    pair.staging.runner().up(ONE)
    promoted = pair.promote(pair.attest())
    done = pair.production.runner().up(ONE)

    assert promoted == Promoted(new=["v000_pre_foundation", ONE])
    assert names(done) == ["v000_pre_foundation", ONE]
    with pytest.raises(PromotionRefused, match=f"not promoted: {TWO}; apply them in staging"):
        pair.production.runner().up()
    assert pair.production.admin.app["things"].count_documents({"a": 1, "b": {"$exists": False}}) == 4


def test_what_is_allowed_is_kept_and_audited_once(pair: Pair) -> None:
    pair.staging.runner().up()
    note = pair.attest()
    pair.promote(note)
    again = pair.promote(pair.attest())
    (kept,) = [one for one in pair.kept() if one.get("revision") == ONE]
    (applied,) = pair.staging.entries(action="migration.applied", entity_id=ONE)
    (entry,) = pair.production.entries(action="migration.promoted", entity_id=ONE)

    assert again == Promoted(known=["v000_pre_foundation", ONE, TWO])
    assert kept["entry"] == applied["_id"]
    assert (kept["database"], kept["environment"]) == (pair.staging.name, "staging")
    assert entry["details"] == {name: kept[name] for name in ("checksum", "record", "key")}
    assert len(pair.staging.entries(action="migration.attested")) == 2


def test_a_script_that_was_changed_after_its_promotion_is_refused(pair: Pair) -> None:
    pair.staging.runner().up()
    pair.promote(pair.attest())
    pair.edit(TWO)

    with pytest.raises(PromotionRefused, match=f"^changed since they were promoted: {TWO}; deploy the text"):
        pair.production.runner().up()
    assert names(pair.production.runner().up(ONE)) == ["v000_pre_foundation", ONE]


def test_a_script_that_is_not_verified_in_staging_is_not_promoted(pair: Pair) -> None:
    pair.staging.runner().up()
    pair.staging.admin.app["things"].update_one({"_id": 1}, {"$set": {"b": 7}})
    promoted = pair.promote(pair.attest())

    assert promoted.new == ["v000_pre_foundation", ONE]
    assert list(promoted.refused) == [TWO]
    assert promoted.refused[TWO].startswith("is applied in staging but not verified: 1 problems; mend what")
    with pytest.raises(PromotionRefused, match=f"not promoted: {TWO};"):
        pair.production.runner().up()


def test_a_text_that_staging_accepted_and_never_ran_is_not_promoted(pair: Pair) -> None:
    pair.staging.runner().up()
    pair.edit(TWO)
    pair.staging.runner().accept(TWO, reason="the other spelling was nicer")
    pair.promote(pair.attest())

    with pytest.raises(PromotionRefused, match=f"changed since they were promoted: {TWO}"):
        pair.production.runner().up()


def test_what_staging_has_undone_is_in_no_record(pair: Pair) -> None:
    pair.staging.runner().up()
    pair.staging.runner().down(ONE)

    assert pair.promote(pair.attest()).new == ["v000_pre_foundation", ONE]


@pytest.mark.parametrize("reason", ["", "short", "ask ann@example.org for the reason"])
def test_an_emergency_needs_a_reason(pair: Pair, reason: str) -> None:
    with pytest.raises(RejectedError, match="say in 10 to 500 characters why"):
        pair.production.runner().up(wish=wish(reason))


def wish(reason: str) -> Wish:

    return Wish(emergency=reason)


def test_an_emergency_runs_it_once_and_is_audited(pair: Pair) -> None:
    pair.staging.runner().up(ONE)
    pair.promote(pair.attest())
    done = pair.production.runner().up(wish=wish(REASON))
    (entry,) = pair.production.entries(action="migration.emergency")
    pair.production.runner().down(ONE)

    assert names(done) == ["v000_pre_foundation", ONE, TWO]
    assert (entry["entity_id"], entry["details"]["reason"]) == (TWO, REASON)
    with pytest.raises(PromotionRefused, match=f"not promoted: {TWO};"):
        pair.production.runner().up()


def test_who_goes_on_with_an_emergency_needs_no_other_one(pair: Pair) -> None:
    pair.staging.runner().up(ONE)
    pair.promote(pair.attest())
    pair.production.runner().up(ONE)
    runner = pair.production.runner()
    with pytest.raises(Died):
        replace(runner, databases=mortal(runner.databases, at=4, committed=True)).up(wish=wish(REASON))
    lease = pair.production.admin.compliance["migration_lease"]
    lease.update_one({}, {"$set": {"state": "queued"}, "$unset": {"lease": 1}})
    (started,) = pair.production.admin.compliance["migration_history"].find({"revision": TWO})

    text = (pair.folder / f"{TWO}.py").read_text()
    pair.edit(TWO)
    with pytest.raises(PromotionRefused, match=f"not promoted: {TWO};"):
        pair.production.runner().up()
    (pair.folder / f"{TWO}.py").write_text(text)

    assert started["event"] == "started"
    assert names(pair.production.runner().up()) == [TWO]
    assert len(pair.production.entries(action="migration.emergency")) == 1


def promotion_of(pair: Pair, name: str, **fields: Any) -> dict[str, Any]:
    """What could be written beside what ``promote`` writes."""
    (revision,) = (one for one in pair.production.runner().revisions if one.name == name)
    return {"_id": ObjectId(), "revision": name, "checksum": revision.checksum, "by": "cli", "at": NOON, **fields}


def test_what_the_migrator_writes_without_a_signed_record_promotes_nothing(pair: Pair) -> None:
    pair.staging.runner().up(ONE)
    pair.promote(pair.attest())
    pair.staging.runner().up()
    here = pair.production.runner().databases.compliance["migration_promotions"]
    ours = [one for one in pair.kept() if "note" in one]
    tampered = ours[0]["note"].replace(b'"problems":0', b'"problems": 0')
    own = promotion.attest(
        pair.staging.runner().databases,
        (),
        key=OTHER,
        environment="staging",
        by="test",
        clock=pair.production.runner().clock,
    )[1]
    here.insert_many(
        [
            promotion_of(pair, TWO),
            promotion_of(pair, TWO, fence=1, reason=REASON),
            promotion_of(pair, TWO, record=ours[0]["_id"], key="writer"),
            *({"_id": name, "note": note, "by": "cli", "at": NOON} for name, note in (("t", tampered), ("o", own))),
            promotion_of(pair, TWO, record="t"),
            promotion_of(pair, TWO, record="o"),
        ]
    )

    with pytest.raises(PromotionRefused, match=f"not promoted: {TWO};"):
        pair.production.runner().up()


def test_a_record_counts_for_as_long_as_its_key_does(pair: Pair) -> None:
    pair.staging.runner().up()
    pair.promote(pair.attest())
    keys = OTHER.verifier.vkey
    gate = build_gate(pair.production.settings.model_copy(update={"staging_keys": keys}))

    with pytest.raises(PromotionRefused, match="not promoted: v000_pre_foundation"):
        pair.production.runner(gate=gate).up()
    assert len(pair.production.runner().up()) == 3


def test_a_dry_run_is_refused_as_the_run_would_be(pair: Pair) -> None:
    with pytest.raises(PromotionRefused):
        pair.production.runner().up(dry_run=True)
    assert pair.production.admin.compliance.list_collection_names() in ([], ["system.users"])


def test_production_runs_nothing_until_somebody_says_whose_records_count(pair: Pair) -> None:
    def production(keys: str, **changes: Any) -> Runner:
        changed = {"environment": "production", "staging_keys": keys}
        gate = build_gate(pair.production.settings.model_copy(update=changed))
        return pair.production.runner(gate=gate, **changes)

    for dry_run in (True, False):
        with pytest.raises(ConfigurationError, match=r"set COMPLIANCE_STAGING_KEYS to the key .* or to `none`"):
            production("").up(dry_run=dry_run)

    lines: list[str] = []
    done = production("none", report=lines.append).up("000")

    assert [one.number for one in done] == [0]
    assert lines[0].startswith("warning: COMPLIANCE_STAGING_KEYS is none")


def test_the_job_may_be_an_emergency_and_tells_the_person_on_call(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("worker.tasks.migration_run.alert_emergency", lambda names, **_: told.append(names))
    pair.staging.runner().up("000")
    pair.promote(pair.attest())
    pair.production.runner().up("000")

    refused = pair.production.run("migration.run", {})
    done = pair.production.run("migration.run", {"emergency": REASON}, "r-2")

    assert (refused.state, (refused.error or {})["code"]) == ("parked", "PromotionRefused")
    assert (done.state, (done.result or {})["emergency"]) == ("done", [ONE, TWO])
    assert told == [[ONE, TWO]]


@pytest.fixture
def command(pair: Pair) -> Callable[..., Result]:
    def run(deployment: Deployment, *arguments: str, by: tuple[str, ...] = (), **changes: str) -> Result:
        environ = changes | deployment.environ(pair.home) | {"COMPLIANCE_MIGRATIONS": str(pair.folder)}
        environ |= {"COMPLIANCE_ENV": deployment.settings.environment}
        if deployment.settings.staging_keys:
            environ["COMPLIANCE_STAGING_KEYS"] = deployment.settings.staging_keys
            environ["COMPLIANCE_STAGING_DATABASE"] = str(deployment.settings.staging_database)
        runtime = quiet(load_settings(environ))
        return CliRunner().invoke(build_cli(), [*by, "migrate", *arguments], obj=runtime, env={"COLUMNS": "200"})

    return run


def test_the_commands_bring_scripts_from_staging_to_production(pair: Pair, command: Callable[..., Result]) -> None:
    record = str(pair.home / "staging.note")
    refused = command(pair.production, "up")
    command(pair.staging, "up")
    attested = command(pair.staging, "attest", "--out", record)
    promoted = command(pair.production, "promote", record, "--json")
    done = command(pair.production, "up", "--json")

    assert refused.exit_code == 3 or isinstance(refused.exception, PromotionRefused)
    assert (attested.exit_code, attested.stdout) == (0, "")
    assert f"3 scripts; signed by {pair.key.verifier.vkey}" in attested.stderr
    assert json.loads(promoted.stdout) == {
        "promoted": ["v000_pre_foundation", ONE, TWO],
        "known": [],
        "refused": {},
    }
    assert json.loads(done.stdout)["revisions"] == ["v000_pre_foundation", ONE, TWO]
    assert b"example" not in Path(record).read_bytes()


def test_the_commands_say_what_is_not_verified(pair: Pair, command: Callable[..., Result]) -> None:
    record = str(pair.home / "staging.note")
    command(pair.staging, "up")
    pair.staging.admin.app["things"].update_one({"_id": 1}, {"$set": {"b": 7}})
    attested = command(pair.staging, "attest", "--out", record)
    promoted = command(pair.production, "promote", record)

    assert attested.exit_code == promoted.exit_code == 3
    assert f"not verified: {TWO}; see `compliance migrate verify`" in attested.stderr
    assert "is applied in staging but not verified" in promoted.stdout


def test_an_entry_names_who_gave_the_command(pair: Pair, command: Callable[..., Result]) -> None:
    pair.staging.runner().up("000")
    pair.promote(pair.attest())
    refused = command(pair.production, "up", by=("--as", "anna@example.org"))
    command(pair.production, "up", "--emergency", REASON, by=("--as", "anna"), COMPLIANCE_OPERATOR="berta")
    command(pair.production, "throttle", "--max-lag", "5", COMPLIANCE_OPERATOR="berta")
    command(pair.production, "throttle", "--max-lag", "6")

    assert isinstance(refused.exception, InvalidPayload)
    assert {one["performed_by"] for one in pair.production.entries(action="migration.emergency")} == {"cli:anna"}
    assert {one["by"] for one in pair.production.runner().history.events()} == {"cli:anna"}
    throttled = [one["performed_by"] for one in pair.production.entries(action="migration.throttled")]
    assert throttled == ["cli:berta", name_operator()]


@pytest.fixture
def sentry() -> Iterator[Receiver]:
    """Where the real SDK sends to; it is set up by what is tested."""
    with receiving() as receiver:
        yield receiver
        sentry_sdk.get_client().close()
        sentry_sdk.init()


def events_of(sentry: Receiver) -> list[dict[str, Any]]:
    """What was reported, once all of it has been sent."""
    sentry_sdk.flush(timeout=10)
    bodies = [gzip.decompress(one.body) for one in sentry.received]
    return [json.loads(body.split(b"\n")[2]) for body in bodies]


def test_an_emergency_by_hand_reaches_the_person_on_call(
    pair: Pair, command: Callable[..., Result], sentry: Receiver
) -> None:
    pair.staging.runner().up(ONE)
    pair.promote(pair.attest())
    dsn = sentry.url.replace("http://", "http://key@").replace("/hooks", "/1")
    promoted = command(pair.production, "up", "--to", ONE, "--emergency", REASON, SENTRY_DSN=dsn)
    assert (promoted.exit_code, events_of(sentry)) == (0, [])

    done = command(pair.production, "up", "--emergency", REASON, SENTRY_DSN=dsn)
    (event,) = events_of(sentry)

    assert done.exit_code == 0
    assert event["level"] == "error"
    assert event["environment"] == "live"
    assert event["tags"] == {"kind": "migration.emergency", "request_id": "cli"}
    (error,) = event["exception"]["values"]
    assert error["type"] == "PromotionRefused"
    assert error["value"].startswith(f"1 migrations ran that staging has not vouched for ({TWO}); see the entries")
    assert REASON not in json.dumps(event)


@pytest.mark.parametrize("operator", ["anna@example.org", "anna lee"])
def test_a_setting_that_could_be_more_than_a_login_is_refused(operator: str) -> None:
    with pytest.raises(ConfigurationError, match="COMPLIANCE_OPERATOR") as refused:
        load_settings({"MONGODB_DATABASE": "app", "COMPLIANCE_OPERATOR": operator})
    assert operator not in str(refused.value)


def test_a_record_is_signed_by_the_writer_of_staging(pair: Pair) -> None:
    participant = pair.staging.runner().databases.participant

    assert isinstance(participant, Writer)
    assert participant.key.verifier == pair.key.verifier


def test_the_package_alone_attests_verifies_and_promotes(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pair.staging.runner().up()
    for name, value in {**pair.staging.environ(pair.home), "COMPLIANCE_MIGRATIONS": str(pair.folder)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMPLIANCE_ENV", "staging")
    verified = main(["--verify"])
    attested = main(["--attest"])
    record = pair.home / "staging.note"
    record.write_text(capsys.readouterr().out)
    for name, value in pair.production.environ(pair.home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COMPLIANCE_ENV", "live")
    monkeypatch.setenv("COMPLIANCE_STAGING_KEYS", pair.key.verifier.vkey)
    monkeypatch.setenv("COMPLIANCE_STAGING_DATABASE", pair.staging.name)
    refused = main([])
    promoted = main(["--as", "anna", "--promote", str(record)])
    monkeypatch.setenv("COMPLIANCE_OPERATOR", "berta")
    done = main(["--as", "carl", "--to", ONE]), main([])

    assert (verified, attested, refused, promoted, done) == (0, 0, 3, 0, (0, 0))
    assert capsys.readouterr().out == "3 promoted\n2 applied\n1 applied\n"
    assert {one["performed_by"] for one in pair.production.entries(action="migration.promoted")} == {"cli:anna"}
    applied = {one["entity_id"]: one["performed_by"] for one in pair.production.entries(action="migration.applied")}
    assert applied == {"v000_pre_foundation": "cli:carl", ONE: "cli:carl", TWO: "cli:berta"}
    assert main(["--as", "anna@example.org"]) == 2
    assert "example" not in capsys.readouterr().err
