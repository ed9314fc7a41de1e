"""Erase the people of the arguments: the process whose memory ``bench.erasure`` measures."""

import os
import sys

from compliance.jobs.job import RequestId, State
from compliance.roles import Role
from compliance.settings import load_settings
from worker.addresses import Addresses
from worker.attempt import carry_out
from worker.intake import submit
from worker.services import build_services
from worker.tasks import JOBS


def main() -> None:
    """Carry out a job for each."""
    services = build_services(Addresses(load_settings(os.environ)), Role.WORKER, publish=lambda _: None)
    kind = JOBS["erasure.request"]
    for subject_id in sys.argv[1:]:
        request_id = RequestId(f"bench-{subject_id}")
        submit(kind, {"subject_id": subject_id}, request_id=request_id, origin="bench", services=services)
        carry_out(kind, request_id, services=services, on_progress=lambda _: None)
        job = services.ledger.find(request_id)
        if job is None or job.state is not State.DONE:
            raise SystemExit(f"the job is {job.state.value if job else 'lost'}")


if __name__ == "__main__":
    main()
