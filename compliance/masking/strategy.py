"""What stands in a field instead of a personal value, once the person is erased; pure.

A strategy is a function of the value and of a key that lives as long as the erasure, in memory only. Its results are a
state: masking one again changes nothing. What it cannot make less personal (a value of another type) becomes null.
"""

from collections.abc import Callable
from typing import Any

from compliance.registry import Registry

Strategy = Callable[[Any, bytes], Any]
STRATEGIES: Registry[Strategy] = Registry("masking strategy")
