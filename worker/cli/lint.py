"""``compliance migrate lint``: look at migration scripts by the rules of governance."""

import json as standard_json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from compliance.datamap.model import load_data_map
from compliance.errors import ComplianceError, ConfigurationError, ExitCode, MigrationError
from compliance.roles import Role
from migrations.admission import EVERYTHING
from migrations.discovery import discover
from migrations.engine import unsaid
from migrations.governance import RULES, Violation
from migrations.governance import lint as look
from migrations.governance.catalogue import Sighting
from migrations.governance.document import explain
from migrations.governance.sarif import to_sarif
from migrations.linting import changed_since, parse_off, read_catalogue, read_folder, sightings
from migrations.migrate import UNSUMMED, build_runner
from migrations.promotion import ANYTHING
from migrations.sums import check_sum
from worker.cli.runtime import EnvOption, JsonOption, runtime, show_json, show_table
from worker.services import Services


def lint(
    ctx: typer.Context,
    rule: Annotated[str | None, typer.Option("--rule", metavar="CODE", help="Explain one rule, by example.")] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="REV", help="Only scripts that git says changed since REV.")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Compare with the live database, too.")] = False,
    sarif: Annotated[
        Path | None, typer.Option("--sarif", metavar="FILE", help="Write the findings to FILE as SARIF 2.1.0.")
    ] = None,
    env: EnvOption = None,
    json: JsonOption = False,
) -> None:
    """Look at migration scripts by the rules; exit 3 when there are findings."""
    if rule is not None:
        sys.stdout.write(explain(RULES[rule.upper()]))
        return
    if rules:
        _list_rules(as_json=json)
        return
    settings = runtime(ctx).load(env)
    scripts = read_folder(settings.migrations)
    _compare_with_sum(settings.migrations)
    files = None if since is None else changed_since(settings.migrations, since)
    catalogue = None
    if live:
        with runtime(ctx).services(Role.MIGRATOR, profile=env) as services:
            catalogue = read_catalogue(services.databases.app, steps=_dry_run(services))
    found = look(
        scripts,
        data_map=load_data_map(settings.data_map),
        catalogue=catalogue,
        off=parse_off(settings.lint_off),
        files=files,
    )
    if sarif is not None:
        _write_sarif(sarif, found, settings.migrations)
    count = sum(files is None or script.file in files for script in scripts)
    _show(found, count, as_json=json)


def _dry_run(services: Services) -> Mapping[str, Sequence[Sighting]]:
    """Return what a dry run of what is pending sees, by file; nothing where it ends early, which is said."""
    try:
        runner = build_runner(services.settings, services.databases, actor="cli", report=unsaid)
        lenient = replace(runner, admission=EVERYTHING, gate=ANYTHING)  # the rules are asked here
        return sightings(lenient.preview())
    except ComplianceError as error:
        sys.stderr.write(f"the dry run ends early, and no rule is asked about it: {error}\n")
        return {}


def _compare_with_sum(folder: Path) -> None:
    try:
        revisions = discover(folder)
    except MigrationError:
        return  # what is wrong with a script is for the rules to say
    if not check_sum(folder, revisions):
        sys.stderr.write(f"{UNSUMMED}\n")


def _list_rules(*, as_json: bool) -> None:
    if as_json:
        show_json(
            [
                {"rule": rule.code, "severity": rule.severity.value, "title": rule.title, "reason": rule.reason}
                for rule in RULES.values()
            ]
        )
    else:
        show_table(
            ("rule", "", "finds"), [(one.code, one.severity.value, one.title) for one in RULES.values()], empty=""
        )


def _write_sarif(path: Path, found: Sequence[Violation], folder: Path) -> None:
    here = Path.cwd()
    base = folder.resolve().relative_to(here) if folder.resolve().is_relative_to(here) else Path(folder.name)
    log = to_sarif(found, place=lambda file: (base / file).as_posix())
    try:
        path.write_text(standard_json.dumps(log, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--sarif: the file cannot be written ({type(error).__name__})") from None


def _show(found: Sequence[Violation], scripts: int, *, as_json: bool) -> None:
    open_, allowed = ([one for one in found if (one.allowed is not None) is is_] for is_ in (False, True))
    if as_json:
        show_json({"scripts": scripts, "findings": [*map(_describe, open_)], "allowed": [*map(_describe, allowed)]})
    else:
        for one in open_:
            fix = "".join(f"    {line}\n" for line in one.fix.splitlines())
            sys.stdout.write(f"{one.file}:{one.line}: {one.severity} {one.rule}: {one.why}; instead:\n{fix}")
        for one in allowed:
            sys.stdout.write(f"{one.file}:{one.line}: allowed {one.rule}: {one.allowed}\n")
        sys.stdout.write(f"{len(open_) or 'no'} findings, {len(allowed) or 'none'} allowed, in {scripts} scripts\n")
    if open_:
        raise typer.Exit(int(ExitCode.NOT_AS_IT_SHOULD_BE))


def _describe(one: Violation) -> dict[str, str | int | None]:
    return {
        "rule": one.rule,
        "severity": one.severity.value,
        "file": one.file,
        "line": one.line,
        "why": one.why,
        "fix": one.fix,
        "allowed": one.allowed,
    }
