"""Where keys come from: those of the settings are enough, and no server is looked for that nobody needs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compliance.audit.keys import SigningKey
from compliance.errors import ConfigurationError
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.embedded import Endpoints
from worker.embedded.home import Secrets

LOG, WRITER = SigningKey.from_seed("log", b"l" * 32), SigningKey.from_seed("writer", b"w" * 32)
ELSEWHERE = "mongodb://nobody:x@127.0.0.1:1/?replicaSet=rs0"


@pytest.fixture
def stack() -> Endpoints:
    return Endpoints(mongod_ports=(1,), valkey_port=2, pids={}, secrets=Secrets.generate())


def addresses(home: Path, stack: Endpoints | None = None, **settings: Any) -> Addresses:
    return Addresses(Settings.model_validate({"COMPLIANCE_HOME": home, **settings}), stack)


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize(
    ("settings", "writers", "log_keys"),
    [
        ({"COMPLIANCE_LOG_VKEYS": LOG.verifier.vkey}, (), (LOG.verifier,)),
        ({"COMPLIANCE_WRITER_VKEYS": WRITER.verifier.vkey}, (WRITER.verifier,), ()),
        ({"COMPLIANCE_LOG_KEY": LOG.skey}, (), (LOG.verifier,)),
        ({"COMPLIANCE_WRITER_KEY": WRITER.skey}, (WRITER.verifier,), ()),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_keys_of_the_settings_are_enough_to_verify(
    tmp_path: Path, environment: str, settings: dict[str, str], writers: Any, log_keys: Any
) -> None:
    found = addresses(tmp_path, COMPLIANCE_ENV=environment, **settings).trust()

    assert (found.writers, found.log_keys) == (writers, log_keys)


def test_without_any_key_and_stack_nobody_can_be_believed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no embedded stack is running"):
        addresses(tmp_path).trust()


def test_where_mongodb_is_elsewhere_no_key_is_made_up(tmp_path: Path, stack: Endpoints) -> None:
    found = addresses(tmp_path, stack, MONGODB_URI=ELSEWHERE)

    assert (found.trust().writers, found.trust().log_keys) == ((), ())
    with pytest.raises(ConfigurationError, match="set COMPLIANCE_WRITER_KEY"):
        found.writer("test")


def test_a_key_of_the_settings_goes_before_that_of_the_stack(tmp_path: Path, stack: Endpoints) -> None:
    given = {"COMPLIANCE_WRITER_KEY": WRITER.skey, "COMPLIANCE_LOG_KEY": LOG.skey}
    found, held = addresses(tmp_path, stack, **given), addresses(tmp_path, stack)

    assert (found.writer("test").key, found.log_key()) == (WRITER, LOG)
    assert held.writer("test").key.verifier in held.trust().writers
    assert held.writer("test").key != WRITER


def test_a_migration_without_a_key_says_which_setting_is_missing(tmp_path: Path) -> None:
    environ = {"MONGODB_URI": ELSEWHERE, "PATH": os.defpath}
    done = subprocess.run(
        [sys.executable, "-m", "migrations"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("error: set COMPLIANCE_WRITER_KEY: ")


def test_the_keys_of_a_running_stack_count_beside_those_of_the_settings(tmp_path: Path, stack: Endpoints) -> None:
    plain = addresses(tmp_path, stack).trust()
    more = addresses(tmp_path, stack, COMPLIANCE_LOG_VKEYS=LOG.verifier.vkey).trust()

    assert (len(plain.writers), len(plain.log_keys)) == (1, 1)
    assert more.writers == plain.writers
    assert more.log_keys == (LOG.verifier, *plain.log_keys)
    assert addresses(tmp_path, stack).log_key().verifier in more.log_keys


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="COMPLIANCE_LOG_VKEYS"):
        addresses(tmp_path, COMPLIANCE_LOG_VKEYS="nonsense").trust()


@pytest.mark.parametrize(
    ("guard", "expected"),
    [("/guard/seal-guard.json", "/guard/seal-guard.watch.json"), ("/guard/seal", "/guard/seal.watch.json")],
)
def test_how_far_the_watcher_looked_is_kept_beside_the_guard(tmp_path: Path, guard: str, expected: str) -> None:
    assert addresses(tmp_path, COMPLIANCE_SEAL_GUARD=guard).watch_places() == Path(expected)
    assert addresses(tmp_path).watch_places() == tmp_path / "seal-guard.watch.json"
