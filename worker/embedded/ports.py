"""Loopback ports: sticky ones are kept while they are free."""

import random
import socket
from collections.abc import Collection

from compliance.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
# Below the ephemeral ranges of Linux, macOS and IANA: no outgoing connection takes a sticky port while we are down.
FIRST, LAST = 20_000, 32_000
ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Say whether a server could listen on *port* now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of an earlier run that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def is_answering(port: int) -> bool:
    """Say whether something accepts connections on *port*."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def pick_port(preferred: int | None, *, taken: Collection[int] = ()) -> int:
    """Return *preferred* when it is free, else a random free port that is not in *taken*.

    Raises:
        ConfigurationError: When no free port was found.
    """
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST, LAST)  # noqa: S311 - spreads stacks that start at the same time; no secret
        if port not in taken and is_free(port):
            return port
    raise ConfigurationError(f"found no free port on {LOOPBACK} between {FIRST} and {LAST}; free one and start again")


def keep_or_move(preferred: Collection[int]) -> tuple[int, ...]:
    """Return as many distinct ports as *preferred* has, each kept where it is free; 0 stands for any."""
    chosen: list[int] = []
    for port in preferred:
        chosen.append(pick_port(port, taken=chosen))
    return tuple(chosen)
