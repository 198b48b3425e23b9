"""The JSON documents that requests carry, and what must be said of them."""

import asyncio
import re
from typing import TYPE_CHECKING, Any

from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.api.http import TooLargeError, TooSlowError
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ketch.api.http import Exchange

BYTES_MAX = 8 * 1024 * 1024
SECONDS_MAX = 60

_JSON = "application/json"
# RFC 2045, section 5.1, as far as Go's mime.ParseMediaType takes it.
_TOKEN = r"[!#$%&'*+\-.^_`{|}~0-9A-Za-z]+"
_MEDIA_TYPE = re.compile(
    rf'\s*({_TOKEN}/{_TOKEN})\s*(?:;\s*{_TOKEN}\s*=\s*(?:{_TOKEN}|"(?:[^"\\]|\\.)*")\s*)*;?\s*'
)


async def document(exchange: "Exchange", wanted: "Any", *, typed: bool = True) -> "Any":
    """Returns a request's body as a document of a kind, empty where there is none.

    Args:
        exchange: the request.
        wanted: the kind, a TypedDict.
        typed: whether it must be called JSON. A page in a browser can have its browser send
            anything to anywhere, but calls it JSON only after it was allowed to.

    Raises:
        InvalidArgumentError: it is not called JSON or is none, nested too deeply, or a field is of
            another type.
        TooLargeError: it is larger than BYTES_MAX.
        TooSlowError: it takes longer than SECONDS_MAX.
    """
    if typed:
        check_type(exchange)
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            async for data in exchange.chunks():
                body += data
                if len(body) > BYTES_MAX:
                    raise TooLargeError("request body too large")
    except TimeoutError as error:
        raise TooSlowError("the request's body takes too long") from error
    found = parse(bytes(body)) if body.strip() else None
    return conform({} if found is None else found, wanted)


def check_type(exchange: "Exchange") -> None:
    """Check what a request calls its body, as dockerd does; one without a body need not.

    Raises:
        InvalidArgumentError: something other than JSON.
    """
    given = (exchange.values("content-type") or [""])[0]
    if not given and exchange.body_bytes == 0:
        return
    match = _MEDIA_TYPE.fullmatch(given)
    if match is None:
        raise InvalidArgumentError(
            f"malformed Content-Type header ({given[:200]}): mime: "
            f"{'invalid media type or parameter' if given.strip() else 'no media type'}"
        )
    if match[1].lower() != _JSON:
        raise InvalidArgumentError(
            f"unsupported Content-Type header ({given[:200]}): must be '{_JSON}'"
        )
