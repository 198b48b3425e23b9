"""The system call filter: each call's answer, in each ABI, as Docker's with its default profile."""

import json
import os
import pathlib

import pytest

from tests.security.hostile import attack
from tests.support.commands import Engine

TABLE = pathlib.Path(__file__).parents[1] / "reference/calls_x86.txt"

# Linux 6.18 has none above 469, and x32 some of its own from 512 on.
LAST = 600
# libseccomp 2.5.4 knows no newer ones, and says so of them by ENOSYS, like runc.
LAST_KNOWN_EVERYWHERE = 450

AF_ALG, AF_VSOCK = 38, 40
SOCKET = {"x86_64": 41, "x32": 41, "x86": 359}
CLONE = {"x86_64": 56, "x32": 56, "x86": 120}
PERSONALITY = {"x86_64": 135, "x32": 135, "x86": 136}
SOCKETCALL = 102
# The kernel takes an int of a register of 64 bits; a filter is shown all of them.
HIGH = (1, 0x80000000, 0xFFFFFFFF)
FAMILIES = (2, 37, AF_ALG, 39, AF_VSOCK, 41)
NAMESPACES = [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000]

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the table has the numbers of x86"
)


def table() -> dict[str, dict[int, str]]:
    """Return what the profile says of each call, by ABI and number."""
    found: dict[str, dict[int, str]] = {"x86_64": {}, "x86": {}, "x32": {}}
    for line in TABLE.read_text("ascii").splitlines():
        abi, number, _, answer = line.split()
        found[abi][int(number)] = answer
    return found


@pytest.fixture(scope="module")
def answers(ketch_engine: Engine, attacker: str) -> dict[str, dict[str, str]]:
    """Return what a container with default options is told of each call."""
    asked = [
        (abi, numbers[abi], name, values)
        for numbers, name, values in (
            (SOCKET, "socket", list(range(64))),
            (SOCKET, "wide socket", [high << 32 | family for high in HIGH for family in FAMILIES]),
            (CLONE, "clone", [17, *NAMESPACES, sum(NAMESPACES)]),
            (PERSONALITY, "personality", [0, 8, 0x20000, 0x20008, 0x40000, 0xFFFFFFFF]),
        )
        for abi in numbers
    ]
    asked.append(("x86", SOCKETCALL, "socketcall", list(range(21))))
    found: dict[str, dict[str, str]] = attack(
        ketch_engine, attacker, "try_calls", str(LAST), json.dumps(asked)
    )
    return found


@pytest.mark.parametrize("abi", ["x86_64", "x86", "x32"])
def test_every_call(answers: dict[str, dict[str, str]], abi: str) -> None:
    """What the profile allows is allowed, and all else refused, also what has no name yet."""
    wrong = {}
    expected = table()[abi]
    for text, answer in answers[abi].items():
        number = int(text)
        allowed = expected.get(number) == "allowed"
        if answer == "allowed":
            fits = allowed
        else:
            unknown = number > LAST_KNOWN_EVERYWHERE
            fits = answer in {"EPERM", "ENOSYS"} and (unknown or not allowed)
        if not fits:
            wrong[number] = answer
    assert wrong == {}
    assert len(answers[abi]) >= LAST - 1


def test_calls_are_refused_by_the_error_that_says_why(answers: dict[str, dict[str, str]]) -> None:
    """EPERM for what is refused; ENOSYS for what C libraries do otherwise then, and what is new."""
    assert answers["x86_64"]["250"] == "EPERM"  # keyctl
    assert answers["x86_64"]["425"] == "EPERM"  # io_uring_setup
    for abi in ("x86_64", "x86", "x32"):
        assert answers[abi]["435"] == "ENOSYS", "clone3"
        assert answers[abi]["599"] == "ENOSYS", "a call that nobody knows"
    assert answers["x86_64"]["467"] == answers["x86"]["469"] == "ENOSYS"


@pytest.mark.parametrize("abi", ["x86_64", "x86", "x32"])
def test_calls_by_their_argument(answers: dict[str, dict[str, str]], abi: str) -> None:
    """Address families, namespaces and personalities."""
    refused = {int(family) for family, how in answers[f"{abi} socket"].items() if how == "EPERM"}
    assert refused == {AF_ALG, AF_VSOCK}
    clone = answers[f"{abi} clone"]
    assert clone.pop("17") == "allowed"
    assert set(clone.values()) == {"EPERM"}
    personality = answers[f"{abi} personality"]
    assert personality.pop(str(0x40000)) == "EPERM"
    assert set(personality.values()) == {"allowed"}


@pytest.mark.parametrize("abi", ["x86_64", "x32"])
def test_address_families_have_32_bits(answers: dict[str, dict[str, str]], abi: str) -> None:
    """2**32 + AF_VSOCK is AF_VSOCK to the kernel, and a larger number to who compares it whole."""
    wide = answers[f"{abi} wide socket"]
    refused = {int(family) & 0xFFFFFFFF for family, how in wide.items() if how == "EPERM"}
    assert (refused, len(wide)) == ({AF_ALG, AF_VSOCK}, len(HIGH) * len(FAMILIES))


def test_no_way_around_the_address_families(answers: dict[str, dict[str, str]]) -> None:
    """socketcall's arguments are out of a filter's sight, so that AF_VSOCK would pass by it."""
    assert set(answers["x86 socketcall"].values()) == {"ENOSYS"}
