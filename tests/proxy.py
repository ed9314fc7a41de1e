"""A line to mongod that breaks at its n-th command: before the request arrives, or before the reply does.

Works on the wire: a message is a little-endian length of 4 bytes, which counts itself, and the rest; an OP_MSG begins
with a header of 16 bytes, 4 bytes of flags and a section of kind 0, whose document names the command first.
What a driver sends by itself (``hello`` and authentication) is not counted.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

BEFORE_REQUEST, BEFORE_REPLY = "before the request", "before the reply"
OWN_COMMANDS = (b"hello", b"ismaster", b"isMaster", b"saslStart", b"saslContinue", b"endSessions")
OP_MSG = 2013
BODY_AT = 21


@dataclass(slots=True)
class Proxy:
    """Between clients and the server on *target*; *at* 0 lets everything pass.

    Attributes:
        at: The number of the command that does not pass whole.
        when: Which half of it is lost.
        commands: How many were seen.
        broke: The name of the command that the line broke at.
        times: How many commands from there on do not pass.
    """

    port: int
    target: int
    at: int = 0
    when: str = BEFORE_REQUEST
    commands: int = 0
    broke: str | None = None
    times: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, listener: socket.socket) -> None:
        """Take clients until *listener* is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as server:
            breaks_after_reply = threading.Event()
            back = threading.Thread(target=self._carry_back, args=(server, client, breaks_after_reply), daemon=True)
            back.start()
            for message in messages(client):
                name = command_of(message)
                is_last = name is not None and self._is_the_one(name)
                if is_last and self.when == BEFORE_REQUEST:
                    break
                if is_last:
                    breaks_after_reply.set()
                server.sendall(message)
            close(client)
            close(server)
            back.join()

    def _carry_back(self, server: socket.socket, client: socket.socket, breaks: threading.Event) -> None:
        with suppress(OSError):
            for message in messages(server):
                if breaks.is_set():
                    break
                client.sendall(message)
        close(client)
        close(server)

    def _is_the_one(self, name: str) -> bool:
        with self._lock:
            self.commands += 1
            if not 0 < self.at <= self.commands < self.at + self.times:
                return False
            self.broke = name
            return True


@contextmanager
def open_proxy(target: int) -> Iterator[Proxy]:
    """Listen on a port of its own and carry everything to the port *target* until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1], target)
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        yield proxy
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def messages(connection: socket.socket) -> Iterator[bytes]:
    """Yield whole messages until the connection ends."""
    while head := receive(connection, 4):
        (length,) = struct.unpack("<i", head)
        yield head + receive(connection, length - 4)


def receive(connection: socket.socket, size: int) -> bytes:
    """Return *size* bytes, nothing when the connection ends first."""
    parts = []
    while size > 0:
        part = connection.recv(size)
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def command_of(message: bytes) -> str | None:
    """Return the name of the command that *message* sends, None where it is one of the driver's own."""
    (opcode,) = struct.unpack_from("<i", message, 12)
    if opcode != OP_MSG:
        return None
    name = message[BODY_AT + 5 : message.index(b"\0", BODY_AT + 5)]
    return None if name in OWN_COMMANDS else name.decode()


def close(connection: socket.socket) -> None:
    """End *connection* for both sides; whoever reads from it stops."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
