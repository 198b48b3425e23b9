import errno
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ketch.runtime.libseccomp import _unknown_calls_stub as stub

X86, X86_64, X32, AARCH64, S390X = 0x40000003, 0xC000003E, 0x4000003E, 0xC00000B7, 0x80000016
X32_BIT = 0x40000000
ENOSYS = 0x50000 | errno.ENOSYS


def answer(program: bytes, architecture: int, number: int) -> int | None:
    """What a program returns for a system call; None when it falls through to what follows."""
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while at < len(code):
        operation, if_true, if_false, value = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = {0: number, 4: architecture}[value]
            case 0x05:
                at += value
            case 0x06:
                return int(value)
            case 0x15 | 0x25 | 0x45:
                holds = {0x15: accumulator == value, 0x25: accumulator > value,
                         0x45: bool(accumulator & value)}[operation]  # fmt: skip
                at += if_true if holds else if_false
            case _:
                raise AssertionError(f"unexpected operation {operation:#x}")
    assert at == len(code), "a jump leads past the filter's first instruction"
    return None


@given(
    st.dictionaries(
        st.sampled_from([X86, X86_64, X32, AARCH64, S390X]), st.integers(1, 600), max_size=5
    ),
    st.sampled_from([X86, X86_64, AARCH64, S390X, 0x28]),
    st.integers(0, 1000) | st.integers(0, 2**32 - 1),
    st.booleans(),
)
@example({S390X: 400}, S390X, 0, False)
@example({S390X: 400}, S390X, 1, False)
def test_only_numbers_above_the_last_are_unknown(
    lasts: dict[int, int], architecture: int, number: int, x32: bool
) -> None:
    if X32 in lasts:
        lasts[X32] |= X32_BIT
    if architecture == X86_64 and x32:
        number |= X32_BIT
    abi = X32 if architecture == X86_64 and number & X32_BIT else architecture
    unknown = abi in lasts and number > lasts[abi]
    if architecture == S390X and abi in lasts and number == 0:
        unknown = True
    assert answer(stub(lasts), architecture, number) == (ENOSYS if unknown else None)


@pytest.mark.parametrize("lasts", [{}, {AARCH64: 450}])
def test_another_architecture_goes_to_the_filter(lasts: dict[int, int]) -> None:
    assert answer(stub(lasts), X86_64, 9999) is None
