"""What ``migrate new`` writes and the rules tell people to paste: text that still has to be replaced by an answer."""

SUMMARY = "say here what changes, and why."
OWNER = "the team that answers for it"
SENTENCE = "changes, and for whom."
REVIEWED_BY = "who has looked at it"
TEAM = "a team, not a person's name"
IRREVERSIBLE = "why it cannot be undone"
LOSS = "what is gone, and what to do instead"

BLANKS = frozenset({OWNER, REVIEWED_BY, TEAM, IRREVERSIBLE, LOSS})


def is_blank(text: str) -> bool:
    """Tell whether *text* is there to be replaced; capitals and spaces around it do not make it an answer."""
    return text.strip().lower() in BLANKS


def is_blank_summary(line: str) -> bool:
    """Tell whether the first *line* of a docstring is still that of a new script, or of a fix."""
    return line.strip().lower().endswith((SUMMARY, SENTENCE))
