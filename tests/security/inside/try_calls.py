"""Try system calls by number, in each ABI that x86_64 has; print what the filter says of each.

None is made: a second filter tells what the container's lets through to this program's other
thread, which answers in the kernel's place. The kernel takes the stricter of two filters' answers,
and an error is stricter than to be told.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import struct
import sys
import threading

ABIS = {"x86_64": 0, "x86": 0, "x32": 0x40000000}
# As calls' last argument: who has it is to be told of, and nobody else is.
MARK = 0x6B746368
LET_THROUGH = 133  # EHWPOISON
# Returns of the kernel's own probes, which no filter sees, and which end whoever else calls them.
UNFILTERED = {"x86_64": {335, 336}, "x86": set(), "x32": set()}

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
SECCOMP, SET_MODE_FILTER, NEW_LISTENER, PR_SET_NO_NEW_PRIVS = 317, 1, 8, 38
NOTIFICATION_RECEIVE, NOTIFICATION_SEND = 0xC0502100, 0xC0182101


def load_second_filter() -> int:
    """Load it for this thread; return its listener."""
    code = b"".join(struct.pack("=HBBI", *each) for each in (
        (0x20, 0, 0, 56),  # the last argument's lower half
        (0x15, 0, 1, MARK),
        (0x06, 0, 0, 0x7FC00000),  # SECCOMP_RET_USER_NOTIF
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ))  # fmt: skip
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("=H6xQ", len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    listener = libc.syscall(SECCOMP, SET_MODE_FILTER, NEW_LISTENER, program)
    assert listener >= 0, errno.errorcode[ctypes.get_errno()]
    return int(listener)


def answer(listener: int) -> None:
    """Say to each call that is let through that it failed with an error of its own."""
    while True:
        notification = bytearray(80)
        fcntl.ioctl(listener, NOTIFICATION_RECEIVE, notification)
        (identifier,) = struct.unpack_from("=Q", notification)
        fcntl.ioctl(
            listener, NOTIFICATION_SEND, struct.pack("=QqiI", identifier, 0, -LET_THROUGH, 0)
        )


pages: list[mmap.mmap] = []  # with the callers' code, for as long as they may be used


def caller(code: bytes) -> "ctypes._FuncPointer":
    """Return a function of a call's number and first argument; its result is the kernel's."""
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint64)(
        ctypes.addressof(ctypes.c_char.from_buffer(page))
    )
    pages.append(page)
    return function


BY_SYSCALL = caller(
    b"\x89\xf8\x48\x89\xf7\x31\xf6\x31\xd2"  # mov eax, edi; mov rdi, rsi; esi and edx are 0
    b"\x45\x31\xd2\x45\x31\xc0"  # r10 and r8 are 0
    b"\x41\xb9" + struct.pack("=I", MARK)  # mov r9d, MARK
    + b"\x0f\x05\x45\x31\xc9\xc3"  # syscall; xor r9d, r9d, so that no later call has it; ret
)  # fmt: skip
BY_INTERRUPT = caller(
    b"\x53\x55\x89\xf8\x89\xf3"  # push rbx; push rbp; mov eax, edi; mov ebx, esi
    b"\x31\xc9\x31\xd2\x31\xf6\x31\xff"  # ecx, edx, esi and edi are 0
    b"\xbd" + struct.pack("=I", MARK)  # mov ebp, MARK
    + b"\xcd\x80\x5d\x5b\xc3"  # int 0x80; pop rbp; pop rbx; ret
)  # fmt: skip


def attempt(abi: str, number: int, first: int = 0) -> str:
    """Return what becomes of a call: ``allowed``, or its error."""
    call = BY_INTERRUPT if abi == "x86" else BY_SYSCALL
    result = call(number | ABIS[abi], first)
    return "allowed" if result == -LET_THROUGH else errno.errorcode.get(-result, str(result))


def probe() -> None:
    """Try what the arguments ask for: each ABI's calls, then some with arguments."""
    for abi in ABIS:
        answers[abi] = {
            number: attempt(abi, number)
            for number in range(LAST + 1) if number not in UNFILTERED[abi]
        }  # fmt: skip
    for abi, number, name, values in WITH_ARGUMENT:
        answers[f"{abi} {name}"] = {value: attempt(abi, number, value) for value in values}


LAST = int(sys.argv[1])
WITH_ARGUMENT = json.loads(sys.argv[2])
answers: dict[str, dict[int, str]] = {}
ready = threading.Event()
listeners: list[int] = []


def supervised() -> None:
    """Load the filter for this thread alone, and try."""
    listeners.append(load_second_filter())
    ready.set()
    probe()


worker = threading.Thread(target=supervised)
worker.start()
ready.wait()
threading.Thread(target=answer, args=listeners, daemon=True).start()
worker.join()
print(json.dumps(answers))
