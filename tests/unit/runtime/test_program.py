"""Why a program cannot be run, from files made by hand."""

import errno
import os
import pathlib
import struct

import pytest

from ketch.errors import StartError
from ketch.runtime import program

HERE = os.uname().machine
MACHINES = {"x86_64": 62, "aarch64": 183, "s390x": 22}


def elf(machine: int, *, interpreter: str = "", order: str = "<") -> bytes:
    """An ELF file of 64 bits with a header, and where asked a PT_INTERP: elf(5)."""
    identification = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + b"\x01" + bytes(9)
    path = interpreter.encode() + b"\0"
    count = 1 if interpreter else 0
    header = identification + struct.pack(
        order + "HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, count, 0, 0, 0
    )
    segment = struct.pack(order + "IIQQQQQQ", 3, 4, 120, 0, 0, len(path), len(path), 1)
    return header + (segment + path if interpreter else b"")


def write(directory: pathlib.Path, content: bytes, *, mode: int = 0o755) -> str:
    path = directory / "program"
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def refusal(path: str) -> StartError:
    """The kernel's own refusal of a file, explained."""
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(path, [path], {})
        except OSError as error:
            os._exit(error.errno or 0)
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert number, f"{path} could be run"
    return program.explain(path, OSError(number, os.strerror(number)))


def test_a_script_without_its_interpreter(tmp_path: pathlib.Path) -> None:
    error = refusal(write(tmp_path, b"#!/nowhere/python3 -E\nprint()\n"))
    assert error.exit_status == 127
    assert 'script whose interpreter "/nowhere/python3" does not exist' in str(error)


def test_a_script_with_the_line_ends_of_another_system(tmp_path: pathlib.Path) -> None:
    error = refusal(write(tmp_path, b"#!/bin/sh\r\necho\r\n"))
    assert error.exit_status == 127
    assert "CRLF" in str(error)
    assert "sed -i" in error.hint


def test_a_missing_dynamic_loader(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, elf(MACHINES[HERE], interpreter="/lib/ld-musl-x86_64.so.1"))
    error = program.explain(path, OSError(errno.ENOENT, "No such file or directory"))
    assert error.exit_status == 127
    assert "needs the dynamic loader /lib/ld-musl-x86_64.so.1" in str(error)


@pytest.mark.parametrize(
    ("machine", "order", "name"),
    [(183, "<", "aarch64"), (62, "<", "x86_64"), (22, ">", "s390x"), (9999, "<", "machine 9999")],
)
def test_a_program_of_another_architecture(
    tmp_path: pathlib.Path, machine: int, order: str, name: str
) -> None:
    if name == HERE:
        pytest.skip("that is this machine's architecture")
    error = refusal(write(tmp_path, elf(machine, order=order)))
    assert f"is built for {name}, this machine is {HERE} (exec format error)" in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"echo hello\n", 'neither an ELF program nor a script with a "#!" line'),
        (b"\x7fELF", "exec format error"),
    ],
)
def test_what_is_no_program(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    assert message in str(refusal(write(tmp_path, content)))


def test_cut_and_odd_files_are_explained_too(tmp_path: pathlib.Path) -> None:
    whole = elf(MACHINES[HERE], interpreter="/lib/loader")
    for length in range(len(whole)):
        path = write(tmp_path, whole[:length])
        assert program.explain(path, OSError(errno.ENOENT, "missing")).exit_status == 127
        assert str(program.explain(path, OSError(errno.ENOEXEC, "format")))


def test_finding_along_the_path(tmp_path: pathlib.Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    write(tmp_path / "first", b"", mode=0o644)
    path = write(tmp_path / "second", b"#!/bin/sh\n")
    found = program.find("program", [f"PATH={tmp_path}/first:{tmp_path}/second"])
    # Root's access(2) asks for any execute bit, as execve(2) does.
    assert found == path
    assert program.find(path, []) == path


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("missing", 127, "executable file not found in $PATH"),
        ("", 127, "executable file not found in $PATH"),
        ("/nowhere/missing", 127, "no such file or directory"),
        ("/", 126, "is a directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc/passwd/x", 127, "not a directory"),
    ],
)
def test_what_is_not_found(name: str, status: int, message: str) -> None:
    with pytest.raises(StartError) as caught:
        program.find(name, ["PATH=/usr/bin"])
    assert caught.value.exit_status == status
    assert message in str(caught.value)


def test_an_empty_path_is_said() -> None:
    with pytest.raises(StartError, match="PATH is empty"):
        program.find("true", [])
