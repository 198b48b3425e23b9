"""PID 1 of a container with ``--init``: it passes signals on, reaps orphans, ends as the program.

A process that was forked from ketch has ketch's memory and command line, paths of the host among
them, and nobody inside may look at it. PID 1 is to be looked at like any other process: its
environment is the container's, and its name tells what it is for. So it becomes a program of its
own, some 230 bytes of machine code in a file without a name (memfd_create(2)). Where there is no
code for the machine, or the system call filter refuses, PID 1 stays a process of ketch's, which
does the same, closed to those inside, and with the same command line.
"""

import errno
import os
import struct

from ketch.errors import SyscallError
from ketch.linux import libc, process, signals
from ketch.linux.scopes import suppress
from ketch.runtime.process import too_many_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

PATH = "/sbin/docker-init"
"""As what it is shown, which is what Docker's users look for. There is no such file."""

_NAME = b"docker-init"
NOBODY = 0x7FFFFFFF  # a pid that no process has: /proc/sys/kernel/pid_max is at most 1 << 22
NO_DESCRIPTOR = -1
_EVERY_SIGNAL = b"\xff" * 8

# scripts/pid_one_x86_64.s and scripts/pid_one_aarch64.s, less the data, which follows here.
_X86_64 = bytes.fromhex(
    "4881ec00010000bf0f000000488d35bd000000b89d0000000f05bf02000000488d35a200000031d241ba0800"
    "0000b80e0000000f058b3da5000000b8030000000f05488d3d7f0000004889e631d241ba08000000b8800000"
    "000f0585c07f0c83f8fc74debf7d000000eb5283f811741189c68b3d64000000b83e0000000f05ebc1bfffff"
    "ffff4889e6ba010000004531d2b83d0000000f0585c07ea63b053a00000075dd8b042489c7c1ef0881e7ff00"
    "000083e07f74068db880000000b8e70000000f050f1f4000"
)
_AARCH64 = bytes.fromhex(
    "ff0304d1e00180d281060010e81480d2010000d4400080d2c1050010020080d2030180d2e81080d2010000d4"
    "e0050018280780d2010000d4c0040010e1030091020080d2030180d2281180d2010000d41f000071ac000054"
    "1f100031e0feff54a00f80d2180000141f440071c0000054e103002a80030018281080d2010000d4eeffff17"
    "00008092e1030091220080d2030080d2882080d2010000d41f000071cdfcff54010200181f00016bc1feff54"
    "e10340b9203c0853211800724000005420000211c80b80d2010000d41f2003d5"
)
# By uname(2)'s machine: the code, and the machine's number in an ELF header (elf(5)).
_CODE = {"x86_64": (_X86_64, 62), "aarch64": (_AARCH64, 183)}

# <elf.h>, <linux/memfd.h>
_ET_EXEC, _PT_LOAD, _PT_GNU_STACK, _READ_EXECUTE, _READ_WRITE = 2, 1, 0x6474E551, 5, 6
_BASE, _PAGE_BYTES_MAX = 0x400000, 0x10000
_MFD_EXEC = 0x10


def stay(start: "Callable[[], None]", arguments: list[str], environment: list[str]) -> "NoReturn":
    """Start the program as a child, and be the container's PID 1 from then on.

    Ends with the program's own exit status, or 128 + n for signal n.

    Args:
        start: executes the program; called in the child, does not return.
        arguments: the program's, which PID 1's command line shows.
        environment: the program's, which is PID 1's too.

    Raises:
        UnavailableError: the container may have no second process.
    """
    every = signals.valid_signals()
    signals.pthread_sigmask(signals.SIG_BLOCK, every)
    awaited, ready = os.pipe()
    try:
        program = os.fork()
    except BlockingIOError as error:
        raise too_many_processes() from error
    if program == 0:
        os.close(ready)
        # Before PID 1 is what it is to be, its command line is the host's.
        os.read(awaited, 1)
        os.close(awaited)
        _take_the_terminal()
        start()
    _become([PATH, "--", *arguments], environment, program, ready)
    _serve(program, every)


def be_alone(environment: list[str]) -> "NoReturn":
    """Be the container's PID 1 without a program: only reap, until SIGKILL.

    A container for programs that come by exec needs nothing in its image.

    Args:
        environment: the container's.
    """
    every = signals.valid_signals()
    signals.pthread_sigmask(signals.SIG_BLOCK, every)
    _become([PATH], environment, NOBODY, NO_DESCRIPTOR)
    _serve(NOBODY, every)


def executable(machine: str, child: int, ready: int) -> bytes:
    """An ELF file of the program that serves as PID 1: elf(5).

    Args:
        machine: as uname(2) has it.
        child: the process that it ends with, and to which signals go.
        ready: a descriptor that it closes at its start.

    Raises:
        KeyError: there is no code for this machine.
    """
    code, number = _CODE[machine]
    body = code + _EVERY_SIGNAL + _NAME + b"\0" + struct.pack("=2i", child, ready)
    header_bytes, entry_bytes = 64, 56
    start = header_bytes + 2 * entry_bytes
    size = start + len(body)
    header = struct.pack(
        "=4s3B9x2HI3QI6H", b"\x7fELF", 2, 1, 1, _ET_EXEC, number, 1, _BASE + start, header_bytes, 0,
        0, header_bytes, entry_bytes, 2, 0, 0, 0,
    )  # fmt: skip
    load = struct.pack(
        "=2I6Q", _PT_LOAD, _READ_EXECUTE, 0, _BASE, _BASE, size, size, _PAGE_BYTES_MAX
    )
    stack = struct.pack("=2I6Q", _PT_GNU_STACK, _READ_WRITE, 0, 0, 0, 0, 0, 16)
    return header + load + stack + body


def _become(words: list[str], environment: list[str], program: int, ready: int) -> None:
    """Become the machine code, or where that cannot be look like it."""
    with suppress(OSError, SyscallError, KeyError):
        descriptor = _file(executable(libc.MACHINE, program, ready))
        process.close_all_but({descriptor, ready} - {NO_DESCRIPTOR})
        if ready != NO_DESCRIPTOR:
            os.set_inheritable(ready, True)
        pairs = dict(entry.partition("=")[::2] for entry in environment)
        process.exec_descriptor(descriptor, words, pairs)
    with suppress(OSError):
        process.set_command_line(words)
        process.set_name(_NAME.decode())
    process.close_all_but(set())


def _take_the_terminal() -> None:
    """Be a group of one's own, and the terminal's, whose session PID 1 leads: keys go to it."""
    os.setpgid(0, 0)
    for descriptor in range(3):
        with suppress(OSError):
            os.tcsetpgrp(descriptor, os.getpgrp())
            return


def _file(content: bytes) -> int:
    """A file without a name that may be executed, whatever vm.memfd_noexec says to that."""
    try:
        descriptor = os.memfd_create(_NAME.decode(), os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(_NAME.decode(), os.MFD_CLOEXEC)  # before Linux 6.3
    os.write(descriptor, content)
    return descriptor


def _serve(program: int, every: "Iterable[int]") -> "NoReturn":
    """Do what the machine code does."""
    while True:
        caught = signals.sigwaitinfo(every)
        if caught.si_signo != signals.SIGCHLD:
            with suppress(ProcessLookupError):
                os.kill(program, caught.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == program:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
