"""The line to MongoDB breaks at each command of a job, one after the other: also where a commit was answered."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from counting import BATCHES, KINDS, add_counters, allow_counting, counted, counted_once, message
from deployment import Deployment
from every import FEWEST, every
from proxy import BEFORE_REPLY, BEFORE_REQUEST, Proxy, open_proxy

from compliance.mongo import Databases, open_client
from compliance.roles import Role
from worker.intake import receive
from worker.services import Services

pytestmark = pytest.mark.timeout(600)


@contextmanager
def behind(proxy: Proxy, counting: Deployment) -> Iterator[Services]:
    """Services of a worker that reaches MongoDB by *proxy* only."""
    endpoints = counting.stack.endpoints
    uri = endpoints.mongodb_uri(Role.WORKER.value, auth_source=f"{counting.name}_compliance")
    (port,) = endpoints.mongod_ports
    by_proxy = uri.replace(f":{port}/", f":{proxy.port}/").replace("replicaSet=rs0&", "")
    with open_client(by_proxy, app_name="test", direct=True) as client:
        yield replace(counting.services(), databases=Databases(client, counting.name, counting.worker.participant))


@pytest.fixture
def counting(deployment: Deployment) -> Deployment:
    allow_counting(deployment)
    return deployment


@pytest.mark.parametrize("when", [BEFORE_REQUEST, BEFORE_REPLY])
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_line_that_breaks_at_any_command_leaves_one_effect(counting: Deployment, kind: str, when: str) -> None:
    broke: list[str] = []

    def meet(number: int, lane: int) -> bool:
        request_id = f"{kind}-{number}"
        add_counters(counting, request_id)
        (port,) = counting.stack.endpoints.mongod_ports
        with open_proxy(port) as proxy, behind(proxy, counting) as services:
            proxy.at, proxy.when = number, when
            receive(message(kind, request_id, lane=lane), services=services)
        broke.extend([proxy.broke] if proxy.broke else [])

        assert counted(counting, request_id) == counted_once(BATCHES[kind]), (request_id, proxy.broke)
        return proxy.broke is not None

    assert every(meet) >= FEWEST[kind]
    assert "commitTransaction" in broke
