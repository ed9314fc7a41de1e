"""The ``compliance`` command: one module per group, imported when its name is asked for."""

from worker.cli.commands import build_cli
from worker.cli.runtime import Runtime

__all__ = ["Runtime", "build_cli"]
