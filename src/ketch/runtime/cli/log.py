"""Errors and warnings, in the two forms of logrus, which is what callers of a runtime read.

Conmon, containerd and dockerd give ``--log FILE --log-format json`` and show their users the last
error of that file.
"""

import os
import time

from ketch.errors import InvalidArgumentError
from ketch.spec.json_text import dumps
from ketch.spec.values import quoted

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._/@^+")
_COLOURS = {"error": 31, "warning": 33, "info": 36, "debug": 37}


class Log:
    """Where messages go.

    Args:
        path: the file to append to, or empty for standard error.
        form: ``text`` or ``json``.
        debug: whether debug messages are wanted.

    Raises:
        InvalidArgumentError: the form is another.
        OSError: the file cannot be opened.
    """

    __slots__ = ("_descriptor", "_form", "debugging", "to_standard_error")

    def __init__(self, path: str = "", form: str = "text", *, debug: bool = False) -> None:
        if form not in {"text", "json"}:
            raise InvalidArgumentError(f"invalid log-format: {form}")
        self._form = form
        self.debugging = debug
        self.to_standard_error = path in {"", "/dev/stderr"}
        self._descriptor = 2
        if not self.to_standard_error:
            flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)

    def failure(self, message: str, hint: str = "") -> None:
        """Say what failed, to the log and, where that is a file, to standard error too."""
        self._write("error", message, hint)
        if not self.to_standard_error:
            _write_all(2, f"{message}\n")

    def warning(self, message: str) -> None:
        """Say what may not be as wished."""
        self._write("warning", message)

    def tell(self, *moments: str) -> None:
        """Name moments of a start in runc's words, by which its users' checks know a debug log."""
        for words in moments:
            self.debug(words)

    def debug(self, message: str) -> None:
        """Say what happens, where that is wanted."""
        if self.debugging:
            self._write("debug", message)

    def _write(self, level: str, message: str, hint: str = "") -> None:
        if self._form == "json":
            fields = {"level": level, "msg": message, "time": _now()}
            text = dumps(fields | ({"hint": hint} if hint else {}))
        elif self._descriptor == 2 and os.isatty(2):
            text = f"\x1b[{_COLOURS[level]}m{level[:4].upper()}\x1b[0m[0000] {message}"
            text += f"\n{hint}" if hint else ""
        else:
            text = f"time={quoted(_now())} level={level} msg={_word(message)}"
            text += f" hint={_word(hint)}" if hint else ""
        _write_all(self._descriptor, f"{text}\n")


def _word(text: str) -> str:
    return text if text and set(text) <= _BARE else quoted(text)


def _now() -> str:
    """The present in RFC 3339, to the second, in local time."""
    text = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return text[:-5] + "Z" if text.endswith("+0000") else f"{text[:-2]}:{text[-2:]}"


def _write_all(descriptor: int, text: str) -> None:
    # A log that cannot be written, or whose reader has gone, is no reason to fail otherwise.
    try:
        os.write(descriptor, text.encode(errors="surrogateescape"))
    except OSError:
        return
