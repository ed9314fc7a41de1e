"""The class of an error is the decision."""

import re
from collections.abc import Iterator

import pytest

import worker.app  # noqa: F401 - loads every module that could define an error, with the commands
from compliance import errors
from compliance.errors import ComplianceError, Disposition, ExitCode
from worker.cli.commands import Commands


def below(error: type[ComplianceError]) -> Iterator[type[ComplianceError]]:
    for child in error.__subclasses__():
        yield child
        yield from below(child)


dict(Commands())
ALL = sorted(set(below(ComplianceError)), key=lambda error: error.__name__)
OURS = [error for error in ALL if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL)
def test_every_error_decides_what_becomes_of_the_job_and_of_the_command(error: type[ComplianceError]) -> None:
    assert isinstance(error.disposition, Disposition)
    assert isinstance(error.exit_code, ExitCode)
    assert error.exit_code not in (ExitCode.OK, None)
    assert (error.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("base", "disposition"),
    [
        (errors.TransientError, Disposition.RETRY),
        (errors.RejectedError, Disposition.REJECT),
        (errors.IntegrityError, Disposition.HALT),
        (errors.MigrationError, Disposition.HALT),
    ],
)
def test_a_family_decides_the_same(base: type[ComplianceError], disposition: Disposition) -> None:
    assert {error.disposition for error in (base, *below(base))} == {disposition}


def test_the_drawn_tree_is_the_tree() -> None:
    tree = (errors.__doc__ or "").split("RETRY: the job")[0]
    drawn = {name for name in re.findall(r"\b[A-Z][A-Za-z]+\b", tree) if hasattr(errors, name)}

    assert drawn == {ComplianceError.__name__, *(error.__name__ for error in OURS)}


@pytest.mark.parametrize("error", OURS)
def test_each_line_of_the_tree_names_the_disposition(error: type[ComplianceError]) -> None:
    (line,) = [line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{error.__name__}\b", line)]

    assert error.disposition.name in line.split()
