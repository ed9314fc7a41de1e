"""The file of recipients (``recipients/v1``): where each is told, and by which secrets; validated."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError

from compliance.datamap.form import Name
from compliance.datamap.outside import Protocol
from compliance.errors import ConfigurationError
from worker.recipients.channel import Channel
from worker.recipients.opendsr import OpenDSR
from worker.recipients.webhook import Webhook
from worker.remote import Remote, Url

VARIABLE = "COMPLIANCE_RECIPIENTS"
PREFIX = "whsec_"
SHORTEST_SECRET, LONGEST_SECRET = 24, 64


def secret_bytes(text: str) -> bytes:
    """Return the bytes of a secret of Standard Webhooks.

    Raises:
        ValueError: When *text* is none; it is not repeated.
    """
    try:
        found = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not text.startswith(PREFIX) or not SHORTEST_SECRET <= len(found) <= LONGEST_SECRET:
        raise ValueError(f"expected {PREFIX} and {SHORTEST_SECRET} to {LONGEST_SECRET} random bytes in Base64")
    return found


def _is_secret(value: SecretStr) -> SecretStr:
    secret_bytes(value.get_secret_value())
    return value


Secret = Annotated[SecretStr, AfterValidator(_is_secret)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Url
    ca_file: FilePath | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10

    @property
    def server(self) -> Remote:
        """The server."""
        return Remote(url=self.url, ca_file=self.ca_file, timeout_seconds=self.timeout_seconds)


class WebhookOptions(_Options):
    """A recipient that takes webhooks; the first secret is the present one."""

    protocol: Literal[Protocol.WEBHOOK]
    secrets: Annotated[tuple[Secret, ...], Field(min_length=1, max_length=4)]

    def open(self) -> Channel:
        """Return the way to it; nothing is connected yet."""
        return Webhook(server=self.server, secrets=[secret_bytes(one.get_secret_value()) for one in self.secrets])


class OpenDSROptions(_Options):
    """A recipient that speaks OpenDSR 2.0."""

    protocol: Literal[Protocol.OPENDSR]
    token: SecretStr | None = None
    regulation: Literal["gdpr", "ccpa"] = "gdpr"

    def open(self) -> Channel:
        """Return the way to it; nothing is connected yet."""
        token = self.token.get_secret_value() if self.token else None
        return OpenDSR(server=self.server, token=token, regulation=self.regulation)


Options = Annotated[WebhookOptions | OpenDSROptions, Field(discriminator="protocol")]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    apiVersion: Literal["recipients/v1"]  # noqa: N815 - the name in the file
    recipients: dict[Name, Options]


def load_recipients(path: Path | None) -> Mapping[str, WebhookOptions | OpenDSROptions]:
    """Return the recipients of the file at *path*, by id; none where there is no file.

    Raises:
        ConfigurationError: With every fault and where it stands, never a value.
    """
    if path is None:
        return {}
    try:
        return _File.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))).recipients
    except OSError as error:
        raise ConfigurationError(f"{VARIABLE}: cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"the recipients {path.name} are not valid YAML") from None
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False)
        )
        raise ConfigurationError(f"the recipients {path.name} are wrong: {faults}") from None
