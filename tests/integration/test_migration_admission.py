"""In production the rules keep a script out before anything is written; what comments allow is recorded."""

from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment
from migrated import hashes, names, snapshot

from compliance.errors import ExitCode, GovernanceViolation
from migrations.context import Report
from migrations.governance.sample import Sample, data, pre
from migrations.migrate import build_runner
from migrations.runner import Runner

CREATE = pre(
    'ctx.create_collection("albums", schema={"bsonType": "object"})', 'ctx.drop_collection("albums")', number=1
)
FILL = 'ctx.backfill("albums", where={"a": None}, update={"$set": {"a": 1}})\nprint("done")'
PRINTING = data(FILL, number=2)
ALLOWED = data(f"{FILL}  # allow: MX016 the worker shows it\n# allow: MX012 not needed but said\n", number=2)


def runner_of(
    deployment: Deployment, folder: Path, *samples: Sample, report: Report = lambda _: None, **changes: Any
) -> Runner:
    """The runner of an environment; its database is the embedded one, which production itself refuses."""
    folder.mkdir(exist_ok=True)
    for sample in samples:
        (folder / sample.file).write_text(sample.source)
    settings = deployment.settings.model_copy(update={"migrations": folder, "staging_keys": "none", **changes})
    return build_runner(settings, deployment.runner().databases, actor="test", report=report)


def test_production_refuses_before_anything_is_written(empty: Deployment, tmp_path: Path) -> None:
    production = runner_of(empty, tmp_path / "s", CREATE, PRINTING, environment="production")
    before = hashes(empty.admin)

    for dry_run in (False, True):
        with pytest.raises(
            GovernanceViolation, match=rf"refuse {PRINTING.file}:\d+ MX016 print.*migrate lint"
        ) as refused:
            production.up(dry_run=dry_run)

    assert refused.value.exit_code == ExitCode.NOT_AS_IT_SHOULD_BE
    assert hashes(empty.admin) == before


def test_elsewhere_it_is_told_and_applied(empty: Deployment, tmp_path: Path) -> None:
    lines: list[str] = []
    staging = runner_of(empty, tmp_path / "s", CREATE, PRINTING, environment="staging", report=lines.append)

    staging.up()

    (told,) = [line for line in lines if "MX016" in line]
    assert told.startswith(f"the rules of migrations warn of {PRINTING.file}:")
    assert "albums" in snapshot(empty.admin.app)
    assert empty.entries(action="migration.lint_allowed") == []


def test_what_is_allowed_runs_in_production_and_is_recorded(empty: Deployment, tmp_path: Path) -> None:
    production = runner_of(empty, tmp_path / "s", CREATE, ALLOWED, environment="production")

    assert names(production.up())[-1] == "v002_data_example"

    (entry,) = empty.entries(action="migration.lint_allowed")
    assert entry["entity_id"] == "v002_data_example"
    assert entry["details"]["rules"] == {"MX012": 1, "MX016": 1}
    assert entry["details"]["reasons"] == ["MX016 the worker shows it", "MX012 not needed but said"]
    (started,) = empty.entries(action="migration.started", entity_id="v002_data_example")
    assert entry["details"]["checksum"] == started["details"]["checksum"]

    production.down("001")

    assert len(empty.entries(action="migration.lint_allowed")) == 1


def test_a_rule_that_is_off_refuses_nothing(empty: Deployment, tmp_path: Path) -> None:
    off = runner_of(empty, tmp_path / "s", CREATE, PRINTING, environment="production", lint_off="MX016")

    assert names(off.up())[-1] == "v002_data_example"


def test_what_is_applied_is_not_looked_at_again(empty: Deployment, tmp_path: Path) -> None:
    runner_of(empty, tmp_path / "s", CREATE, PRINTING).up()
    later = data(FILL.partition("\n")[0], number=3)
    production = runner_of(empty, tmp_path / "s", later, environment="production")

    assert names(production.up()) == ["v003_data_example"]
    assert production.up() == ()


def test_the_data_map_is_asked(empty: Deployment, tmp_path: Path) -> None:
    personal = pre(
        'ctx.create_collection("letters", schema={"properties": {"phone": {"bsonType": "string"}}})',
        'ctx.drop_collection("letters")',
    )

    with pytest.raises(GovernanceViolation, match=r"MX080 the data map does not cover letters\.phone"):
        runner_of(empty, tmp_path / "s", personal, environment="production").up()
