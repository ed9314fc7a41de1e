"""Who gives a command, as the audit log and the history name them: ``cli:anna``."""

import getpass
import os
import re

from compliance.errors import InvalidPayload
from compliance.settings import OPERATOR

LONGEST = 40  # characters

_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]+")


def name_operator(given: str = "") -> str:
    """Return who gives a command: the name that was *given*, else the login of this process.

    Raises:
        InvalidPayload: When what was given is no such name; it is not repeated.
    """
    if not given:
        return f"cli:{_login()}"
    if not re.fullmatch(OPERATOR, given):
        raise InvalidPayload(
            f"who gives a command is a login of at most {LONGEST} letters, digits, dots, hyphens and underscores, no "
            "e-mail address: the audit log keeps it; give another --as, or COMPLIANCE_OPERATOR"
        )
    return f"cli:{given}"


def _login() -> str:
    """Return the name of the user of this process, as far as an audit entry may hold it; its number without one."""
    try:
        found = getpass.getuser()
    except (OSError, KeyError):  # such as in a container
        found = ""
    return _FOREIGN.sub("-", found.partition("@")[0]).strip("-.")[:LONGEST] or f"uid-{os.getuid()}"
