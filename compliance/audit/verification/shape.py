"""Whether the collections of the audit database are what was declared: validators, indexes and options."""

from collections.abc import Iterator, Mapping
from typing import Any

from compliance.audit.schema import INDEXES, VALIDATORS
from compliance.mongo import Databases, driver_errors
from compliance.roles import AUDIT_LOG

STRICT = {"validationLevel": ("strict", None), "validationAction": ("error", None)}
KNOWN_OPTIONS = {"validator", *STRICT}


def find_drift(databases: Databases) -> Iterator[tuple[str, str]]:
    """Yield every collection that is not as declared, and why; a read-only operation."""
    with driver_errors():
        listed = {found["name"]: found for found in databases.audit.list_collections()}
    for name, validator in VALIDATORS.items():
        found = listed.get(name)
        if found is None:
            yield name, "it is missing"
            continue
        yield from ((name, why) for why in _options(found.get("options", {}), validator))
        with driver_errors():
            indexes = databases.audit[name].index_information()
        yield from ((name, why) for why in _indexes(indexes, INDEXES if name == AUDIT_LOG else {}))


def _options(options: Mapping[str, Any], validator: Mapping[str, Any]) -> Iterator[str]:
    if options.get("validator") != validator:
        yield "it has another validator"
    for name, allowed in STRICT.items():
        if options.get(name) not in allowed:
            yield f"its {name} is {options[name]}"
    for name in sorted(set(options) - KNOWN_OPTIONS):
        yield f"it has the option {name}"


def _indexes(present: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    for name, keys in declared.items():
        if name not in present:
            yield f"index {name} is missing"
        elif dict(present[name]["key"]) != dict(keys) or set(present[name]) - {"v", "key", "ns"}:
            yield f"index {name} is another one"
    for name in sorted(set(present) - set(declared) - {"_id_"}):
        expires = ", which expires entries" if "expireAfterSeconds" in present[name] else ""
        yield f"it has the index {name}{expires}"
