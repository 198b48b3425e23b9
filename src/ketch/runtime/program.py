"""Finding the container's program, executing it, and saying why where that fails.

The kernel's answer to execve(2) is one error number for very different mistakes. ``explain``
reads the file as the kernel did (elf(5), "#!" in execve(2)) and names the path that is missing.
"""

import errno
import os
import stat
import struct

from ketch.errors import StartError, SyscallError, in_words
from ketch.linux import libc

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_HEAD_BYTES = 256  # as much of a script's first line as the kernel reads: BINPRM_BUF_SIZE
_ELF_MACHINES = {
    3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64",
    183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
_PT_INTERP = 3


def find(name: str, environment: list[str]) -> str:
    """Find a program as a shell does.

    Args:
        name: ``process.args[0]``; looked for in PATH when it holds no slash.
        environment: the program's environment, whose PATH counts.

    Returns:
        The path to execute.

    Raises:
        StartError: status 127, it is not there; 126, it may not be executed.
    """
    if "/" in name:
        _check(name)
        return name
    path = next((e[5:] for e in reversed(environment) if e.startswith("PATH=")), "")
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            _check(candidate)
        except StartError:
            continue
        return candidate
    raise StartError(
        f'"{name}": executable file not found in $PATH ({path or "PATH is empty"})',
        "check the command's spelling, or give its full path",
        exit_status=NOT_FOUND,
    )


def execute(path: str, arguments: list[str], environment: list[str]) -> None:
    """Become the program; does not return.

    Raises:
        StartError: why it could not be executed.
    """
    pairs = dict(entry.partition("=")[::2] for entry in environment)
    try:
        os.execve(path, arguments, pairs)
    except OSError as error:
        raise explain(path, error) from error


def explain(path: str, error: OSError) -> StartError:
    """Say why execve(2) refused a file.

    Args:
        path: the file.
        error: what execve raised.
    """
    try:
        with _open_regular(path) as file:
            head = file.read(_HEAD_BYTES)
            loader = _elf_loader(file, head)
    except (OSError, OverflowError, ValueError):  # as offsets are that make no sense
        head, loader = b"", ""
    if error.errno == errno.ENOENT:
        if head.startswith(b"#!"):
            return _script_error(path, head)
        if loader:
            return StartError(
                f'"{path}" needs the dynamic loader {loader}, which does not exist',
                "the program was built for another C library: install it, or link it statically",
                exit_status=NOT_FOUND,
            )
    if error.errno == errno.ENOEXEC:
        return _format_error(path, head)
    status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
    return StartError(f'"{path}": {in_words(error, path)}', exit_status=status)


def _open_regular(path: str) -> "BinaryIO":
    """Open a file that was not executed, but never wait for a fifo's writer or take a terminal."""
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
    return file


def _check(path: str) -> None:
    try:
        status = os.stat(path)
    except PermissionError as error:
        raise StartError(f'"{path}": permission denied', exit_status=NOT_EXECUTABLE) from error
    except OSError as error:
        raise StartError(
            f'"{path}": {in_words(error, path)}',
            "the path is looked up inside the container",
            exit_status=NOT_FOUND,
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise StartError(f'"{path}": is a directory', exit_status=NOT_EXECUTABLE)
    if not _may_execute(path, status):
        raise StartError(
            f'"{path}": permission denied',
            f"it is not executable for this user: chmod +x {path}",
            exit_status=NOT_EXECUTABLE,
        )


def _may_execute(path: str, status: os.stat_result) -> bool:
    """Whether the kernel would let this process execute a file, with the capabilities it has.

    access(2) answers for the real user without any: CAP_DAC_OVERRIDE would count for nothing.
    """
    try:
        libc.syscall("faccessat2", path, libc.AT_FDCWD, os.fsencode(path), os.X_OK, libc.AT_EACCESS)
    except SyscallError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            # An older kernel, or a filter that does not know the call: execve(2) will tell.
            return bool(status.st_mode & 0o111)
        return False
    return True


def _script_error(path: str, head: bytes) -> StartError:
    line = head[2:].split(b"\n", 1)[0]
    words = line.split()
    interpreter = os.fsdecode(words[0]) if words else ""
    if line.endswith(b"\r"):
        return StartError(
            f'"{path}" is a script with CRLF line ends, so its interpreter would be '
            f'"{interpreter}\\r"',
            f"convert it: sed -i 's/\\r$//' {path}",
            exit_status=NOT_FOUND,
        )
    return StartError(
        f'"{path}" is a script whose interpreter "{interpreter}" does not exist',
        "install the interpreter in the image, or mend the script's first line",
        exit_status=NOT_FOUND,
    )


def _format_error(path: str, head: bytes) -> StartError:
    if head.startswith(b"\x7fELF") and len(head) >= 20:
        order = "<" if head[5] == 1 else ">"
        number = struct.unpack_from(order + "H", head, 18)[0]
        built_for = _ELF_MACHINES.get(number, f"machine {number}")
        here = libc.MACHINE
        if built_for != here:
            return StartError(
                f'"{path}" is built for {built_for}, this machine is {here} (exec format error)',
                "use an image of this machine's architecture, or register an emulator with"
                " binfmt_misc",
                exit_status=NOT_FOUND,
            )
    if not head:
        return StartError(f'"{path}" is empty (exec format error)', exit_status=NOT_FOUND)
    return StartError(
        f'"{path}": exec format error: neither an ELF program nor a script with a "#!" line',
        'give a script its interpreter in the first line, such as "#!/bin/sh"',
        exit_status=NOT_FOUND,
    )


def _elf_loader(file: "BinaryIO", head: bytes) -> str:
    """The path in an ELF file's PT_INTERP, empty where it has none or is not 64-bit ELF."""
    if len(head) < 64 or head[:5] != b"\x7fELF\x02":
        return ""
    order = "<" if head[5] == 1 else ">"
    offset = struct.unpack_from(order + "Q", head, 32)[0]
    size, count = struct.unpack_from(order + "HH", head, 54)
    for index in range(min(count, 64)):
        file.seek(offset + index * size)
        entry = file.read(56)
        if len(entry) < 56:
            return ""
        kind = struct.unpack_from(order + "I", entry)[0]
        if kind == _PT_INTERP:
            start, _, _, length = struct.unpack_from(order + "QQQQ", entry, 8)
            file.seek(start)
            return os.fsdecode(file.read(min(length, 4096)).rstrip(b"\0"))
    return ""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO
