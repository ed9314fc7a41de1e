"""The JSON Schema of ``datamap/v1``, by which editors complete and check a map while it is written.

What it cannot say (that ``locate.of`` names a collection of the map, for instance) is checked when the map is read.

Source: JSON Schema, draft 2020-12.
"""

from typing import Any

from compliance.datamap.model import DataMap


def json_schema() -> dict[str, Any]:
    """Return the schema; the same for the same release."""
    made = DataMap.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "datamap/v1"}
