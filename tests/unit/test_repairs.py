"""The repairs of libraries fit the versions that are installed."""

import pytest
from billiard import pool
from kombu import Connection
from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as BrokerConnectionError

from worker.repairs import POOL_EXIT_TENTHS, repair_closed_channels, shorten_pool_exit


def test_a_channel_of_a_closed_connection_fails_as_a_lost_connection() -> None:
    repair_closed_channels()
    repair_closed_channels()
    channel = object.__new__(transport.Channel)
    channel.connection = None

    with pytest.raises(BrokerConnectionError):
        channel._connparams()

    assert issubclass(BrokerConnectionError, Connection("redis://127.0.0.1:1/0").connection_errors)


def test_the_wait_at_the_end_of_a_pool_process_is_one_that_billiard_knows() -> None:
    known = pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    shorten_pool_exit()

    assert pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT * known == POOL_EXIT_TENTHS * 0.1
