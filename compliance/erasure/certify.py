"""State what an erasure that is about to be completed did, for the certificate that is issued later."""

from collections.abc import Mapping
from typing import Any

from compliance.datamap.subject import to_entity_id
from compliance.erasure.certificate import statement_bytes, statement_digest
from compliance.erasure.progress import Erasure
from compliance.erasure.statement import compose
from compliance.erasure.surface import Surface
from compliance.erasure.surfaces import Scope, look_at_surfaces


def find_surfaces(erasure: Erasure) -> tuple[Surface, ...]:
    """Look beside the collections; MUST be called when nothing about the person is written any more."""
    scope = Scope(
        databases=erasure.databases,
        data_map=erasure.data_map,
        names=tuple(map(to_entity_id, erasure.names)),
        needles=erasure.needles,
        collections=frozenset(erasure.affected),
        done_at=erasure.databases.server_time(),
        check=erasure.run.check,
    )
    return look_at_surfaces(scope, erasure.looks)


def state_outcome(erasure: Erasure, request: Mapping[str, Any], surfaces: tuple[Surface, ...]) -> tuple[str, str]:
    """Return the statement about *request*, as it is when completed, as canonical JSON, and its SHA-256."""
    statement = compose(
        request,
        application=erasure.databases.name,
        subject=to_entity_id(erasure.subject_id),
        recipients=erasure.data_map.recipients,
        kept_elsewhere=erasure.data_map.kept_elsewhere,
        surfaces=surfaces,
    )
    return statement_bytes(statement).decode(), statement_digest(statement)
