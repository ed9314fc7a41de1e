"""The published JSON Schema is that of the model, and says what editors need."""

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from compliance.datamap.form import PERIOD
from compliance.datamap.schema import json_schema
from compliance.period import parse_period
from worker.cli import build_cli

PUBLISHED = Path(__file__).parents[2] / "docs" / "datamap.schema.json"


def test_the_published_schema_is_that_of_this_release() -> None:
    assert json.loads(PUBLISHED.read_text()) == json_schema(), "run: compliance datamap schema --output docs/..."


def test_the_command_prints_the_published_bytes() -> None:
    done = CliRunner().invoke(build_cli(), ["datamap", "schema"])

    assert (done.exit_code, done.stdout_bytes) == (0, PUBLISHED.read_bytes())


def test_a_collection_may_be_a_list_of_rules_or_an_object() -> None:
    made = json_schema()
    (values,) = made["properties"]["collections"]["patternProperties"].values()

    assert [shape.get("$ref", shape.get("type")) for shape in values["anyOf"]] == ["#/$defs/Collection", "array"]


def test_unknown_fields_are_refused_everywhere() -> None:
    made = json_schema()
    objects = [made, *(found for found in made["$defs"].values() if found["type"] == "object")]

    assert [found["title"] for found in objects if found["additionalProperties"] is not False] == []


def test_the_pattern_of_a_period_is_what_is_read_as_one() -> None:
    assert all(re.match(PERIOD, text) and parse_period(text) for text in ("P1M", "P10Y", "P35D", "P1Y2M3D"))
    assert not any(re.match(PERIOD, text) for text in ("P", "1M", "PT1H", "P1D1M", "P1M "))
