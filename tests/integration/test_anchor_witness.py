"""A witness over HTTPS: a real server on loopback, that answers as it should, and as it should not."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import sentry_sdk
from witnesses import ORIGIN, REWRITTEN, WITNESS, Reply, Served, StillClock, Witness, head_of, serving

from compliance.audit.keys import SigningKey
from compliance.errors import (
    AnchorUnavailable,
    CheckpointRefused,
    ConfigurationError,
    LogForked,
    LogRolledBack,
)
from compliance.settings import Settings
from worker.anchors.kinds.witness import WitnessAnchor
from worker.remote import MAX_ANSWER_BYTES, Remote
from worker.telemetry import configure_sentry

OTHER = SigningKey.from_seed(ORIGIN, b"o" * 32)
PATIENCE = 20.0
BRIEF = 0.5


@pytest.fixture
def witness() -> Witness:
    return Witness()


@pytest.fixture
def served(witness: Witness, tmp_path: Path) -> Iterator[Served]:
    with serving(lambda path, body: answer(witness, path, body), tmp_path) as found:
        yield found


def answer(witness: Witness, path: str, body: bytes) -> Reply:
    assert path == "/prefix/add-checkpoint"
    return witness.answer(body)


def anchor_at(url: str, ca_file: Path | None, *, timeout: float = PATIENCE) -> WitnessAnchor:
    server = Remote(url=url, ca_file=ca_file, timeout_seconds=timeout)
    return WitnessAnchor(name="outside", witness=WITNESS.verifier, server=server, clock=StillClock())


def test_a_log_that_grows_is_cosigned(served: Served, witness: Witness) -> None:
    anchor = anchor_at(served.url, served.ca_file)

    lines = [anchor.push(head_of(size)) for size in (0, 100, 100, 200)]
    again = anchor_at(f"{served.url}/", served.ca_file).push(head_of(300))

    assert all(line.startswith("— witness.example ".encode()) for line in (*lines, again))
    assert witness.latest == {ORIGIN: head_of(300).checkpoint}


def test_what_does_not_continue_is_refused_over_the_wire(served: Served, witness: Witness) -> None:
    anchor_at(served.url, served.ca_file).push(head_of(200))
    for head, error in (
        (head_of(100), LogRolledBack),
        (head_of(200, REWRITTEN), LogForked),
        (head_of(300, REWRITTEN), LogForked),
    ):
        with pytest.raises(error):
            anchor_at(served.url, served.ca_file).push(head)
    witness.policies[ORIGIN] = head_of(0, key=OTHER).policy
    with pytest.raises(CheckpointRefused):
        anchor_at(served.url, served.ca_file).push(head_of(300))
    witness.policies.clear()
    with pytest.raises(ConfigurationError, match="register the log there"):
        anchor_at(served.url, served.ca_file).push(head_of(300))

    assert witness.latest == {ORIGIN: head_of(200).checkpoint}


def test_a_witness_that_was_restarted_empty_cosigns_again(served: Served, witness: Witness) -> None:
    anchor = anchor_at(served.url, served.ca_file)
    anchor.push(head_of(100))
    witness.latest.clear()

    anchor.push(head_of(200))

    assert witness.latest == {ORIGIN: head_of(200).checkpoint}


def test_a_witness_of_this_machine_may_be_asked_in_the_clear(witness: Witness, tmp_path: Path) -> None:
    with serving(lambda path, body: answer(witness, path, body), tmp_path, is_encrypted=False) as served:
        anchor_at(served.url, None).push(head_of(100))

    assert witness.latest == {ORIGIN: head_of(100).checkpoint}


def test_a_certificate_of_an_unknown_authority_is_refused(served: Served, witness: Witness) -> None:
    with pytest.raises(AnchorUnavailable, match=r"^anchor outside cannot be asked \(SSLCertVerificationError\)$"):
        anchor_at(served.url, None).push(head_of(100))

    assert witness.asked == []


def test_a_certificate_for_another_name_is_refused(witness: Witness, tmp_path: Path) -> None:
    with (
        serving(lambda path, body: answer(witness, path, body), tmp_path, name="witness.example") as served,
        pytest.raises(AnchorUnavailable, match="SSLCertVerificationError"),
    ):
        anchor_at(served.url, served.ca_file).push(head_of(100))

    assert witness.asked == []


def test_a_file_without_certificates_is_a_matter_of_configuration(served: Served, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()

    with pytest.raises(ConfigurationError, match="holds no certificates"):
        anchor_at(served.url, empty).push(head_of(100))


def test_a_witness_learns_nothing_of_our_error_reports(witness: Witness, tmp_path: Path) -> None:
    names: set[str] = set()

    def listen(_: str, body: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        status, _, lines = witness.answer(body)

        def reply(handler: BaseHTTPRequestHandler) -> None:
            names.update(name.lower() for name in handler.headers)
            handler.send_response(status)
            handler.end_headers()
            handler.wfile.write(lines)

        return reply

    configure_sentry(Settings.model_validate({"SENTRY_DSN": "https://key@sentry.invalid/1"}))
    try:
        with serving(listen, tmp_path) as served:
            anchor_at(served.url, served.ca_file).push(head_of(100))
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()

    assert names == {"host", "accept-encoding", "content-length", "content-type", "connection"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, tmp_path: Path) -> None:
    paths: list[str] = []

    def elsewhere(path: str, _: bytes) -> Reply:
        paths.append(path)
        return status, "text/plain", b""

    with (
        serving(elsewhere, tmp_path) as served,
        pytest.raises(AnchorUnavailable, match=f"answered with status {status}"),
    ):
        anchor_at(served.url, served.ca_file).push(head_of(100))

    assert paths == ["/prefix/add-checkpoint"]


@pytest.mark.parametrize("status", [200, 409, 500])
def test_a_huge_answer_is_not_read(status: int, tmp_path: Path) -> None:
    with (
        serving(lambda *_: (status, "text/x.tlog.size", b"1" * (MAX_ANSWER_BYTES + 1)), tmp_path) as served,
        pytest.raises(AnchorUnavailable, match="more than 65536 bytes"),
    ):
        anchor_at(served.url, served.ca_file).push(head_of(100))


def sends(*parts: bytes, pause: float = 0.0, times: int = 1) -> object:
    """Take over a connection: send *parts*, with a pause after each, then close."""

    def take_over(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        for _ in range(times):
            for part in parts:
                handler.wfile.write(part)
                handler.wfile.flush()
                threading.Event().wait(pause)

    return lambda *_: take_over


@pytest.mark.parametrize(
    ("parts", "pause", "times"),
    [
        ((b"",), PATIENCE, 1),
        ((b"H",), 0.05, 400),
        ((b"HTTP/1.1 100 Continue\r\n\r\n",), 0.05, 400),
        ((b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), 0.05, 400),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", *[b"x"] * 400), 0.05, 1),
        ((b"HTTP/1.1 200 OK\r\n\r\n", *[b"x"] * 400), 0.05, 1),
    ],
    ids=["silent", "status", "continue", "headers", "body", "endless"],
)
def test_a_slow_server_is_cut_off(parts: tuple[bytes, ...], pause: float, times: int, tmp_path: Path) -> None:
    with serving(sends(*parts, pause=pause, times=times), tmp_path) as served:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(AnchorUnavailable, match="cannot be asked"):
            anchor_at(served.url, served.ca_file, timeout=BRIEF).push(head_of(100))

        assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 101 + b"\r\n",
    ],
    ids=["nothing", "protocol", "short", "chunk", "headers"],
)
def test_an_answer_that_is_none_is_no_answer(data: bytes, tmp_path: Path) -> None:
    with (
        serving(sends(data), tmp_path) as served,  # type: ignore[arg-type]
        pytest.raises(AnchorUnavailable, match="cannot be asked"),
    ):
        anchor_at(served.url, served.ca_file).push(head_of(100))


@contextmanager
def mute() -> Iterator[int]:
    """A port where somebody listens and never says anything, not even the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []
        thread = threading.Thread(target=lambda: held.append(server.accept()[0]))
        thread.start()
        yield server.getsockname()[1]
        thread.join()
        held[0].close()


def test_a_handshake_that_does_not_come_is_not_waited_for() -> None:
    with mute() as port, pytest.raises(AnchorUnavailable, match="cannot be asked"):
        anchor_at(f"https://127.0.0.1:{port}", None, timeout=BRIEF).push(head_of(100))


def test_nobody_there_is_told_without_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(AnchorUnavailable, match=r"^anchor outside cannot be asked \(ConnectionRefusedError\)$"):
        anchor_at(f"https://127.0.0.1:{port}", None).push(head_of(100))
