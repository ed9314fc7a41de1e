"""What the server itself enforces on the audit collection: shape, and no field beyond it."""

from compliance.audit.entry import OUTCOMES, VERSION
from compliance.mongo import Document

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

INDEXES: dict[str, dict[str, int]] = {
    "ix_audit_entity": {"entity_type": 1, "entity_id": 1},
    "ix_audit_request": {"request_id": 1},
}
