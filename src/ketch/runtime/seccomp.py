"""``linux.seccomp`` made ready to load, compiled once and then read from a cache.

Compiling takes libseccomp tens of milliseconds; reading back what it made takes a fraction of one,
and does not load the library.
"""

import os

# hashlib loads OpenSSL, which takes longer than all that is hashed here.
from _blake2 import blake2b

import ketch
from ketch.linux import libc, seccomp
from ketch.linux.scopes import suppress
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Seccomp

_FLAGS = {
    # Nothing to synchronize: a filter is loaded by a process with a single thread.
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": seccomp.FILTER_FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": seccomp.FILTER_FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": seccomp.FILTER_FLAG_WAIT_KILLABLE_RECV,
}

# Raised whenever the same section would compile to another program or the entries change.
_FORMAT = 2
_MAX_ENTRIES = 64
_DIGEST_BYTES = 32


class Filter:
    """A filter to pass to ``ketch.linux.seccomp.load``.

    Attributes:
        program: the BPF instructions.
        flags: FILTER_FLAG_*; with FILTER_FLAG_NEW_LISTENER loading returns a descriptor, which
            belongs to ``linux.seccomp.listenerPath``.
    """

    __slots__ = ("flags", "program")

    def __init__(self, program: bytes, flags: int) -> None:
        self.program = program
        self.flags = flags


def prepare(section: "Seccomp", cache: str) -> Filter:
    """Compile a section, or find it compiled.

    Args:
        section: ``linux.seccomp``, validated.
        cache: directory of compiled programs; made when missing. What cannot be read there, or
            does not prove whole and current, is compiled again.

    Raises:
        UnavailableError: libseccomp is needed and not installed.
        UnsupportedError: libseccomp or the kernel cannot do what the section asks.
        InvalidArgumentError: libseccomp refused a rule.
    """
    path = f"{cache}/{_key(section)}"
    program = _read(path)
    if program is None:
        program = _compile(section, path)
    return Filter(program, filter_flags(section))


def filter_flags(section: "Seccomp") -> int:
    """The FILTER_FLAG_* with which a section is to be loaded."""
    if "flags" in section:
        flags = 0
        for name in section["flags"]:
            flags |= _FLAGS[name]
    else:
        # A section without the field, even an empty one, gets what runc gives it: the kernel's
        # mitigation of speculative store bypass, costly and seldom wanted, stays off.
        flags = seccomp.FILTER_FLAG_SPEC_ALLOW
    if any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in section.get("syscalls", ())):
        return flags | seccomp.FILTER_FLAG_NEW_LISTENER
    return flags & ~seccomp.FILTER_FLAG_WAIT_KILLABLE_RECV


def _key(section: "Seccomp") -> str:
    """The name of a section's entry: everything but the library that its program depends on."""
    program = {
        name: value
        for name, value in section.items()
        if name not in ("flags", "listenerPath", "listenerMetadata")
    }
    facts = [_FORMAT, ketch.__version__, libc.MACHINE, os.uname().release, program]
    return _digest(json_text.dumps(facts).encode()).hex()


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


def _compile(section: "Seccomp", path: str) -> bytes:
    from ketch.runtime.libseccomp import Libseccomp  # noqa: PLC0415 not in a warm start

    program = Libseccomp().compile(section)
    # The cache saves time, and nothing else: a full or read-only disk is no reason to fail.
    with suppress(OSError):
        _write(path, program)
    return program


# An entry is a BLAKE2 digest of the rest, a line that names the library, and the program.


def _read(path: str) -> bytes | None:
    """The program of an entry that is whole and that the library would not make otherwise now."""
    try:
        with open(path, "rb") as stream:
            entry = stream.read()
    except OSError:
        return None
    digest, rest = entry[:_DIGEST_BYTES], entry[_DIGEST_BYTES:]
    if _digest(rest) != digest:
        return None
    line, _, program = rest.partition(b"\n")
    library, _, identity = line.partition(b"\0")
    # A library that has gone cannot do better.
    return program if _identity(library) in (identity, b"") else None


def _write(path: str, program: bytes) -> None:
    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    library = _library_path()
    rest = library + b"\0" + _identity(library) + b"\n" + program
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "xb") as stream:
        stream.write(_digest(rest) + rest)
    os.rename(temporary, path)
    entries = sorted(os.scandir(directory), key=lambda entry: entry.stat().st_mtime_ns)
    for entry in entries[:-_MAX_ENTRIES]:
        os.unlink(entry.path)


def _library_path() -> bytes:
    """Where libseccomp, loaded, came from, by the name that an upgrade keeps."""
    with open("/proc/self/maps", "rb") as stream:
        paths = {line.split(None, 5)[5].rstrip() for line in stream if b"/libseccomp.so" in line}
    return os.path.join(os.path.dirname(min(paths)), b"libseccomp.so.2")


def _identity(library: bytes) -> bytes:
    """What changes when a file is replaced or written to; empty for one that is not there."""
    try:
        facts = os.stat(library)
    except OSError:
        return b""
    return f"{facts.st_dev} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}".encode()
