"""`compliance migrate lint`: what it prints, what it exits with, and what it asks git."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from quiet import quiet
from typer.testing import CliRunner

from compliance.errors import ComplianceError, ConfigurationError, InvalidPayload, UnknownName
from compliance.settings import load_settings
from migrations.governance import RULES
from migrations.governance.sample import data
from migrations.linting import changed_since, parse_off
from worker.cli import build_cli

FILL = data('ctx.backfill("albums", where={"a": None}, update={"$set": {"a": 1}})', number=1)
PRINTING = data("print(1)\nctx.report('x')  # allow: MX012 this one is not needed", number=2)
ALLOWED = data("print(1)  # allow: MX016 the worker shows it\nctx.report('x')", number=3)


class Lint:
    """The command in this process, over a folder of its own; no server is there."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self._environ = {"COMPLIANCE_MIGRATIONS": str(folder), **environ}

    def add(self, *samples: Any) -> None:
        for sample in samples:
            (self.folder / sample.file).write_text(sample.source)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        settings = load_settings(self._environ)
        runtime = quiet(settings)
        done = CliRunner().invoke(build_cli(), ["migrate", "lint", *arguments], obj=runtime, env={"COLUMNS": "200"})
        if isinstance(done.exception, ComplianceError):
            raise done.exception
        return done.exit_code, done.stdout


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "__init__.py").write_text("print(1)\n")
    return Lint(folder)


def test_a_clean_folder_is_done(lint: Lint) -> None:
    lint.add(FILL)

    assert lint() == (0, "no findings, none allowed, in 1 scripts\n")


def test_findings_are_printed_with_place_and_fix_and_exit_3(lint: Lint) -> None:
    lint.add(FILL, PRINTING, ALLOWED)

    code, out = lint()

    assert code == 3
    assert out.splitlines() == [
        f"{PRINTING.file}:7: error MX016: print() has no terminal in a worker; instead:",
        '    ctx.report("what happens")',
        f"{ALLOWED.file}:7: allowed MX016: the worker shows it",
        "1 findings, 1 allowed, in 3 scripts",
    ]


def test_what_is_allowed_is_no_finding(lint: Lint) -> None:
    lint.add(ALLOWED)

    code, out = lint("--json")

    assert code == 0
    told = json.loads(out)
    assert (told["scripts"], told["findings"]) == (1, [])
    assert [(one["rule"], one["line"], one["allowed"]) for one in told["allowed"]] == [
        ("MX016", 7, "the worker shows it")
    ]


def test_json_names_rule_place_and_fix(lint: Lint) -> None:
    lint.add(PRINTING)

    code, out = lint("--json")

    assert code == 3
    assert json.loads(out)["findings"] == [
        {
            "rule": "MX016",
            "severity": "error",
            "file": PRINTING.file,
            "line": 7,
            "why": "print() has no terminal in a worker",
            "fix": 'ctx.report("what happens")',
            "allowed": None,
        }
    ]


@pytest.mark.parametrize("content", [b"def up(:\n", b"x = '\xff'\n"])
def test_a_file_that_cannot_be_read_is_a_finding_and_no_traceback(lint: Lint, content: bytes) -> None:
    (lint.folder / "v001_pre_a.py").write_bytes(content)

    code, out = lint()

    assert (code, out.count("MX001")) == (3, 1)


def test_a_file_of_another_name_is_not_skipped(lint: Lint) -> None:
    (lint.folder / "helpers.py").write_text(FILL.source)

    code, out = lint()

    assert code == 3
    assert "helpers.py:1: error MX002" in out
    assert "git mv helpers.py v001_data_helpers.py" in out


def test_a_missing_folder_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere does not exist; set COMPLIANCE_MIGRATIONS"):
        Lint(tmp_path / "nowhere")()


def test_rules_can_be_switched_off_by_a_setting(lint: Lint) -> None:
    lint.add(PRINTING)

    assert Lint(lint.folder, COMPLIANCE_LINT_OFF="MX016, MX005")()[0] == 0
    with pytest.raises(ConfigurationError, match="COMPLIANCE_LINT_OFF: MX16, print: no rules of migrations"):
        Lint(lint.folder, COMPLIANCE_LINT_OFF="MX005 print MX16")()


def test_codes_that_are_off_are_read_with_commas_or_without() -> None:
    assert parse_off("MX001 MX002") == parse_off(" MX001,MX002 ") == {"MX001", "MX002"}
    assert parse_off("") == frozenset()


def test_one_rule_is_explained_by_both_examples(lint: Lint) -> None:
    code, out = lint("--rule", "mx040")

    assert code == 0
    assert RULES["MX040"].reason in out
    assert RULES["MX040"].bad.source in out
    assert RULES["MX040"].good.source in out
    with pytest.raises(UnknownName, match="MX040"):
        lint("--rule", "MX999")


def test_the_rules_are_listed(lint: Lint) -> None:
    assert [one["rule"] for one in json.loads(lint("--rules", "--json")[1])] == list(RULES)
    assert lint("--rules")[1].count("MX") == len(RULES)


# SARIF: the properties that its schema requires, and the values that it allows.

REQUIRED = {
    "log": {"version", "runs"},
    "run": {"tool"},
    "driver": {"name"},
    "rule": {"id"},
    "result": {"message"},
    "region": {"startLine"},
    "suppression": {"kind"},
}
LEVELS = {"none", "note", "warning", "error"}


def test_sarif_has_what_its_schema_requires(lint: Lint, tmp_path: Path) -> None:
    lint.add(FILL, PRINTING, ALLOWED)
    path = tmp_path / "lint.sarif"

    code, _ = lint("--sarif", str(path))

    assert code == 3
    log = json.loads(path.read_text())
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert REQUIRED["log"] <= log.keys()
    assert (log["version"], log["$schema"].rpartition("/")[2]) == ("2.1.0", "sarif-schema-2.1.0.json")
    assert REQUIRED["run"] <= run.keys()
    assert REQUIRED["driver"] <= driver.keys()
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    assert all(rule["defaultConfiguration"]["level"] in LEVELS for rule in driver["rules"])
    assert all(
        rule[name]["text"] for rule in driver["rules"] for name in ("shortDescription", "fullDescription", "help")
    )
    for result in run["results"]:
        assert REQUIRED["result"] <= result.keys()
        assert result["message"]["text"]
        assert result["level"] in LEVELS
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert REQUIRED["region"] <= place["region"].keys()
        assert place["region"]["startLine"] >= 1
    first, second = run["results"]
    assert (first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]) == f"scripts/{PRINTING.file}"
    assert "suppressions" not in first
    assert second["suppressions"] == [{"kind": "inSource", "justification": "the worker shows it"}]


def test_sarif_names_files_from_the_working_directory(
    lint: Lint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    lint.add(PRINTING)

    lint("--sarif", str(tmp_path / "lint.sarif"))

    (result,) = json.loads((tmp_path / "lint.sarif").read_text())["runs"][0]["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert (tmp_path.parent / uri) == lint.folder / PRINTING.file


def test_a_file_that_cannot_be_written_is_told(lint: Lint, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--sarif: the file cannot be written"):
        lint("--sarif", str(tmp_path / "no" / "lint.sarif"))


# git


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(lint: Lint, tmp_path: Path) -> Lint:
    lint.add(FILL, PRINTING)
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    git(tmp_path, "tag", "v1")
    return lint


def test_only_what_changed_since_is_looked_at(repository: Lint) -> None:
    assert repository("--since", "v1") == (0, "no findings, none allowed, in 0 scripts\n")

    new = data("print(2)", number=4)
    committed = data("print(3)", number=5)
    repository.add(committed)
    git(repository.folder, "add", ".")
    git(repository.folder, "commit", "-qm", "second")
    repository.add(new)
    (repository.folder / FILL.file).write_text(FILL.source + "print(4)\n")

    assert changed_since(repository.folder, "v1") == {new.file, committed.file, FILL.file}
    code, out = repository("--since", "v1")
    assert code == 3
    assert PRINTING.file not in out
    assert out.endswith("in 3 scripts\n")
    assert changed_since(repository.folder, "HEAD") == {new.file, FILL.file}


def test_a_script_that_is_looked_at_is_seen_with_those_before_it(repository: Lint) -> None:
    other = data("ctx.report('x')", number=1)
    (repository.folder / "v001_data_other.py").write_text(other.source)

    assert "MX022" in repository("--since", "v1")[1]


@pytest.mark.parametrize("revision", ["no-such", "--output=x", "", "v1 v1", "HEAD:scripts"])
def test_a_revision_that_git_does_not_know_is_refused(repository: Lint, revision: str) -> None:
    with pytest.raises(InvalidPayload, match="git knows no such revision"):
        repository("--since", revision)

    assert not list(repository.folder.parent.glob("x"))


def test_a_folder_without_repository_is_told(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(lint.folder.parent))

    with pytest.raises(ConfigurationError, match="scripts is in no git repository"):
        lint("--since", "HEAD")


def test_a_machine_without_git_is_told(lint: Lint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(lint.folder))

    with pytest.raises(ConfigurationError, match="--since needs git"):
        lint("--since", "HEAD")
