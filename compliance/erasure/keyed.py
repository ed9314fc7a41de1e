"""Look for people of whom nothing is left but their pseudonym: name every id that is found, and compare.

What could be an id: each text that is the whole value of a field, and each e-mail address within any text; as it
stands or packed, and in the form by which addresses are compared.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from compliance.datamap.pseudonym import Pseudonyms
from compliance.erasure.packed import layers
from compliance.erasure.sweep import collection_names, emails_in, normalise, sweep_collection
from compliance.mongo import Db

_TEXT = re.compile(rb"(?s)\x02(?=[^\x00]{0,256}\x00(.{4}))")
_LONGEST_BYTES = 1024


@dataclass(frozen=True, slots=True)
class KeyedNeedles:
    """What to look for; as ``Needles``, without knowing any value.

    Attributes:
        wanted: The pseudonyms of the people.
    """

    pseudonyms: Pseudonyms
    wanted: frozenset[str]

    def found_in(self, raw: bytes) -> bool:
        """Whether an id of any of the people stands in *raw*, the bytes of one or many BSON documents."""
        return self.first_in(raw) is not None

    def first_in(self, raw: bytes) -> str | None:
        """Return the first id of any of the people that stands in *raw*, or None."""
        if not self.wanted:
            return None
        return next((text for text in texts_in(raw) if not self.wanted.isdisjoint(self.pseudonyms.all_of(text))), None)

    @property
    def lost(self) -> int:
        """How many of the people cannot be looked for, since the key of their pseudonym is not there."""
        return sum(1 for pseudonym in self.wanted if not self.pseudonyms.knows_key_of(pseudonym))


def reveal(database: Db, needles: KeyedNeedles, *, check: Callable[[], None] = lambda: None) -> str | None:
    """Return the id of the person, from wherever in *database* it still stands; None when it stands nowhere."""
    for name in collection_names(database):
        for document in sweep_collection(database[name], needles, check=check):
            return needles.first_in(document.raw)
    return None


def texts_in(raw: bytes) -> Iterator[str]:
    """Yield each text in *raw* that could be an id, once: whole values and addresses, as they stand and normalised."""
    seen: set[str] = set()
    addresses = (address for layer in layers(raw) for address in emails_in(layer))
    for text in _both_forms((*_whole_texts(raw), *addresses)):
        if text not in seen:
            seen.add(text)
            yield text


def _both_forms(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (text, normalise(text))


def _whole_texts(raw: bytes) -> Iterator[str]:
    for match in _TEXT.finditer(raw):
        size, start = int.from_bytes(match[1], "little"), match.end(1)
        if 1 < size <= _LONGEST_BYTES and raw[start + size - 1 : start + size] == b"\x00":
            yield raw[start : start + size - 1].decode(errors="replace")
