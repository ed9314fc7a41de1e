"""Nothing is stored that the data map does not say: in a sample of every collection."""

from compliance.datamap.census import take_census
from compliance.health.check import CHECKS, Finding, Scope

SAMPLE_DOCS = 500
LISTED = 100


def undeclared_data(scope: Scope) -> Finding:
    """Take the census of a sample that is another one each day; of one person there is nothing to look at."""
    if scope.subject_id is not None:
        return Finding()
    day = scope.databases.server_time().toordinal()
    census = take_census(scope.databases.app, scope.data_map, sample=SAMPLE_DOCS, seed=day, check=scope.check)
    problems = [
        f"{one.collection}{'.' if one.path else ''}{one.path}: {one.what}, in {count} documents of a sample"
        for one, count in census.sightings.items()
    ]
    looked_at = sum(found.looked_at for found in census.coverage.values())
    return Finding(problems=tuple(problems[:LISTED]), looked_at=looked_at)


CHECKS.add("undeclared_data", undeclared_data)
