"""``network_v1``: the network of an IP address, /24 of version 4 and /48 of version 6, as its first address."""

from ipaddress import ip_address, ip_network
from typing import Any

from compliance.masking.strategy import STRATEGIES

PREFIXES = {4: 24, 6: 48}


def network(value: Any, key: bytes) -> str | None:  # noqa: ARG001 - the form of every strategy
    """Return the first address of the network of the address *value*; null for what is none."""
    try:
        address = ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return None
    return str(ip_network((int(address), PREFIXES[address.version]), strict=False).network_address)


STRATEGIES.add("network_v1", network)
