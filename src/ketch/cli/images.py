"""``ketch images``, ``import``, ``rmi`` and ``tag``."""

import sys
import time

from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import size, table
from ketch.engine.images import Images
from ketch.engine.store import Store
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError, UnavailableError
from ketch.spec import reference as references
from ketch.spec import timestamps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.images import Image
    from ketch.engine.settings import Settings

_IMAGES = Command(
    "ketch images [OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    [
        Flag("all", "a", "bool", "Show all images (default hides intermediate images)"),
        Flag("digests", "", "bool", "Show digests"),
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
    ],
    maximum_arguments=1,
    aliases=("ketch image ls", "ketch image list", "ketch images"),
)
_IMPORT = Command(
    "ketch import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents of a tarball to create a filesystem image",
    [
        Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        Flag("message", "m", "string", "Set commit message for imported image"),
        Flag("platform", "", "string", "Set platform of the image"),
    ],
    minimum_arguments=1,
    maximum_arguments=2,
    aliases=("ketch image import", "ketch import"),
)
_RMI = Command(
    "ketch rmi [OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    [
        Flag("force", "f", "bool", "Force removal of the image"),
    ],
    minimum_arguments=1,
    aliases=("ketch image rm", "ketch image remove", "ketch rmi"),
)
_TAG = Command(
    "ketch tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    minimum_arguments=2,
    maximum_arguments=2,
    aliases=("ketch image tag", "ketch tag"),
)

_NONE = "<none>"
_DOWNLOAD_TIMEOUT_SECONDS = 60


def images(settings: "Settings", arguments: list[str]) -> int:
    """List images."""
    parsed = parse(_IMAGES, arguments)
    found = _images(settings).list(parsed.arguments[0] if parsed.arguments else "")
    whole, digests = parsed.enabled("no-trunc"), parsed.enabled("digests")
    rows = [["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]]
    now_ns = time.time_ns()
    for image in found:
        shown_id = image.id if whole else image.short_id
        created = f"{timestamps.spoken(now_ns - image.created_ns)} ago"
        rows += [
            [repository, tag, *([digest] if digests else []), shown_id, created,
             size(image.size_bytes)]
            for repository, tag, digest in _names(image, digests=digests)
        ]  # fmt: skip
    if parsed.enabled("quiet"):
        sys.stdout.write("".join(f"{row[-3]}\n" for row in rows[1:]))
    else:
        sys.stdout.write(table(rows))
    return 0


def import_(settings: "Settings", arguments: list[str]) -> int:
    """Make an image from an archive and print its ID."""
    parsed = parse(_IMPORT, arguments)
    source = parsed.arguments[0]
    reference = parsed.arguments[1] if len(parsed.arguments) > 1 else ""
    with _Source(source) as stream:
        image_id = _images(settings).import_image(
            stream,
            reference,
            changes=parsed.items("change"),
            message=parsed.text("message") or f"Imported from {source}",
            platform=parsed.text("platform"),
        )
    print(image_id)
    return 0


def rmi(settings: "Settings", arguments: list[str]) -> int:
    """Remove images, as many as can be; complain of the others at the end."""
    parsed = parse(_RMI, arguments)
    force = parsed.enabled("force")
    engine = _images(settings)
    errors: list[KetchError] = []
    for text in parsed.arguments:
        try:
            for what, name in engine.remove(text, force=force):
                print(f"{what}: {name}")
        except KetchError as error:
            errors.append(error)
    if not errors:
        return 0
    if force and all(isinstance(error, NotFoundError) for error in errors):
        # What was to be forced away is not there: said, but no failure.
        sys.stderr.write("".join(f"ketch: {error.message}\n" for error in errors))
        return 0
    if len(errors) == 1:
        raise errors[0]
    raise KetchError("\n".join(error.message for error in errors))


def tag(settings: "Settings", arguments: list[str]) -> int:
    """Give an image one more name."""
    parsed = parse(_TAG, arguments)
    _images(settings).tag(*parsed.arguments)
    return 0


def _images(settings: "Settings") -> Images:
    return Images(settings, Store(settings.root))


def _names(image: "Image", *, digests: bool) -> list[tuple[str, str, str]]:
    """Returns repository, tag and digest of each line that shows an image."""
    names = [references.parse(name) for name in image.names]
    by_repository: dict[str, list[str]] = {}
    for name in names:
        if name.digest:
            by_repository.setdefault(name.familiar_name, []).append(name.digest)
    lines = []
    for name in names:
        if not name.digest:
            known = by_repository.get(name.familiar_name, []) if digests else []
            lines += [(name.familiar_name, name.tag, digest) for digest in known or [_NONE]]
    tagged = {repository for repository, _, _ in lines}
    for repository, known in by_repository.items():
        if repository not in tagged:
            lines += [(repository, _NONE, digest) for digest in (known if digests else known[:1])]
    return lines or [(_NONE, _NONE, _NONE)]


class _Source:
    """Where an archive is read from: standard input, a URL, or a file.

    Args:
        name: ``-``, a URL, or a path.
    """

    __slots__ = ("_close", "_name", "_read")

    def __init__(self, name: str) -> None:
        self._name = name
        self._read: Callable[[int], bytes]
        self._close: Callable[[], object]

    def __enter__(self) -> "_Source":
        try:
            if self._name == "-":
                stream = open(0, "rb", buffering=0, closefd=False)
                self._read, self._close = stream.read, stream.close
            elif self._name.startswith(("http://", "https://")):
                from urllib.request import urlopen  # noqa: PLC0415 - rarely used and large

                response = urlopen(self._name, timeout=_DOWNLOAD_TIMEOUT_SECONDS)
                self._read, self._close = response.read, response.close
            else:
                stream = open(self._name, "rb", buffering=0)
                self._read, self._close = stream.read, stream.close
        except FileNotFoundError as error:
            raise NotFoundError(f"open {self._name}: no such file or directory") from error
        except (OSError, ValueError) as error:
            raise InvalidArgumentError(f"open {self._name}: {_reason(error)}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except Exception as error:  # the network's libraries raise classes of their own
            raise UnavailableError(f"read {self._name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    error = getattr(error, "reason", error)  # what urllib wraps
    strerror = getattr(error, "strerror", None)
    return strerror.lower() if strerror else str(error)
