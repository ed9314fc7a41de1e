"""What a health check is: a function that looks, changes nothing, and reports what it found."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from compliance.audit.trust import Trust
from compliance.datamap.model import DataMap
from compliance.datamap.pseudonym import Pseudonyms
from compliance.datamap.subject import SubjectId
from compliance.mongo import Databases
from compliance.registry import Registry


class Status(StrEnum):
    """What a check found."""

    OK = "ok"
    FAILED = "failed"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to look at: everything, or one person.

    Attributes:
        pseudonyms: How people are named, where the data map has a personal root key.
        check: Called while much is read; may end the check by an error.
    """

    databases: Databases
    data_map: DataMap
    trust: Trust
    subject_id: SubjectId | None = None
    pseudonyms: Pseudonyms | None = None
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check: sentences with names of collections, indexes and counts, never personal data."""

    problems: tuple[str, ...] = ()
    looked_at: int = 0

    @property
    def status(self) -> Status:
        """Whether anything was found."""
        return Status.FAILED if self.problems else Status.OK


Check = Callable[[Scope], Finding]
CHECKS: Registry[Check] = Registry("health check")
