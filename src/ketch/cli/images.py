"""``ketch import``, ``rmi``, ``tag`` and ``image prune``."""

import sys

from ketch.cli import usual_flags
from ketch.cli.caller import explained
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.prompts import confirmed
from ketch.engine.images import ingest, listing
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.engine.views.sources import Source
from ketch.errors import KetchError, NotFoundError
from ketch.spec import image as documents
from ketch.spec.flag import EXPLAIN
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.images.image import Image
    from ketch.engine.settings import Settings

_IMPORT = Command(
    "ketch import [OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    [
        Flag("change", "c", "list", "Apply Dockerfile instruction to the created image"),
        EXPLAIN,
        Flag("message", "m", "string", "Set commit message for imported image"),
        Flag("platform", "", "string", "Set platform of the image"),
    ],
    minimum_arguments=1,
    maximum_arguments=2,
)
_RMI = Command(
    "ketch rmi [OPTIONS] IMAGE [IMAGE...]",
    "Remove one or more images",
    [
        EXPLAIN,
        Flag("force", "f", "bool", "Force removal of the image"),
        Flag("no-prune", "", "bool", "Do not delete untagged parents"),
        Flag(
            "platform",
            "",
            "list",
            "Remove only the given platform variant (os[/arch[/variant]])",
            metavar="strings",
        ),
    ],
    minimum_arguments=1,
)
_TAG = Command(
    "ketch tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    [EXPLAIN],
    minimum_arguments=2,
    maximum_arguments=2,
)

_PRUNE = Command(
    "ketch image prune [OPTIONS]",
    "Remove unused images",
    [
        Flag("all", "a", "bool", "Remove all unused images, not just dangling ones"),
        EXPLAIN,
        usual_flags.filters("until=<timestamp>", ""),
        usual_flags.UNASKED,
    ],
    maximum_arguments=0,
)  # fmt: skip


def import_(settings: "Settings", arguments: list[str]) -> int:
    """Make an image from an archive and print its ID."""
    parsed = parse(_IMPORT, arguments)
    source = parsed.arguments[0]
    # An image goes to others: where a file was on this machine is none of their business.
    origin = source if source.startswith(("http://", "https://")) else "-"
    reference = parsed.arguments[1] if len(parsed.arguments) > 1 else ""
    with explained(settings, parsed), Source(source) as stream:
        image_id = ingest.import_image(
            _images(settings),
            stream,
            reference,
            changes=parsed.items("change"),
            message=parsed.text("message") or f"Imported from {origin}",
            platform=parsed.text("platform"),
        )
    print(image_id)
    return 0


def rmi(settings: "Settings", arguments: list[str]) -> int:
    """Remove images, as many as can be; complain of the others at the end."""
    parsed = parse(_RMI, arguments)
    force = parsed.enabled("force")
    engine = _images(settings)
    platforms = [documents.parse_platform(text)
                 for given in parsed.items("platform") for text in given.split(",")]  # fmt: skip
    errors: list[KetchError] = []

    def check(image: "Image") -> None:
        if platforms:
            engine.check_platform(image, platforms)

    prunes = not parsed.enabled("no-prune")
    with explained(settings, parsed), engine.removing() as removal:
        for text in parsed.arguments:
            try:
                removal.remove(text, force=force, prune=prunes, check=check)
            except KetchError as error:
                errors.append(error)
    sys.stdout.write("".join(f"{what}: {name}\n" for what, name in removal.events))
    if not errors:
        return 0
    if force and all(isinstance(error, NotFoundError) for error in errors):
        # What was to be forced away is not there: said, but no failure.
        sys.stderr.write("".join(f"ketch: {error.message}\n" for error in errors))
        return 0
    if len(errors) == 1:
        raise errors[0]
    raise KetchError("\n".join(error.message for error in errors))


def prune(settings: "Settings", arguments: list[str]) -> int:
    """Remove the images that nobody uses, when the user agrees."""
    parsed = parse(_PRUNE, arguments)
    every = parsed.enabled("all")
    which = "images without at least one container associated to them" if every else (
        "dangling images")  # fmt: skip
    if not parsed.enabled("force") and not confirmed(f"WARNING! This will remove all {which}."):
        return 0
    with explained(settings, parsed):
        events, reclaimed_bytes = listing.prune(
            _images(settings), parsed.items("filter"), every=every
        )
    if events:
        lines = "".join(f"{what.lower()}: {name}\n" for what, name in events)
        sys.stdout.write(f"Deleted Images:\n{lines}\n")
    print(f"Total reclaimed space: {size(reclaimed_bytes, 4)}")
    return 0


def tag(settings: "Settings", arguments: list[str]) -> int:
    """Give an image one more name."""
    parsed = parse(_TAG, arguments)
    with explained(settings, parsed):
        _images(settings).tag(*parsed.arguments)
    return 0


def _images(settings: "Settings") -> Images:
    return Images(settings, Store(settings.root))
