"""One HTTPS request, bounded in time and size, that follows no redirect and asks no proxy."""

import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Timer
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator

from compliance.audit.witness import Answer
from compliance.errors import ConfigurationError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_ANSWER_BYTES = 64 * 1024


class NoAnswer(Exception):
    """Nobody answered, not in time, or not what HTTP allows; says why, and not who."""


def _reachable(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        is_plain = bool(host) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # of the port, of the host
        is_plain = False
    if not is_plain or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("expected https://host:port/prefix, without name, password, query or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("expected https://; without encryption only on this machine")
    return url


Url = Annotated[str, AfterValidator(_reachable)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A server of somebody else.

    Attributes:
        url: A prefix; ``https``, or ``http`` to this machine.
        ca_file: Certificates of the authorities to believe instead of the system's.
        timeout_seconds: To connect, and again for all that comes after.
    """

    url: Url
    timeout_seconds: float
    ca_file: Path | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send *body* to *path* below the prefix, without a leading slash, and return what is answered.

        Raises:
            NoAnswer: When there is no answer in time, a wrong certificate, or an answer of more than 64 KiB.
            ConfigurationError: When *ca_file* holds no certificates.
        """
        return self._ask("POST", path, body, headers)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """Return what is answered for *path*; see ``post``."""
        return self._ask("GET", path, None, headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(self.url)
        where = f"{parts.path.rstrip('/')}/{path}" if path else parts.path or "/"
        try:
            with self._connect(parts) as connection:
                connection.request(method, where, body, {**headers, "Connection": "close"})
                response = connection.getresponse()
                answered = response.read(MAX_ANSWER_BYTES + 1)
                if response.length and len(answered) <= MAX_ANSWER_BYTES:
                    raise http.client.IncompleteRead(b"", response.length)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"cannot be asked ({type(error).__name__})") from None
        if len(answered) > MAX_ANSWER_BYTES:
            raise NoAnswer(f"answered with more than {MAX_ANSWER_BYTES} bytes")
        media_type, _, _ = response.getheader("Content-Type", "").partition(";")
        return Answer(status=response.status, content_type=media_type.strip().lower() or None, body=answered)

    @contextmanager
    def _connect(self, parts: SplitResult) -> Iterator[http.client.HTTPConnection]:
        """Connect, and cut the connection when the time is over, also that of a server which sends on and on, slowly.

        Raises:
            TimeoutError: When it was cut; what was read until then may look like a whole answer.
        """
        host, is_encrypted = parts.hostname or "", parts.scheme == "https"
        context = self._context() if is_encrypted else None
        port = parts.port or (http.client.HTTPS_PORT if is_encrypted else http.client.HTTP_PORT)
        connection = http.client.HTTPConnection(host, port, timeout=self.timeout_seconds)
        connection.connect()
        with connection.sock.dup() as line:
            is_over = Event()
            timer = Timer(self.timeout_seconds, _cut, [line, is_over])
            timer.daemon = True
            timer.start()
            try:
                if context is not None:
                    connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
                yield connection
                if is_over.is_set():
                    raise TimeoutError
            finally:
                timer.cancel()
                connection.close()

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError:
            raise ConfigurationError("the CA file of a server holds no certificates") from None


def _cut(line: socket.socket, is_over: Event) -> None:
    is_over.set()
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
