"""What commands get that run in the process of the test."""

from compliance.jobs.job import Job
from compliance.settings import Settings
from worker.addresses import Addresses
from worker.cli import Runtime


class Quiet(Runtime):
    """A runtime that leaves the logging of the other tests alone."""

    def addresses(self, profile: str | None = None) -> Addresses:
        return Addresses(self.load(profile))


def quiet(settings: Settings) -> Quiet:
    """Return a runtime over *settings* whose doorbell nobody hears."""
    return Quiet(load=lambda _: settings, doorbell=lambda _: unheard, environ={})


def unheard(job: Job) -> None:
    """Ring where nobody listens."""
