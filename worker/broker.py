"""How to reach the broker: the scheme of its URL decides; here are the options of each transport, and TLS."""

import ssl
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from compliance.errors import ConfigurationError
from compliance.settings import Settings

REDIS = ("redis", "rediss")
SENTINEL = "sentinel"
AMQP = ("amqp", "amqps")

# Understood by every transport: a doorbell that cannot be rung is soon given up; the sweeper rings again.
RINGING = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.2}

SOCKETS = {
    "socket_timeout": 15,  # without it, publishing over a half-open connection waits for ever
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
}

LISTS = {
    **SOCKETS,
    "health_check_interval": 10,
    "visibility_timeout": 600,  # for messages that no job was recorded of; for others a repeat is harmless
    "unacked_restore_interval": 10,  # with the next line: a look every 10 s; the default is every 100 s
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 30,  # a worker that is killed while it looks keeps the others from looking for 300 s else
}

CONFIRMED = {
    "confirm_publish": True,  # else what RabbitMQ refuses or loses raises nothing at the sender
    "read_timeout": 15,  # bounds the wait for that confirmation over a half-open connection
    "write_timeout": 15,
}


def broker_settings(url: str, settings: Settings) -> dict[str, Any]:
    """Return the Celery settings that lead to the broker at *url*; pure.

    There is no key prefix for Redis: a client in another language must need to know nothing but URL and queue.

    Raises:
        ConfigurationError: When *settings* lacks what the transport needs, or has what it cannot use.
    """
    scheme = url.partition("://")[0]
    _refuse_misfits(scheme, settings)
    options: dict[str, Any] = dict(RINGING)
    if scheme in REDIS:
        options |= LISTS
    elif scheme == SENTINEL:
        options |= LISTS | {"master_name": settings.sentinel_master, "sentinel_kwargs": _sentinels(settings)}
        url = _repeat_credentials(url)
    elif scheme in AMQP:
        options |= CONFIRMED
    return {
        "broker_url": url,
        "broker_use_ssl": _tls(scheme, settings),
        "broker_transport_options": options,
        "broker_heartbeat": 30,  # RabbitMQ only: a half-open connection is noticed within a minute
    }


def _refuse_misfits(scheme: str, settings: Settings) -> None:
    files = (settings.broker_ca_file, settings.broker_cert_file, settings.broker_key_file)
    if any(files) and scheme not in ("rediss", "amqps", SENTINEL):
        raise ConfigurationError(
            "COMPLIANCE_BROKER_*_FILE are set: REDIS_URL must be rediss://, amqps:// or sentinel://"
        )
    if (settings.broker_cert_file is None) != (settings.broker_key_file is None):
        raise ConfigurationError("set COMPLIANCE_BROKER_CERT_FILE and COMPLIANCE_BROKER_KEY_FILE together")
    if scheme == SENTINEL and settings.sentinel_master is None:
        raise ConfigurationError("REDIS_URL is sentinel://: set COMPLIANCE_SENTINEL_MASTER to the name of the master")


def _tls(scheme: str, settings: Settings) -> dict[str, Any] | None:
    """Return the TLS parameters of *scheme*, which always verify the server; left alone, kombu does not.

    For Sentinel there is no scheme with TLS: there the CA file asks for it.
    """
    files = {"ca_certs": settings.broker_ca_file, "certfile": settings.broker_cert_file}
    files["keyfile"] = settings.broker_key_file
    given = {name: str(path) for name, path in files.items() if path is not None}
    if scheme == "rediss" or (scheme == SENTINEL and given):
        verified = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        return verified | {f"ssl_{name}": path for name, path in given.items()}
    if scheme == "amqps":
        return {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None, **given}  # None: the host of the URL
    return None


def _sentinels(settings: Settings) -> dict[str, Any]:
    """Return how to reach the Sentinels themselves: their password is not that of the master."""
    password = settings.sentinel_password
    secret = {"password": password.get_secret_value()} if password is not None else {}
    tls = _tls(SENTINEL, settings)
    return {**SOCKETS, "socket_timeout": 2, **secret, **({"ssl": True, **tls} if tls else {})}


def _repeat_credentials(url: str) -> str:
    """Give every Sentinel of *url* the user, password and database of the first.

    kombu takes them from the one it is at, which is another one after a lost connection.
    """
    first, *others = (urlsplit(each) for each in url.split(";"))
    credentials = first.netloc.rpartition("@")[0]
    repeated = [
        each if "@" in each.netloc or not credentials else each._replace(netloc=f"{credentials}@{each.netloc}")
        for each in others
    ]
    return ";".join(urlunsplit(each._replace(path=each.path or first.path)) for each in (first, *repeated))
