"""The embedded stack with real servers: closed to strangers, safe against every crash, gone afterwards."""

import json
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure
from redis import Redis
from redis.exceptions import AuthenticationError

from compliance.errors import ConfigurationError, LockHeld, StoreUnavailable
from compliance.mongo import open_client
from tests.waiting import wait_until
from worker.embedded import Endpoints, Stack, find_stack, mongod, open_stack, stack
from worker.embedded.orphan import is_server
from worker.embedded.ports import keep_or_move, pick_port

SUPERVISOR = """
import json, sys
from pathlib import Path
from worker.embedded import open_stack
with open_stack(Path(sys.argv[1])) as stack:
    print(json.dumps({"pids": dict(stack.endpoints.pids), "ports": stack.endpoints.mongod_ports}), flush=True)
    sys.stdin.read()
"""
FINDER = """
import sys
from pathlib import Path
from worker.embedded import find_stack
print(find_stack(Path(sys.argv[1])))
"""


class Stranger(socketserver.TCPServer):
    allow_reuse_address = True


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with open_stack(tmp_path_factory.mktemp("shared") / "home", test_commands=True) as opened:
        yield opened


@contextmanager
def supervisor(home: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-c", SUPERVISOR, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def stranger_on(port: int) -> Iterator[int]:
    """Listen on *port* (0: any), hang up on everybody, and yield the port."""
    with Stranger(("127.0.0.1", port), socketserver.BaseRequestHandler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield listener.server_address[1]
        listener.shutdown()
        thread.join()


def alive(home: Path, pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if is_server(pid, directory=home / name)]


def write(endpoints: Endpoints, value: str) -> None:
    with open_client(endpoints.mongodb_uri("admin", auth_source="admin"), app_name="test") as client:
        client.kept.things.insert_one({"_id": value})
    with Redis.from_url(endpoints.redis_url) as broker:
        broker.rpush("things", value)


def read(endpoints: Endpoints) -> tuple[list[str], list[str]]:
    with open_client(endpoints.mongodb_uri("admin", auth_source="admin"), app_name="test") as client:
        stored = [thing["_id"] for thing in client.kept.things.find({}, {"_id": 1}).sort("_id")]
    with Redis.from_url(endpoints.redis_url, decode_responses=True) as broker:
        return stored, list(broker.lrange("things", 0, -1))


def test_mongod_refuses_who_does_not_authenticate(shared: Stack) -> None:
    uri = f"mongodb://127.0.0.1:{shared.endpoints.mongod_ports[0]}/"

    with (
        open_client(uri, app_name="test", direct=True) as client,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        client.kept.things.insert_one({})


def test_valkey_refuses_who_does_not_authenticate(shared: Stack) -> None:
    with Redis(port=shared.endpoints.valkey_port) as broker, pytest.raises(AuthenticationError):
        broker.ping()


def test_the_localhost_exception_is_closed(shared: Stack) -> None:
    uri = f"mongodb://127.0.0.1:{shared.endpoints.mongod_ports[0]}/"

    with open_client(uri, app_name="test", direct=True) as client, pytest.raises(OperationFailure) as caught:
        client.admin.command("createUser", "intruder", pwd="x", roles=["root"])
    assert caught.value.code == 13


def test_a_fail_point_can_be_set_where_tests_asked_for_it(shared: Stack) -> None:
    with open_client(shared.endpoints.mongodb_uri("admin", auth_source="admin"), app_name="test") as client:
        answer = client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})

    assert answer["ok"] == 1


def test_transactions_and_change_streams_work(shared: Stack) -> None:
    with open_client(shared.endpoints.mongodb_uri("admin", auth_source="admin"), app_name="test") as client:
        things = client.streamed.things
        with things.watch() as stream, client.start_session() as session:
            session.with_transaction(lambda own: things.insert_one({"_id": "x"}, session=own))
            change = stream.next()

    assert change["documentKey"] == {"_id": "x"}


def test_a_second_stack_in_the_same_home_is_refused_with_the_holder(shared: Stack) -> None:
    with pytest.raises(LockHeld, match=r"process \d+ already runs a stack"), open_stack(shared.home):
        pass
    assert find_stack(shared.home) == shared.endpoints


def test_another_process_finds_the_stack_and_prints_no_secret(shared: Stack) -> None:
    found = subprocess.run([sys.executable, "-c", FINDER, str(shared.home)], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == repr(shared.endpoints)


def test_no_secret_is_on_a_command_line(shared: Stack) -> None:
    secrets = {*shared.secrets.passwords.values(), shared.secrets.redis, shared.secrets.key_file}
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in shared.endpoints.pids.values()]

    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_a_first_start_is_quick_and_nothing_is_left_after_the_end(tmp_path: Path) -> None:
    began = time.monotonic()
    with open_stack(tmp_path) as opened:
        took = time.monotonic() - began
        pids = dict(opened.endpoints.pids)

    assert took < 20
    assert set(pids) == {"mongod-0", "valkey"}
    assert alive(tmp_path, pids) == []
    assert find_stack(tmp_path) is None


def test_data_survive_a_kill_of_each_server_and_a_new_start(tmp_path: Path) -> None:
    with open_stack(tmp_path) as opened:
        write(opened.endpoints, "a")
        for server in opened.servers:
            server.kill()
        unreachable = find_stack(tmp_path)
        for server in opened.servers:
            server.start()
        write(opened.endpoints, "b")
        after_kill = read(opened.endpoints)
    with open_stack(tmp_path) as opened:
        after_start = read(opened.endpoints)

    assert unreachable is None
    assert after_kill == after_start == (["a", "b"], ["a", "b"])


def test_data_and_ports_survive_a_kill_of_the_supervisor(tmp_path: Path) -> None:
    with supervisor(tmp_path) as (process, first):
        found = find_stack(tmp_path)
        assert found is not None
        write(found, "a")
        process.kill()
        process.wait()
    # No pause: the orphans of the first stack may still be on their way out.
    with open_stack(tmp_path) as opened:
        kept = read(opened.endpoints)
        ports = list(opened.endpoints.mongod_ports)

    assert ports == first["ports"]
    assert kept == (["a"], ["a"])
    assert alive(tmp_path, first["pids"]) == []


def test_servers_end_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    with supervisor(tmp_path) as (process, started):
        process.kill()
        process.wait()
        wait_until(lambda: not alive(tmp_path, started["pids"]), timeout=20, what="the servers end")

    assert find_stack(tmp_path) is None


def test_a_second_interrupt_does_not_cut_the_stop_short(tmp_path: Path) -> None:
    with supervisor(tmp_path) as (process, started):
        process.send_signal(signal.SIGINT)
        wait_until(lambda: '"is_open": false' in (tmp_path / "state.json").read_text(), timeout=10, what="it stops")
        process.send_signal(signal.SIGINT)
        process.wait(30)

    assert alive(tmp_path, started["pids"]) == []
    assert '"exitCode":0' in (tmp_path / "mongod-0" / "server.log").read_text().splitlines()[-1]


def test_a_taken_port_is_exchanged_and_the_data_stay(tmp_path: Path) -> None:
    with open_stack(tmp_path) as opened:
        write(opened.endpoints, "a")
        before = opened.endpoints
    with stranger_on(before.mongod_ports[0]), stranger_on(before.valkey_port), open_stack(tmp_path) as opened:
        after = opened.endpoints
        kept = read(after)

    assert not {*before.mongod_ports, before.valkey_port} & {*after.mongod_ports, after.valkey_port}
    assert kept == (["a"], ["a"])


def test_a_port_that_is_taken_at_the_last_moment_is_exchanged_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stranger_on(0) as stolen:
        answers = [(stolen, pick_port(None))]
        monkeypatch.setattr(stack, "keep_or_move", lambda ports: answers.pop() if answers else keep_or_move(ports))
        with open_stack(tmp_path) as opened:
            write(opened.endpoints, "a")
            (port,) = opened.endpoints.mongod_ports

    assert answers == []
    assert port != stolen


def test_what_fails_in_prepare_stops_the_servers(tmp_path: Path) -> None:
    seen: list[Endpoints] = []

    def fail(endpoints: Endpoints) -> None:
        seen.append(endpoints)
        raise ConfigurationError("no")

    with pytest.raises(ConfigurationError, match=r"^no$"), open_stack(tmp_path, prepare=fail):
        pass
    assert alive(tmp_path, dict(seen[0].pids)) == []


def test_lost_secrets_are_an_error_and_do_not_open_the_data(tmp_path: Path) -> None:
    with open_stack(tmp_path):
        pass
    (tmp_path / "secrets.json").unlink()

    with pytest.raises(ConfigurationError, match=r"knows another password than secrets\.json"), open_stack(tmp_path):
        pass


def test_a_first_start_that_died_before_it_made_the_administrator_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(port: int, password: str) -> None:
        raise StoreUnavailable("died")

    with monkeypatch.context() as patched:
        patched.setattr(mongod, "_ensure_administrator", die)
        with pytest.raises(StoreUnavailable, match=r"^died$"), open_stack(tmp_path):
            pass
    with open_stack(tmp_path) as opened:
        write(opened.endpoints, "a")
        kept = read(opened.endpoints)

    assert kept == (["a"], ["a"])


def test_three_nodes_elect_another_primary_when_theirs_dies(tmp_path: Path) -> None:
    with open_stack(tmp_path, nodes=3) as opened:
        endpoints = opened.endpoints
        write(endpoints, "a")
        with open_client(endpoints.mongodb_uri("admin", auth_source="admin"), app_name="test") as client:
            client.admin.command("ping")
            primary = client.primary
            victim = next(server for server in opened.mongods if primary == ("127.0.0.1", server.spec.port))
            victim.kill()
            client.kept.things.insert_one({"_id": "b"})
            successor = client.primary
        victim.start()
        kept = read(endpoints)

    assert successor not in {None, primary}
    assert kept == (["a", "b"], ["a"])


def test_a_set_without_a_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="at least one node"), open_stack(tmp_path, nodes=0):
        pass


def test_a_home_keeps_its_number_of_nodes(tmp_path: Path) -> None:
    with open_stack(tmp_path):
        pass

    with pytest.raises(ConfigurationError, match="replica set of 1 nodes, not 3"), open_stack(tmp_path, nodes=3):
        pass
