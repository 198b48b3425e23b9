"""``ketch images``."""

import sys
import time

from ketch.cli import client_configuration, image_tree, usual_flags
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.tables import table
from ketch.engine.images import listing
from ketch.engine.images.images import Images
from ketch.engine.records.store import Store
from ketch.errors import InvalidArgumentError
from ketch.spec import reference as references
from ketch.spec import timestamps
from ketch.spec.sizes import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.images.image import Image
    from ketch.engine.settings import Settings

_IMAGES = Command(
    "ketch images [OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    [
        Flag("all", "a", "bool", "Show all images (default hides intermediate images)"),
        Flag("digests", "", "bool", "Show digests"),
        usual_flags.filters(),
        usual_flags.LIST_FORMAT,
        Flag("no-trunc", "", "bool", "Don't truncate output"),
        Flag("quiet", "q", "bool", "Only show image IDs"),
        Flag("tree", "", "bool", "List multi-platform images as a tree (EXPERIMENTAL)"),
    ],
    maximum_arguments=1,
)  # fmt: skip

HEADS = {
    "Containers": "CONTAINERS", "CreatedAt": "CREATED AT", "CreatedSince": "CREATED",
    "Digest": "DIGEST", "ID": "IMAGE ID", "Repository": "REPOSITORY", "SharedSize": "SHARED SIZE",
    "Size": "SIZE", "Tag": "TAG", "UniqueSize": "UNIQUE SIZE", "VirtualSize": "SIZE",
}  # fmt: skip
_NONE = "<none>"


def images(settings: "Settings", arguments: list[str]) -> int:
    """List images."""
    parsed = parse(_IMAGES, arguments)
    engine = Images(settings, Store(settings.root))
    found = listing.select(
        engine,
        parsed.items("filter"),
        every=parsed.enabled("all"),
        pattern=parsed.arguments[0] if parsed.arguments else "",
    )
    if parsed.enabled("tree"):
        for flag in ("quiet", "no-trunc", "digests", "format"):
            if flag in parsed.given:
                raise InvalidArgumentError(f"--{flag} is not yet supported with --tree")
        image_tree.show(engine, found, every=parsed.enabled("all"))
        return 0
    template = client_configuration.list_format(
        "imagesFormat", parsed.text("format"), quiet=parsed.enabled("quiet")
    )
    digests = parsed.enabled("digests") or ".Digest" in template
    now_ns = time.time_ns()
    rows = [
        row
        for image in found
        for row in fields(image, now_ns, whole=parsed.enabled("no-trunc"), digests=digests)
    ]
    if parsed.enabled("quiet") and template in {"", "table"}:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
    elif template in {"", "table"}:
        shown = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince",
                 "Size"]  # fmt: skip
        lines = [[HEADS[name] for name in shown], *([row[name] for name in shown] for row in rows)]
        sys.stdout.write(table(lines))
    else:
        _write_formatted(rows, template, digests=digests, quiet=parsed.enabled("quiet"))
    return 0


def fields(image: "Image", now_ns: int, *, whole: bool, digests: bool) -> list[dict[str, str]]:
    """Returns what each line that shows an image can tell, by the names that templates use.

    Args:
        image: the image.
        now_ns: the present.
        whole: whether its ID is shown whole.
        digests: whether there is a line for each digest.
    """
    known = image.created_ns > timestamps.UNKNOWN_NS
    moment = time.localtime(image.created_ns // timestamps.SECOND_NS) if known else None
    common = {
        "Containers": "N/A",
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", moment) if moment else "N/A",
        "CreatedSince": f"{timestamps.spoken(now_ns - image.created_ns)} ago" if known else "N/A",
        "ID": image.id if whole else image.short_id,
        "SharedSize": "N/A",
        "Size": size(image.size_bytes),
        "UniqueSize": "N/A",
        "VirtualSize": size(image.size_bytes, 4),
    }
    return [
        {**common, "Repository": repository, "Tag": tag, "Digest": digest}
        for repository, tag, digest in _names(image, digests=digests)
    ]


def _write_formatted(
    rows: list[dict[str, str]], template: str, *, digests: bool, quiet: bool
) -> None:
    from ketch.cli import formats  # noqa: PLC0415 - only --format needs templates
    from ketch.spec.template_functions import Struct  # noqa: PLC0415

    if template == formats.RAW:
        names = {"Repository": "repository", "Tag": "tag", "Digest": "digest", "ID": "image_id",
                 "CreatedAt": "created_at", "Size": "virtual_size"}  # fmt: skip
        if quiet:
            names = {"ID": "image_id"}
        elif not digests:
            del names["Digest"]
        sys.stdout.write(formats.raw(rows, names, quiet=quiet))
        return
    structs = [Struct({name: row[name] for name in HEADS}, "imageContext") for row in rows]
    sys.stdout.write(formats.render(structs, template, Struct(dict(HEADS), "imageContext")))


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
