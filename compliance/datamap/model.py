"""The data map as it is written in YAML (``datamap/v1``), validated.

A map names the collection whose document *is* the person (the root), the keys by which other documents refer to the
person, and for every collection the rules: which documents, and what becomes of them on erasure.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from bson import json_util
from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from compliance.datamap.collection import Buckets, Collection, History, Kind, Purpose
from compliance.datamap.form import Name, Part
from compliance.datamap.outside import PreImages, Recipient, Surfaces
from compliance.datamap.person import Key, Subject, Tenant
from compliance.datamap.rule import Archive, Delete, Keep, Kept, Pull, RemoveKey, Rule, Update, leaves
from compliance.errors import ConfigurationError
from compliance.roles import Grants

_CANONICAL = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL)
FILES, CHUNKS = ".files", ".chunks"


def _from_list(value: Any) -> Any:
    """A list of rules alone is a collection of which nothing else is said."""
    return {"rules": value} if isinstance(value, list | tuple) else value


Collection_ = Annotated[Collection, BeforeValidator(_from_list, json_schema_input_type=Collection | tuple[Rule, ...])]


class DataMap(Part):
    """The whole map of one application database."""

    apiVersion: Literal["datamap/v1"]  # noqa: N815 - the name in the file
    subject: Subject
    tenant: Tenant | None = None
    purposes: dict[Name, Purpose] = Field(default_factory=dict)
    collections: dict[Name, Collection_]
    buckets: dict[Name, Buckets] = Field(default_factory=dict)
    history: History | None = None
    consent_types: tuple[Name, ...] = ()
    imports: tuple[Name, ...] = ()
    recipients: tuple[Recipient, ...] = ()
    surfaces: Surfaces = Surfaces()
    kept_elsewhere: tuple[Kept, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 by which a plan names the map it was made with."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def canonical(self) -> str:
        """The text that the digest is of: canonical Extended JSON."""
        return json_util.dumps(self.model_dump(), json_options=_CANONICAL)

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
        for name, content in given["collections"].items():
            collections[name] = content
            for bucket in buckets[name].named(name) if name in buckets else ():
                collections[bucket] = given["collections"].get(bucket, content)
        return {**given, "collections": collections}

    @model_validator(mode="before")
    @classmethod
    def _parts_files_from_chunks(cls, given: Any) -> Any:
        """Let a bucket of GridFS be its two collections: the rules hold for the files, and chunks go with them."""
        declared = given.get("collections") if isinstance(given, dict) else None
        if not isinstance(declared, dict):
            return given
        collections: dict[str, Any] = {}
        for name, content in declared.items():
            is_bucket = isinstance(content, Mapping) and content.get("kind") == Kind.GRIDFS
            if not is_bucket or str(name).endswith((FILES, CHUNKS)):
                collections[name] = content
                continue
            goes = {"locate": {"path": "files_id", "of": f"{name}{FILES}"}, "on_erase": {"action": "delete"}}
            collections[f"{name}{FILES}"] = content
            collections[f"{name}{CHUNKS}"] = {"kind": Kind.GRIDFS, "rules": [goes]}
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
        for name, collection in self.collections.items():
            for rule in collection.rules:
                yield name, rule

    def rules_of(self, name: str) -> tuple[Rule, ...]:
        """Return the rules of the collection *name*; none where the map does not know it."""
        return self.collections[name].rules if name in self.collections else ()

    def writable(self) -> tuple[str, ...]:
        """Return the collections that an erasure may have to change."""
        stored = (name for name, found in self.collections.items() if found.kind is not Kind.VIEW)
        own = (self.subject.collection, *stored)
        old = tuple(name + self.history.suffix for name in own) if self.history else ()
        return tuple(dict.fromkeys((*own, *old, *self.archives())))

    def insertable(self) -> tuple[str, ...]:
        """Return the collections to which an import, or an erasure that archives, may add documents."""
        return tuple(dict.fromkeys((*self.imports, *self.archives())))

    def grants(self) -> Grants:
        """Return what the worker may do because of this map."""
        purges = self.surfaces.pre_images is PreImages.PURGE
        return Grants(erasable=self.writable(), importable=self.insertable(), purges=purges)

    def archives(self) -> tuple[str, ...]:
        """Return the collections to which an erasure copies what a rule archives."""
        found = (rule.on_erase.to for _, rule in self.rules() if isinstance(rule.on_erase, Archive))
        return tuple(dict.fromkeys(found))

    @model_validator(mode="after")
    def _hangs_together(self) -> "DataMap":
        if self.consent_types and "consent" not in self.collections:
            raise ValueError("consent_types is given, so collections needs consent: its documents name the person")
        for name, collection in self.collections.items():
            for fault in (*self._faults_of_kind(collection), *self._faults_of_purposes(collection)):
                raise ValueError(f"{name}: {fault}")
        for name, rule in self.rules():
            for fault in self._faults_of(rule):
                raise ValueError(f"{name}: {fault}")
        return self

    def _faults_of_kind(self, collection: Collection) -> Iterator[str]:
        if collection.kind is Kind.VIEW and collection.rules:
            yield "a view stores nothing: give its rules to what it reads"
        if collection.kind is Kind.TIME_SERIES and not all(
            isinstance(rule.on_erase, Delete | Keep) for rule in collection.rules
        ):
            yield "of a time series only delete and keep can be carried out"

    def _faults_of_purposes(self, collection: Collection) -> Iterator[str]:
        named = [*(one.purpose for one in collection.retention)]
        named += [purpose for field in collection.fields.values() for purpose in field.purposes]
        yield from (f"purpose {name} is not one of purposes" for name in named if name not in self.purposes)
        yield from (
            f"retention by {one.purpose}: that purpose says no retention"
            for one in collection.retention
            if one.purpose in self.purposes and self.purposes[one.purpose].retention is None
        )

    def _faults_of(self, rule: Rule) -> Iterator[str]:
        locate, keys = rule.locate, self.subject.keys
        if locate.key is not None and locate.key not in keys:
            yield f"locate.key {locate.key} is not one of subject.keys"
        elif locate.key is not None and keys[locate.key].personal and not _can_scan(rule):
            yield "a personal key takes a path without [] and {}, and no pull"
        if locate.of is not None and locate.of not in self.collections:
            yield f"locate.of {locate.of} is not a collection of the map"
        if not leaves(rule.on_erase, locate.path):
            yield f"on_erase must take {locate.path} away, or the person stays findable"
        if isinstance(rule.on_erase, Update) and rule.on_erase.relabel and self.subject.tombstone is None:
            yield "relabel needs subject.tombstone"


def _can_scan(rule: Rule) -> bool:
    """A personal value stands in no query and no update, so documents are compared one by one."""
    path = rule.locate.path
    return "[]" not in path and "{}" not in path and not isinstance(rule.on_erase, Pull | RemoveKey)


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
