"""Who gives a command is named as the audit log may name somebody."""

import getpass
import os

import pytest

from compliance.errors import InvalidPayload
from compliance.operators import LONGEST, name_operator


@pytest.mark.parametrize("given", ["anna", "a", "anna.lee-2_x", "7", "x" * LONGEST])
def test_a_name_that_was_given_counts(given: str) -> None:
    assert name_operator(given) == f"cli:{given}"


@pytest.mark.parametrize(
    "given", ["anna@example.org", "anna lee", "-anna", ".anna", "anna\n", "cli:anna", "Zoë", " ", "x" * (LONGEST + 1)]
)
def test_what_could_be_more_than_a_login_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(InvalidPayload, match="a login of at most 40 letters") as refused:
        name_operator(given)

    assert given.strip() == "" or given not in str(refused.value)


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("anna", "cli:anna"),
        ("berta@example.org", "cli:berta"),
        ("CORP\\anna lee", "cli:CORP-anna-lee"),
        ("x" * 90, f"cli:{'x' * LONGEST}"),
        ("@", f"cli:uid-{os.getuid()}"),
        (None, f"cli:uid-{os.getuid()}"),
    ],
)
def test_without_one_the_login_does(login: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def getuser() -> str:
        if login is None:
            raise KeyError("uid not found")
        return login

    monkeypatch.setattr(getpass, "getuser", getuser)

    assert name_operator() == expected
