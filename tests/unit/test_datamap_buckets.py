"""The rules of a collection hold for its buckets."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from compliance.datamap.model import DataMap, load_data_map
from compliance.erasure.plan import compile_steps
from compliance.errors import ConfigurationError
from compliance.settings import DATA_MAP

MONTHS = {"every": "month", "since": "2026-11-20", "until": "2027-01-01"}
NAMES = ("analytics_2026_11", "analytics_2026_12", "analytics_2027_01")


def with_buckets(**buckets: Any) -> dict[str, Any]:
    return {**yaml.safe_load(DATA_MAP.read_text()), "buckets": buckets}


def test_an_erasure_goes_through_the_buckets_behind_their_collection() -> None:
    data_map = DataMap.model_validate(with_buckets(analytics=MONTHS))
    steps = [step.collection for step in compile_steps(data_map) if step.collection.startswith("analytics")]

    assert [name for name in steps if not name.endswith("_history")] == ["analytics", *NAMES]
    assert {*NAMES, *(f"{name}_history" for name in NAMES)} <= set(data_map.writable())
    for name in NAMES:
        assert data_map.collections[name] == data_map.collections["analytics"]


def test_a_bucket_may_have_rules_of_its_own() -> None:
    given = with_buckets(analytics=MONTHS)
    given["collections"][NAMES[1]] = copy.deepcopy(given["collections"]["consent"])
    before = copy.deepcopy(given)

    data_map = DataMap.model_validate(given)

    assert data_map.collections[NAMES[1]] == data_map.collections["consent"]
    assert given == before


def test_buckets_change_the_digest_of_a_map() -> None:
    maps = [DataMap.model_validate(with_buckets(**given)) for given in ({}, {"analytics": MONTHS})]

    assert len({data_map.digest for data_map in maps}) == len(maps)


@pytest.mark.parametrize(
    ("buckets", "fault"),
    [
        ({"nothing": MONTHS}, "buckets.nothing is not a collection of the map"),
        ({"artists": MONTHS}, "locate.of artists is in buckets, so its documents move"),
        ({"analytics": {**MONTHS, "every": "week"}}, "buckets.analytics.every: "),
        ({"analytics": {**MONTHS, "until": "2026-11-19"}}, "until must not be before since"),
        ({"analytics": {**MONTHS, "every": "day", "until": "2029-01-01"}}, "nor more than 400 buckets after it"),
        ({"analytics": {"every": "month"}}, "buckets.analytics.since: Field required"),
        ("text", "buckets: "),
    ],
)
def test_buckets_that_cannot_be_are_refused(tmp_path: Path, buckets: Any, fault: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(yaml.safe_dump({**with_buckets(), "buckets": buckets}))

    with pytest.raises(ConfigurationError) as refused:
        load_data_map(path)

    assert fault in str(refused.value)
