"""The home directory of a stack: where it is, and the small files that its processes share."""

import json
import secrets
import tomllib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import platformdirs

from compliance.errors import ConfigurationError
from compliance.roles import Role
from compliance.statefile import replace_file

PROJECT = "compliance-worker"
ADMIN = "admin"
USERS = (ADMIN, *(role.value for role in Role))
KEY_FILE_BYTES = 512
SIGNERS = ("writer", "log")
SEED_BYTES = 32


def resolve_home(explicit: Path | None, *, cwd: Path | None = None) -> Path:
    """Return the absolute home directory, made with mode 0700 where it is missing.

    Args:
        explicit: What the user asked for; else ``.compliance`` in the checkout around *cwd*, else the user's data
            directory.
        cwd: Where to look for a checkout; the current directory by default.

    Raises:
        ConfigurationError: When the directory cannot be made.
    """
    home = locate_home(explicit, cwd=cwd or Path.cwd(), user_data=platformdirs.user_data_path("compliance"))
    make_private(home)
    return home


def locate_home(explicit: Path | None, *, cwd: Path, user_data: Path) -> Path:
    """Return where the home directory belongs, and touch nothing."""
    if explicit is not None:
        return explicit.expanduser().absolute()
    for directory in (cwd.absolute(), *cwd.absolute().parents):
        if _is_checkout(directory):
            return directory / ".compliance"
    return user_data


def make_private(directory: Path) -> None:
    """Make *directory* with mode 0700; one that exists stays as it is.

    Raises:
        ConfigurationError: When it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make {directory} ({error.strerror}); set COMPLIANCE_HOME to a directory that you may write"
        ) from error


def write_private(path: Path, text: str) -> None:
    """Replace *path* at once by a file that is readable by its owner only."""
    replace_file(path, text.encode(), mode=0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The generated passwords and keys of a stack, in ``secrets.json``; no representation shows them."""

    passwords: Mapping[str, str] = field(repr=False)
    redis: str = field(repr=False)
    key_file: str = field(repr=False)
    seeds: Mapping[str, str] = field(default_factory=dict, repr=False)
    pseudonym: str = field(default="", repr=False)

    def seed(self, signer: str) -> bytes:
        """Return the private half of an Ed25519 key: that of ``writer`` or ``log``."""
        return b64decode(self.seeds[signer])

    @classmethod
    def generate(cls) -> Self:
        """Return fresh random secrets for every user."""
        return cls(
            passwords={user: secrets.token_urlsafe(24) for user in USERS},
            redis=secrets.token_urlsafe(24),
            key_file=secrets.token_hex(KEY_FILE_BYTES // 2),
            seeds={signer: b64encode(secrets.token_bytes(SEED_BYTES)).decode() for signer in SIGNERS},
            pseudonym=secrets.token_hex(SEED_BYTES),
        )

    @classmethod
    def load(cls, home: Path) -> Self | None:
        """Return the secrets kept in *home*, or None where there are none yet.

        Raises:
            ConfigurationError: When the file is damaged; it is never replaced, because the data knows its passwords.
        """
        path = home / "secrets.json"
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            raise ConfigurationError(
                f"{path} cannot be read; restore it, or remove {home} to begin with empty servers"
            ) from None

    @classmethod
    def load_or_create(cls, home: Path) -> Self:
        """Return the secrets kept in *home*; generate and keep those that are not there yet."""
        kept, new = cls.load(home), cls.generate()
        whole = new
        if kept is not None:
            passwords, seeds = {**new.passwords, **kept.passwords}, {**new.seeds, **kept.seeds}
            whole = replace(kept, passwords=passwords, seeds=seeds, pseudonym=kept.pseudonym or new.pseudonym)
        if whole != kept:
            write_private(home / "secrets.json", json.dumps(asdict(whole)))
        return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a stack remembers in ``state.json``: its sticky ports, and whether it is open for others to use."""

    mongod_ports: tuple[int, ...] = ()
    valkey_port: int = 0
    is_open: bool = False

    @classmethod
    def load(cls, home: Path) -> Self:
        """Return the state kept in *home*; an absent or damaged one only means new ports."""
        try:
            kept = cls(**json.loads((home / "state.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()
        return cls(mongod_ports=tuple(kept.mongod_ports), valkey_port=kept.valkey_port, is_open=kept.is_open)

    def save(self, home: Path) -> None:
        """Keep this state in *home*."""
        write_private(home / "state.json", json.dumps(asdict(self)))


def _is_checkout(directory: Path) -> bool:
    try:
        project = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(project.get("project", {}).get("name") == PROJECT)
