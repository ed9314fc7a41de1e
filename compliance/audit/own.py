"""The private keys of this process, as its settings give them."""

from collections.abc import Callable

from compliance.audit.keys import SigningKey
from compliance.audit.trust import parse_own_key
from compliance.audit.writer import Writer
from compliance.errors import ConfigurationError
from compliance.settings import Settings

WRITER = "writer"
LOG = "log"


def find_key(settings: Settings, signer: str) -> SigningKey | None:
    """Return the key of *signer*, ``writer`` or ``log``; None where the settings have none.

    Raises:
        ConfigurationError: When it cannot be read.
    """
    given = settings.writer_key if signer == WRITER else settings.log_key
    if given is None:
        return None
    return parse_own_key(given.get_secret_value(), signer=signer, what=_variable(signer))


def get_key(settings: Settings, signer: str, *, held: Callable[[], SigningKey | None] = lambda: None) -> SigningKey:
    """Return the key of *signer*: that of the settings, else the one that is *held* elsewhere.

    Raises:
        ConfigurationError: When there is none, or it cannot be read.
    """
    key = find_key(settings, signer) or held()
    if key is None:
        raise ConfigurationError(f"set {_variable(signer)}: a private key, or 40 random letters and digits or more")
    return key


def build_writer(settings: Settings, *, process: str, held: Callable[[], SigningKey | None] = lambda: None) -> Writer:
    """Return the writer of audit entries of *process*; see ``get_key``.

    Raises:
        ConfigurationError: When it has no key.
    """
    return Writer(origin=settings.log_origin, key=get_key(settings, WRITER, held=held), process=process)


def _variable(signer: str) -> str:
    return f"COMPLIANCE_{signer.upper()}_KEY"
