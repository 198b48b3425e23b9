import ctypes
import errno
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

import ketch
from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ketch.linux import process
from ketch.linux import seccomp as kernel
from ketch.runtime import libseccomp, seccomp
from ketch.runtime.libseccomp import Libseccomp
from ketch.spec import capabilities
from ketch.spec.runtime import Seccomp
from ketch.spec.seccomp import ARCHITECTURES, to_oci
from ketch.spec.seccomp_default import default_profile

X86_64 = os.uname().machine == "x86_64"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not X86_64, reason="system call numbers here are those of x86_64"),
]

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

NUMBERS = {
    "getpid": 39, "clone": 56, "personality": 135, "chroot": 161, "mount": 165, "reboot": 169,
    "add_key": 248, "keyctl": 250, "unshare": 272, "socket": 41, "bpf": 321, "userfaultfd": 323,
    "io_uring_setup": 425, "clone3": 435, "fsopen": 430, "getppid": 110, "kexec_load": 246,
}  # fmt: skip


EMPTY = ctypes.create_string_buffer(b"")


def call(name: str | int, *arguments: int) -> str:
    """``ok``, or the name of the error of a system call made here and now."""
    number = NUMBERS[name] if isinstance(name, str) else name
    ctypes.set_errno(0)
    result = libc.syscall(number, *(ctypes.c_long(argument) for argument in arguments))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def confined(filter_: seccomp.Filter, function: Callable[[], Any]) -> tuple[Any, int]:
    """What ``function`` returns under a filter, and how the process ended."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.load(filter_.program, filter_.flags)
            result = function()
        except BaseException as error:  # noqa: BLE001 the parent asserts on it
            result = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(answer or b"null"), os.waitstatus_to_exitcode(status)


def default_filter(tmp_path: pathlib.Path, *held: str) -> seccomp.Filter:
    names = [*capabilities.to_names(capabilities.DEFAULT), *held]
    section = to_oci(default_profile(), names, os.uname().machine, os.uname().release)
    assert section is not None
    return seccomp.prepare(section, str(tmp_path / "cache"))


def test_the_default_profile_refuses_what_dockers_does(tmp_path: pathlib.Path) -> None:
    def attempt() -> dict[str, str]:
        return {
            "getpid": call("getpid"),
            "keyctl": call("keyctl", 0, -3, 0),
            "add_key": call("add_key"),
            "mount": call("mount"),
            "unshare": call("unshare", 0),
            "unshare user": call("unshare", 0x10000000),
            "bpf": call("bpf"),
            "userfaultfd": call("userfaultfd", 1),
            "io_uring_setup": call("io_uring_setup"),
            "fsopen": call("fsopen"),
            "kexec_load": call("kexec_load"),
            "reboot": call("reboot"),
            "clone user": call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
            "clone3": call("clone3", 0, 0),
            "chroot": call("chroot", 0),
            "personality query": call("personality", 0xFFFFFFFF),
            "personality other": call("personality", 0x40000),
            "socket unix": call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0),
            "socket alg": call("socket", 38, socket.SOCK_SEQPACKET, 0),
            "socket vsock": call("socket", 40, socket.SOCK_STREAM, 0),
        }

    answers, status = confined(default_filter(tmp_path), attempt)
    assert status == 0
    assert answers == {
        "getpid": "ok",
        "keyctl": "EPERM",
        "add_key": "EPERM",
        "mount": "EPERM",
        "unshare": "EPERM",
        "unshare user": "EPERM",
        "bpf": "EPERM",
        "userfaultfd": "EPERM",
        "io_uring_setup": "EPERM",
        "fsopen": "EPERM",
        "kexec_load": "EPERM",
        "reboot": "EPERM",
        "clone user": "EPERM",
        "clone3": "ENOSYS",
        # CAP_SYS_CHROOT is one of Docker's defaults, so the call goes through to its bad address.
        "chroot": "EFAULT",
        "personality query": "ok",
        "personality other": "EPERM",
        "socket unix": "ok",
        "socket alg": "EPERM",
        "socket vsock": "EPERM",
    }


def test_sys_admin_opens_mount_unshare_and_clone3(tmp_path: pathlib.Path) -> None:
    def attempt() -> dict[str, str]:
        return {
            # No type is given: allowed, the call looks for the directory and has an empty path.
            # What is not passed is whatever a register has, which libffi's version decides.
            "mount": call("mount", 0, ctypes.addressof(EMPTY), 0, 0, 0),
            "unshare": call("unshare", 0),
            "clone3": call("clone3", 0, 0),
            "keyctl": call("keyctl", 0, -3, 0),
        }

    answers, _ = confined(default_filter(tmp_path, "CAP_SYS_ADMIN"), attempt)
    assert answers == {"mount": "ENOENT", "unshare": "ok", "clone3": "EINVAL", "keyctl": "EPERM"}


def test_every_capability_at_once_compiles(tmp_path: pathlib.Path) -> None:
    answers, _ = confined(
        default_filter(tmp_path, *capabilities.NAMES),
        lambda: [call("bpf", 99, 0, 0), call("getpid")],
    )
    assert answers == ["EINVAL", "ok"]


def test_ordinary_programs_run_under_the_default_profile(tmp_path: pathlib.Path) -> None:
    filter_ = default_filter(tmp_path)
    script = "import json, socket, subprocess, threading; t = threading.Thread(target=int);"
    script += "t.start(); t.join(); print(subprocess.run(['/bin/echo', 'hi']).returncode)"

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    assert confined(filter_, run)[0] == "hi\n0\n"


def test_calls_newer_than_the_profile_are_unknown_not_refused(tmp_path: pathlib.Path) -> None:
    def attempt() -> list[str]:
        # No libseccomp knows these; what else is newer than the profile its version decides.
        return [call(500), call(999), call(0x3FFFFFFF), call(0x40000000 | 999), call("keyctl")]

    assert confined(default_filter(tmp_path), attempt)[0] == ["ENOSYS"] * 4 + ["EPERM"]


def compiled(section: Seccomp) -> seccomp.Filter:
    return seccomp.Filter(Libseccomp().compile(section), seccomp.filter_flags(section))


ALLOW: Seccomp = {"defaultAction": "SCMP_ACT_ALLOW"}


def test_the_stub_is_left_out_where_the_profile_permits_by_default() -> None:
    rules = [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO"}]
    permits = len(compiled({**ALLOW, "syscalls": rules}).program)  # type: ignore[typeddict-item]
    assert permits < 30 * kernel.INSTRUCTION_BYTES
    answers, _ = confined(compiled({**ALLOW, "syscalls": rules}), lambda: call(999))  # type: ignore[typeddict-item]
    assert answers == "ENOSYS"


@pytest.mark.parametrize(
    ("action", "extra", "expected", "status"),
    [
        ("SCMP_ACT_ERRNO", {}, "EPERM", 0),
        ("SCMP_ACT_ERRNO", {"errnoRet": errno.EXDEV}, "EXDEV", 0),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, "ok", 0),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, "ENOSYS", 0),
        ("SCMP_ACT_LOG", {}, "ok", 0),
        ("SCMP_ACT_KILL", {}, None, -signal.SIGSYS),
        ("SCMP_ACT_KILL_THREAD", {}, None, -signal.SIGSYS),
        ("SCMP_ACT_KILL_PROCESS", {}, None, -signal.SIGSYS),
        ("SCMP_ACT_TRAP", {}, None, -signal.SIGSYS),
    ],
)
def test_actions(action: str, extra: dict[str, int], expected: str | None, status: int) -> None:
    section: Any = {**ALLOW, "syscalls": [{"names": ["getppid"], "action": action, **extra}]}
    assert confined(compiled(section), lambda: call("getppid")) == (expected, status)


def test_default_errno() -> None:
    names = ["read", "write", "exit_group", "close", "brk", "mmap", "munmap", "futex", "getpid"]
    section: Any = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENODEV,
        "syscalls": [{"names": [*names, "statx"], "action": "SCMP_ACT_ALLOW"}],
    }
    answers, _ = confined(compiled(section), lambda: [call("getpid"), call("keyctl"), call(999)])
    assert answers == ["ok", "ENODEV", "ENOSYS"]


@pytest.mark.parametrize(
    ("operator", "value", "value_two", "matching"),
    [
        ("NE", 8, 0, {0, 5, 9}),
        ("LT", 8, 0, {0, 5}),
        ("LE", 8, 0, {0, 5, 8}),
        ("EQ", 8, 0, {8}),
        ("GE", 8, 0, {8, 9}),
        ("GT", 8, 0, {9}),
        ("MASKED_EQ", 0b1001, 0b0001, {5}),
    ],
)
def test_operators(operator: str, value: int, value_two: int, matching: set[int]) -> None:
    arg = {"index": 0, "value": value, "valueTwo": value_two, "op": f"SCMP_CMP_{operator}"}
    rule = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [arg]}
    section: Any = {**ALLOW, "syscalls": [rule]}
    answers, _ = confined(
        compiled(section), lambda: [v for v in (0, 5, 8, 9) if call("getppid", v) == "E2BIG"]
    )
    assert set(answers) == matching


def test_arguments_are_all_wanted_but_one_argument_twice_is_either() -> None:
    def rule(*args: tuple[int, int]) -> dict[str, Any]:
        return {
            "names": ["getppid"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": i, "value": v, "op": "SCMP_CMP_EQ"} for i, v in args],
        }  # fmt: skip

    both: Any = {**ALLOW, "syscalls": [rule((0, 1), (1, 2))]}
    answers, _ = confined(
        compiled(both), lambda: [call("getppid", 1, 2), call("getppid", 1, 3), call("getppid")]
    )
    assert answers == ["EPERM", "ok", "ok"]
    either: Any = {**ALLOW, "syscalls": [rule((0, 1), (0, 2))]}
    answers, _ = confined(compiled(either), lambda: [call("getppid", v) for v in (1, 2, 3)])
    assert answers == ["EPERM", "EPERM", "ok"]


def test_unknown_names_are_skipped() -> None:
    section: Any = {
        **ALLOW,
        "syscalls": [
            {"names": ["no_such_call", "keyctl", "arm_sync_file_range"], "action": "SCMP_ACT_ERRNO"}
        ],
    }
    assert confined(compiled(section), lambda: [call("keyctl"), call("getpid")])[0] == [
        "EPERM",
        "ok",
    ]


@pytest.mark.parametrize(
    ("default", "rule"),
    [("SCMP_ACT_ALLOW", {"action": "SCMP_ACT_ALLOW"}),
     ("SCMP_ACT_ERRNO", {"action": "SCMP_ACT_ERRNO"}),
     ("SCMP_ACT_ERRNO", {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM})],
)  # fmt: skip
def test_a_rule_that_says_what_holds_anyway_is_no_error(default: str, rule: dict[str, Any]) -> None:
    """libseccomp refuses it, and runc leaves it out."""
    section: Any = {
        "defaultAction": default,
        "syscalls": [
            {"names": ["keyctl"], **rule},
            {"names": ["getpid"], "action": "SCMP_ACT_LOG"},
        ],
    }
    assert compiled(section).program


def test_a_rule_that_libseccomp_refuses_is_named() -> None:
    arg = {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}
    rules = [{"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "args": [arg]}]
    section: Any = {**ALLOW, "syscalls": rules}
    with pytest.raises(InvalidArgumentError, match=r"linux\.seccomp\.syscalls\[0\].*keyctl"):
        compiled(section)


def test_the_32_bit_abi_is_filtered_too(tmp_path: pathlib.Path) -> None:
    section: Any = {
        **ALLOW,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}],
    }

    def int80(number: int) -> int:
        # mov eax, number; int 0x80; ret
        import mmap

        code = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    filtered, status = confined(compiled(section), lambda: [int80(64), int80(20) > 0])
    if status == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit system calls")
    assert filtered == [-7, True]
    alone: Any = {**section, "architectures": []}
    assert confined(compiled(alone), lambda: int80(20)) == (None, -signal.SIGSYS)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_compiles_or_says_why_not(name: str) -> None:
    section: Any = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [name],
        "syscalls": [{"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW"}],
    }
    big_endian = (
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "PPC",
        "PPC64",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "M68K",
        "SHEB",
    )
    if not Libseccomp().architecture(name):
        reason = r"libseccomp [0-9.]+ does not know it"
    elif name.removeprefix("SCMP_ARCH_") in big_endian:
        reason = "the other byte order"
    else:
        compiled(section)
        return
    with pytest.raises(UnsupportedError, match=rf"architectures\[0\]: {name}: .*{reason}"):
        compiled(section)


def test_a_listener_is_returned_and_answers(tmp_path: pathlib.Path) -> None:
    section: Any = {
        **ALLOW,
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/nowhere",
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}],
    }
    filter_ = compiled(section)
    assert filter_.flags == (
        kernel.FILTER_FLAG_NEW_LISTENER
        | kernel.FILTER_FLAG_LOG
        | kernel.FILTER_FLAG_WAIT_KILLABLE_RECV
    )
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        listener = kernel.load(filter_.program, filter_.flags)
        socket.send_fds(theirs, [b"x"], [listener])
        os._exit(0 if os.getppid() == 4242 else 1)
    theirs.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    import fcntl
    import struct

    # struct seccomp_notif: id, pid, flags, seccomp_data; struct seccomp_notif_resp after it.
    notification = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, notification)
    identifier, from_pid = struct.unpack_from("=QI", notification)
    assert from_pid == pid
    fcntl.ioctl(listener, 0xC0182101, struct.pack("=QqiI", identifier, 4242, 0, 0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(listener)
    ours.close()


def test_flags() -> None:
    spec_allow = kernel.FILTER_FLAG_SPEC_ALLOW
    assert seccomp.filter_flags({"defaultAction": "SCMP_ACT_ALLOW"}) == spec_allow
    assert seccomp.filter_flags({"defaultAction": "SCMP_ACT_ALLOW", "flags": []}) == 0
    everything: Any = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
    }
    # Without a listener the kernel refuses WAIT_KILLABLE_RECV, which then has no meaning.
    assert seccomp.filter_flags(everything) == kernel.FILTER_FLAG_LOG | spec_allow
    assert confined(compiled(everything), lambda: call("getpid")) == ("ok", 0)


def test_loading_without_privilege_needs_no_new_privs(tmp_path: pathlib.Path) -> None:
    filter_ = default_filter(tmp_path)

    def load() -> str:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(OSError, match="Permission denied"):
            kernel.load(filter_.program, filter_.flags)
        process.prctl(process.PR_SET_NO_NEW_PRIVS, 1)
        kernel.load(filter_.program, filter_.flags)
        return call("keyctl")

    assert confined(compiled(ALLOW), load) == ("EPERM", 0)


def test_a_malformed_program_is_refused() -> None:
    answer, _ = confined(seccomp.Filter(b"\0" * 8, 0), lambda: None)
    assert "seccomp(filter of 1 instructions, flags 0x0): Invalid argument" in answer


class TestCache:
    def test_a_second_start_does_not_load_libseccomp(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = default_filter(tmp_path)
        monkeypatch.setattr(libseccomp, "LIBRARY", "libseccomp-that-is-not-there.so")
        again = default_filter(tmp_path)
        assert (again.program, again.flags) == (first.program, first.flags)
        with pytest.raises(UnavailableError) as caught:
            default_filter(tmp_path, "CAP_SYS_ADMIN")
        assert "libseccomp2" in caught.value.hint

    def test_the_listener_does_not_make_another_entry(self, tmp_path: pathlib.Path) -> None:
        sections: list[Seccomp] = [ALLOW, {**ALLOW, "listenerPath": "/a"}, {**ALLOW, "flags": []}]
        for section in sections:
            seccomp.prepare(section, str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 1

    @pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "directory"])
    def test_damage_is_noticed(self, tmp_path: pathlib.Path, damage: str) -> None:
        first = default_filter(tmp_path)
        (entry,) = (tmp_path / "cache").iterdir()
        content = entry.read_bytes()
        if damage == "truncate":
            entry.write_bytes(content[:-8])
        elif damage == "flip":
            entry.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif damage == "empty":
            entry.write_bytes(b"")
        else:
            entry.unlink()
            entry.mkdir()
        assert default_filter(tmp_path).program == first.program
        if damage != "directory":
            assert entry.read_bytes() == content

    def test_another_library_makes_another_program(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "libseccomp.so.2"
        library.write_bytes(b"old")
        monkeypatch.setattr(seccomp, "_library_path", lambda: os.fsencode(library))
        compilations = []

        class Compiler:
            def compile(self, section: Seccomp) -> bytes:
                compilations.append(section)
                return b"program\0"

        monkeypatch.setattr(libseccomp, "Libseccomp", Compiler)
        for _ in range(2):
            assert seccomp.prepare(ALLOW, str(tmp_path / "cache")).program == b"program\0"
        assert len(compilations) == 1
        library.write_bytes(b"newer")
        seccomp.prepare(ALLOW, str(tmp_path / "cache"))
        assert len(compilations) == 2
        library.unlink()
        seccomp.prepare(ALLOW, str(tmp_path / "cache"))
        assert len(compilations) == 2

    @pytest.mark.parametrize("what", ["release", "version", "format"])
    def test_what_a_program_depends_on_makes_another_entry(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, what: str
    ) -> None:
        seccomp.prepare(ALLOW, str(tmp_path))
        if what == "release":
            kernel_facts = os.uname_result(("Linux", "", "99.9.9", "", os.uname().machine))
            monkeypatch.setattr(os, "uname", lambda: kernel_facts)
        elif what == "version":
            monkeypatch.setattr(ketch, "__version__", "0.0.0")
        else:
            monkeypatch.setattr(seccomp, "_FORMAT", -1)
        seccomp.prepare(ALLOW, str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 2

    def test_it_is_bounded(self, tmp_path: pathlib.Path) -> None:
        for number in range(70):
            rule: Any = {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": number}
            seccomp.prepare({**ALLOW, "syscalls": [rule]}, str(tmp_path))
        assert len(list(tmp_path.iterdir())) == 64

    def test_a_cache_that_cannot_be_written_does_not_matter(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        assert seccomp.prepare(ALLOW, str(tmp_path / "file")).program

    def test_it_takes_less_than_a_millisecond_to_read(self, tmp_path: pathlib.Path) -> None:
        section = to_oci(
            default_profile(), capabilities.to_names(capabilities.DEFAULT), "x86_64", "6.1.0"
        )
        assert section is not None
        seccomp.prepare(section, str(tmp_path))
        durations = []
        for _ in range(20):
            start = time.perf_counter()
            seccomp.prepare(section, str(tmp_path))
            durations.append(time.perf_counter() - start)
        assert min(durations) < 0.001
