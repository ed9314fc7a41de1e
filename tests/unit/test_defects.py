"""The defects that docs/migrations.md lists: each names a test that is there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEADING = "## What broke elsewhere"
ROWS = 33


def rows() -> list[str]:
    _, _, text = (ROOT / "docs/migrations.md").read_text(encoding="utf-8").partition(HEADING)
    return [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| Defect", "| ---"))]


def written() -> Iterator[str]:
    for path in (ROOT / "tests").rglob("test_*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        yield from (node.name for node in nodes if isinstance(node, ast.FunctionDef))


def test_every_defect_names_tests_that_are_there() -> None:
    named = [re.findall(r"`(test_\w+)`", row) for row in rows()]

    assert len(named) == ROWS
    assert all(named)
    assert {name for names in named for name in names} <= set(written())
