"""Signed notes: a text, and lines under it that say who signed it.

Shape::

    <text that ends in a newline>

    — <name of a key> <base64 of key id and signature>

Source: C2SP signed-note (Format, Signatures).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from compliance.audit.keys import SigningKey, Verifier, is_key_name
from compliance.audit.wire import decode_base64, encode_base64
from compliance.errors import ConfigurationError, InvalidProof, MalformedProof

MAX_SIGNATURES = 100  # as in Go; the specification asks for a limit of at least 16
KEY_ID_BYTES = 4

_DASH = "— "
_GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """A line as it came: nothing about it is known yet."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that verified: by which key, and for a cosigner when."""

    verifier: Verifier
    cosigned_at: datetime | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text that at least one known key signed; *signatures* holds one per key that did."""

    text: str
    signatures: tuple[Signature, ...]


def sign_note(text: str, keys: Sequence[SigningKey]) -> bytes:
    """Return *text* signed by *keys*, none of which is a cosigner's.

    Raises:
        ValueError: When there is no key, or *text* cannot be that of a note.
    """
    if not keys or not _is_text(text):
        raise ValueError("a note has a signature, ends in a newline, and holds no other control character")
    lines = (SignatureLine(key.verifier.name, key.verifier.key_id, key.sign(text.encode())) for key in keys)
    return f"{text}\n{''.join(map(str, lines))}".encode()


def cosign_note(note: bytes, key: SigningKey, *, at: datetime) -> bytes:
    """Return *note* with a line of the cosigner *key*, who states to have seen it at that time.

    MUST only be called for a checkpoint whose consistency with those cosigned before was verified.

    Raises:
        MalformedProof: When *note* is not a signed note.
    """
    text, _ = parse_note(note)
    signature = key.cosign(text.encode(), at=at)
    return add_lines(note, str(SignatureLine(key.verifier.name, key.verifier.key_id, signature)).encode())


def add_lines(note: bytes, lines: bytes) -> bytes:
    """Return *note* with the signature *lines* that somebody else made for it; they are not verified here.

    Raises:
        MalformedProof: When *note* is not a signed note, or *lines* are not signature lines.
    """
    longer = note + lines
    if parse_note(longer)[0] != parse_note(note)[0]:
        raise MalformedProof("what was to be added to a note holds more than signature lines")
    return longer


def gather_lines(note: bytes, lines: Iterable[bytes], *, known: Iterable[Verifier] = ()) -> bytes:
    """Return *note* with those of *lines* that others may have made for it; what is none is left out.

    Without this, one line of junk among them would keep the note from being read.

    Args:
        note: A signed note.
        lines: Signature lines, as they came.
        known: Keys whose lines are verified; they come first.

    Raises:
        MalformedProof: When *note* is not a signed note.
    """
    text, own = parse_note(note)
    verifiers, names = _by_name(known), {line.name for line in own}
    verified, others = dict[SignatureLine, None](), dict[SignatureLine, None]()
    for line in _lines_of(note, lines, skipped=len(own)):
        verifier = verifiers.get((line.name, line.key_id))
        if verifier is not None and _is_by(verifier, text, line):
            verified[line] = None
        elif verifier is None and line.name not in names and len(others) < MAX_SIGNATURES:
            others[line] = None  # in the name of a signer of the note, it would have to verify
    kept = [*verified, *others][: MAX_SIGNATURES - len(own)]
    return note + "".join(map(str, kept)).encode()


def _lines_of(note: bytes, lines: Iterable[bytes], *, skipped: int) -> Iterator[SignatureLine]:
    for one in lines:
        try:
            yield from parse_note(add_lines(note, one))[1][skipped:]
        except MalformedProof:
            continue


def _is_by(verifier: Verifier, text: str, line: SignatureLine) -> bool:
    try:
        verifier.verify(text.encode(), line.signature)
    except InvalidProof:
        return False
    return True


def parse_note(note: bytes) -> tuple[str, tuple[SignatureLine, ...]]:
    """Return the text and the signature lines of *note*; who signed is not verified, so trust neither.

    Raises:
        MalformedProof: When *note* is not a signed note.
    """
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise MalformedProof("a note is not UTF-8") from None
    end = whole.rfind(_GAP) + 1
    text, signed = whole[:end], whole[end + 1 :]
    if not _is_text(text) or not _is_text(signed):
        raise MalformedProof("a note is a text, an empty line and signature lines, without control characters")
    if signed.count("\n") > MAX_SIGNATURES:
        raise MalformedProof(f"a note has more than {MAX_SIGNATURES} signatures")
    return text, tuple(_parse_lines(signed.removesuffix("\n").split("\n")))


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Return the text of *note* and which of *verifiers* signed it; lines by other keys say nothing.

    Raises:
        MalformedProof: When *note* is not a signed note.
        InvalidProof: When no known key signed, or one line in the name of a known key does not verify.
        ConfigurationError: When two of *verifiers* have the same name and id.
    """
    known = _by_name(verifiers)
    text, lines = parse_note(note)
    signed: dict[Verifier, Signature] = {}
    for line in lines:
        verifier = known.get((line.name, line.key_id))
        if verifier is not None:
            cosigned_at = verifier.verify(text.encode(), line.signature)
            signed.setdefault(verifier, Signature(verifier, cosigned_at))
    if not signed:
        raise InvalidProof("no known key signed the note")
    return Note(text, tuple(signed.values()))


def _by_name(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise ConfigurationError(f"two keys are called {verifier.name}+{verifier.key_id.hex()}")
    return known


def _parse_lines(lines: Iterable[str]) -> Iterator[SignatureLine]:
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not is_key_name(name):
            raise MalformedProof("a note has a line that is no signature line")
        data = decode_base64(encoded, what="a signature")
        if len(data) <= KEY_ID_BYTES:
            raise MalformedProof("a signature line has no signature")
        yield SignatureLine(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def _is_text(text: str) -> bool:
    return text.endswith("\n") and not any(char < " " and char != "\n" for char in text)
