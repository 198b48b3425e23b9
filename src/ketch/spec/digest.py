"""Digests: ``algorithm:hex``, the names of content.

Source: OCI image specification, descriptor.md, "Digests".
"""

import re

from ketch.errors import InvalidArgumentError

# hashlib loads OpenSSL, which takes longer than to hash the documents that most commands read,
# and whose pages each process that the zygote forks would have a table of.
try:
    from _sha2 import sha256  # type: ignore[import-not-found] # of Python 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256  # type: ignore[import-not-found]
    except ImportError:  # a build that has OpenSSL's alone
        from hashlib import sha256

# The algorithms that the specification registers and how many hex digits each has.
HEX_DIGITS = {"sha256": 64, "sha384": 96, "sha512": 128}

_SHORT_LENGTH = 12
_HEX = re.compile(r"[0-9a-f]+")


def split(text: str) -> tuple[str, str]:
    """Validate a digest and take it apart.

    Returns:
        The algorithm and the hex digits; both are safe as file names.

    Raises:
        InvalidArgumentError: the text is not a digest, or of an unknown algorithm.
    """
    algorithm, colon, digits = text.partition(":")
    if not colon or not algorithm:
        raise InvalidArgumentError(f"invalid digest {_shown(text)}: not of the form algorithm:hex")
    length = HEX_DIGITS.get(algorithm)
    if length is None:
        raise InvalidArgumentError(
            f"unsupported digest algorithm {_shown(algorithm)}",
            f"ketch knows {', '.join(HEX_DIGITS)}",
        )
    if len(digits) != length:
        raise InvalidArgumentError(
            f"invalid checksum digest length: {algorithm} has {length} hex digits,"
            f" not {len(digits)}"
        )
    if not _HEX.fullmatch(digits):
        raise InvalidArgumentError(
            f"invalid digest {_shown(text)}: only lower-case hex digits may follow the colon"
        )
    return algorithm, digits


def valid(text: str) -> bool:
    """Returns whether the text is a digest of a known algorithm."""
    try:
        split(text)
    except InvalidArgumentError:
        return False
    return True


def short(digest: str) -> str:
    """Returns the start of a digest that people are shown."""
    return digest.partition(":")[2][:_SHORT_LENGTH]


def of(content: bytes) -> str:
    """Returns the sha256 digest of a document's bytes."""
    return f"sha256:{sha256(content).hexdigest()}"


def matches(content: bytes, digest: str) -> bool:
    """Whether a document's bytes have a digest.

    Raises:
        InvalidArgumentError: that is none.
    """
    return computed(content, digest) == digest


def computed(content: bytes, like: str) -> str:
    """Returns the digest of a document's bytes, by the algorithm of another digest.

    Raises:
        InvalidArgumentError: that is none.
    """
    algorithm, _ = split(like)
    if algorithm == "sha256":
        return of(content)
    import hashlib  # noqa: PLC0415 - see above

    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _shown(text: str) -> str:
    """Quotes text of any length and content for a message of one line."""
    return ascii(text if len(text) <= 100 else text[:100] + "...")
