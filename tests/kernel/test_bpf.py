"""Device programs, loaded into this kernel and attached to a real cgroup v2 directory."""

import os
import secrets
from collections.abc import Iterator

import pytest

from ketch import cgroups
from ketch.cgroups.device_program import program
from ketch.cgroups.devices import CHARACTER, READ, Policy
from ketch.errors import SyscallError
from ketch.linux import bpf, process

pytestmark = pytest.mark.root

EVERYTHING = program(Policy(True))
NOTHING = program(Policy(False))
NULL_TO_READ = program(Policy(False, {(CHARACTER, 1, 3): READ}))


@pytest.fixture
def cgroup() -> Iterator[int]:
    unified = cgroups.detect().unified
    if unified is None:
        pytest.skip("no cgroup v2 hierarchy is mounted here")
    path = f"{unified.mountpoint}/ketch-test-{secrets.token_hex(4)}"
    os.mkdir(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)
    os.rmdir(path)


def openable(cgroup: int, path: str, flags: int) -> bool:
    pid, pidfd = process.clone3(0, cgroup=cgroup)
    if pid == 0:
        try:
            os.open(path, flags)
        except PermissionError:
            os._exit(1)
        finally:
            os._exit(0)
    os.close(pidfd)
    return os.waitpid(pid, 0)[1] == 0


def test_denial(cgroup: int) -> None:
    assert openable(cgroup, "/dev/null", os.O_RDWR)
    bpf.attach_device_program(cgroup, NULL_TO_READ)
    assert openable(cgroup, "/dev/null", os.O_RDONLY)
    assert not openable(cgroup, "/dev/null", os.O_RDWR)
    assert not openable(cgroup, "/dev/zero", os.O_RDONLY)


def test_another_program_takes_the_place_of_the_first(cgroup: int) -> None:
    seen = set()
    for code, null in ((NOTHING, False), (NULL_TO_READ, True), (NOTHING, False)):
        bpf.attach_device_program(cgroup, code)
        ids, _ = bpf.device_programs(cgroup)
        assert len(ids) == 1
        seen.add(ids[0])
        assert openable(cgroup, "/dev/null", os.O_RDONLY) == null
    assert len(seen) == 3


def test_a_child_cgroup_cannot_allow_more(cgroup: int) -> None:
    bpf.attach_device_program(cgroup, NOTHING)
    os.mkdir("inner", dir_fd=cgroup)
    inner = os.open("inner", os.O_RDONLY | os.O_DIRECTORY, dir_fd=cgroup)
    try:
        bpf.attach_device_program(inner, EVERYTHING)
        assert not openable(inner, "/dev/null", os.O_RDONLY)
    finally:
        os.close(inner)
        os.rmdir("inner", dir_fd=cgroup)


def test_a_great_many_rules(cgroup: int) -> None:
    many = {(CHARACTER, 300, minor): READ for minor in range(1000)}
    bpf.attach_device_program(cgroup, program(Policy(False, {**many, (CHARACTER, 1, 3): READ})))
    assert openable(cgroup, "/dev/null", os.O_RDONLY)


def test_the_verifier_refuses_nonsense() -> None:
    with pytest.raises(SyscallError, match="PROG_LOAD"):
        bpf.load_device_program(b"\0" * 8)


def test_no_cgroup() -> None:
    with open("/dev/null", "rb") as null, pytest.raises(SyscallError):
        bpf.attach_device_program(null.fileno(), NOTHING)
