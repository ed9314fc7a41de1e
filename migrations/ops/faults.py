"""What an error of the server says of a batch: try it again, make it smaller, or look for the one document; pure.

| what went wrong | what becomes of the batch |
| --- | --- |
| an error that passes (failover, write conflict, a transaction that was too old) | once more, then half of it |
| an unknown commit | the commit again, by the driver; never the changes |
| a document is refused (validator 121, 16 MB 10334, a wrong type 14, ...) | halved, until it is one; set aside |
| the update itself is wrong, or not allowed | the step fails before any document is changed |

An error that passes is not told from a batch that is too big for ``transactionLifetimeLimitSeconds``: the server calls
both transient. Half of it fits in the end, and costs nothing where it was a failover.

Source: MongoDB manual, "Transactions: transactionLifetimeLimitSeconds" and "Driver API: TransientTransactionError".
"""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import BulkWriteError, ExecutionTimeout, OperationFailure

from compliance.mongo import TRANSIENT_CODES, TRANSIENT_LABELS, UNAUTHORIZED

REASONS = {
    0: "it cannot be changed as it is",
    2: "bad value",
    14: "wrong type",
    121: "the validator does not allow it",
    10334: "larger than 16 MB",
    11000: "not unique",
    17419: "larger than 16 MB",
    17420: "larger than 16 MB",
}


class BatchTooBig(Exception):
    """A transaction did not pass, and holds more than one document: half of it may."""


class DocumentRefused(Exception):
    """The server refused a document of the batch, and would again.

    Attributes:
        code: The server's; never its text, which can quote the document.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    @property
    def reason(self) -> str:
        """What the code means, for people."""
        return REASONS.get(self.code, "refused by the server")


@contextmanager
def refusals() -> Iterator[None]:
    """Raise ``DocumentRefused`` where a write was refused for good; what passes by itself stays the driver's."""
    try:
        yield
    except OperationFailure as error:
        code = _code(error)
        if isinstance(error, ExecutionTimeout) or code == UNAUTHORIZED or code in TRANSIENT_CODES:
            raise
        if any(map(error.has_error_label, TRANSIENT_LABELS)):
            raise
        raise DocumentRefused(code) from None


def _code(error: OperationFailure) -> int:
    if isinstance(error, BulkWriteError):
        refused = (error.details or {}).get("writeErrors") or [{}]
        return int(refused[0].get("code", 0))
    return int(error.code or 0)
