"""Entries as a writer signs them, without a server."""

from typing import Any

from compliance.audit.entry import UNKNOWN_CAUSE, Cause, Entry
from compliance.audit.keys import SigningKey
from compliance.audit.trust import Trust
from compliance.audit.writer import Writer

ORIGIN = "audit.example/app"
WRITER_KEY = SigningKey.from_seed("writer", bytes(range(32)))
LOG_KEY = SigningKey.from_seed("log", bytes(range(32, 64)))
TRUST = Trust(origin=ORIGIN, writers=(WRITER_KEY.verifier,), log_keys=(LOG_KEY.verifier,))


def a_writer(key: SigningKey = WRITER_KEY) -> Writer:
    return Writer(origin=ORIGIN, key=key, process="test")


def smuggled(entry: Entry, **values: Any) -> Entry:
    """*entry* with values that the model refuses, as if it did not look."""
    for name, value in values.items():
        object.__setattr__(entry, name, value)
    return entry


def signed(*entries: Entry, writer: Writer | None = None, cause: Cause = UNKNOWN_CAUSE) -> list[dict[str, Any]]:
    """The documents of *entries* as one transaction writes them."""
    writer = writer or a_writer()
    writer.begin()
    documents = [writer.sign(entry, cause)[0] for entry in entries]
    writer.commit()
    return documents
