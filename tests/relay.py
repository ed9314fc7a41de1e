"""TLS in front of a server that has none: what arrives encrypted goes on in the clear, on loopback."""

import select
import socket
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import trustme

CHUNK_BYTES = 65_536


@dataclass(frozen=True)
class Relay:
    """Where it listens, and the files of a client."""

    port: int
    ca_file: Path
    cert_file: Path
    key_file: Path


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@contextmanager
def tls_relay(target: int, folder: Path, *, name: str = "127.0.0.1") -> Iterator[Relay]:
    """Relay to the port *target* with a certificate for *name*; a client needs one of the same authority."""
    authority = trustme.CA()
    client = authority.issue_cert("client.example")
    files = Relay(0, folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(files.ca_file)
    client.cert_chain_pems[0].write_to_path(files.cert_file)
    client.private_key_pem.write_to_path(files.key_file)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    authority.issue_cert(name).configure_cert(context)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                with (
                    context.wrap_socket(self.request, server_side=True) as outside,
                    socket.create_connection(("127.0.0.1", target)) as inside,
                ):
                    _pump(outside, inside)
            except OSError:
                return  # a client that was refused, or either side went away

    with _Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield Relay(server.server_address[1], files.ca_file, files.cert_file, files.key_file)
        server.shutdown()


def _pump(outside: ssl.SSLSocket, inside: socket.socket) -> None:
    while True:
        ready = [outside] if outside.pending() else select.select([outside, inside], [], [])[0]
        for source in ready:
            chunk = source.recv(CHUNK_BYTES)
            if not chunk:
                return
            (inside if source is outside else outside).sendall(chunk)
