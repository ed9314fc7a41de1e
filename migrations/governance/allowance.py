"""Where a script says that a rule does not hold for a line, and why: ``# allow: MX012 reason``."""

import io
import re
import tokenize
from dataclasses import dataclass

FEWEST_WORDS = 3
_COMMENT = re.compile(r"#\s*allow:\s*(?P<rule>\S*)\s*(?P<reason>.*)")


@dataclass(frozen=True, slots=True)
class Allowance:
    """One comment that silences one rule, on its own line and the one below it."""

    rule: str
    reason: str
    line: int

    @property
    def has_reason(self) -> bool:
        """Whether it says why."""
        return len(self.reason.split()) >= FEWEST_WORDS

    def covers(self, first: int, last: int) -> bool:
        """Whether it stands on the lines *first* to *last*, or directly above them."""
        return first - 1 <= self.line <= last


def allowances(source: str) -> list[Allowance]:
    """Return what the comments of *source* allow, in the order of its lines; nothing where it is no Python."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (tokenize.TokenError, SyntaxError):
        return []
    comments = ((token, _COMMENT.match(token.string)) for token in tokens if token.type == tokenize.COMMENT)
    return [Allowance(said["rule"], said["reason"].strip(), token.start[0]) for token, said in comments if said]
