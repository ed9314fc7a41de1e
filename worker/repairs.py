"""Two repairs of libraries around the loss of the broker.

``repair_closed_channels`` (kombu 5.7): without it a worker that loses its broker ends in one of four cases. When a
connection is lost, the consumer closes it while channels of it still exist. Asked for its parameters, such a channel
fails with AttributeError, which Celery does not know as a lost connection, so the worker exits instead of connecting
again. With the repair it fails with the error of a lost connection. To be removed when kombu does this itself.

``shorten_pool_exit`` (billiard 4.3): before a process of the pool ends, it waits until the worker has read its results.
After a lost broker some of them can count as unread for ever; then each process waits in full, 30 seconds, when it is
replaced and when the worker is told to stop. What really was unread comes again, and a repeat is harmless.

Source: celery/kombu issue 582; billiard, ``Worker._ensure_messages_consumed``.
"""

from importlib.metadata import version
from typing import Any

from billiard import pool
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as BrokerConnectionError

REPAIRED_VERSIONS = ("5.7.",)
POOL_EXIT_TENTHS = 20


def repair_closed_channels() -> None:
    """Make channels of a closed connection fail as such; does nothing for other versions, or the second time."""
    channel: Any = transport.Channel
    if not version("kombu").startswith(REPAIRED_VERSIONS) or hasattr(channel, "is_repaired"):
        return
    original = channel._connparams  # noqa: SLF001 - what is repaired

    def connparams(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None or self.connection.client is None:
            raise BrokerConnectionError("the connection of this channel is closed")
        return original(self, *args, **kwargs)

    channel._connparams = connparams  # noqa: SLF001 - what is repaired
    channel.is_repaired = True


def shorten_pool_exit() -> None:
    """Let a process of the pool end after 2 seconds at most; takes effect in processes that are forked later."""
    pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = POOL_EXIT_TENTHS
