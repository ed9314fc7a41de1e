"""How the broker is reached: options by the scheme of the URL, and verified TLS."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from pydantic import SecretStr

from compliance.errors import ConfigurationError
from compliance.settings import Settings
from worker.broker import broker_settings

PASSWORD = "s3cr3t-Zz91"
SENTINELS = f"sentinel://:{PASSWORD}@a:26379/3;sentinel://b:26379;sentinel://c"
REDIS_ONLY = ("visibility_timeout", "health_check_interval", "socket_timeout", "unacked_mutex_expire")
AMQP_ONLY = ("confirm_publish", "read_timeout", "write_timeout")

Files = Callable[..., Settings]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Settings whose ``broker_*_file`` are files that are there."""

    def make(*names: str, **changes: Any) -> Settings:
        paths = {f"broker_{name}_file": tmp_path / f"{name}.pem" for name in names}
        for path in paths.values():
            path.touch()
        return Settings.model_validate(paths | changes)

    return make


def options(url: str, settings: Settings | None = None) -> dict[str, Any]:
    found: dict[str, Any] = broker_settings(url, settings or Settings())["broker_transport_options"]
    return found


def connection(found: dict[str, Any]) -> Connection:
    """What Celery makes of the settings; it connects to nothing."""
    return Connection(
        found["broker_url"], ssl=found["broker_use_ssl"], transport_options=found["broker_transport_options"]
    )


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0"])
def test_redis_gets_bounds_for_half_open_links_and_for_messages_of_dead_workers(url: str) -> None:
    found = options(url)

    assert [name for name in REDIS_ONLY if name not in found] == []
    assert [name for name in AMQP_ONLY if name in found] == []
    assert found["unacked_restore_interval"] * found["unacked_restore_throttle"] == 10


@pytest.mark.parametrize("url", ["amqp://h//", "amqps://h//"])
def test_rabbitmq_gets_its_own_options_only(url: str) -> None:
    found = options(url)

    assert [name for name in AMQP_ONLY if name not in found] == []
    assert [name for name in REDIS_ONLY if name in found] == []


def test_a_foreign_client_needs_to_know_no_key_prefix() -> None:
    assert "global_keyprefix" not in options("redis://h/0")


@pytest.mark.parametrize("url", ["redis://h/0", "amqp://h//", "memory://"])
def test_a_doorbell_that_cannot_be_rung_is_given_up_at_once(url: str) -> None:
    assert options(url)["max_retries"] == 1


@pytest.mark.parametrize("url", ["redis://h/0", "amqp://h//"])
def test_without_tls_in_the_url_there_is_none(url: str) -> None:
    assert broker_settings(url, Settings())["broker_use_ssl"] is None


def test_tls_of_redis_verifies_certificate_and_host_without_being_asked() -> None:
    with connection(broker_settings("rediss://h/0", Settings())) as opened:
        used = opened.ssl

    assert used == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}


def test_tls_of_rabbitmq_verifies_certificate_and_host_without_being_asked() -> None:
    found = broker_settings("amqps://h//", Settings())

    assert found["broker_use_ssl"] == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}


def test_the_files_of_tls_are_named_as_each_transport_names_them(files: Files, tmp_path: Path) -> None:
    settings = files("ca", "cert", "key")
    redis = broker_settings("rediss://h/0", settings)["broker_use_ssl"]
    amqp = broker_settings("amqps://h//", settings)["broker_use_ssl"]
    expected = {"ca_certs": "ca.pem", "certfile": "cert.pem", "keyfile": "key.pem"}

    assert {name: redis[f"ssl_{name}"] for name in expected} == {
        name: str(tmp_path / file) for name, file in expected.items()
    }
    assert {name: amqp[name] for name in expected} == {name: str(tmp_path / file) for name, file in expected.items()}


@pytest.mark.parametrize("url", ["redis://h/0", "amqp://h//", "memory://"])
def test_files_of_tls_with_a_url_without_tls_are_refused(files: Files, url: str) -> None:
    with pytest.raises(ConfigurationError, match="rediss://, amqps:// or sentinel://"):
        broker_settings(url, files("ca"))


@pytest.mark.parametrize("name", ["cert", "key"])
def test_half_a_client_certificate_is_refused(files: Files, name: str) -> None:
    with pytest.raises(ConfigurationError, match="together"):
        broker_settings("rediss://h/0", files(name))


def test_sentinel_needs_the_name_of_the_master() -> None:
    with pytest.raises(ConfigurationError, match="COMPLIANCE_SENTINEL_MASTER"):
        broker_settings("sentinel://h", Settings())


def test_every_sentinel_leads_to_the_master_with_the_same_credentials_and_database() -> None:
    found = broker_settings(SENTINELS, Settings(sentinel_master="m"))
    seen = []
    with connection(found) as opened:
        for _ in range(4):
            seen.append((opened.hostname, opened.password, opened.virtual_host))
            opened.maybe_switch_next()

    assert seen == [("a", PASSWORD, "3"), ("b", PASSWORD, "3"), ("c", PASSWORD, "3"), ("a", PASSWORD, "3")]


def test_sentinels_get_their_own_password_and_not_that_of_the_master() -> None:
    without = options(SENTINELS, Settings(sentinel_master="m"))["sentinel_kwargs"]
    own = options(SENTINELS, Settings(sentinel_master="m", sentinel_password=SecretStr("own")))["sentinel_kwargs"]

    assert "password" not in without
    assert own["password"] == "own"


def test_sentinel_uses_tls_for_sentinels_and_master_where_a_ca_file_is_named(files: Files) -> None:
    found = broker_settings(SENTINELS, files("ca", sentinel_master="m"))

    assert found["broker_use_ssl"]["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert found["broker_transport_options"]["sentinel_kwargs"]["ssl"] is True
    assert "ssl" not in options(SENTINELS, Settings(sentinel_master="m"))["sentinel_kwargs"]
