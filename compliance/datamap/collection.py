"""What a collection holds of people: its rules, its fields, and what kind of collection it is."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from compliance.datamap.buckets import Every, buckets_between
from compliance.datamap.form import Day, FieldPath, Literal_, Name, Part, Path_, Reason, Span
from compliance.datamap.rule import Rule
from compliance.datamap.taxonomy import is_category

MOST_BUCKETS = 400
NONE = "none"


class Kind(StrEnum):
    """What MongoDB makes of the name.

    Attributes:
        GRIDFS: A bucket: the rules hold for ``<name>.files``, and the chunks go with their files.
        TIME_SERIES: Documents are deleted by what stands in the meta field, and by nothing else.
        VIEW: Nothing is stored in it; what it reads is in the map by itself.
    """

    ORDINARY = "ordinary"
    GRIDFS = "gridfs"
    TIME_SERIES = "timeseries"
    VIEW = "view"


class Origin(StrEnum):
    """Where a value comes from, which decides whether it is part of a copy under GDPR Art. 20.

    Source: Article 29 Working Party, WP 242 rev.01.
    """

    PROVIDED = "provided"
    OBSERVED = "observed"
    DERIVED = "derived"
    INFERRED = "inferred"


class FieldOf(Part):
    """What one path holds.

    Attributes:
        type: BSON types by their aliases.
        categories: Of the fideslang taxonomy, or the one word ``none`` for what is not personal.
        derived_from: ``collection.path`` of what it was made from.
        purposes: Names of the purposes of the map.
    """

    type: str | tuple[str, ...] = ()
    categories: tuple[str, ...]
    origin: Origin | None = None
    purposes: tuple[Name, ...] = ()
    derived_from: tuple[Path_, ...] = ()

    @property
    def is_personal(self) -> bool:
        """Whether it says something of a person."""
        return self.categories != (NONE,)

    @model_validator(mode="after")
    def _is_said(self) -> "FieldOf":
        if not self.categories:
            raise ValueError(f"categories: say what it holds, or [{NONE}]")
        if NONE in self.categories and self.is_personal:
            raise ValueError(f"categories: {NONE} stands alone")
        unknown = [name for name in self.categories if name != NONE and not is_category(name)]
        if unknown:
            raise ValueError(f"categories: not in the fideslang taxonomy: {', '.join(unknown)}")
        return self


class Retention(Part):
    """When documents are too old for what they were stored for.

    Attributes:
        purpose: Of the map; it says how long.
        age_of: The date from which the age counts.
        where: A literal filter in Extended JSON that narrows it.
    """

    purpose: Name
    age_of: FieldPath
    where: dict[str, Literal_] = Field(default_factory=dict)


class Collection(Part):
    """One collection of the map.

    Attributes:
        closed: Every path that stands in documents must be in ``fields``, or be a part of one that is.
        derived_from: Collections of which this one is made, as statistics are.
    """

    kind: Kind = Kind.ORDINARY
    rules: tuple[Rule, ...] = ()
    fields: dict[Path_, FieldOf] = Field(default_factory=dict)
    closed: bool = False
    derived_from: tuple[Name, ...] = ()
    retention: tuple[Retention, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "Collection":
        if self.closed and not self.fields:
            raise ValueError("closed needs fields: what is not listed is a fault")
        return self


class Purpose(Part):
    """What data is stored for (GDPR Art. 5(1)(b)), and for how long (Art. 5(1)(e)).

    Attributes:
        basis: The lawful basis of GDPR Art. 6(1).
        retention: How long; None while the person is a customer.
        exception: The exception from erasure that the purpose is, such as ``17(3)(b)``.
    """

    basis: Annotated[
        str,
        StringConstraints(
            pattern="^(consent|contract|legal_obligation|vital_interests|public_task|legitimate_interests)$"
        ),
    ]
    why: Reason
    retention: Span | None = None
    exception: str | None = None


class History(Part):
    """Old versions: a copy of each document in ``<collection><suffix>``, its first ``_id`` under ``id_path``.

    Attributes:
        fields: What a copy has beside the fields of its collection.
    """

    suffix: Annotated[str, StringConstraints(pattern=r"^_[a-z_]+$")]
    id_path: Path_
    fields: dict[Path_, FieldOf] = Field(default_factory=dict)


class Buckets(Part):
    """Time buckets of a collection: its rules hold for each of them, and the worker gets rights on each.

    Attributes:
        every: How long one is.
        since: A day in the first one.
        until: A day in the last one; rights are given by name, so the last one is named before it is there.
    """

    every: Every
    since: Day
    until: Day

    def named(self, collection: str) -> Iterator[str]:
        """Yield the name of every bucket of *collection*."""
        return (bucket.name for bucket in buckets_between(collection, self.every, self.since, self.until))

    @model_validator(mode="after")
    def _are_some(self) -> "Buckets":
        days = {Every.DAY: 1, Every.MONTH: 28, Every.YEAR: 365}[self.every]
        if not 0 <= (self.until - self.since).days <= MOST_BUCKETS * days:
            raise ValueError(f"until must not be before since, nor more than {MOST_BUCKETS} buckets after it")
        return self
