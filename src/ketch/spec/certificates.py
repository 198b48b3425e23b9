"""Which names a server's certificate vouches for: RFC 5280, section 4.2.1.6.

Python's ssl tells that of a peer's certificate alone.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# X.690, section 8.1: what begins each element.
_OCTETS, _OBJECT, _SEQUENCE, _EXTENSIONS = 0x04, 0x06, 0x30, 0xA3
_DNS_NAME = 0x82
_SUBJECT_ALTERNATIVE_NAME = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17
_SHORT_FORM_MAX = 0x7F


def names(certificate: bytes) -> list[str]:
    """Returns the DNS names in a certificate, in lower case; ``*.`` stands for any one label.

    Args:
        certificate: in DER. What is malformed names nobody.
    """
    try:
        (_, whole), *_ = _elements(certificate)
        (_, signed), *_ = _elements(whole)
        return [
            name.decode("ascii").lower()
            for kind, content in _elements(signed)
            if kind == _EXTENSIONS
            for _, extensions in _elements(content)
            for _, extension in _elements(extensions)
            for name in _alternative_names(extension)
        ]
    except (IndexError, ValueError):
        return []


def _alternative_names(extension: bytes) -> "Iterator[bytes]":
    (kind, identifier), *_, (last, content) = _elements(extension)
    if (kind, identifier, last) != (_OBJECT, _SUBJECT_ALTERNATIVE_NAME, _OCTETS):
        return
    for _, found in _elements(content):
        for choice, name in _elements(found):
            if choice == _DNS_NAME:
                yield name


def _elements(content: bytes) -> "Iterator[tuple[int, bytes]]":
    """Yield the elements that follow one another: what begins each, and what it holds."""
    position = 0
    while position < len(content):
        kind, length = content[position], content[position + 1]
        position += 2
        if length > _SHORT_FORM_MAX:
            count = length & _SHORT_FORM_MAX
            length = int.from_bytes(content[position : position + count], "big")
            position += count
        if position + length > len(content):
            raise ValueError("an element ends too early")
        yield kind, content[position : position + length]
        position += length


def vouches(certified: str, host: str) -> bool:
    """Whether a name in a certificate stands for a host: RFC 6125, section 6.4.3."""
    if certified.startswith("*."):
        first, _, rest = host.partition(".")
        return bool(first) and rest == certified[2:]
    return certified == host
