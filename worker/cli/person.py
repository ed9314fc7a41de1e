"""How commands name a person: by the opaque id, or by a pseudonym where the ids of the data map are personal."""

import sys
from dataclasses import dataclass, field
from typing import Annotated

import typer

from compliance.datamap.people import find_by_pseudonym
from compliance.datamap.subject import SubjectId
from compliance.errors import InvalidPayload
from worker.services import Services

STDIN = "-"

SubjectArgument = Annotated[str, typer.Argument(help="The opaque id of the person, else the pseudonym.")]


@dataclass(frozen=True, slots=True)
class Person:
    """A person as commands look for one.

    Attributes:
        key: The id as the application holds it; None where a pseudonym names nobody.
        names: Every id by which our own collections may name the person.
    """

    key: SubjectId | None = field(repr=False)
    names: tuple[SubjectId, ...]


def find_person(services: Services, subject_id: SubjectId) -> Person:
    """Return whom *subject_id* names; this may read the keys of all people."""
    pseudonyms, data_map = services.pseudonyms, services.data_map
    if pseudonyms is None:
        return Person(subject_id, (subject_id,))
    found = find_by_pseudonym(services.databases.app, data_map, subject_id, pseudonyms=pseudonyms)
    if found is None:
        return Person(None, (subject_id,))
    key: str = found.values[data_map.subject.key]
    return Person(key, tuple(dict.fromkeys((subject_id, *pseudonyms.all_of(key)))))


def other_names(services: Services, subject_id: SubjectId) -> tuple[SubjectId, ...]:
    """Return the names of the person beside *subject_id*, where more than one key makes pseudonyms."""
    if services.pseudonyms is None or len(services.pseudonyms.keys) == 1:
        return ()
    return tuple(name for name in find_person(services, subject_id).names if name != subject_id)


def read_value(given: str) -> str:
    """Return *given*, or the line on stdin where it is ``-``: a shell keeps what was typed behind a command.

    Raises:
        InvalidPayload: When there is none.
    """
    if given == STDIN and sys.stdin.isatty():
        sys.stderr.write("id of the person: ")
    value = sys.stdin.readline().rstrip("\r\n") if given == STDIN else given
    if not value:
        raise InvalidPayload("no value was given: expected the id of the person, as its document holds it")
    return value
