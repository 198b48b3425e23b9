"""Image references: Docker's grammar, its normal form and its familiar form.

A reference is ``[domain/]path[:tag][@digest]``. People write the familiar form (``busybox``), the
engine keeps the normal form (``docker.io/library/busybox:latest``). Grammar, order of checks and
messages follow github.com/distribution/reference, so that a name means here what it means there.

Each piece has its own expression, in which every text has one reading only, so matching takes
linear time on any input; the pieces cannot contain the separators between them, so splitting first
loses nothing. (Possessive groups would say so, but before 3.11.5 Python matches them wrongly:
github.com/python/cpython/issues/106052.)
"""

import re

from ketch.errors import InvalidArgumentError
from ketch.spec import digest as digests
from ketch.spec.path_match import Pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
PATH_LENGTH_MAX = 255

_PROGRAM = "ketch run IMAGE /bin/sh"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"

_IDENTIFIER = re.compile(r"[a-f0-9]{64}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]++\])(?::[0-9]++)?")
_COMPONENT = r"[a-z0-9]++(?:(?:__|[._]|-++)[a-z0-9]++)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*+(?:[-_+.][A-Za-z][A-Za-z0-9]*+)*"
_DIGEST = re.compile(rf"{_ALGORITHM}:[0-9a-fA-F]{{32,}}")


class Reference:
    """A name of an image, in normal form.

    Args:
        domain: the registry's host and port; empty only for the odd names whose first component
            looks like a host and is none (``a_b.c/d``), which Docker takes as they stand.
        path: the repository on that registry.
        tag: empty where none was given.
        digest: empty where none was given.
    """

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str = "", digest: str = "") -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """Domain and path, without tag and digest: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The name as people write it: ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: ``busybox:latest``."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def tagged(self, tag: str = DEFAULT_TAG) -> "Reference":
        """Returns this reference, with the tag where it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(self.domain, self.path, tag)

    def __str__(self) -> str:
        """The normal form, which is what is stored."""
        return self.name + self._suffix

    def __repr__(self) -> str:
        """The normal form, marked as a reference."""
        return f"Reference({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        """Whether both have the same normal form."""
        return isinstance(other, Reference) and str(self) == str(other)

    def __hash__(self) -> int:
        """Of the normal form."""
        return hash(str(self))


def parse(text: str) -> Reference:
    """Read a reference that a person wrote and bring it into normal form.

    No tag is added: ``Reference.tagged`` does that where a tag is needed.

    Raises:
        InvalidArgumentError: the text is not a reference, in the words of Docker's parser.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidArgumentError(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, remainder = _split_domain(text)
    before_colon = remainder.partition(":")[0]
    if before_colon.lower() != before_colon:
        raise InvalidArgumentError(
            f"invalid reference format: repository name ({before_colon}) must be lowercase",
            "only the registry's host and the tag may have upper-case letters",
        )
    pieces = _pieces(domain, remainder)
    if pieces is None:
        if _pieces(domain.lower(), remainder.lower()) is not None:
            raise InvalidArgumentError(
                "invalid reference format: repository name must be lowercase"
            )
        hint = "a reference is [host[:port]/]name[:tag][@digest]"
        if text[:1] in {"/", ".", "~"}:
            hint = f"that is a path; the image comes first, and then what is to run: {_PROGRAM}"
        raise InvalidArgumentError("invalid reference format", hint)
    domain, path, tag, digest = pieces
    if len(path) > PATH_LENGTH_MAX:
        raise InvalidArgumentError(
            f"repository name must not be more than {PATH_LENGTH_MAX} characters"
        )
    if digest:
        digests.split(digest)
    return Reference(domain, path, tag, digest)


def parse_any(text: str) -> Reference | str:
    """Read what names an image: a whole identifier, a digest, or a reference.

    A prefix of an identifier cannot be told from a name by its form; it comes back as a Reference.

    Returns:
        A digest for the first two, else the Reference.

    Raises:
        InvalidArgumentError: the text is none of them.
    """
    if _IDENTIFIER.fullmatch(text):
        return f"sha256:{text}"
    return text if digests.valid(text) else parse(text)


def new_name(text: str, digest_refusal: str) -> Reference:
    """Read a name that an image is to be given; the tag ``latest`` is added where it has none.

    Args:
        text: the name.
        digest_refusal: what to say of a name with a digest.

    Raises:
        InvalidArgumentError: it is no name, or one that would be mistaken for something else.
    """
    name = parse(text)
    if name.digest:
        raise InvalidArgumentError(digest_refusal)
    if name.familiar_name in {"sha256", "sha384", "sha512"}:
        raise InvalidArgumentError(
            "refusing to create an ambiguous tag using digest algorithm as name"
        )
    return name.tagged()


def matcher(pattern: str) -> "Callable[[Reference], bool]":
    """Returns what tells whether a reference matches a pattern: its familiar form or its normal
    one, or either's name.

    Args:
        pattern: ``*`` and ``?`` stand for text without a slash, ``[a-z]`` and ``[^a-z]`` for one
            character, a backslash takes the meaning from the next one: Go's path.Match.

    Raises:
        InvalidArgumentError: the pattern is malformed.
    """
    try:
        compiled = Pattern(pattern)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid pattern {pattern!r}: {error.message}") from error

    def matches(reference: Reference) -> bool:
        forms = (reference.familiar, reference.familiar_name, str(reference), reference.name)
        return any(map(compiled.matches, forms))

    return matches


def _split_domain(text: str) -> tuple[str, str]:
    """Take the registry's host off a name, or put the default there.

    A first component is a host where it could not be a path: ``localhost``, or with a dot, a colon
    or an upper-case letter in it.
    """
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, _OFFICIAL + text
    if first == _LEGACY_DOMAIN:
        domain, remainder = DEFAULT_DOMAIN, rest
    elif first == "localhost" or "." in first or ":" in first or first.lower() != first:
        domain, remainder = first, rest
    else:
        domain, remainder = DEFAULT_DOMAIN, text
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder


def _pieces(domain: str, remainder: str) -> tuple[str, str, str, str] | None:
    """Returns domain, path, tag and digest, or None where one of them is malformed."""
    head, at, digest = remainder.partition("@")
    path, colon, tag = head.partition(":")
    if not _DOMAIN.fullmatch(domain):
        domain, path = "", f"{domain}/{path}"
    if not _PATH.fullmatch(path):
        return None
    if (colon and not _TAG.fullmatch(tag)) or (at and not _DIGEST.fullmatch(digest)):
        return None
    return domain, path, tag, digest
