"""The factors, one module each; import the registry from here."""

from compliance.registry import import_submodules
from migrations.throttle.factor import FACTORS

import_submodules(__name__, list(__path__))

__all__ = ["FACTORS"]
