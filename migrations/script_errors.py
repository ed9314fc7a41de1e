"""Whose fault an exception is: that of a script, which is told with its line, or ours, which stays what it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import CodeType, TracebackType

from pymongo.errors import PyMongoError

from compliance.errors import ComplianceError, ScriptFailed
from migrations.revision import module_of

OURS = ("compliance", "migrations", "worker")


@contextmanager
def script_errors(name: str) -> Iterator[None]:
    """Raise ``ScriptFailed`` for an exception that the script *name* raises, or a library that it calls.

    What is raised in a module of ours that the script calls is not its fault, and passes.
    """
    try:
        yield
    except (ComplianceError, PyMongoError):  # ``driver_errors`` says what the latter means
        raise
    except Exception as error:
        place = _place(error.__traceback__, module_of(name))
        if place is None:
            raise
        code, line = place
        told = (
            f": {error}" if str(error) in code.co_consts and str(error) else ""
        )  # any other text may quote a document
        raise ScriptFailed(
            f"{name}.py fails at line {line} ({type(error).__name__}{told}); correct it, then migrate again: what is "
            "done stays done"
        ) from None


def _place(trace: TracebackType | None, module: str) -> tuple[CodeType, int] | None:
    """Return the function and the line of *module* that were carried out last, if nothing of ours was after it."""
    place = None
    for frame, line in walk_tb(trace):
        of = frame.f_globals.get("__name__", "")
        if of == module:
            place = frame.f_code, line
        elif of.partition(".")[0] in OURS:
            place = None
    return place
