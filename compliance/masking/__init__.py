"""Masking strategies by name and version; see ``compliance.masking.strategy``."""

from compliance.masking import strategies
from compliance.masking.strategy import STRATEGIES, Strategy
from compliance.registry import import_submodules

import_submodules(strategies.__name__, list(strategies.__path__))

__all__ = ["STRATEGIES", "Strategy"]
