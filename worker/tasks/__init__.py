"""The kinds of work, one module each; import the registry from here (``from worker.tasks import JOBS``)."""

from compliance.registry import import_submodules
from worker.job import JOBS

import_submodules(__name__, list(__path__))

__all__ = ["JOBS"]
