"""What a client and ketch's processes say to each other: frames, and the first one's content.

A frame is a header of eight bytes and a payload, as in Docker's attach stream: one byte of kind,
three zero bytes, the payload's length as a big-endian 32-bit number. There are two places to
connect to. ``launch.connect`` reaches a process that serves one request::

    client                                   starter, then the monitor
      │  REQUEST ──────────────────────────────▶ │  what to do, on whose behalf
      │ ◀─────────────────────────────── ERRORS  │  warnings
      │ ◀───────────────────────────────── STEP  │  any number, where the request says --explain
      │ ◀────────────────────────────── CREATED  │  payload: container id; see below
      │  GO ───────────────────────────────────▶ │  only where the request says ``hold``
      │ ◀────────────────────────────── STARTED  │  the program runs; payload: container id
      │  INPUT, RESIZE, SIGNAL ────────────────▶ │
      │ ◀─────────────────────── OUTPUT, ERRORS  │
      │ ◀────────────────────────────────── EXIT │  the program's exit status, in decimal
      │ ◀──────────────── FAILED instead of any  │  status or none, message, hint, class

==============  ==================================================================================
``action``      fields, beside ``root`` and ``state`` with all of them
==============  ==================================================================================
``create``      ``request``, the API's document as JSON, and ``--name``; or a command line: its
                flags as ``--NAME``, ``given``, ``arguments``, ``directory``, ``environment``
``run``         the same, and ``--detach``, ``--explain``, ``hold``, ``lifetime``, ``forget``,
                ``rows``, ``columns``
``start``       ``container``, ``attach``, ``stdin``, ``hold``, ``lifetime``, ``checkpoint``,
                ``checkpoint-dir``, ``rows``, ``columns``
``checkpoint``  ``container``, ``checkpoint``, ``checkpoint-dir``, ``leave-running``; answered by
                EXIT
``exec``        a command line, as above, ``rows``, ``columns``
``exec-start``  ``exec``, the session's id (``Execs.create``), ``detach``, ``rows``, ``columns``
``attend``      ``container``, ``idle``, after how many seconds it leaves; answered by STARTED; then
                any number of DESCRIPTORS, with a socket each, on which ``exec`` is asked for, one
                after the other; EXIT says that what has not been answered by then has not been
                begun: see ``monitor.attending``
``steps``       nothing; then any number of DESCRIPTORS, with a socket each, on which a process of
                its own takes a request ``step``: ``request``, as ``monitor.stepping`` has it; then
                DESCRIPTORS, with those that the request names by number; answered by STARTED and
                EXIT, whose payload is JSON
``sandbox``     ``request``, as ``monitor.holding`` has it; answered by DESCRIPTORS, with the
                namespace's, whose payload is JSON; held as long as the connection is
==============  ==================================================================================

``rows`` and ``columns`` are the size of the caller's terminal, and so that of the program's before
it looks. ``create`` answers with CREATED and is done; a ``run`` with ``--detach`` says it as well,
so that the container can be named whose start fails. With ``hold``, ``run`` and ``start`` say
CREATED when the container's socket listens and its program is about to be started, and wait for GO:
whoever connects to that socket in between is attached before the program's first word.

A container that runs or restarts has the socket ``monitor.socket`` in its runtime directory, where
its monitor takes any number of connections, each with one REQUEST (``launch.reach_monitor``):

==========  =================================================  =================================
``action``  fields                                             answer
==========  =================================================  =================================
``attach``  ``stdin``, ``stdout``, ``stderr``: what is wanted  STARTED, then as above from INPUT on
``resize``  ``rows``, ``columns``                              EXIT, or FAILED
``end``                                                        STARTED; when the program has
                                                               ended, any number of STEP, and EXIT
``names``                                                      STARTED, EXIT where they are already
``times``                                                      EXIT, once it has looked
==========  =================================================  =================================

An exec session with a terminal has such a socket too (``launch.exec_socket``), for ``resize``.
With ``forget`` a container is removed whose start the client calls off, by SIGNAL or by leaving.
With ``lifetime`` being ``process`` the container ends, and goes, when the client's process does.

An INPUT frame without payload ends the input. A program whose container was made with StdinOnce
then gets an end of file, as it does when its client leaves. What a monitor holds for a client is
bounded: 1 MiB. The program waits for a client that started it (a pipe would make it wait as well);
one that attached later and takes nothing for ten seconds is told FAILED and let go.

The client's modules must load in a few milliseconds, so the request is not JSON (whose import
alone takes longer than that) but names and values parted by NUL bytes, which no argument of
execve(2) can hold. Who has the API's documents anyway sends them as the text field ``request``.
"""

import os

from ketch import errors
from ketch.errors import KetchError, StartError, UnavailableError

REQUEST = 3
RESIZE = 4
SIGNAL = 5
STARTED = 6
EXIT = 7
FAILED = 8
CREATED = 9
GO = 10
DESCRIPTORS = 11
STEP = 12
INPUT = 0
OUTPUT = 1
ERRORS = 2

DESCRIPTORS_MAX = 253  # unix(7): SCM_MAX_FD
PAYLOAD_BYTES_MAX = 16 * 1024 * 1024
_HEADER_BYTES = 8

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Value = str | bool | int | list[str]


class ProtocolError(Exception):
    """The other end does not speak this protocol."""


def frame(kind: int, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    return bytes((kind, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


class Decoder:
    """Takes bytes as they arrive and gives whole frames back."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> "Iterator[tuple[int, bytes]]":
        """Take more bytes.

        Yields:
            ``(kind, payload)`` of each frame that is complete.

        Raises:
            ProtocolError: the bytes are no frames, or a payload exceeds PAYLOAD_BYTES_MAX.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER_BYTES:
            length = int.from_bytes(self._buffer[4:8], "big")
            if self._buffer[1:4] != b"\0\0\0" or length > PAYLOAD_BYTES_MAX:
                raise ProtocolError(f"bad frame header {bytes(self._buffer[:8]).hex()}")
            end = _HEADER_BYTES + length
            if len(self._buffer) < end:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[_HEADER_BYTES:end])
            del self._buffer[:end]
            yield kind, payload


def encode(fields: "dict[str, Value]") -> bytes:
    """Encode a request's fields.

    Args:
        fields: names and values.

    Raises:
        InvalidArgumentError: there is no sending it, as ``joined`` has it.
    """
    parts: list[str] = []
    for name, value in fields.items():
        if isinstance(value, bool):
            parts += (name, "b1" if value else "b0")
        elif isinstance(value, int):
            parts += (name, f"i{value}")
        elif isinstance(value, str):
            parts += (name, "s" + value)
        else:
            parts += (name, f"l{len(value)}", *value)
    return joined(parts)


def joined(parts: list[str]) -> bytes:
    """Join texts by NULs, as the very bytes that the caller was given.

    Raises:
        InvalidArgumentError: one holds a NUL, which none from a command line or an environment
            can, or half a character: both come from callers in Python alone. What came after a NUL
            would be read as another field.
    """
    text = "\0".join(parts)
    if text.count("\0") >= len(parts) > 0:
        raise errors.InvalidArgumentError("a NUL character cannot be in what is asked for")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        raise errors.InvalidArgumentError(
            f"no bytes stand for the character {error.object[error.start]!a}"
        ) from error


def decode(payload: bytes) -> "dict[str, Value]":
    """Decode a request's fields.

    Raises:
        ProtocolError: the payload is not what ``encode`` makes.
    """
    fields: dict[str, Value] = {}
    parts = iter(payload.decode("utf-8", "surrogateescape").split("\0") if payload else ())
    try:
        for name in parts:
            told = next(parts)
            kind, text = told[:1], told[1:]
            if kind == "b":
                fields[name] = text == "1"
            elif kind == "i":
                fields[name] = int(text)
            elif kind == "s":
                fields[name] = text
            elif kind == "l":
                fields[name] = [next(parts) for _ in range(int(text))]
            else:
                raise ProtocolError(f"field {name!r} has no kind")
    except (StopIteration, RuntimeError, ValueError) as error:
        raise ProtocolError("the request ends early or holds a bad number") from error
    return fields


def encode_failure(
    exit_status: int | None, message: str, hint: str, error_class: str = ""
) -> bytes:
    """Encode why a request came to nothing.

    Args:
        exit_status: what the client is to exit with, None where that is its own affair.
        message: what failed.
        hint: what to do about it, or empty.
        error_class: name of the class in ``ketch.errors``, or empty.
    """
    status = "" if exit_status is None else str(exit_status)
    words = (status, message.replace("\0", "\\0"), hint.replace("\0", "\\0"), error_class)
    return "\0".join(words).encode("utf-8", "surrogateescape")


def decode_failure(payload: bytes) -> tuple[int | None, str, str, str]:
    """Decode what ``encode_failure`` made.

    Raises:
        ProtocolError: the payload is something else.
    """
    try:
        status, message, hint, error_class = payload.decode("utf-8", "surrogateescape").split("\0")
        return (int(status) if status else None), message, hint, error_class
    except ValueError as error:
        raise ProtocolError("a failure without its four parts") from error


def error(payload: bytes) -> KetchError:
    """The error that a FAILED frame tells of, to be raised where an exception is wanted.

    Raises:
        ProtocolError: the payload is no failure.
    """
    status, message, hint, name = decode_failure(payload)
    if status is not None and name == StartError.__name__:
        return StartError(message, hint, exit_status=status)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, KetchError) and kind is not StartError:
        return kind(message, hint)
    return UnavailableError(message, hint)
