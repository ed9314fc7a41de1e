"""A key is known by its text, signs what it should, and never shows its private half."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.keys import EPOCH, KeyType, SigningKey, Verifier, is_key_name, parse_skey, parse_vkey
from compliance.errors import ConfigurationError, InvalidProof

# The key of the tests and the documentation of golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
LOG = SigningKey.from_seed("example.com/log", b"l" * 32)
WITNESS = SigningKey.from_seed("witness.example/w1", b"w" * 32, kind=KeyType.COSIGNATURE_V1)
TEXT = b"example.com/log\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
MOMENT = datetime(2026, 3, 31, 12, 0, 0, 999_999, tzinfo=UTC)


def with_id(name: str, material: bytes) -> str:
    key_id = hashlib.sha256(name.encode() + b"\n" + material).digest()[:4]
    return f"{name}+{key_id.hex()}+{base64.b64encode(material).decode()}"


def test_the_key_of_the_go_implementation_is_read_and_written() -> None:
    assert parse_vkey(VKEY).vkey == VKEY
    assert parse_skey(SKEY).skey == SKEY
    assert parse_skey(SKEY).verifier == parse_vkey(VKEY)


def test_an_id_in_capitals_is_the_same_id() -> None:
    assert parse_vkey(VKEY.replace("c74f20a3", "C74F20A3")) == parse_vkey(VKEY)


@pytest.mark.parametrize("key", [VKEY, SKEY])
def test_no_part_of_a_key_is_a_key(key: str) -> None:
    parse = parse_vkey if key == VKEY else parse_skey
    for begin in range(len(key)):
        for end in range(begin, len(key) + (begin > 0)):
            with pytest.raises(ConfigurationError):
                parse(key[begin:end])


@pytest.mark.parametrize("key", [VKEY, SKEY])
def test_no_changed_key_is_a_key(key: str) -> None:
    parse = parse_vkey if key == VKEY else parse_skey
    for place, char in enumerate(key):
        changed = f"{key[:place]}{chr(ord(char) + 1)}{key[place + 1 :]}"
        with pytest.raises(ConfigurationError):
            parse(changed)


@pytest.mark.parametrize(
    "material", [b"\x01", b"\x01" + b"k" * 31, b"\x01" + b"k" * 33, b"\x02" + b"k" * 32, b"\x06" + b"k" * 1312, b"\xff"]
)
def test_a_key_of_another_length_or_type_is_refused(material: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_vkey(with_id("example.com/log", material))
    with pytest.raises(ConfigurationError):
        parse_skey(f"PRIVATE+KEY+{with_id('example.com/log', material)}")


@pytest.mark.parametrize(
    "text", ["PRIVATE+KEY+n+00000000+c2VjcmV0c2VjcmV0", "PRIVATE+KEY+n+00000000+secret!", "secret"]
)
def test_no_error_shows_a_private_key(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_skey(text)

    assert "c2Vj" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_does_not_show_its_private_half_when_it_is_printed() -> None:
    assert "private" not in repr(LOG).lower()
    assert repr(b"l" * 32) not in repr(LOG)


def test_log_and_cosigner_have_different_ids_for_the_same_key() -> None:
    other = SigningKey.from_seed(LOG.verifier.name, b"l" * 32, kind=KeyType.COSIGNATURE_V1)

    assert other.verifier.public_key == LOG.verifier.public_key
    assert other.verifier.key_id != LOG.verifier.key_id
    assert parse_vkey(other.verifier.vkey) == other.verifier
    assert parse_skey(other.skey) == other


@pytest.mark.parametrize("name", ["example.com/log", "PeterNeumann", "日誌", "a" * 300])
def test_a_name_may_be_anything_without_spaces(name: str) -> None:
    assert is_key_name(name)
    assert parse_vkey(SigningKey.from_seed(name, b"l" * 32).verifier.vkey).name == name


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a+b", "a\nb", "a\tb", "a\x00b", "a\u00a0b", "a\u2003b", "a\u2028b", "a\u3000b", "a\ud800"]
)
def test_other_names_are_refused(name: str) -> None:
    assert not is_key_name(name)
    with pytest.raises(ConfigurationError):
        SigningKey.from_seed(name, b"l" * 32)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(ConfigurationError):
        SigningKey.from_seed("n", b"l" * length)


def test_a_signature_holds_for_one_key_and_one_text() -> None:
    signature = LOG.sign(TEXT)

    assert LOG.verifier.verify(TEXT, signature) is None
    for verifier, text, given_signature in (
        (LOG.verifier, TEXT + b"\n", signature),
        (LOG.verifier, TEXT, signature[:-1]),
        (LOG.verifier, TEXT, signature + b"\x00"),
        (LOG.verifier, TEXT, b""),
        (SigningKey.from_seed("example.com/log", b"m" * 32).verifier, TEXT, signature),
        (Verifier("n", KeyType.ED25519, b"\xff" * 32), TEXT, signature),
    ):
        with pytest.raises(InvalidProof):
            verifier.verify(text, given_signature)


@given(bit=st.integers(0, 72 * 8 - 1))
def test_any_changed_bit_of_a_cosignature_is_found(bit: int) -> None:
    signature = bytearray(WITNESS.cosign(TEXT, at=MOMENT))
    signature[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidProof):
        WITNESS.verifier.verify(TEXT, bytes(signature))


def test_a_cosignature_says_when_to_the_second() -> None:
    signature = WITNESS.cosign(TEXT, at=MOMENT)

    assert len(signature) == 72
    assert int.from_bytes(signature[:8], "big") == MOMENT.timestamp() // 1
    assert WITNESS.verifier.verify(TEXT, signature) == MOMENT.replace(microsecond=0)


def test_a_cosignature_signs_the_message_that_is_specified() -> None:
    signature = WITNESS.cosign(TEXT, at=EPOCH + timedelta(seconds=1679315147))
    plain = Verifier(WITNESS.verifier.name, KeyType.ED25519, WITNESS.verifier.public_key)

    assert plain.verify(b"cosignature/v1\ntime 1679315147\n" + TEXT, signature[8:]) is None


@pytest.mark.parametrize("cut", [0, 7, 8, 71])
def test_a_cosignature_that_was_cut_does_not_verify(cut: int) -> None:
    with pytest.raises(InvalidProof):
        WITNESS.verifier.verify(TEXT, WITNESS.cosign(TEXT, at=MOMENT)[:cut])


@pytest.mark.parametrize("moment", [EPOCH - timedelta(seconds=1), EPOCH - timedelta(microseconds=1)])
def test_nobody_cosigned_before_1970(moment: datetime) -> None:
    with pytest.raises(ValueError, match="1970"):
        WITNESS.cosign(TEXT, at=moment)


def test_each_type_of_key_signs_in_its_own_way_only() -> None:
    with pytest.raises(ValueError, match="with a time"):
        WITNESS.sign(TEXT)
    with pytest.raises(ValueError, match="not a cosigner"):
        LOG.cosign(TEXT, at=MOMENT)
