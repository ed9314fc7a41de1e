"""What the server itself enforces on the audit collection: shape, and no field beyond it."""

from compliance.audit.entry import OUTCOMES, VERSION
from compliance.mongo import Document
from compliance.roles import AUDIT_LOG, BATCHES, CHECKPOINTS, COSIGNATURES, INCIDENTS, TILES

_NO_ADDRESS: Document = {"bsonType": "string", "pattern": "^[^@]*$"}
_COUNT: Document = {"bsonType": ["int", "long"]}
_DETAIL: Document = {
    "anyOf": [
        {"bsonType": ["int", "long", "bool", "null"]},
        _NO_ADDRESS,
        {"bsonType": "array", "items": _NO_ADDRESS},
        {"bsonType": "object", "additionalProperties": _COUNT},
    ]
}
_FIELDS: Document = {
    "_id": {"bsonType": "string", "pattern": "^[0-9a-f]{32}$"},
    "v": {"enum": [VERSION]},
    "log": {"bsonType": "string", "pattern": "^[^@ +]{1,200}$"},
    "entity_type": {"bsonType": "string", "pattern": "^[a-z_]{1,40}$"},
    "entity_id": {"anyOf": [{"bsonType": "objectId"}, {"bsonType": "string", "pattern": "^[^@]{1,200}$"}]},
    "action": {"bsonType": "string", "pattern": "^[a-z_]{1,40}\\.[a-z_]{1,40}$"},
    "created_at": {"bsonType": "date"},
    "performed_by": {"bsonType": "string", "pattern": "^[A-Za-z0-9_.:-]{1,80}$"},
    "requested_by": {"anyOf": [{"bsonType": "null"}, {"bsonType": "string", "pattern": "^[^@]{1,120}$"}]},
    "outcome": {"enum": list(OUTCOMES)},
    "request_id": {"bsonType": ["string", "null"], "maxLength": 128},
    "details": {"bsonType": "object", "additionalProperties": _DETAIL},
    "source": {
        "bsonType": "object",
        "required": ["host", "process", "channel", "trace_id"],
        "additionalProperties": False,
        "properties": {
            "host": {"bsonType": "string", "pattern": "^[^@]{0,80}$"},
            "process": {"bsonType": "string", "pattern": "^[^@]{1,80}$"},
            "channel": {"anyOf": [{"bsonType": "null"}, {"bsonType": "string", "pattern": "^[a-z_]{0,40}$"}]},
            "trace_id": {"anyOf": [{"bsonType": "null"}, {"bsonType": "string", "pattern": "^[0-9a-f]{32}$"}]},
        },
    },
    "writer": {
        "bsonType": "object",
        "required": ["key", "stream", "seq", "prev"],
        "additionalProperties": False,
        "properties": {
            "key": {"bsonType": "string", "pattern": "^[^@ ]{1,200}\\+[0-9a-f]{8}$"},
            "stream": {"bsonType": "string", "pattern": "^[0-9a-f]{16}$"},
            "seq": {"bsonType": ["int", "long"], "minimum": 0},
            "prev": {"anyOf": [{"bsonType": "null"}, {"bsonType": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"}]},
        },
    },
    "sig": {"bsonType": "string", "pattern": "^[A-Za-z0-9+/]{86}==$"},
}

VALIDATOR: Document = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": [name for name in _FIELDS if name != "_id"],
        "additionalProperties": False,
        "properties": _FIELDS,
    }
}

_HASHES: Document = {"bsonType": "binData"}
_LOG_AND_START: Document = {
    "bsonType": "object",
    "required": ["log", "start"],
    "additionalProperties": False,
    "properties": {"log": {"bsonType": "string"}, "start": _COUNT | {"minimum": 0}},
}
_LOG_AND_SIZE: Document = {
    "bsonType": "object",
    "required": ["log", "size"],
    "properties": {"log": {"bsonType": "string"}, "size": _COUNT | {"minimum": 0}},
}


def _strict(**fields: Document) -> Document:
    required = [name for name in fields if name != "_id"]
    shape = {"bsonType": "object", "required": required, "additionalProperties": False, "properties": fields}
    return {"$jsonSchema": shape}


VALIDATORS: dict[str, Document] = {
    AUDIT_LOG: VALIDATOR,
    BATCHES: _strict(
        _id=_LOG_AND_START,
        n=_COUNT | {"minimum": 1},
        ids=_HASHES,
        leaves=_HASHES,
        frontier=_HASHES,
        sealed_at={"bsonType": "date"},
        token={"bsonType": "string"},
    ),
    CHECKPOINTS: _strict(_id=_LOG_AND_SIZE, note=_HASHES),
    TILES: _strict(_id={"bsonType": "object", "required": ["log", "level", "index"]}, hashes=_HASHES),
    COSIGNATURES: _strict(_id=_LOG_AND_SIZE, lines=_HASHES),
    INCIDENTS: _strict(
        _id={"bsonType": "string", "pattern": "^[0-9a-f]{32}$"},
        kind={"bsonType": "string", "pattern": "^[A-Z-]{1,40}$"},
        what={"bsonType": "string", "pattern": "^[^@]{1,500}$"},
        at={"bsonType": "date"},
    ),
}

INDEXES: dict[str, dict[str, int]] = {
    "ix_audit_entity": {"entity_type": 1, "entity_id": 1},
    "ix_audit_request": {"request_id": 1},
}
