"""Log drivers: which there are, what each can be told, and what is wrong with what it was told.

Words and messages are Docker's. Pure.
"""

from ketch.errors import InvalidArgumentError
from ketch.spec import values
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

JSON_FILE = "json-file"
LOCAL = "local"
NONE = "none"
SYSLOG = "syslog"
JOURNALD = "journald"

# Where Docker's json-file driver grows for ever, ours is bounded like Docker's local driver.
MAX_SIZE_BYTES = 20 << 20
MAX_FILES = 5
BUFFER_BYTES = 1 << 20

NON_BLOCKING = "non-blocking"

OPTIONS_OF_ALL = {"mode", "max-buffer-size"}
_DETAILS = {"labels", "labels-regex", "env", "env-regex", "tag"}
_CACHE = {"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"}
OPTIONS = {
    JSON_FILE: _DETAILS | {"max-size", "max-file", "compress"},
    LOCAL: {"max-size", "max-file", "compress"},
    SYSLOG: _DETAILS
    | _CACHE
    | {
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert",
        "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
    },
    JOURNALD: _DETAILS | _CACHE,
    NONE: set(),
}  # fmt: skip
"""The drivers, and what each can be told beyond OPTIONS_OF_ALL."""

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
)  # fmt: skip
"""Syslog's facilities, each at its number: RFC 5424, 6.2.1."""

FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_TRANSPORTS = ("tcp", "udp", "unix", "unixgram", "tcp+tls")
_DEFAULT_PORT = 514


class Rotation:
    """How the files of a log are bounded.

    Args:
        max_size_bytes: size at which a file is turned over.
        max_files: how many files there may be, the current one included.
        compress: whether the others are compressed.
    """

    __slots__ = ("compress", "max_files", "max_size_bytes")

    def __init__(
        self,
        max_size_bytes: int = MAX_SIZE_BYTES,
        max_files: int = MAX_FILES,
        *,
        compress: bool = False,
    ) -> None:
        self.max_size_bytes = max_size_bytes
        self.max_files = max_files
        self.compress = compress


def check(driver: str, options: "Mapping[str, str]") -> None:
    """Check what a log is to be, before its container is made.

    Args:
        driver: its name.
        options: what ``--log-opt`` gave.

    Raises:
        InvalidArgumentError: in Docker's words.
    """
    if driver not in OPTIONS:
        raise InvalidArgumentError(
            f"logger: no log driver named '{driver}' is registered",
            f"there are {', '.join(sorted(OPTIONS))}",
        )
    mode = options.get("mode", "")
    if mode not in {"", "blocking", NON_BLOCKING}:
        raise InvalidArgumentError(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != NON_BLOCKING:
            raise InvalidArgumentError(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        try:
            buffer_bytes(options)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"error parsing option max-buffer-size: {error.message}"
            ) from error
    for name in options:
        if name not in OPTIONS_OF_ALL and name not in OPTIONS[driver]:
            of = f"log driver {driver}" if driver == LOCAL else f"{driver} log driver"
            raise InvalidArgumentError(f"unknown log opt '{name}' for {of}")
    rotation(driver, options)
    if driver == SYSLOG:
        address(options.get("syslog-address", ""))
        facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in FORMATS:
            raise InvalidArgumentError("Invalid syslog format")


def rotation(driver: str, options: "Mapping[str, str]") -> Rotation:
    """Returns how a log's files are bounded; of a remote driver's, those of its cache.

    Raises:
        InvalidArgumentError: an option is malformed, or two exclude each other.
    """
    try:
        return _rotation(driver, options)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"failed to initialize logging driver: {error.message}"
        ) from error


def _rotation(driver: str, options: "Mapping[str, str]") -> Rotation:
    prefix = "cache-" if driver in {SYSLOG, JOURNALD} else ""
    size_text = options.get(f"{prefix}max-size", "")
    count_text = options.get(f"{prefix}max-file", "")
    compress_text = options.get(f"{prefix}compress", "")
    max_size_bytes = decimal_size(size_text) if size_text else MAX_SIZE_BYTES
    if max_size_bytes <= 0:
        raise InvalidArgumentError("max-size must be a positive number")
    # As in Docker, a size alone asks for one file of json-file and five of the others.
    max_files = 1 if size_text and driver == JSON_FILE else MAX_FILES
    if count_text:
        max_files = values.integer(count_text)
        if max_files < 1:
            raise InvalidArgumentError("max-file cannot be less than 1")
    compress = values.boolean(compress_text) if compress_text else driver != JSON_FILE
    if compress and driver == JSON_FILE and (max_files == 1 or not size_text):
        raise InvalidArgumentError(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )
    return Rotation(max_size_bytes, max_files, compress=compress)


def decimal_size(text: str) -> int:
    """Reads a size such as ``10m`` in powers of 1000, as Docker does for logs.

    Raises:
        InvalidArgumentError: it is none.
    """
    number = text.strip().lower().removesuffix("b")
    factor = 1
    if number[-1:] in {"k", "m", "g", "t", "p"}:
        factor = 1000 ** ("kmgtp".index(number[-1]) + 1)
        number = number[:-1]
    try:
        # Not what Python alone reads as a number: blanks, underscores, other scripts' digits.
        size = float(number) if number.isascii() and number[:1] in "0123456789." else -1.0
    except ValueError:
        size = -1.0
    if "_" in number or not 0 <= size < 1 << 60:
        raise InvalidArgumentError(f"invalid size: '{text}'")
    return int(size * factor)


def address(text: str) -> tuple[str, str, int]:
    """Reads where a syslog is.

    Args:
        text: ``tcp://HOST[:PORT]``, ``udp://...``, ``tcp+tls://...``, ``unix:///PATH`` or
            ``unixgram:///PATH``; empty for the host's own.

    Returns:
        Transport, host or path, and port.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    if not text:
        return "", "", 0
    transport, separator, rest = text.partition("://")
    if not separator or transport not in _TRANSPORTS or not rest:
        raise InvalidArgumentError(f"syslog-address should be in form proto://address, got {text}")
    if transport.startswith("unix"):
        return transport, rest, 0
    host, port_text = rest.rstrip("/"), ""
    if rest.startswith("["):
        host, _, port_text = rest[1:].partition("]")
        port_text = port_text.removeprefix(":")
    elif rest.count(":") == 1:
        host, _, port_text = host.partition(":")
    port = decimal(port_text, 5) if port_text else _DEFAULT_PORT
    if not host or port is None or port > 65535:
        raise InvalidArgumentError(f"invalid syslog-address: {text}")
    return transport, host, port


def facility(text: str) -> int:
    """Reads a facility's name or number; ``daemon`` where empty.

    Raises:
        InvalidArgumentError: there is no such facility.
    """
    text = text or "daemon"
    if text in FACILITIES:
        return FACILITIES.index(text)
    number = decimal(text)
    if number is not None and number < len(FACILITIES):
        return number
    raise InvalidArgumentError("invalid syslog facility")


def buffer_bytes(options: "Mapping[str, str]") -> int:
    """Returns how much a log that does not block keeps for an end that does not listen."""
    text = options.get("max-buffer-size", "")
    return values.size(text) if text else BUFFER_BYTES
