"""``ketch system check`` says what this machine offers to a user, and a failing start the same."""

import json
import pathlib
import platform
import struct
import sys
from typing import Any

import pytest

from tests.support.commands import Engine
from tests.support.users import User

# Answers unshare(2) as a sandbox does that forbids it.
_FORBIDDEN = """
import ctypes, sys, os
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))
code = bytes.fromhex(sys.argv[1])
libc.prctl(38, 1, 0, 0, 0)
argument = Program(len(code) // 8, code)
if libc.prctl(22, 2, ctypes.byref(argument), 0, 0):
    raise OSError(ctypes.get_errno(), "prctl")
os.execvp(sys.argv[2], sys.argv[2:])
"""
_UNSHARE_NUMBERS = {"x86_64": 272, "aarch64": 97}


def offers(result: str) -> dict[str, dict[str, Any]]:
    return {offer["Name"]: offer for offer in json.loads(result)["Offers"]}


def test_what_there_is(user: User) -> None:
    text = user.ketch.ok("system", "check", "--format", "json")
    assert json.loads(text)["CanRun"]
    found = offers(text)
    assert found["user namespaces"]["State"] == "yes"
    assert found["subordinate ids"]["Detail"] == "65536 users, 65536 groups"
    assert found["newuidmap"]["State"] == found["newgidmap"]["State"] == "yes"
    assert found["overlay"]["State"] == "yes"
    assert found["/dev/net/tun"]["State"] == "yes"
    assert found["packet filter"]["State"] == "yes"
    assert found["runtime directory"]["Detail"] == f"{user.session}/ketch"
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert found["low ports"]["State"] == ("no" if first else "yes")


def test_what_is_used_instead_and_what_would_mend_it(lone_user: User) -> None:
    result = lone_user.run("ketch", "system", "check", XDG_RUNTIME_DIR="")
    assert result.status == 0, str(result)
    assert "have this user's own id alone" in result.out
    assert "-> as root: usermod --add-subuids " in result.out
    assert f"/tmp/ketch-{lone_user.uid}" in result.out
    assert result.out.endswith("\nContainers can run.\n")
    assert "subordinate ids: instead" in lone_user.ketch.ok("info")


def test_a_start_says_what_the_check_says(user: User) -> None:
    number = _UNSHARE_NUMBERS.get(platform.machine())
    if number is None:
        pytest.skip("nobody has written down this machine's number of unshare(2)")
    filter_ = b"".join(struct.pack("=HBBI", *each) for each in (
        (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000),
    ))  # fmt: skip
    wrapper = [sys.executable, "-c", _FORBIDDEN, filter_.hex()]
    state = ["--state", f"{user.session}/forbidden"]
    engine = Engine("ketch", [*user.prefix(), *wrapper, "ketch", *state])
    check = engine("system", "check", "--format", "json")
    assert check.status == 1
    assert not json.loads(check.out)["CanRun"]
    refused = offers(check.out)["user namespaces"]
    assert "user namespaces are not permitted here" in refused["Detail"]
    start = engine("run", "--rm", "busybox", "true")
    assert start.status == 125
    assert refused["Detail"] in start.err
    assert refused["Remedy"] in start.err


def test_root_is_told_of_the_kernel(ketch: Engine) -> None:
    found = offers(ketch.ok("system", "check", "--format", "json"))
    assert {name for name in found if found[name]["State"] == "yes"} >= {
        "user namespaces", "control groups", "packet filter",
    }  # fmt: skip
