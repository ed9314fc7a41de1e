"""The rules, one module per subject; a rule is one function."""

from compliance.registry import import_submodules

import_submodules(__name__, [*__path__])
