"""Who a person is: the root document, and the keys by which other documents refer to it."""

from enum import StrEnum

from pydantic import model_validator

from compliance.datamap.form import FieldPath, Literal_, Name, Part, Path_


class KeyType(StrEnum):
    """BSON types by which documents may refer to a person."""

    OBJECT_ID = "objectId"
    STRING = "string"
    UUID = "uuid"
    LONG = "long"


class Normaliser(StrEnum):
    """How two texts are made equal that mean the same person, applied in the order in which they are given.

    Attributes:
        TRIM: Without white space at both ends.
        NFKC: Unicode Normalization Form KC (Unicode Standard Annex 15).
        CASEFOLD: Full case folding (Unicode Standard, section 3.13).
        E164: A telephone number as ``+`` and its digits (ITU-T Recommendation E.164).
    """

    TRIM = "trim"
    NFKC = "nfkc"
    CASEFOLD = "casefold"
    E164 = "e164"


class Key(Part):
    """A value that identifies the person: where it stands in the root document, and its type.

    Attributes:
        personal: True for a value that says who it is (an e-mail address). Documents are then found by reading them,
            not by a query. Where it is the key of the root, everything of ours names the person by a keyed pseudonym.
        normalise: How values of it are compared; as addresses are (trim, nfkc, casefold) where nothing is given and it
            is personal.
    """

    path: Path_
    type: KeyType
    personal: bool = False
    normalise: tuple[Normaliser, ...] = ()

    @model_validator(mode="after")
    def _is_text_where_it_is_normalised(self) -> "Key":
        if self.normalise and self.type is not KeyType.STRING:
            raise ValueError("normalise is for keys of the type string")
        return self


class Subject(Part):
    """Who the person is: one document of ``collection``, found by ``key``.

    Attributes:
        tombstone: What stands for a person who was erased, of the type of ``key``; see ``Update.relabel``.
    """

    collection: Name
    key: Name
    keys: dict[Name, Key]
    tombstone: Literal_ = None

    @model_validator(mode="after")
    def _has_its_key(self) -> "Subject":
        if self.key not in self.keys:
            raise ValueError("subject.key must name one of subject.keys")
        root = self.keys[self.key]
        if root.personal and (root.type is not KeyType.STRING or "[]" in root.path):
            raise ValueError("subject.key: a personal key must be of the type string, and its path without []")
        return self


class Tenant(Part):
    """Whose data it is where several organisations share the database: every locator holds for one tenant only.

    Attributes:
        field: Where every document of a collection with rules says it.
        type: The BSON type of it.
    """

    field: FieldPath
    type: KeyType
