"""URLs of downloads: what they may be, what is shown of them, what a file from them is called.

Source: moby/buildkit, source/http/source.go and source/util/pathutil.
"""

import posixpath
import re
import unicodedata
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from ketch.errors import InvalidArgumentError

_URL_MAX = 1 << 14
_PORTS = {"http": 80, "https": 443}
_NAME_BYTES_MAX = 255  # NAME_MAX
_UNNAMED = "download"

# RFC 6266 and RFC 9110, 5.6: parameters behind the type, a token or a quoted string each.
_PARAMETER = re.compile(
    r';\s*([A-Za-z0-9!#$&+.^_|~*-]{1,64})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";,]+))\s*', re.DOTALL
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_DISPOSITION_MAX = 1 << 13


class Url(NamedTuple):
    """A URL.

    Attributes:
        address: what is asked, without the user's name and password.
        user: name and password as they stand in the URL, decoded; empty for none.
        password: likewise.
    """

    address: str
    user: str = ""
    password: str = ""

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: whom credentials are shown to."""
        parts = urlsplit(self.address)
        return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]

    @property
    def shown(self) -> str:
        """It without its query, which may hold a signature."""
        return self.address.partition("?")[0][:300]


def parse(text: str) -> Url:
    """Read a URL that something is downloaded from.

    Raises:
        InvalidArgumentError: it is malformed, or of another scheme than HTTP's.
    """
    reason = "it is no URL with http or https, and a host"
    parts = None
    try:
        parts = urlsplit(text)
        good = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        good = good and not re.search(r"\s", parts.netloc)
    except ValueError as error:
        good, reason = False, str(error)
    # urlsplit() leaves some of these out without a word.
    if len(text) > _URL_MAX or any(ord(one) < 32 or ord(one) == 127 for one in text):
        good, reason = False, "it is too long, or has control characters in it"
    if parts is None or not good:
        shown = re.sub("//[^/]*@", "//", text)[:300]
        raise InvalidArgumentError(f"invalid URL {shown!r}: {reason}")
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    address = urlunsplit(parts._replace(netloc=host, fragment=""))
    return Url(address, unquote(user), unquote(password))


def redirected(url: Url, location: str, *, verified: bool) -> Url:
    """Returns where an answer leads on to.

    Args:
        url: what was asked.
        location: what the answer says.
        verified: whether what comes is held against a digest, so that its way may be open to
            others.

    Raises:
        InvalidArgumentError: that is nowhere, or less safe than what was asked.
    """
    if not location:
        raise InvalidArgumentError(f"{url.shown}: the server redirects to nowhere")
    try:
        target = parse(urljoin(url.address, location))
    except (InvalidArgumentError, ValueError) as error:
        raise InvalidArgumentError(
            f"{url.shown}: the server redirects to where nobody follows: {error}"
        ) from error
    if target.origin[0] != "https" and url.origin[0] == "https" and not verified:
        raise InvalidArgumentError(
            f"{url.shown}: the server redirects from https to {target.origin[0]}",
            "what comes from there could be anybody's: name the address itself, or a checksum",
        )
    return Url(target.address)  # no user's name and password are taken from a server


def filename(wanted: str, disposition: str, url: Url) -> str:
    """Returns what a downloaded file is called.

    Args:
        wanted: what it was said to be called, empty where nothing was said.
        disposition: the answer's field ``Content-Disposition``.
        url: what was asked first.
    """
    if wanted:
        return _safe(wanted)
    suggested = _suggested(disposition)
    if suggested and not suggested.endswith("/"):
        return _safe(suggested)
    return _safe(unquote(urlsplit(url.address).path, errors="surrogateescape"))


def _suggested(disposition: str) -> str:
    found: dict[str, str] = {}
    text = disposition[:_DISPOSITION_MAX]
    position = text.find(";")
    while position >= 0 and (match := _PARAMETER.match(text, position)):
        name, quoted, bare = match.groups()
        found.setdefault(name.lower(), bare if quoted is None else _ESCAPE.sub(r"\1", quoted))
        position = match.end()
    extended = found.get("filename*", "").split("'", 2)  # RFC 8187: charset'language'value
    if len(extended) == 3 and extended[0].lower() == "utf-8":
        return unquote(extended[2])
    return found.get("filename", "")


def _safe(name: str) -> str:
    """Returns the last part of a path, or another name where no file is to be called like that."""
    base = posixpath.basename(name.strip())
    controls = any(unicodedata.category(one) == "Cc" for one in base)
    size_bytes = len(base.encode(errors="surrogateescape")) if not controls else 0
    if base in {"", ".", ".."} or controls or size_bytes > _NAME_BYTES_MAX:
        return _UNNAMED
    return base
