"""What the server's errors mean for a job."""

import pytest
from pymongo.errors import CursorNotFound, OperationFailure, WriteConcernError

from compliance.errors import ConfigurationError, StepRefused, StoreUnavailable
from compliance.mongo import translate


@pytest.mark.parametrize("code", [6, 89, 91, 175, 189, 211, 262, 10107, 11600, 11601, 11602])
def test_what_a_server_says_of_itself_is_tried_again(code: int) -> None:
    assert isinstance(translate(OperationFailure("", code)), StoreUnavailable)


def test_a_cursor_that_a_restart_lost_is_opened_again_by_the_next_attempt() -> None:
    assert isinstance(translate(CursorNotFound("", 43)), StoreUnavailable)


def test_a_commit_whose_result_is_not_known_is_tried_again() -> None:
    unknown = WriteConcernError("", 50)
    unknown._add_error_label("UnknownTransactionCommitResult")

    assert isinstance(translate(unknown), StoreUnavailable)


@pytest.mark.parametrize(("code", "expected"), [(13, ConfigurationError), (18, ConfigurationError), (121, StepRefused)])
def test_what_would_be_refused_again_is_not(code: int, expected: type[Exception]) -> None:
    assert isinstance(translate(OperationFailure("", code)), expected)


def test_no_text_of_the_server_is_repeated() -> None:
    assert "mara@example.org" not in str(translate(OperationFailure("dup key: mara@example.org", 11000)))
