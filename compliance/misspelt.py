"""Names that look like settings of ours and are none: misspelt, a setting would pass in silence; pure."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from compliance.roles import Role

OURS = "COMPLIANCE_"
OF_COMPOSE = frozenset(f"{OURS}{role.name}_PASSWORD" for role in Role)  # what docker-compose.yml makes settings of
# Kubernetes tells every process of a namespace where its services are, and one of them may begin with our name.
SERVICE_LINK = re.compile(
    r".*(_SERVICE_HOST|_SERVICE_PORT(_\w*)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_\w*)?)=|.*_PORT=[a-z]+://"
)


def find_misspelt(environ: Mapping[str, str], others: Iterable[str], *, known: Iterable[str]) -> list[str]:
    """Return a sentence about each name that begins like ours and is none, with the nearest that is; never a value.

    Args:
        environ: Variables; those that a cluster sets are left alone.
        others: Names from elsewhere, such as files of secrets.
        known: The names of the settings.
    """
    names = tuple(known)
    allowed = {*names, *(f"{name}_FILE" for name in names), *OF_COMPOSE}
    given = {name for name, value in environ.items() if not SERVICE_LINK.match(f"{name}={value}")} | set(others)
    misspelt = sorted(name for name in given - allowed if name.startswith(OURS))
    return [f"{name}: there is no such setting{_suggestion(name, names)}" for name in misspelt]


def _suggestion(name: str, names: tuple[str, ...]) -> str:
    known = {known.removeprefix(OURS): known for known in names}  # compared by what tells them apart
    near = get_close_matches(name.removeprefix(OURS).removesuffix("_FILE"), known, n=1)
    return f"; did you mean {known[near[0]]}?" if near else ""
