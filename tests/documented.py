"""The worker commands of docs/operations.md."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"
WORKER = "celery -A worker worker "


def section(heading: str) -> str:
    """The text below *heading*, up to the next one of the same level."""
    below = OPERATIONS.read_text(encoding="utf-8").split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^{heading.split(maxsplit=1)[0]} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def worker_arguments() -> list[list[str]]:
    """What stands after ``celery -A worker worker`` in the commands for separate queues."""
    return [shlex.split(found) for found in re.findall(rf"^\$ {WORKER}(.+)$", section("## Queues"), re.MULTILINE)]


def compose_override() -> dict[str, Any]:
    (block,) = re.findall(r"```yaml\n(.*?)```", section("## Queues"), re.DOTALL)
    loaded: dict[str, Any] = yaml.safe_load(block)
    return loaded


def acl_rules(user: str, *, password: str) -> list[str]:
    """The rules of an ACL user, which stand on several lines."""
    text = re.sub(r"\\\n\s*", "", section("### Rights in Redis"))
    (rules,) = re.findall(rf"^ACL SETUSER {user} (.+)$", text, re.MULTILINE)
    return str(rules).replace("PASSWORD", password).split()
