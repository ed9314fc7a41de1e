"""What the server itself enforces on the audit collection: shape, and no field beyond it."""

from compliance.audit.entry import OUTCOMES
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

VALIDATOR: Document = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["entity_type", "entity_id", "action", "created_at", "performed_by", "outcome", "details", "h"],
        "additionalProperties": False,
        "properties": {
            "_id": {"bsonType": "string", "pattern": "^[0-9a-f]{32}$"},
            "entity_type": {"bsonType": "string", "pattern": "^[a-z_]{1,40}$"},
            "entity_id": {"anyOf": [{"bsonType": "objectId"}, {"bsonType": "string", "pattern": "^[^@]{1,200}$"}]},
            "action": {"bsonType": "string", "pattern": "^[a-z_]{1,40}\\.[a-z_]{1,40}$"},
            "created_at": {"bsonType": "date"},
            "performed_by": {"bsonType": "string", "pattern": "^[A-Za-z0-9_.:-]{1,80}$"},
            "outcome": {"enum": list(OUTCOMES)},
            "request_id": {"bsonType": ["string", "null"], "maxLength": 128},
            "details": {"bsonType": "object", "additionalProperties": _DETAIL},
            "h": {"bsonType": "string", "pattern": "^[0-9a-f]{64}$"},
        },
    }
}

INDEXES: dict[str, dict[str, int]] = {
    "ix_audit_entity": {"entity_type": 1, "entity_id": 1},
    "ix_audit_request": {"request_id": 1},
}
