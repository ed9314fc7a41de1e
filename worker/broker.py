"""A repair of kombu 5.7: without it a worker that loses its broker ends in about one of four cases.

When a connection is lost, the consumer closes it while channels of it still exist. Asked for its parameters, such a
channel fails with AttributeError, which Celery does not know as a lost connection, so the worker exits instead of
connecting again. With the repair it fails with the error of a lost connection.

Source: celery/kombu issue 582. To be removed when kombu does this itself.
"""

from importlib.metadata import version
from typing import Any

from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as BrokerConnectionError

REPAIRED_VERSIONS = ("5.7.",)


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
