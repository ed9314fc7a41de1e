"""Where MongoDB and the broker are: from the settings, else from the embedded stack that this user runs."""

from dataclasses import dataclass, field
from pathlib import Path

from compliance.errors import ConfigurationError, StoreUnavailable
from compliance.roles import Role
from compliance.settings import Settings
from worker.embedded import Endpoints, find_stack, is_locked, resolve_home

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
