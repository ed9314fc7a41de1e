"""The commands, where the ids of people are personal: addresses by stdin, pseudonyms everywhere else."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deployment import Deployment, Stack, provision_database
from members import ANN, BOB, found_club, name_of
from pydantic import SecretStr
from system import BIN

OLD_KEY, KEY = f"k2025:{'a1' * 20}", f"k2026:{'b2' * 20}"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def club(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with ExitStack() as cleanup:
        empty = provision_database(stack, "t_club", cleanup)
        yield found_club(empty, tmp_path_factory.mktemp("club"), pseudonym_keys=SecretStr(f"{KEY} {OLD_KEY}"))


@pytest.fixture
def command(club: Deployment, tmp_path: Path) -> Command:
    """Run a command of the club; the variables of *environ* go before its own."""

    def run(*arguments: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        own = club.environ(tmp_path) | {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "COLUMNS": "300",
            "COMPLIANCE_DATA_MAP": str(club.settings.data_map),
            "COMPLIANCE_MIGRATIONS": str(club.settings.migrations),
            "COMPLIANCE_PSEUDONYM_KEYS": f"{KEY} {OLD_KEY}",
        }
        done = subprocess.run(
            [BIN / arguments[0], *arguments[1:]],
            env=own | environ,
            cwd=tmp_path,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.parametrize(("arguments", "given"), [((ANN,), ""), (("-",), f"{ANN}\n"), ((), ANN)])
def test_a_pseudonym_is_made_of_an_argument_or_of_stdin(
    club: Deployment, command: Command, arguments: tuple[str, ...], given: str
) -> None:
    done = command("compliance", "datamap", "pseudonym", *arguments, given=given)

    assert (done.returncode, done.stdout) == (0, f"{name_of(club, ANN)}\n")


def test_every_key_has_its_pseudonym(club: Deployment, command: Command) -> None:
    shown = command("compliance", "datamap", "pseudonym", "--all", "--json", given=ANN).stdout
    found = json.loads(shown)["pseudonyms"]

    assert [name.split(":")[1] for name in found] == ["k2026", "k2025"]
    assert found[0] == name_of(club, ANN)


def test_nothing_is_no_value(command: Command) -> None:
    done = command("compliance", "datamap", "pseudonym")

    assert (done.returncode, "no value was given" in done.stderr) == (2, True)


def test_an_address_where_a_pseudonym_belongs_is_refused_and_not_shown(command: Command) -> None:
    for arguments in (("erasure", "request", ANN), ("erasure", "hold", ANN, "--case", "C-1"), ("consent", "show", ANN)):
        done = command("compliance", *arguments)

        assert done.returncode == 2
        assert "compliance datamap pseudonym" in done.stderr
        assert ANN not in done.stdout + done.stderr


def test_a_hold_under_an_older_key_is_released_and_the_log_is_read_by_the_address(
    club: Deployment, command: Command
) -> None:
    pseudonyms = club.services().pseudonyms
    assert pseudonyms is not None
    new, old = pseudonyms.all_of(ANN)
    held = command("compliance", "erasure", "hold", old, "--case", "C-7")
    released = command("compliance", "erasure", "release", new, "--case", "C-7")
    shown = command("compliance", "audit", "show", "--person", "-", "--json", given=ANN)
    by_name = command("compliance", "audit", "show", "--entity", f"user:{old}", "--json")

    assert (held.returncode, released.returncode) == (0, 0), held.stderr + released.stderr
    assert [(entry["action"], entry["entity_id"]) for entry in json.loads(shown.stdout)] == [
        ("hold.placed", old), ("hold.released", new),
    ]  # fmt: skip
    assert [entry["action"] for entry in json.loads(by_name.stdout)] == ["hold.placed"]
    assert ANN not in shown.stdout


def test_consent_of_a_person_is_shown_by_pseudonym(club: Deployment, command: Command) -> None:
    values = {
        "event_id": "e-1",
        "subject_id": name_of(club, BOB),
        "type": "MARKETING",
        "granted": True,
        "occurred_at": "2026-05-01T12:00:00Z",
    }
    assert club.run("consent.update", values, "c-1").state == "done"
    shown = command("compliance", "consent", "show", name_of(club, BOB), "--json")
    nobody = command("compliance", "consent", "show", name_of(club, "nobody@example.org"), "--json")

    assert [item["type"] for item in json.loads(shown.stdout)["current"]] == ["MARKETING"]
    assert [item["_id"] for item in json.loads(shown.stdout)["events"]] == ["e-1"]
    assert json.loads(nobody.stdout) == {"current": [], "events": []}
    assert BOB not in shown.stdout + shown.stderr


def test_doctor_names_the_keys(command: Command) -> None:
    shown = command("compliance", "doctor", "--json").stdout
    says = {row["check"]: row["says"] for row in json.loads(shown)}

    assert says["pseudonym keys"] == "k2026, k2025"


@pytest.mark.parametrize(
    "arguments", [("compliance", "erasure", "list"), ("celery", "-A", "worker", "worker", "--concurrency=1")]
)
@pytest.mark.parametrize("keys", ["", "k2026:short"])
def test_without_a_usable_key_a_process_ends_with_one_sentence(
    command: Command, arguments: tuple[str, ...], keys: str
) -> None:
    done = command(*arguments, COMPLIANCE_PSEUDONYM_KEYS=keys)

    assert done.returncode == 78, done.stdout + done.stderr
    assert "COMPLIANCE_PSEUDONYM_KEYS" in done.stderr
    assert "short" not in done.stderr


def test_where_ids_are_opaque_there_is_no_pseudonym(command: Command) -> None:
    done = command("compliance", "datamap", "pseudonym", "x", COMPLIANCE_DATA_MAP="", COMPLIANCE_PSEUDONYM_KEYS="")

    assert (done.returncode, "is not personal: ids are sent as they are" in done.stderr) == (78, True)
