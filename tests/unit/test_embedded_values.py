"""What a stack says about itself, decided without a server."""

from itertools import pairwise
from pathlib import Path

import pytest

from compliance.errors import ConfigurationError
from worker.embedded import Endpoints, find_stack, open_stack
from worker.embedded.home import Secrets, State
from worker.embedded.mongod import mongod_spec
from worker.embedded.process import summarise
from worker.embedded.valkey import configuration, valkey_spec

SECRETS = Secrets(passwords={"admin": "p@ss/word", "compliance_worker": "w"}, redis="r", key_file="k")
ENDPOINTS = Endpoints(mongod_ports=(20001, 20002), valkey_port=20003, pids={"valkey": 7}, secrets=SECRETS)


def test_the_connection_string_names_every_node_and_quotes_the_password() -> None:
    assert ENDPOINTS.mongodb_uri("admin", auth_source="admin") == (
        "mongodb://admin:p%40ss%2Fword@127.0.0.1:20001,127.0.0.1:20002/?replicaSet=rs0&authSource=admin"
    )


def test_the_broker_url_has_the_password() -> None:
    assert ENDPOINTS.redis_url == "redis://:r@127.0.0.1:20003/0"


def test_endpoints_show_no_secret() -> None:
    shown = repr(ENDPOINTS)

    assert shown == "Endpoints(mongod_ports=(20001, 20002), valkey_port=20003, pids={'valkey': 7})"


def test_an_unknown_user_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="known: admin, compliance_worker"):
        ENDPOINTS.mongodb_uri("nobody", auth_source="admin")


def test_in_production_nothing_starts_and_the_error_says_what_to_set(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match="set MONGODB_URI and REDIS_URL"),
        open_stack(tmp_path / "home", environment="production"),
    ):
        pass
    assert not (tmp_path / "home").exists()


def test_no_stack_is_found_where_none_ever_ran(tmp_path: Path) -> None:
    assert find_stack(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_no_stack_is_found_where_its_supervisor_died(tmp_path: Path) -> None:
    State(mongod_ports=(1,), valkey_port=2, is_open=True).save(tmp_path)
    (tmp_path / "lock").write_text("1\n")

    assert find_stack(tmp_path) is None


def test_mongod_listens_on_loopback_with_authentication_and_without_compression(tmp_path: Path) -> None:
    command = mongod_spec(Path("mongod"), tmp_path, port=20001, key_file=tmp_path / "key", test_commands=False).command
    options = dict(pairwise(command))

    assert options["--bind_ip"] == "127.0.0.1"
    assert options["--keyFile"] == str(tmp_path / "key")
    assert options["--networkMessageCompressors"] == "disabled"
    assert "enableTestCommands=1" not in command


def test_fail_points_are_there_only_when_asked_for(tmp_path: Path) -> None:
    command = mongod_spec(Path("mongod"), tmp_path, port=20001, key_file=tmp_path / "key", test_commands=True).command

    assert "enableTestCommands=1" in command


def test_valkey_keeps_every_message_and_wants_a_password(tmp_path: Path) -> None:
    lines = configuration(tmp_path, port=20003, password="secret").splitlines()

    assert {"appendonly yes", "maxmemory-policy noeviction", "bind 127.0.0.1", "requirepass secret"} <= set(lines)


def test_the_password_of_valkey_is_not_on_its_command_line(tmp_path: Path) -> None:
    spec = valkey_spec(Path("valkey-server"), tmp_path, port=20003, password="secret")

    assert "secret" not in " ".join(spec.command)
    assert (tmp_path / "valkey.conf").stat().st_mode & 0o777 == 0o600


def test_a_directory_with_spaces_and_quotes_is_quoted() -> None:
    assert 'dir "/a b/\\"c\\""' in configuration(Path('/a b/"c"'), port=1, password="p")


def test_the_lines_that_tell_why_go_before_the_last_ones() -> None:
    log = "one\nERROR broken\n\nthree\nfour\nfive\n"

    assert summarise(log, is_telling=lambda line: "ERROR" in line) == "ERROR broken"


def test_without_a_telling_line_the_last_ones_are_quoted() -> None:
    assert summarise("one\ntwo\nthree\nfour\n", is_telling=lambda _: False) == "two | three | four"


def test_an_empty_log_is_said_to_be_empty() -> None:
    assert summarise("", is_telling=bool) == "(nothing)"
