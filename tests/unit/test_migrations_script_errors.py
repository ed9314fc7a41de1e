"""Whose fault an exception is that comes out of a script."""

import json
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from compliance.errors import GateClosed, ScriptFailed
from migrations.discovery import read_script
from migrations.script_errors import script_errors

NAME = "v007_data_names"
SECRET = "ada@example.org"


class Stub:
    """Takes a function of the script and calls it, as a step does."""

    def call(self, function: Any) -> None:
        function({"name": SECRET})


def run(body: str, ctx: object = None, *, top: str = "") -> None:
    text = f'"""Names."""\nIRREVERSIBLE = "a test"\n{top}\ndef up(ctx):\n    {body}\n'
    revision = read_script(f"{NAME}.py", text.encode(), place=f"{NAME}.py")
    with script_errors(NAME):
        revision.up(ctx)  # type: ignore[arg-type]


def failure(body: str, ctx: object = None, *, top: str = "") -> str:
    with pytest.raises(ScriptFailed) as raised:
        run(body, ctx, top=top)
    assert raised.value.__suppress_context__  # what Python says of a value quotes it
    return str(raised.value)


def test_the_line_of_the_script_is_named() -> None:
    assert failure("raise NotImplementedError").startswith(f"{NAME}.py fails at line 5 (NotImplementedError); ")


def test_a_function_that_a_step_calls_is_named_where_it_fails_and_nothing_is_quoted() -> None:
    told = failure("ctx.call(lower)", Stub(), top="def lower(document): return int(document['name'])")

    assert "at line 3 (ValueError);" in told
    assert SECRET not in told


def test_a_text_that_stands_in_the_script_is_told() -> None:
    assert "(RuntimeError: no price list)" in failure('raise RuntimeError("no price list")')


def test_a_library_that_the_script_calls_is_its_fault() -> None:
    assert "at line 5 (TypeError)" in failure("re.compile(5)", top="import re")


def test_what_our_own_code_raises_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Stub.call.__globals__, "__name__", "migrations.ops.stub")

    with pytest.raises(json.JSONDecodeError):
        run("ctx.call(lambda _: None)", type("Broken", (), {"call": lambda *_: json.loads("")})())


@pytest.mark.parametrize("error", [GateClosed("not yet"), AutoReconnect("failover")])
def test_what_is_told_already_or_passes_by_itself_stays(error: Exception) -> None:
    with pytest.raises(type(error)):
        run("raise ctx", error)
