"""A number and a hash have one text each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.audit.wire import MAX_SIZE, decode_base64, decode_decimal, decode_hash, encode_base64
from compliance.errors import MalformedProof


@given(data=st.binary(max_size=40))
def test_bytes_survive_base64(data: bytes) -> None:
    assert decode_base64(encode_base64(data), what="it") == data


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YR==", "YQ==\n", " YQ==", "Y Q==", "YQ==YQ==", "_-8=", "YQ==é", "="])
def test_another_text_of_the_same_bytes_is_refused(text: str) -> None:
    with pytest.raises(MalformedProof, match="it is not base64"):
        decode_base64(text, what="it")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_has_32_bytes(length: int) -> None:
    with pytest.raises(MalformedProof, match=f"it has {length} bytes"):
        decode_hash(encode_base64(b"x" * length), what="it")


@given(number=st.integers(0, MAX_SIZE))
def test_a_number_survives(number: int) -> None:
    assert decode_decimal(str(number), what="it") == number


@pytest.mark.parametrize("text", ["", "01", "+1", "-0", "1_0", " 1", "1\n", "٣", "0x1", str(2**63), "9" * 5000])
def test_another_text_of_a_number_is_refused(text: str) -> None:
    with pytest.raises(MalformedProof, match="it is not a decimal number"):
        decode_decimal(text, what="it")
