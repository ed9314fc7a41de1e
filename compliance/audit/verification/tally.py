"""Compare two multitudes of ids without keeping them: which ids are sealed, and which the collection holds.

For each of 256 groups the keyed hashes of the ids are summed. The key is random for every run, so nobody can prepare
two multitudes with equal sums; a group whose sums differ is looked at in full afterwards.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

GROUPS = 256
DIGEST_BYTES = 16
KEY_BYTES = 32
GROUP = {f"{number:02x}": number for number in range(GROUPS)}


@dataclass(slots=True)
class Tally:
    """Sums of keyed hashes, by the first byte of the id.

    Attributes:
        key: Equal for tallies that are compared.
    """

    key: bytes = field(default_factory=lambda: secrets.token_bytes(KEY_BYTES))
    sums: list[int] = field(default_factory=lambda: [0] * GROUPS)

    def add(self, ids: Iterable[str]) -> None:
        """Add *ids* of 32 hex digits each."""
        key, sums, keyed, number = self.key, self.sums, hashlib.blake2b, int.from_bytes
        for id_ in ids:
            sums[GROUP[id_[:2]]] += number(keyed(id_.encode(), key=key, digest_size=DIGEST_BYTES).digest())

    def differing(self, other: "Tally") -> list[str]:
        """Return the first two digits of the ids in every group that differs."""
        return [f"{group:02x}" for group in range(GROUPS) if self.sums[group] != other.sums[group]]
