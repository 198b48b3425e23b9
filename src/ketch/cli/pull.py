"""``ketch pull`` and ``ketch push``."""

import os
import sys

from ketch.cli.caller import explained, told
from ketch.cli.flags import Command, Flag, Parsed, parse
from ketch.cli.progress import shown_on
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.errors import ImageNotFoundError, InvalidArgumentError, UnsupportedError
from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries
from ketch.spec import reference as references
from ketch.spec.flag import EXPLAIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.settings import Settings

_TRUST = Flag("disable-content-trust", "", "bool", "Skip image verification", default=True)

_PULL = Command(
    "ketch pull [OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    [
        Flag("all-tags", "a", "bool", "Download all tagged images in the repository"),
        _TRUST,
        EXPLAIN,
        Flag("platform", "", "string", "Set platform if server is multi-platform capable"),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ],
    minimum_arguments=1,
    maximum_arguments=1,
)
_PUSH = Command(
    "ketch push [OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    [
        Flag("all-tags", "a", "bool", "Push all tags of an image to the repository"),
        Flag("disable-content-trust", "", "bool", "Skip image signing", default=True),
        EXPLAIN,
        Flag(
            "platform",
            "",
            "string",
            "Push the image only if it is for this platform (os[/arch[/variant]])",
        ),
        Flag("quiet", "q", "bool", "Suppress verbose output"),
    ],
    minimum_arguments=1,
    maximum_arguments=1,
)


def pull(settings: "Settings", arguments: list[str]) -> int:
    """Pull an image, or all of a repository's; print its whole name at the end."""
    from ketch.engine.images.pulling import Puller  # noqa: PLC0415

    parsed = parse(_PULL, arguments)
    _check_trust(parsed)
    text, everything, quiet = (
        parsed.arguments[0],
        parsed.enabled("all-tags"),
        parsed.enabled("quiet"),
    )
    name = references.parse(text)
    if everything and (name.tag or name.digest):
        raise InvalidArgumentError("tag can't be used with --all-tags/-a")
    if not everything and not quiet and not name.tag and not name.digest:
        print(f"Using default tag: {references.DEFAULT_TAG}")
    with Registries(os.environ) as registries, explained(settings, parsed):
        puller = Puller(
            Images(settings, Store(settings.root)),
            registries,
            Progress() if quiet else shown_on(sys.stdout),
            platform=parsed.text("platform"),
        )
        print(puller.pull_all(text) if everything else puller.pull(text))
    return 0


def pull_for_start(
    settings: "Settings", image: str, *, platform: str, quiet: bool, missing: bool, explain: str
) -> None:
    """Pull the image that a container is to be made of.

    Args:
        settings: the engine.
        image: its name.
        platform: what it is to run on, or empty.
        quiet: whether to say nothing.
        missing: whether it was looked for here.
        explain: in which form is told what is done, or empty.

    Raises:
        ImageNotFoundError: what it is called is an identifier, which no registry knows.
    """
    from ketch.engine.images.pulling import Puller  # noqa: PLC0415

    name = references.parse_any(image)
    if isinstance(name, str):
        raise ImageNotFoundError(f"No such image: {name}")
    if missing and not quiet:
        sys.stderr.write(f"Unable to find image '{name.tagged().familiar}' locally\n")
    with Registries(os.environ) as registries, told(settings, explain):
        progress = Progress() if quiet else shown_on(sys.stderr)
        images = Images(settings, Store(settings.root))
        Puller(images, registries, progress, platform=platform).pull(image)


def push(settings: "Settings", arguments: list[str]) -> int:
    """Push an image, or all of a repository's."""
    from ketch.engine.images.pushing import Pusher  # noqa: PLC0415

    parsed = parse(_PUSH, arguments)
    _check_trust(parsed)
    text, quiet = parsed.arguments[0], parsed.enabled("quiet")
    everything = parsed.enabled("all-tags")
    name = references.parse(text)
    if everything and (name.tag or name.digest):
        raise InvalidArgumentError("tag can't be used with --all-tags/-a")
    if not everything and not quiet and not name.tag and not name.digest:
        print(f"Using default tag: {references.DEFAULT_TAG}")
    store = Store(settings.root)
    with Registries(os.environ) as registries, explained(settings, parsed):
        progress = Progress() if quiet else shown_on(sys.stdout)
        images = Images(settings, store)
        pusher = Pusher(images, store, registries, progress, platform=parsed.text("platform"))
        if everything:
            pusher.push_all(text)
        else:
            pusher.push(text)
    if quiet:
        print(name if everything else name.tagged())
    return 0


def _check_trust(parsed: Parsed) -> None:
    if not parsed.enabled("disable-content-trust"):
        raise UnsupportedError(
            "content trust (Notary v1) is not supported",
            "name an image by its digest to be sure of its content",
        )
