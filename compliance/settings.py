"""Settings from environment variables: read once by a composition root, passed on as values.

Every fault is reported at once and no value is ever printed.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from compliance.errors import ConfigurationError
from compliance.misspelt import find_misspelt
from compliance.period import Period, parse_grace
from compliance.roles import REHEARSAL, Role

SECRETS_DIRECTORY = Path("/run/secrets")
PACKAGE = Path(__file__).parent
OPERATOR = "[A-Za-z0-9][A-Za-z0-9_.-]{0,39}"  # who gives a command: a login
MIGRATIONS = PACKAGE.parent / "migrations" / "versions"
DATA_MAP = PACKAGE / "datamap" / "reference.yaml"
SCHEDULES = PACKAGE.parent / "worker" / "schedules.yaml"

DATABASE_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,47}$"


def _refuse_rehearsal(name: str) -> str:
    if name.endswith(REHEARSAL):
        raise ValueError(f"a name that ends with {REHEARSAL} is that of a copy, which rehearsals drop")
    return name


DatabaseName = Annotated[str, StringConstraints(pattern=DATABASE_NAME), AfterValidator(_refuse_rehearsal)]
MONGODB = r"^mongodb(\+srv)?://.+"
BROKER = r"^(redis|rediss|sentinel|amqp|amqps|memory)://.*"
BROKER_EXAMPLE = "redis://:password@host:port/0"
REDIS = ("redis", "rediss", "sentinel")
DSN = r"^https?://[^@/]+@[^/]+/.+"
NEEDS_NO_FILE = ("production", "development")


def _one_name(value: object) -> object:
    name = value.strip().casefold() if isinstance(value, str) else value
    return "production" if name == "prod" else name


def _like(pattern: str, example: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        if not re.fullmatch(pattern, value.get_secret_value(), re.DOTALL):
            raise ValueError(f"expected {example}")
        return value

    return AfterValidator(check)


def _leads_somewhere(value: SecretStr) -> SecretStr:
    """Refuse what the broker's client would stumble over at its first use: a port or a database that is no number."""
    for address in value.get_secret_value().split(";"):  # of Sentinels
        try:
            parts = urlsplit(address)
            is_read = parts.port is None or parts.port > 0
        except ValueError:
            is_read = False
        if not is_read or (parts.scheme in REDIS and not re.fullmatch(r"/{0,2}[0-9]*", parts.path)):
            raise ValueError(f"expected {BROKER_EXAMPLE}, port and database as numbers, special characters as %XX")
    return value


LogOrigin = Annotated[str, StringConstraints(pattern=r"^[^\s+@]{1,180}$")]
Environment = Annotated[str, BeforeValidator(_one_name), StringConstraints(pattern=r"^[a-z0-9_-]{1,40}$")]
MongoUri = Annotated[SecretStr, _like(MONGODB, "mongodb://user:password@host:port/?replicaSet=rs0")]
BrokerUrl = Annotated[SecretStr, _like(BROKER, BROKER_EXAMPLE), AfterValidator(_leads_somewhere)]
SentryDsn = Annotated[SecretStr, _like(DSN, "https://key@host/project")]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


LONGEST_SECONDS = 86_400
LONGEST_WINDOW_SECONDS = 30 * 86_400
CLOCKS_APART = timedelta(hours=1)  # what clocks of machines may differ by: a sound message must not be lost to one


def _from_seconds(longest: int, *, shortest: float = 0.001) -> BeforeValidator:
    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            seconds = float(value)
        except ValueError:
            raise ValueError("expected a number of seconds") from None
        if not shortest <= seconds <= longest:  # NaN too
            raise ValueError(f"expected at least {shortest} and at most {longest} seconds")
        return timedelta(seconds=seconds)

    return BeforeValidator(read)


def _to_grace(value: object) -> object:
    return parse_grace(value) if isinstance(value, str) else value


Grace = Annotated[Period, BeforeValidator(_to_grace)]
Seconds = Annotated[timedelta, _from_seconds(LONGEST_SECONDS)]
SweepSeconds = Annotated[timedelta, _from_seconds(LONGEST_SECONDS, shortest=0.1)]
WindowSeconds = Annotated[timedelta, _from_seconds(LONGEST_WINDOW_SECONDS)]


class Settings(BaseSettings):
    """What the environment says; each alias is the name of a variable.

    Where ``MONGODB_URI`` or ``REDIS_URL`` is absent the embedded stack serves. The ``*_URI`` of the other roles fall
    back to ``MONGODB_URI``, but for that of the archiver.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, populate_by_name=True, env_ignore_empty=True
    )

    environment: Environment = Field("development", alias="COMPLIANCE_ENV")
    mongodb_uri: MongoUri | None = Field(None, alias="MONGODB_URI")
    mongodb_database: DatabaseName = Field("spotify_ai_agent", alias="MONGODB_DATABASE")
    migrator_uri: MongoUri | None = Field(None, alias="COMPLIANCE_MIGRATOR_URI")
    sealer_uri: MongoUri | None = Field(None, alias="COMPLIANCE_SEALER_URI")
    auditor_uri: MongoUri | None = Field(None, alias="COMPLIANCE_AUDITOR_URI")
    sender_uri: MongoUri | None = Field(None, alias="COMPLIANCE_SENDER_URI")
    archiver_uri: MongoUri | None = Field(None, alias="COMPLIANCE_ARCHIVER_URI")
    admin_uri: MongoUri | None = Field(None, alias="COMPLIANCE_ADMIN_URI")
    redis_url: BrokerUrl | None = Field(None, alias="REDIS_URL")
    broker_ca_file: FilePath | None = Field(None, alias="COMPLIANCE_BROKER_CA_FILE")
    broker_cert_file: FilePath | None = Field(None, alias="COMPLIANCE_BROKER_CERT_FILE")
    broker_key_file: FilePath | None = Field(None, alias="COMPLIANCE_BROKER_KEY_FILE")
    sentinel_master: str | None = Field(None, alias="COMPLIANCE_SENTINEL_MASTER")
    sentinel_password: SecretStr | None = Field(None, alias="COMPLIANCE_SENTINEL_PASSWORD")
    signing_keys: SecretStr | None = Field(None, alias="COMPLIANCE_SIGNING_KEYS")
    signature_window: WindowSeconds = Field(timedelta(days=1), alias="COMPLIANCE_SIGNATURE_WINDOW_SECONDS")
    pseudonym_keys: SecretStr | None = Field(None, alias="COMPLIANCE_PSEUDONYM_KEYS")
    audit_origin: LogOrigin | None = Field(None, alias="COMPLIANCE_AUDIT_ORIGIN")
    writer_key: SecretStr | None = Field(None, alias="COMPLIANCE_WRITER_KEY")
    writer_vkeys: str = Field("", alias="COMPLIANCE_WRITER_VKEYS")
    log_key: SecretStr | None = Field(None, alias="COMPLIANCE_LOG_KEY")
    log_vkeys: str = Field("", alias="COMPLIANCE_LOG_VKEYS")
    seal_guard: Path | None = Field(None, alias="COMPLIANCE_SEAL_GUARD")
    sentry_dsn: SentryDsn | None = Field(None, alias="SENTRY_DSN")
    home: Path | None = Field(None, alias="COMPLIANCE_HOME")
    mongod: Path | None = Field(None, alias="COMPLIANCE_MONGOD")
    migrations: Path = Field(MIGRATIONS, alias="COMPLIANCE_MIGRATIONS")
    lint_off: str = Field("", alias="COMPLIANCE_LINT_OFF")
    operator: str = Field("", pattern=f"^({OPERATOR})?$", alias="COMPLIANCE_OPERATOR")
    staging_keys: str = Field("", alias="COMPLIANCE_STAGING_KEYS")
    staging_database: DatabaseName | None = Field(None, alias="COMPLIANCE_STAGING_DATABASE")
    attestation_days: int = Field(30, ge=1, le=365, alias="COMPLIANCE_ATTESTATION_DAYS")
    data_map: Path = Field(DATA_MAP, alias="COMPLIANCE_DATA_MAP")
    schedules: Path = Field(SCHEDULES, alias="COMPLIANCE_SCHEDULES")
    anchors: Path | None = Field(None, alias="COMPLIANCE_ANCHORS")
    recipients: Path | None = Field(None, alias="COMPLIANCE_RECIPIENTS")
    transfer_dir: Path | None = Field(None, alias="COMPLIANCE_TRANSFER_DIR")
    log_level: LogLevel = Field("INFO", alias="COMPLIANCE_LOG_LEVEL")
    batch_docs: int = Field(500, ge=1, le=5000, alias="COMPLIANCE_BATCH_DOCS")
    erasure_grace: Grace = Field(Period(), alias="COMPLIANCE_ERASURE_GRACE")
    job_retention_days: int = Field(90, ge=1, le=3650, alias="COMPLIANCE_JOB_RETENTION_DAYS")
    audit_retention_days: int = Field(365, ge=1, le=36_500, alias="COMPLIANCE_AUDIT_RETENTION_DAYS")
    lease: Seconds = Field(timedelta(seconds=30), alias="COMPLIANCE_LEASE_SECONDS")
    sweep_interval: SweepSeconds = Field(timedelta(seconds=5), alias="COMPLIANCE_SWEEP_SECONDS")
    metrics_port: int | None = Field(None, ge=1, le=65535, alias="COMPLIANCE_METRICS_PORT")
    metrics_host: str = Field("127.0.0.1", alias="COMPLIANCE_METRICS_HOST")
    heartbeat_file: Path | None = Field(None, alias="COMPLIANCE_HEARTBEAT_FILE")
    job_limit: Seconds = Field(timedelta(hours=6), alias="COMPLIANCE_JOB_LIMIT_SECONDS")
    child_memory_mb: int = Field(512, ge=1, alias="COMPLIANCE_CHILD_MEMORY_MB")

    @field_validator("job_retention_days")
    @classmethod
    def _outlives_signatures(cls, days: int, info: ValidationInfo) -> int:
        """Keep the request id of a signed message for longer than its signature is good, or a copy is another job."""
        window = info.data.get("signature_window")  # None where it is wrong itself
        if info.data.get("signing_keys") and window and timedelta(days=days) <= window + CLOCKS_APART:
            raise ValueError(
                "with COMPLIANCE_SIGNING_KEYS, expected more than an hour beyond COMPLIANCE_SIGNATURE_WINDOW_SECONDS"
            )
        return days

    @field_validator("job_limit")
    @classmethod
    def _outlives_leases(cls, limit: timedelta, info: ValidationInfo) -> timedelta:
        if limit < info.data.get("lease", limit):
            raise ValueError("expected no less than COMPLIANCE_LEASE_SECONDS")
        return limit

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the values that ``load_settings`` brings, and nothing behind its back."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def log_origin(self) -> str:
        """The name of the audit log, without its year."""
        return self.audit_origin or f"compliance/{self.mongodb_database}"

    def uri_for(self, role: Role) -> SecretStr | None:
        """Return the connection string of *role*, or None where the embedded stack serves."""
        own = {
            Role.MIGRATOR: self.migrator_uri,
            Role.SEALER: self.sealer_uri,
            Role.AUDITOR: self.auditor_uri,
            Role.SENDER: self.sender_uri,
        }
        if role is Role.ARCHIVER:  # no other user may do what it does
            return self.archiver_uri
        return own.get(role) or self.mongodb_uri

    def to_environ(self) -> dict[str, str]:
        """Return what was set as environment variables, for child processes; holds secrets."""
        set_fields = ((str(type(self).model_fields[name].alias), getattr(self, name)) for name in self.model_fields_set)
        return {alias: _to_text(value) for alias, value in set_fields if value is not None}


def _to_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value.total_seconds()) if isinstance(value, timedelta) else str(value)


def load_settings(
    environ: Mapping[str, str], *, profile: str | None = None, secrets_directory: Path = SECRETS_DIRECTORY
) -> Settings:
    """Return the settings of *environ*.

    A variable ``NAME_FILE`` names a file that holds the value of ``NAME``; a file ``NAME`` in *secrets_directory*
    does the same. The file ``<profile>.env`` in the working directory overrides both.

    Raises:
        ConfigurationError: Naming every variable that is wrong or unknown, never a value.
    """
    names = tuple(str(field.alias) for field in Settings.model_fields.values())
    given = {} if profile is None else _from_profile(profile, environ)
    values, unreadable = _from_files(_secret_files(names, environ, secrets_directory))
    values |= {name: value for name, value in {**environ, **_filled(given)}.items() if name in names and value}
    faults = [f"{name}: {fault}" for name, fault in unreadable.items() if name not in values]
    faults += find_misspelt(environ, [*given, *_file_names(secrets_directory)], known=names)
    try:
        settings = Settings.model_validate(_filled(values))
    except ValidationError as error:
        faults += [f"{_variable(fault['loc'][0])}: {fault['msg']}" for fault in error.errors(include_input=False)]
    if faults:
        raise ConfigurationError(f"these settings are wrong: {'; '.join(faults)}")
    return settings


def _variable(place: int | str) -> str:
    """Return the variable that a fault is about; a default that does not fit is told by the name of its field."""
    field = Settings.model_fields.get(str(place))
    return str(field.alias if field else place)


def _filled(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _file_names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.is_dir() else []


def _secret_files(names: tuple[str, ...], environ: Mapping[str, str], directory: Path) -> dict[str, Path]:
    mounted = {name: directory / name for name in names if (directory / name).is_file()}
    return mounted | {name: Path(environ[f"{name}_FILE"]) for name in names if environ.get(f"{name}_FILE")}


def _from_files(files: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, str]]:
    values: dict[str, str] = {}
    faults: dict[str, str] = {}
    for name, path in files.items():
        try:
            values[name] = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            faults[name] = f"its file cannot be read ({type(error).__name__})"
    return values, faults


def _from_profile(profile: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    path, name = Path(f"{profile}.env"), str(_one_name(profile))
    if not re.fullmatch(r"[A-Za-z0-9_-]+", profile):
        raise ConfigurationError("--env takes the name of a profile: letters, digits, '-' and '_'")
    if not path.is_file():
        said = environ.get("COMPLIANCE_ENV")
        if name != _one_name(said) if said else name not in NEEDS_NO_FILE:
            raise ConfigurationError(
                f"--env {profile}: there is no {path} in this folder; where the variables are those of {profile}, set "
                f"COMPLIANCE_ENV={profile}, too"
            )
        return {"COMPLIANCE_ENV": profile}
    try:
        read = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
    return {"COMPLIANCE_ENV": profile} | read
