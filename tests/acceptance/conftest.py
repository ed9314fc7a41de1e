"""A deployment with a filled database, and a receiver in place of Sentry."""

import gzip
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from deployment import Deployment, provision_database
from system import Receiver, System, environ_of

from worker.demo.seed import Seeded, insert, seed_documents
from worker.embedded import Stack
from worker.embedded.ports import pick_port


@pytest.fixture
def sentry() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            unpacked = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            receiver.envelopes.append(unpacked)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield receiver
        server.shutdown()
        thread.join()


@pytest.fixture
def system(deployment: Deployment, sentry: Receiver, tmp_path: Path) -> Iterator[System]:
    """A filled database and its processes, for one test."""
    seeded = seed_documents(3, people=40, moment=datetime(2026, 3, 31, 12, tzinfo=UTC))
    insert(seeded, deployment.admin)
    with redis.Redis.from_url(deployment.stack.endpoints.redis_url) as broker:
        broker.flushall()
    with ExitStack() as cleanup:
        yield System(
            deployment, seeded, environ_of(deployment, sentry, tmp_path), tmp_path, sentry, pick_port(None), cleanup
        )


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A migrated database for commands that change nothing."""
    home, nobody = tmp_path_factory.mktemp("shared"), Receiver(9)
    with ExitStack() as cleanup:
        deployment = provision_database(stack, f"t_{uuid.uuid4().hex[:12]}", cleanup)
        deployment.migrate()
        nothing = Seeded(documents={}, subjects=())
        yield System(deployment, nothing, environ_of(deployment, nobody, home), home, nobody, pick_port(None), cleanup)
