"""The processes of the system: Celery workers, beat, the watcher, and the ``compliance`` command.

``celery -A worker worker`` finds the Celery application here; it is built when asked for, so that importing this
package costs nothing.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "celery":
        from worker.application import celery_application  # noqa: PLC0415 - see the docstring

        return celery_application()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
