"""Keyed pseudonyms: how a person whose only id says who they are is named outside the application database.

A pseudonym is ``hmac-sha256:<key name>:<64 hex digits>``: HMAC-SHA256 under the bytes of the secret, over the name of
the root collection, a zero byte, and the id as its document holds it, in UTF-8. Without the secret nobody can try ids;
with it, it is still personal data (GDPR Art. 4(5)).

Source: RFC 2104; EDPB Guidelines 01/2025, on pseudonymisation.
"""

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from compliance.errors import ConfigurationError, InvalidPayload

VARIABLE = "COMPLIANCE_PSEUDONYM_KEYS"
SCHEME = "hmac-sha256"

_PAIR = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]{0,31}):(?P<secret>[A-Za-z0-9]{40,200})")
_PSEUDONYM = re.compile(rf"{SCHEME}:(?P<name>[a-z0-9][a-z0-9-]{{0,31}}):[0-9a-f]{{64}}")


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """A secret and its name; the name stands in every pseudonym that is made with it."""

    name: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Makes and recognises the pseudonyms of the people of one root collection.

    Attributes:
        collection: Where the documents of the people are; part of what is hashed.
        keys: At least one; the first makes pseudonyms, by all of them people are found.
    """

    collection: str
    keys: tuple[PseudonymKey, ...]

    def make(self, value: str) -> str:
        """Return the pseudonym by which to name the person with the id *value*."""
        return self._of(value, self.keys[0])

    def all_of(self, value: str) -> tuple[str, ...]:
        """Return every pseudonym by which the person with the id *value* may have been named, the present one first."""
        return tuple(self._of(value, key) for key in self.keys)

    def is_of(self, pseudonym: str, value: str) -> bool:
        """Whether *pseudonym* names the person with the id *value*; takes the same time for every value."""
        return any(hmac.compare_digest(known, pseudonym) for known in self.all_of(value))

    def knows_key_of(self, pseudonym: str) -> bool:
        """Whether the key that *pseudonym* was made with is there."""
        return pseudonym.split(":")[1] in {key.name for key in self.keys}

    def only(self, pseudonym: str) -> "Pseudonyms":
        """Return what recognises *pseudonym*, with the one key that it takes.

        Raises:
            InvalidPayload: When that key is not there.
        """
        name = pseudonym.split(":")[1]
        key = next((key for key in self.keys if key.name == name), None)
        if key is None:
            known = ", ".join(key.name for key in self.keys)
            raise InvalidPayload(f"subject_id: made with a key that {VARIABLE} does not hold; it holds: {known}")
        return Pseudonyms(self.collection, (key,))

    def _of(self, value: str, key: PseudonymKey) -> str:
        message = f"{self.collection}\x00{value}".encode(errors="surrogatepass")
        return f"{SCHEME}:{key.name}:{hmac.digest(key.secret.encode(), message, 'sha256').hex()}"


def is_pseudonym(text: str) -> bool:
    """Whether *text* has the form of a pseudonym."""
    return _PSEUDONYM.fullmatch(text) is not None


def parse_pseudonym_keys(text: str, *, what: str = VARIABLE) -> tuple[PseudonymKey, ...]:
    """Return the keys of *text*: ``name:secret``, separated by spaces; no part of a secret is in an error.

    Raises:
        ConfigurationError: When there is none, one is of another form, or two have the same name.
    """
    found = [_PAIR.fullmatch(pair) for pair in text.split()]
    pairs = [match for match in found if match is not None]
    if not pairs or len(pairs) != len(found):
        raise ConfigurationError(
            f"{what}: expected name:secret, separated by spaces; a name of lower-case letters, digits and '-', at most "
            "32, and a secret of 40 random letters and digits or more"
        )
    keys = tuple(PseudonymKey(match["name"], match["secret"]) for match in pairs)
    _refuse_repeats((key.name for key in keys), what)
    return keys


def _refuse_repeats(names: Iterable[str], what: str) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise ConfigurationError(f"{what}: two keys have the same name")
