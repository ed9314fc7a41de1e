"""Which documents of a collection hold data of a person, and what becomes of them on erasure."""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from compliance.datamap.form import Day, FieldPath, Literal_, Name, Part, Path_, Reason, Span, is_under
from compliance.datamap.person import KeyType

StrategyName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*_v[1-9][0-9]*$")]
ARTICLE = re.compile(r"\b17\(3\)\([a-e]\)|\b15\(4\)|\b20\(4\)")


class Edge(StrEnum):
    """What a reference means for the document that holds it.

    Attributes:
        DEEP: The document is the person's; what refers to it by ``of`` is reached, too.
        OWNED: As deep, where the person is its only owner. Where the path goes through an array and others stand in
            it, the person's element is pulled and the document stays.
        SHALLOW: The action takes the document; what refers to it stays as it is.
        SHARED: The document belongs to others, too: it is never deleted.

    Source: the edge types of DELF (Cohn-Gordon et al., USENIX Security 2020).
    """

    DEEP = "deep"
    OWNED = "owned"
    SHALLOW = "shallow"
    SHARED = "shared"


class Encoding(StrEnum):
    """How a value within a field may be packed; applied from the outside in."""

    BASE64 = "base64"
    HEX = "hex"
    JSON = "json"
    GZIP = "gzip"
    URL = "url"


class Locator(Part):
    """Which documents: ``path`` holds a key of the person, or the ``_id`` of a document of collection ``of``.

    ``path`` goes through arrays by ``[]``; ``path{}`` says that the value is a field name of the map at ``path``.

    Attributes:
        of: May be the collection itself, for trees; they are followed to their end.
        stored: The BSON types in which the value stands there, where they differ from that of the key.
        prefix: The value stands in a text behind this, as in ``users/<id>/photo``; empty for its beginning.
        suffix: What follows the value in that text; needs ``prefix``.
        encoded: The value stands within a text or bytes that are packed so; documents are then read, not queried.
    """

    path: Path_
    key: Name | None = None
    of: Name | None = None
    edge: Edge = Edge.DEEP
    stored: tuple[KeyType, ...] = ()
    prefix: str | None = None
    suffix: str = ""
    encoded: tuple[Encoding, ...] = ()

    @property
    def is_map_key(self) -> bool:
        """Whether the value is a field name."""
        return self.path.endswith("{}")

    @model_validator(mode="after")
    def _refers_to_one_thing(self) -> "Locator":
        if (self.key is None) == (self.of is None):
            raise ValueError("give either key (a key of the subject) or of (a collection that the rules reach)")
        if self.suffix and self.prefix is None:
            raise ValueError("suffix needs prefix; an empty one is the beginning of the text")
        ways = sum((self.is_map_key, self.prefix is not None, bool(self.encoded)))
        if ways > 1:
            raise ValueError("give one of: a path that ends in {}, prefix, encoded")
        if ways and self.of is not None:
            raise ValueError("a path that ends in {}, prefix and encoded are for key, not for of")
        return self


class Kept(Part):
    """What stays, and the ground that allows it.

    Attributes:
        ground: The exception, such as ``GDPR Art. 17(3)(b)``.
        basis: The law that obliges to keep it, where one does.
        until: The last day.
        period: How long from the erasure on, instead of ``until``.
    """

    fields: tuple[Path_, ...]
    ground: Reason
    why: Reason
    basis: Reason | None = None
    until: Day | None = None
    period: Span | None = None

    @property
    def article(self) -> str | None:
        """The exception alone, such as ``17(3)(b)``; None where the ground is another."""
        found = ARTICLE.search(self.ground)
        return found[0] if found else None

    @model_validator(mode="after")
    def _ends_once(self) -> "Kept":
        if self.until is not None and self.period is not None:
            raise ValueError("give either until (a day) or period, not both")
        return self


class Delete(Part):
    """The document goes."""

    action: Literal["delete"]


class Update(Part):
    """The document stays, without what points at the person.

    Attributes:
        relabel: Paths that get the tombstone of the subject.
        mask: Paths whose value is replaced by a masking strategy, by name and version.
    """

    action: Literal["update"]
    set: dict[FieldPath, Literal_] = Field(default_factory=dict)
    unset: tuple[FieldPath, ...] = ()
    relabel: tuple[FieldPath, ...] = ()
    mask: dict[FieldPath, StrategyName] = Field(default_factory=dict)

    @property
    def touched(self) -> tuple[str, ...]:
        """Every path that gets another value, or none."""
        return (*self.set, *self.unset, *self.relabel, *self.mask)

    @model_validator(mode="after")
    def _touches_each_path_once(self) -> "Update":
        for number, path in enumerate(self.touched):
            others = (*self.touched[:number], *self.touched[number + 1 :])
            if any(is_under(path, other) for other in others):
                raise ValueError(f"{path} is changed twice")
        return self


class Pull(Part):
    """The document belongs to others: the person's elements leave the array ``array``.

    Attributes:
        match: Further values that an element must have, by path within it.
    """

    action: Literal["pull"]
    array: Path_
    match: dict[FieldPath, Literal_] = Field(default_factory=dict)


class RemoveKey(Part):
    """The document belongs to others: what stands under the person's name leaves the map of the locator's path."""

    action: Literal["remove_key"]


class Archive(Part):
    """A part of the document is copied to another collection, and the document goes; both in one transaction.

    Attributes:
        to: The collection of the copies; each has the ``_id`` of the document and when it was archived.
        fields: What is copied; nothing of it may identify the person.
    """

    action: Literal["archive"]
    to: Name
    fields: tuple[FieldPath, ...]


class Keep(Part):
    """The document stays as it is, identifiers with it: a law demands it whole. Needs ``kept``."""

    action: Literal["keep"]


Action = Delete | Update | Pull | RemoveKey | Archive | Keep


class Rule(Part):
    """Documents of one collection that hold data of the person, and what becomes of them.

    Attributes:
        where: A literal filter in Extended JSON that narrows the rule.
    """

    locate: Locator
    where: dict[str, Literal_] = Field(default_factory=dict)
    on_erase: Annotated[Action, Field(discriminator="action")]
    kept: Kept | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Rule":
        action, locate = self.on_erase, self.locate
        if isinstance(action, Keep) and self.kept is None:
            raise ValueError("on_erase keep needs kept: which fields, on what ground")
        if isinstance(action, Delete | Archive) and locate.edge is Edge.SHARED:
            raise ValueError("a document that is shared is never deleted: take update or pull, or another edge")
        if isinstance(action, RemoveKey) != locate.is_map_key and not isinstance(action, Delete | Update | Keep):
            raise ValueError("a locator whose path ends in {} takes remove_key, which takes no other locator")
        if locate.edge is Edge.OWNED and not (isinstance(action, Delete) and "[]" in locate.path):
            raise ValueError("edge owned takes a path through an array, and delete")
        return self


def leaves(action: Action, path: str) -> bool:
    """Whether *action* takes *path* away; of an array only the whole can be set or unset."""
    match action:
        case Delete() | Archive() | Keep():  # what is kept, is kept with a ground
            return True
        case RemoveKey():
            return path.endswith("{}")
        case Pull():
            return path == f"{action.array}[]" or path.startswith(f"{action.array}[].")
        case Update():
            whole = path.partition("[]")[0].removesuffix("{}")
            return any(whole == touched or whole.startswith(f"{touched}.") for touched in action.touched)
