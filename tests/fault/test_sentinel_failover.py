"""The master of a replicated broker dies: the Sentinels name another one, and the work goes on there."""

from pathlib import Path

from consents import Consents
from deployment import Deployment
from sentinels import MASTER, SENTINEL_PASSWORD, replicated
from system import filled_system


def test_after_a_failover_the_same_worker_goes_on_and_no_recorded_job_is_lost(
    deployment: Deployment, tmp_path: Path
) -> None:
    named = {"COMPLIANCE_SENTINEL_MASTER": MASTER, "COMPLIANCE_SENTINEL_PASSWORD": SENTINEL_PASSWORD}
    with (
        replicated(tmp_path / "broker") as broker,
        filled_system(deployment, tmp_path, REDIS_URL=broker.url, **named) as system,
    ):
        system.wait_for(lambda: broker.replicas_in_sync() == 1, "the replica has the data")
        consents = Consents(system)
        worker, _ = system.start("worker", "beat").children
        consents.grant("before", 0)
        system.wait_for(lambda: consents.ended(["before"]) == 1, "the worker is at work")
        broker.data[0].kill()
        consents.grant("during", 1)
        system.wait_for(lambda: broker.master_port() == broker.data[1].spec.port, "the replica is the master")
        consents.grant("after", 2)
        recorded = ["before", "during", "after"]
        system.wait_for(lambda: consents.ended(recorded) == len(recorded), "all are done", timeout=90)

        assert worker.process.poll() is None
        consents.assert_each_happened_once(recorded)
