"""Keys that sign notes: their names, their ids, and the texts that hold them.

A key is the log's own (type 0x01) or a cosigner's, which says when it signed (type 0x04).

Source: C2SP signed-note (Signatures, Verifier keys, Ed25519 signatures); C2SP tlog-cosignature (Format, Ed25519 signed
message). The text of a private key is that of Go's ``golang.org/x/mod/sumdb/note``.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from compliance.audit.wire import decode_base64, encode_base64
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof

KEY_BYTES = 32
TIME_BYTES = 8
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_KEY = re.compile(r"(?P<name>[^+]+)\+(?P<id>[0-9a-fA-F]{8})\+(?P<key>.+)")
_PRIVATE = "PRIVATE+KEY+"


class KeyType(IntEnum):
    """What a signature by a key says."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


def is_key_name(name: str) -> bool:
    """Whether *name* can name a key: not empty; UTF-8 without spaces of any script, plus signs, control characters."""
    return bool(name) and not any(
        char.isspace() or char == "+" or char < " " or "\ud800" <= char <= "\udfff" for char in name
    )


@dataclass(frozen=True, slots=True)
class Verifier:
    """The public half of a key.

    Raises:
        ConfigurationError: When *name* cannot name a key, or *public_key* is not 32 bytes.
    """

    name: str
    kind: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name):
            raise ConfigurationError("the name of a key is empty, or holds a space, a plus sign or a control character")
        if len(self.public_key) != KEY_BYTES:
            raise ConfigurationError(f"an Ed25519 key has {KEY_BYTES} bytes, not {len(self.public_key)}")

    @property
    def key_id(self) -> bytes:
        """The four bytes that name this key, together with its name, in a signature line."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:4]

    @property
    def vkey(self) -> str:
        """The text to give to whoever verifies: ``<name>+<id in hex>+<base64 of type and key>``."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.kind]) + self.public_key)}"

    def verify(self, text: bytes, signature: bytes) -> datetime | None:
        """Return when *text* was cosigned, or None for a key that does not say when.

        Raises:
            InvalidProof: When this key did not make *signature* over *text*.
        """
        moment, message = None, text
        if self.kind is KeyType.COSIGNATURE_V1:
            seconds, signature = int.from_bytes(signature[:TIME_BYTES], "big"), signature[TIME_BYTES:]
            moment, message = self._moment(seconds), _cosigned(text, seconds)
        try:
            _public(self.public_key).verify(signature, message)
        except InvalidSignature:
            raise InvalidProof(f"the signature of {self.name}+{self.key_id.hex()} does not verify") from None
        return moment

    def _moment(self, seconds: int) -> datetime:
        try:
            return EPOCH + timedelta(seconds=seconds)
        except OverflowError:
            raise InvalidProof(f"the signature of {self.name}+{self.key_id.hex()} is from after year 9999") from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A whole key; MUST stay with the process that signs, and never be stored with what it signs."""

    verifier: Verifier
    _private: Ed25519PrivateKey = field(repr=False, compare=False)

    @classmethod
    def from_seed(cls, name: str, seed: bytes, *, kind: KeyType = KeyType.ED25519) -> "SigningKey":
        """Return the key whose private half is *seed*: 32 bytes from a source that nobody can guess.

        Raises:
            ConfigurationError: When *name* cannot name a key, or *seed* is not 32 bytes.
        """
        if len(seed) != KEY_BYTES:
            raise ConfigurationError(f"the seed of an Ed25519 key has {KEY_BYTES} bytes, not {len(seed)}")
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(Verifier(name, kind, private.public_key().public_bytes_raw()), private)

    @property
    def skey(self) -> str:
        """The text to keep secret: ``PRIVATE+KEY+<name>+<id in hex>+<base64 of type and seed>``."""
        public = self.verifier
        private = encode_base64(bytes([public.kind]) + self._private.private_bytes_raw())
        return f"{_PRIVATE}{public.name}+{public.key_id.hex()}+{private}"

    def sign(self, text: bytes) -> bytes:
        """Return the signature of *text*.

        Raises:
            ValueError: When this is the key of a cosigner, who says when.
        """
        if self.verifier.kind is not KeyType.ED25519:
            raise ValueError(f"{self.verifier.name} is a cosigner: it signs with a time")
        return self._private.sign(text)

    def cosign(self, text: bytes, *, at: datetime) -> bytes:
        """Return the time *at*, cut to seconds, and the signature of it and *text*.

        Raises:
            ValueError: When this is not the key of a cosigner, or *at* is before 1970.
        """
        if self.verifier.kind is not KeyType.COSIGNATURE_V1:
            raise ValueError(f"{self.verifier.name} is not a cosigner")
        seconds = (at - EPOCH) // timedelta(seconds=1)
        if seconds < 0:
            raise ValueError("a cosignature cannot be from before 1970")
        return seconds.to_bytes(TIME_BYTES, "big") + self._private.sign(_cosigned(text, seconds))


def parse_vkey(text: str) -> Verifier:
    """Return the key of *text*.

    Raises:
        ConfigurationError: When it is not a verifier key, of another type, or its id is not that of the key.
    """
    name, key_id, kind, key = _parse(text, what="a verifier key")
    verifier = Verifier(name, kind, key)
    if verifier.key_id != key_id:
        raise ConfigurationError("the id in a verifier key is not that of the key")
    return verifier


def parse_skey(text: str) -> SigningKey:
    """Return the key of *text*; no part of it is in an error.

    Raises:
        ConfigurationError: When it is not a private key, of another type, or its id is not that of the key.
    """
    if not text.startswith(_PRIVATE):
        raise ConfigurationError(f"a private key begins with {_PRIVATE}")
    name, key_id, kind, seed = _parse(text.removeprefix(_PRIVATE), what="a private key")
    key = SigningKey.from_seed(name, seed, kind=kind)
    if key.verifier.key_id != key_id:
        raise ConfigurationError("the id in a private key is not that of the key")
    return key


@lru_cache(maxsize=64)
def _public(key: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key)


def _parse(text: str, *, what: str) -> tuple[str, bytes, KeyType, bytes]:
    found = _KEY.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{what} is <name>+<8 hex digits>+<base64>")
    try:
        material = decode_base64(found["key"], what=what)
    except MalformedProof as error:
        raise ConfigurationError(str(error)) from None
    if material[0] not in tuple(KeyType):
        raise ConfigurationError(f"{what} is of type {material[0]:#04x}; known are 0x01 and 0x04")
    return found["name"], bytes.fromhex(found["id"]), KeyType(material[0]), material[1:]


def _cosigned(text: bytes, seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % seconds + text
