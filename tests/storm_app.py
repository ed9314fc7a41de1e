"""The Celery application of ``worker``, with kinds of work beside its own.

``celery -A storm_app worker``, with the folder of the tests on the path.
"""

from counting import KINDS, POISONED, POISONED_SMALL, QUOTING

from worker.application import celery_application
from worker.tasks import JOBS

for kind in (*KINDS.values(), POISONED, POISONED_SMALL, QUOTING):
    JOBS.add(kind.name, kind)

celery = celery_application()
