"""A parameter of the server that another test must not meet."""

from collections.abc import Iterator
from contextlib import contextmanager

from deployment import Deployment


@contextmanager
def parameter(deployment: Deployment, name: str, value: int) -> Iterator[None]:
    """Set it for the block; what it was comes back."""
    admin = deployment.admin.client.admin
    was = admin.command("getParameter", 1, **{name: 1})[name]
    admin.command("setParameter", 1, **{name: value})
    try:
        yield
    finally:
        admin.command("setParameter", 1, **{name: was})


@contextmanager
def impatient(deployment: Deployment) -> Iterator[None]:
    """Let the server give up a transaction that nobody ends after a second, for the block."""
    with parameter(deployment, "transactionLifetimeLimitSeconds", 1):
        yield
