"""Where MongoDB and the broker are: from the settings, else from the embedded stack that this user runs."""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from compliance.audit.keys import SigningKey
from compliance.audit.own import LOG, WRITER, build_writer, find_key, get_key
from compliance.audit.trust import Trust, joined, parse_keys
from compliance.audit.writer import Writer
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import VARIABLE, PseudonymKey, Pseudonyms, parse_pseudonym_keys
from compliance.errors import ConfigurationError, StoreUnavailable
from compliance.roles import Role
from compliance.settings import Settings
from worker.embedded import Endpoints, find_stack, is_locked, resolve_home
from worker.embedded.home import Secrets

EMBEDDED_REFUSED = "production"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Connection strings, looked up when they are needed; none is ever shown."""

    settings: Settings
    endpoints: Endpoints | None = field(default=None, repr=False)

    def mongodb_uri(self, role: Role) -> str:
        """Return the connection string of *role*.

        Raises:
            ConfigurationError: When neither the settings nor a running stack has one.
        """
        uri = self.settings.uri_for(role)
        if uri is not None:
            return uri.get_secret_value()
        if self.settings.mongodb_uri is not None:
            raise ConfigurationError(f"set COMPLIANCE_{role.name}_URI, the connection string of {role.value}")
        return self._stack().mongodb_uri(role.value, auth_source=f"{self.settings.mongodb_database}_compliance")

    def admin_uri(self) -> str:
        """Return the connection string of an administrator, for ``doctor --provision``.

        Raises:
            ConfigurationError: As ``mongodb_uri``.
        """
        if self.settings.admin_uri is not None:
            return self.settings.admin_uri.get_secret_value()
        if self.settings.mongodb_uri is not None:
            raise ConfigurationError("set COMPLIANCE_ADMIN_URI: provisioning creates roles and users")
        return self._stack().mongodb_uri("admin", auth_source="admin")

    def redis_url(self) -> str:
        """Return the URL of the broker.

        Raises:
            ConfigurationError: As ``mongodb_uri``.
        """
        if self.settings.redis_url is not None:
            return self.settings.redis_url.get_secret_value()
        return self._stack().redis_url

    def writer(self, process: str) -> Writer:
        """Return the writer of audit entries of this process.

        Raises:
            ConfigurationError: When it has no key.
        """
        return build_writer(self.settings, process=process, held=lambda: _seeded(WRITER, self._secrets_of_stack()))

    def log_key(self) -> SigningKey:
        """Return the key that signs checkpoints.

        Raises:
            ConfigurationError: When there is none.
        """
        return get_key(self.settings, LOG, held=lambda: _seeded(LOG, self._secrets_of_stack()))

    def trust(self) -> Trust:
        """Return whose signatures are believed: the keys of the settings, and the public halves of those held here.

        Where the settings have any, no server is needed: whoever has a public key can verify what was signed.

        Raises:
            ConfigurationError: When one cannot be read, or there is none and no stack.
        """
        settings = self.settings
        given = (settings.writer_vkeys, settings.log_vkeys, settings.writer_key, settings.log_key)
        secrets = self._secrets_if_running() if any(given) else self._secrets_of_stack()
        return Trust(
            origin=settings.log_origin,
            writers=joined(
                parse_keys(settings.writer_vkeys, what="COMPLIANCE_WRITER_VKEYS"),
                find_key(settings, WRITER) or _seeded(WRITER, secrets),
            ),
            log_keys=joined(
                parse_keys(settings.log_vkeys, what="COMPLIANCE_LOG_VKEYS"),
                find_key(settings, LOG) or _seeded(LOG, secrets),
            ),
        )

    def seal_guard(self) -> Path:
        """Return the file in which the sealer remembers what it signed."""
        return self.settings.seal_guard or resolve_home(self.settings.home) / "seal-guard.json"

    def watch_places(self) -> Path:
        """Return the file, beside that of the sealer, in which the watcher remembers how far it has looked."""
        return self.seal_guard().with_suffix(".watch.json")

    def pseudonyms(self, data_map: DataMap) -> Pseudonyms | None:
        """Return how people are named outside the application database; None where their ids stand as they are.

        Raises:
            ConfigurationError: When the data map names people by a personal key and there is no key for pseudonyms.
        """
        if not data_map.root_key.personal:
            return None
        return Pseudonyms(data_map.subject.collection, self._pseudonym_keys(data_map))

    def find_pseudonyms(self, data_map: DataMap, role: Role = Role.MIGRATOR) -> Pseudonyms | None:
        """Return how people are named outside the application database; None also where *role* has no key."""
        is_keyless = self.settings.pseudonym_keys is None and self.settings.uri_for(role) is not None
        return None if is_keyless else self.pseudonyms(data_map)

    def _pseudonym_keys(self, data_map: DataMap) -> tuple[PseudonymKey, ...]:
        given = self.settings.pseudonym_keys
        if given is not None:
            return parse_pseudonym_keys(given.get_secret_value())
        if self.settings.mongodb_uri is not None:
            raise ConfigurationError(
                f"set {VARIABLE} to name:secret: subject.key {data_map.subject.key} of the data map is personal, so "
                "requests, jobs and the audit log name people by keyed pseudonyms"
            )
        return (PseudonymKey("embedded", self._stack().secrets.pseudonym),)

    def _secrets_of_stack(self) -> Secrets | None:
        """Return what the embedded stack keeps, None where MongoDB is elsewhere."""
        return None if self.settings.mongodb_uri is not None else self._stack().secrets

    def _secrets_if_running(self) -> Secrets | None:
        with suppress(ConfigurationError, StoreUnavailable):
            return self._secrets_of_stack()
        return None

    def transfer_dir(self) -> Path:
        """Return where exports are written and imports are read."""
        return self.settings.transfer_dir or resolve_home(self.settings.home) / "transfer"

    def _stack(self) -> Endpoints:
        if self.settings.environment == EMBEDDED_REFUSED:
            raise ConfigurationError("in production set MONGODB_URI and REDIS_URL; the embedded stack is refused")
        home = resolve_home(self.settings.home)
        endpoints = self.endpoints or find_stack(home)
        if endpoints is None and is_locked(home):
            raise StoreUnavailable("the embedded stack is starting or stopping, or a server of it does not answer")
        if endpoints is None:
            raise ConfigurationError(
                "no MONGODB_URI and REDIS_URL, and no embedded stack is running; "
                "start one with `compliance up`, or set both variables"
            )
        return endpoints


def _seeded(signer: str, secrets: Secrets | None) -> SigningKey | None:
    return SigningKey.from_seed(signer, secrets.seed(signer)) if secrets is not None else None
