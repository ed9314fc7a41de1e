"""The command ``python -m migrations``: for places that have the package but not the ``compliance`` command."""

import argparse
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from compliance.audit.keys import SigningKey
from compliance.audit.log import AuditLog
from compliance.audit.own import build_writer
from compliance.audit.trust import parse_keys
from compliance.clock import SystemClock
from compliance.datamap.model import DataMap, load_data_map
from compliance.datamap.pseudonym import Pseudonyms, parse_pseudonym_keys
from compliance.errors import ComplianceError, ConfigurationError, ExitCode
from compliance.mongo import Databases, open_client
from compliance.operators import name_operator
from compliance.roles import Role
from compliance.settings import MIGRATIONS, Settings, load_settings
from compliance.statefile import read_file
from migrations.admission import Admission
from migrations.context import Report
from migrations.discovery import discover
from migrations.linting import parse_off
from migrations.preview import lines
from migrations.progress import Follow
from migrations.promotion import WAIVED, Gate, attest, promote
from migrations.revision import Revision
from migrations.runner import Runner
from migrations.standing import standings
from migrations.sums import check_sum
from migrations.wish import Wish

PRODUCTION = "production"
PROCESS = "compliance-migrations"
FOUNDATION = MIGRATIONS / "v000_pre_foundation.py"
UNSUMMED = "warning: the migrations folder has no migrations.sum; write it with `compliance migrate sum` and commit it"


def build_runner(
    settings: Settings,
    databases: Databases,
    *,
    actor: str,
    report: Report,
    follow: Follow | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> Runner:
    """Return a runner over the folder and the data map of *settings*; without *pseudonyms* it takes their keys.

    Raises:
        FolderDiffers: When the folder is not what its ``migrations.sum`` says; without the file a line says so.
    """
    data_map = load_data_map(settings.data_map)
    revisions = discover(settings.migrations, foundation=FOUNDATION)
    if not check_sum(settings.migrations, revisions):
        report(UNSUMMED)
    return Runner(
        databases=databases,
        revisions=revisions,
        grants=data_map.grants(),
        clock=SystemClock(),
        actor=actor,
        report=report,
        follow=follow,
        batch_docs=settings.batch_docs,
        lease=settings.lease,
        admission=Admission(
            is_strict=settings.environment == PRODUCTION, data_map=data_map, off=parse_off(settings.lint_off)
        ),
        gate=build_gate(settings),
        pseudonyms=pseudonyms or find_pseudonyms(settings, data_map),
    )


def find_pseudonyms(settings: Settings, data_map: DataMap) -> Pseudonyms | None:
    """Return how erased people are named, None where their ids stand as they are, or no key is set.

    Raises:
        ConfigurationError: When a key cannot be read.
    """
    given = settings.pseudonym_keys
    if not data_map.root_key.personal or given is None:
        return None
    return Pseudonyms(data_map.subject.collection, parse_pseudonym_keys(given.get_secret_value()))


def build_gate(settings: Settings) -> Gate:
    """Return which records of staging count where *settings* hold.

    Raises:
        ConfigurationError: When a key cannot be read.
    """
    is_waived = settings.staging_keys.strip() == WAIVED
    return Gate(
        keys=() if is_waived else parse_keys(settings.staging_keys, what="COMPLIANCE_STAGING_KEYS"),
        database=settings.staging_database or settings.mongodb_database,
        environment=settings.environment,
        longest=timedelta(days=settings.attestation_days),
        is_required=settings.environment == PRODUCTION,
        is_waived=is_waived,
    )


def main(arguments: Sequence[str]) -> int:
    """Apply what is pending, or go down to a target; return the exit code."""
    options = _parse(arguments)
    try:
        settings = load_settings(os.environ, profile=options.env)  # noqa: TID251 - a composition root
        uri = settings.uri_for(Role.MIGRATOR)
        if uri is None:
            raise ConfigurationError(
                "set COMPLIANCE_MIGRATOR_URI to a connection string of the migrator (or MONGODB_URI)"
            )
        writer = build_writer(settings, process=PROCESS)
        with open_client(uri.get_secret_value(), app_name=PROCESS) as client:
            databases = Databases(client, settings.mongodb_database, writer)
            runner = build_runner(
                settings, databases, actor=name_operator(options.operator or settings.operator), report=_report
            )
            if options.attest:
                return _attest(runner, writer.key, settings.environment)
            return _look(options, runner) if _only_looks(options) else _migrate(options, runner)
    except ComplianceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return int(error.exit_code)


def _only_looks(options: Namespace) -> bool:
    return bool(options.list or options.check or options.verify)


def _look(options: Namespace, runner: Runner) -> int:
    """Print what was asked for; return the exit code."""
    if options.verify:
        return _verify(runner)
    is_pending = _list(runner, shows=options.list)
    return int(ExitCode.NOT_AS_IT_SHOULD_BE if options.check and is_pending else ExitCode.OK)


def _migrate(options: Namespace, runner: Runner) -> int:
    """Do what was asked for; return the exit code."""
    if options.promote:
        return _promote(runner, options.promote)
    wish = Wish(target=options.to, only=options.only, allow_late=tuple(options.allow_late), emergency=options.emergency)
    if options.dry_run:
        done = _preview(options, runner, wish)
    elif options.down:
        done = runner.down(options.to, drop_data=options.drop_data)
    else:
        done = runner.up(wish=wish)
    verb = "to run" if options.dry_run else "reverted" if options.down else "applied"
    print(f"{len(done)} {verb}" if done else "nothing to do")  # noqa: T201 - the command's answer
    aside = 0 if options.down or options.dry_run else runner.count_set_aside(done)
    return int(ExitCode.PARTIAL if aside else ExitCode.OK)


def _list(runner: Runner, *, shows: bool) -> bool:
    """Print the migrations if *shows*; return whether any is pending."""
    if shows:
        for standing in standings(runner.scripts()):
            print(f"{standing.revision.name}  {standing.state}")  # noqa: T201 - the command's answer
    return bool(runner.pending())


def _verify(runner: Runner) -> int:
    """Print what is not as the applied migrations say; return the exit code."""
    problems = runner.verify()
    for problem in problems:
        print(problem)  # noqa: T201 - the command's answer
    return int(ExitCode.NOT_AS_IT_SHOULD_BE if problems else ExitCode.OK)


def _attest(runner: Runner, key: SigningKey, environment: str) -> int:
    """Print a record of what is applied here; return the exit code."""
    made, note = attest(
        runner.databases, runner.verify(), key=key, environment=environment, by=runner.actor, clock=runner.clock
    )
    print(note.decode(), end="")  # noqa: T201 - the command's answer
    _report(f"signed by {key.verifier.vkey}")
    return int(ExitCode.NOT_AS_IT_SHOULD_BE if any(script.problems for script in made.scripts) else ExitCode.OK)


def _promote(runner: Runner, path: Path) -> int:
    """Take the record of *path*; return the exit code."""
    log = AuditLog(runner.databases)
    promoted = promote(runner.databases, log, read_file(path), gate=runner.gate, by=runner.actor, clock=runner.clock)
    for name, why in promoted.refused.items():
        _report(f"{name} {why}")
    print(f"{len(promoted.new)} promoted")  # noqa: T201 - the command's answer
    return int(ExitCode.NOT_AS_IT_SHOULD_BE if promoted.refused else ExitCode.OK)


def _preview(options: Namespace, runner: Runner, wish: Wish) -> tuple[Revision, ...]:
    """Print what a run would do, and return which scripts."""
    found = runner.preview_down(options.to, drop_data=options.drop_data) if options.down else runner.preview(wish)
    for line in lines(found):
        print(line)  # noqa: T201 - the command's answer
    return found.revisions


def _report(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201 - lines for people


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.down and not options.to:
        parser.error("--down needs --to TARGET, or --to zero")
    if options.only and (options.to or options.down):
        parser.error("--only goes without --to and --down")
    if options.emergency is not None and options.down:
        parser.error("--emergency goes without --down")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m migrations",
        description="Apply pending migrations.",
        epilog="example: python -m migrations --env=production --dry-run",
        allow_abbrev=False,
    )
    parser.add_argument("--env", metavar="NAME", help="read NAME.env over the environment")
    parser.add_argument(
        "--as", dest="operator", metavar="NAME", help="who gives the command, for the audit log; else the login"
    )
    parser.add_argument("--to", metavar="TARGET", help="stop at this migration: 004, 004_pre or a full name")
    parser.add_argument("--only", metavar="NAME", help="apply this migration alone")
    parser.add_argument(
        "--allow-late",
        metavar="NAME",
        action="append",
        default=[],
        help="let this one run after one that depends on it",
    )
    parser.add_argument("--list", action="store_true", help="list every migration with its state, apply nothing")
    parser.add_argument("--check", action="store_true", help="exit 3 when migrations are pending, apply nothing")
    parser.add_argument(
        "--verify", action="store_true", help="exit 3 when the database is not what the applied ones say, apply nothing"
    )
    parser.add_argument("--attest", action="store_true", help="print a signed record of what is applied and verified")
    parser.add_argument("--promote", metavar="FILE", type=Path, help="let what a record of staging names run here")
    parser.add_argument("--emergency", metavar="REASON", help="run what is not promoted, too; audited")
    parser.add_argument("--down", action="store_true", help="undo down to --to TARGET (or 'zero') instead")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, write nothing")
    parser.add_argument("--drop-data", action="store_true", help="with --down: drop collections that hold documents")
    return parser
