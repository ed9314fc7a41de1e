"""The order in which collections of a data map are gone through: what refers to others before those; pure."""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

from compliance.datamap.model import DataMap
from compliance.errors import ConfigurationError


def children_first(data_map: DataMap) -> Iterator[str]:
    """Yield the collections of *data_map*, each before those that its documents refer to.

    Raises:
        ConfigurationError: When collections of the map refer to each other in a circle.
    """
    graph: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(data_map.collections, ()))
    for collection, rule in data_map.rules():
        if rule.locate.of not in (None, collection):
            graph.add(rule.locate.of, collection)
    try:
        yield from graph.static_order()
    except CycleError as error:
        raise ConfigurationError(f"the data map refers in a circle: {' -> '.join(error.args[1])}") from None
