"""The repair of closed channels."""

import pytest
from kombu import Connection
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as BrokerConnectionError

from worker.broker import repair_closed_channels


def test_a_channel_of_a_closed_connection_fails_as_a_lost_connection() -> None:
    repair_closed_channels()
    repair_closed_channels()
    channel = object.__new__(transport.Channel)
    channel.connection = None

    with pytest.raises(BrokerConnectionError):
        channel._connparams()

    assert issubclass(BrokerConnectionError, Connection("redis://127.0.0.1:1/0").connection_errors)
