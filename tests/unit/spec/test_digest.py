import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import digest

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(HEX)
def test_a_sha256_digest_splits_into_algorithm_and_hex(digits: str) -> None:
    assert digest.split(f"sha256:{digits}") == ("sha256", digits)


def test_sha512_is_known() -> None:
    assert digest.valid("sha512:" + "0" * 128)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not of the form"),
        ("sha256", "not of the form"),
        (":" + "0" * 64, "not of the form"),
        ("md5:" + "0" * 32, "unsupported digest algorithm"),
        ("SHA256:" + "0" * 64, "unsupported digest algorithm"),
        ("sha256:" + "0" * 63, "length"),
        ("sha256:" + "0" * 65, "length"),
        ("sha256:" + "A" * 64, "lower-case hex"),
        ("sha256:" + "0" * 63 + "\n", "lower-case hex"),
        ("sha256:" + "../" * 21 + "x", "lower-case hex"),
        ("sha256:" + "\u0660" * 64, "lower-case hex"),
    ],
)
def test_what_is_no_digest_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        digest.split(text)
    assert not digest.valid(text)


@given(st.text())
def test_any_other_text_is_an_error_of_one_short_line(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        digest.split(text)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 1200


@given(st.binary())
def test_the_digest_of_bytes_is_their_sha256(content: bytes) -> None:
    assert digest.of(content) == "sha256:" + hashlib.sha256(content).hexdigest()
