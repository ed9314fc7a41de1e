"""What tests of the rules of migrations look at: the findings in a sample, by the data map of the reference domain."""

from functools import cache

from compliance.datamap.model import DataMap, load_data_map
from compliance.settings import DATA_MAP
from migrations.governance import Violation, lint, parse_script
from migrations.governance.sample import Sample


@cache
def reference_map() -> DataMap:
    return load_data_map(DATA_MAP)


def violations(sample: Sample) -> tuple[Violation, ...]:
    scripts = [parse_script(each.file, each.source) for each in (*sample.before, sample)]
    return lint(scripts, data_map=reference_map(), catalogue=sample.catalogue, files={sample.file})


def codes(sample: Sample) -> list[str]:
    return [found.rule for found in violations(sample)]
