"""The data map as it is written in YAML (``datamap/v1``), validated.

A map names the collection whose document *is* the person (the root), the keys by which other documents refer to the
person, and for every collection the rules: which documents, and what becomes of them on erasure.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from bson import json_util
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from compliance.datamap.buckets import Every, buckets_between
from compliance.errors import ConfigurationError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,119}$")]
Path_ = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\[\])?(\.[A-Za-z_][A-Za-z0-9_]*(\[\])?)*$")]
FieldPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")]
MOST_BUCKETS = 400
_OPTIONS = json_util.JSONOptions(tz_aware=True, tzinfo=UTC)
_CANONICAL = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL)


def _from_extended_json(value: Any) -> Any:
    try:
        return json_util.loads(json.dumps(value), json_options=_OPTIONS)
    except Exception:  # noqa: BLE001 - json_util lets many types escape for wrong wrappers
        raise ValueError('expected a value in Extended JSON, such as {$oid: "..."} or {$date: "..."}') from None


Day = Annotated[date, PlainSerializer(str)]
Literal_ = Annotated[Any, BeforeValidator(_from_extended_json)]


class KeyType(StrEnum):
    """BSON types by which documents may refer to a person."""

    OBJECT_ID = "objectId"
    STRING = "string"
    UUID = "uuid"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True)


class Key(_Model):
    """A value that identifies the person: where it stands in the root document, and its type.

    Attributes:
        personal: True for a value that says who it is (an e-mail address). Documents are then found by reading them,
            not by a query. Where it is the key of the root, everything of ours names the person by a keyed pseudonym.
    """

    path: Path_
    type: KeyType
    personal: bool = False


class Subject(_Model):
    """Who the person is: one document of ``collection``, found by ``key``."""

    collection: Name
    key: Name
    keys: dict[Name, Key]

    @model_validator(mode="after")
    def _has_its_key(self) -> "Subject":
        if self.key not in self.keys:
            raise ValueError("subject.key must name one of subject.keys")
        root = self.keys[self.key]
        if root.personal and (root.type is not KeyType.STRING or "[]" in root.path):
            raise ValueError("subject.key: a personal key must be of the type string, and its path without []")
        return self


class Locator(_Model):
    """Which documents: ``path`` holds a key of the person, or the ``_id`` of a document of collection ``of``."""

    path: Path_
    key: Name | None = None
    of: Name | None = None

    @model_validator(mode="after")
    def _refers_to_one_thing(self) -> "Locator":
        if (self.key is None) == (self.of is None):
            raise ValueError("give either key (a key of the subject) or of (a collection that the rules reach)")
        return self


class Kept(_Model):
    """What stays, and the ground that allows it."""

    fields: tuple[Path_, ...]
    ground: Annotated[str, StringConstraints(min_length=3)]
    why: Annotated[str, StringConstraints(min_length=3)]


class Delete(_Model):
    """The document goes."""

    action: Literal["delete"]


class Update(_Model):
    """The document stays, without what points at the person."""

    action: Literal["update"]
    set: dict[FieldPath, Literal_] = {}
    unset: tuple[FieldPath, ...] = ()


class Pull(_Model):
    """The document belongs to others: the person's elements leave the array ``array``."""

    action: Literal["pull"]
    array: Path_


class Rule(_Model):
    """Documents of one collection that hold data of the person, and what becomes of them.

    Attributes:
        where: A literal filter in Extended JSON that narrows the rule.
    """

    locate: Locator
    where: dict[str, Literal_] = {}
    on_erase: Annotated[Delete | Update | Pull, Field(discriminator="action")]
    kept: Kept | None = None


class History(_Model):
    """Old versions: a copy of each document in ``<collection><suffix>``, its first ``_id`` under ``id_path``."""

    suffix: Annotated[str, StringConstraints(pattern=r"^_[a-z_]+$")]
    id_path: Path_


class Buckets(_Model):
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


class Recipient(_Model):
    """A system outside this database that holds the same people and must be told (GDPR Art. 19)."""

    id: Name
    holds: str


class DataMap(_Model):
    """The whole map of one application database."""

    apiVersion: Literal["datamap/v1"]  # noqa: N815 - the name in the file
    subject: Subject
    collections: dict[Name, tuple[Rule, ...]]
    buckets: dict[Name, Buckets] = {}
    history: History | None = None
    consent_types: tuple[Name, ...] = ()
    imports: tuple[Name, ...] = ()
    recipients: tuple[Recipient, ...] = ()
    kept_elsewhere: tuple[Kept, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 by which a plan names the map it was made with."""
        return hashlib.sha256(json_util.dumps(self.model_dump(), json_options=_CANONICAL).encode()).hexdigest()

    @property
    def root_key(self) -> Key:
        """The key by which requests name a person."""
        return self.subject.keys[self.subject.key]

    @model_validator(mode="before")
    @classmethod
    def _gives_buckets_their_rules(cls, given: Any) -> Any:
        """Let the rules of a collection hold for its buckets, right behind it: documents move from it to them."""
        declared = given.get("buckets") if isinstance(given, dict) else None
        if not isinstance(declared, dict) or not isinstance(given.get("collections"), dict):
            return given
        try:
            buckets = {name: Buckets.model_validate(found) for name, found in declared.items()}
        except ValidationError:  # the field says it with its place
            return given
        collections: dict[str, Any] = {}
        for name, rules in given["collections"].items():
            collections[name] = rules
            for bucket in buckets[name].named(name) if name in buckets else ():
                collections[bucket] = given["collections"].get(bucket, rules)
        return {**given, "collections": collections}

    @model_validator(mode="after")
    def _keeps_hold_of_what_moves(self) -> "DataMap":
        for name in self.buckets:
            if name not in self.collections:
                raise ValueError(f"buckets.{name} is not a collection of the map")
        for collection, rule in self.rules():
            if rule.locate.of in self.buckets:
                raise ValueError(f"{collection}: locate.of {rule.locate.of} is in buckets, so its documents move")
        return self

    def rules(self) -> Iterator[tuple[str, Rule]]:
        """Yield each collection with each of its rules."""
        for collection, rules in self.collections.items():
            for rule in rules:
                yield collection, rule

    def writable(self) -> tuple[str, ...]:
        """Return the collections that an erasure may have to change."""
        own = (self.subject.collection, *self.collections)
        old = tuple(name + self.history.suffix for name in own) if self.history else ()
        return tuple(dict.fromkeys(own + old))

    @model_validator(mode="after")
    def _hangs_together(self) -> "DataMap":
        if self.consent_types and "consent" not in self.collections:
            raise ValueError("consent_types is given, so collections needs consent: its documents name the person")
        for collection, rule in self.rules():
            locate = rule.locate
            if locate.key is not None and locate.key not in self.subject.keys:
                raise ValueError(f"{collection}: locate.key {locate.key} is not one of subject.keys")
            if locate.of is not None and locate.of not in self.collections:
                raise ValueError(f"{collection}: locate.of {locate.of} is not a collection of the map")
            if locate.key is not None and self.subject.keys[locate.key].personal and not _can_scan(rule):
                raise ValueError(f"{collection}: a personal key takes a path without [], and no pull")
            if not _leaves(rule.on_erase, locate.path):
                raise ValueError(f"{collection}: on_erase must take {locate.path} away, or the person stays findable")
        return self


def _can_scan(rule: Rule) -> bool:
    """A personal value stands in no query and no update, so documents are compared one by one."""
    return "[]" not in rule.locate.path and not isinstance(rule.on_erase, Pull)


def _leaves(action: Delete | Update | Pull, path: str) -> bool:
    """Whether *action* takes *path* away; of an array only the whole can be set or unset."""
    if isinstance(action, Delete):
        return True
    if isinstance(action, Pull):
        return path == f"{action.array}[]" or path.startswith(f"{action.array}[].")
    whole = path.partition("[]")[0]
    return any(whole == touched or whole.startswith(f"{touched}.") for touched in (*action.set, *action.unset))


def load_data_map(path: Path) -> DataMap:
    """Read the map at *path*.

    Raises:
        ConfigurationError: With every fault and where it stands.
    """
    try:
        return DataMap.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigurationError(f"COMPLIANCE_DATA_MAP: cannot be read ({type(error).__name__})") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError(f"the data map {path.name} is not valid YAML") from None
    except ValidationError as error:
        faults = "; ".join(map(_describe, error.errors(include_input=False)))
        raise ConfigurationError(f"the data map {path.name} is wrong: {faults}") from None


def _describe(fault: ErrorDetails) -> str:
    place = ".".join(map(str, fault["loc"])) or "map"
    if fault["type"] == "union_tag_invalid":  # the only message of pydantic that repeats what it refuses
        return f"{place}: expected action to be one of {fault['ctx']['expected_tags']}"
    return f"{place}: {fault['msg']}"
