"""A witness as C2SP tlog-witness has it, and logs to be witnessed."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from compliance.audit.checkpoint import Checkpoint, Policy, open_checkpoint, parse_checkpoint, sign_checkpoint
from compliance.audit.keys import KeyType, SigningKey
from compliance.audit.merkle import EMPTY_ROOT, leaf_hash, nodes_of, root_of, verify_consistency
from compliance.audit.note import cosign_note, parse_note
from compliance.audit.wire import decode_decimal, decode_hash
from compliance.audit.witness import Answer
from compliance.errors import InvalidProof
from worker.anchors import Head
from worker.anchors.kinds.witness import TEXT

ORIGIN = "example.com/log/2026"
LOG = SigningKey.from_seed(ORIGIN, b"l" * 32)
POLICY = Policy(origin=ORIGIN, keys=(LOG.verifier,))
WITNESS = SigningKey.from_seed("witness.example", b"w" * 32, kind=KeyType.COSIGNATURE_V1)
MOMENT = datetime(2026, 3, 31, 12, tzinfo=UTC)
LEAVES = [leaf_hash(b"%d" % number) for number in range(300)]
REWRITTEN = [leaf_hash(b"another"), *LEAVES[1:]]

Reply = tuple[int, str, bytes]


class StillClock:
    """Stands until it is told to go on."""

    def __init__(self, moment: datetime = MOMENT) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def sleep(self, duration: timedelta) -> None:
        self.moment += duration


def head_of(size: int, leaves: Sequence[bytes] = LEAVES, *, key: SigningKey = LOG) -> Head:
    """The head of the log of the first *size* of *leaves*."""
    origin = key.verifier.name
    checkpoint = Checkpoint(origin=origin, size=size, root=root_of(leaves[:size]))
    policy = Policy(origin=origin, keys=(key.verifier,))
    return Head(
        note=sign_checkpoint(checkpoint, [key]), checkpoint=checkpoint, node=nodes_of(leaves[:size]), policy=policy
    )


@dataclass
class Witness:
    """The server's side: what it knows of each log, and how it answers."""

    key: SigningKey = WITNESS
    policies: dict[str, Policy] = field(default_factory=lambda: {ORIGIN: POLICY})
    latest: dict[str, Checkpoint] = field(default_factory=dict)
    clock: StillClock = field(default_factory=StillClock)
    asked: list[bytes] = field(default_factory=list)

    def answer(self, body: bytes) -> Reply:
        """Answer one request, in the order of the specification."""
        self.asked.append(body)
        head, _, note = body.partition(b"\n\n")
        first, *lines = head.decode().split("\n")
        if not first.startswith("old "):
            return 400, "text/plain", b""
        old_size = decode_decimal(first.removeprefix("old "), what="old")
        proof = [decode_hash(line, what="hash") for line in lines]
        checkpoint = parse_checkpoint(parse_note(note)[0])
        policy = self.policies.get(checkpoint.origin)
        if policy is None:
            return 404, "text/plain", b""
        try:
            open_checkpoint(note, policy=policy)
        except InvalidProof:
            return 403, "text/plain", b""
        return self._compare(note, checkpoint, old_size, proof)

    def _compare(self, note: bytes, checkpoint: Checkpoint, old_size: int, proof: list[bytes]) -> Reply:
        known = self.latest.get(checkpoint.origin, Checkpoint(origin=checkpoint.origin, size=0, root=EMPTY_ROOT))
        if old_size > checkpoint.size:
            return 400, "text/plain", b""
        if old_size != known.size:
            return 409, "text/x.tlog.size", f"{known.size}\n".encode()
        if old_size == checkpoint.size and known.root != checkpoint.root:
            return 409, "text/plain", b""
        try:
            verify_consistency(
                proof, first=old_size, first_root=known.root, second=checkpoint.size, second_root=checkpoint.root
            )
        except InvalidProof:
            return 422, "text/plain", b""
        self.latest[checkpoint.origin] = checkpoint
        return 200, "text/plain", cosign_note(note, self.key, at=self.clock.now())[len(note) :]


@dataclass
class Line:
    """Carries a request to a witness without a network."""

    witness: Witness

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if (path, dict(headers)) != ("add-checkpoint", TEXT):
            raise ValueError(path, headers)
        status, content_type, answered = self.witness.answer(body)
        return Answer(status=status, content_type=content_type, body=answered)


@dataclass(frozen=True)
class Served:
    """Where a witness is reached, and whom to believe that."""

    url: str
    ca_file: Path


@contextmanager
def serving(
    answer: Callable[[str, bytes], Reply | Callable[[BaseHTTPRequestHandler], None]],
    folder: Path,
    *,
    name: str = "127.0.0.1",
    is_encrypted: bool = True,
) -> Iterator[Served]:
    """Serve *answer*, which gets path and body, with a certificate for *name*; it may also take over the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found = answer(self.path, body)
            if callable(found):
                found(self)
                return
            status, content_type, data = found
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            pass  # a client that was refused, or went away

    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    server = Server(("127.0.0.1", 0), Handler)
    if is_encrypted:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        scheme = "https" if is_encrypted else "http"
        yield Served(f"{scheme}://127.0.0.1:{server.server_address[1]}/prefix", ca_file)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
