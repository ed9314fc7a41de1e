"""Health checks: is what was promised true?

Import the registry from here (``from compliance.health import CHECKS``): here it is filled.
"""

from compliance.health import checks as _checks
from compliance.health.check import CHECKS, Finding, Scope, Status
from compliance.registry import import_submodules

import_submodules(_checks.__name__, list(_checks.__path__))

__all__ = ["CHECKS", "Finding", "Scope", "Status"]
