"""Plain text for a person who reads along: chapters, paragraphs and tables within 80 columns, no colour."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH = 79
INDENT = "  "


@dataclass(slots=True)
class Show:
    """Writes the story line by line and counts its chapters."""

    say: Callable[[str], None]
    chapters: int = 0

    def chapter(self, title: str, meaning: str) -> None:
        """Begin a chapter: what the reader is about to see, and why it matters."""
        self.chapters += 1
        heading = f"{self.chapters}. {title}"
        self.say("")
        self.say(heading)
        self.say("-" * len(heading))
        self.text(meaning)
        self.say("")

    def text(self, paragraph: str) -> None:
        """Say a paragraph, wrapped; a path is never cut."""
        self._wrapped(paragraph, first="", then="")

    def point(self, sentence: str) -> None:
        """Say one thing of a list."""
        self._wrapped(sentence, first=INDENT, then=INDENT * 2)

    def code(self, *lines: str) -> None:
        """Show lines as they are."""
        for line in lines:
            self.say(f"{INDENT}{INDENT}{line}")

    def table(self, rows: Iterable[Sequence[object]]) -> None:
        """Show rows in columns; the last one is cut where it does not fit."""
        cells = [[str(cell) for cell in row] for row in rows]
        if not cells:
            return
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            line = INDENT + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self.say(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…")

    def _wrapped(self, text: str, *, first: str, then: str) -> None:
        lines = textwrap.wrap(
            text,
            WIDTH,
            initial_indent=first,
            subsequent_indent=then,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines:
            self.say(line)
