"""``ketch manifest``: lists of images for several platforms."""

import json
import os
import sys

from ketch.cli.flags import Command, Flag, Parsed, parse
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.images.registry import manifest_lists
from ketch.images.registry.manifest_lists import ManifestLists
from ketch.images.registry.registries import Registries
from ketch.images.registry.resolve import is_index
from ketch.spec import reference as references
from ketch.spec.template_functions import legible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings
    from ketch.spec.reference import Reference

_INSECURE = Flag("insecure", "", "bool", "Allow communication with an insecure registry")

_CREATE = Command(
    "ketch manifest create MANIFEST_LIST MANIFEST [MANIFEST...]",
    "Create a local manifest list for annotating and pushing to a registry",
    [Flag("amend", "a", "bool", "Amend an existing manifest list"), _INSECURE],
    minimum_arguments=2,
)
_ANNOTATE = Command(
    "ketch manifest annotate [OPTIONS] MANIFEST_LIST MANIFEST",
    "Add additional information to a local image manifest",
    [
        Flag("arch", "", "string", "Set architecture"),
        Flag("os", "", "string", "Set operating system"),
        Flag("os-features", "", "list", "Set operating system feature", metavar="strings"),
        Flag("os-version", "", "string", "Set operating system version"),
        Flag("variant", "", "string", "Set architecture variant"),
    ],
    minimum_arguments=2,
    maximum_arguments=2,
)
_INSPECT = Command(
    "ketch manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST",
    "Display an image manifest, or manifest list",
    [
        _INSECURE,
        Flag("verbose", "v", "bool", "Output additional info including layers and platform"),
    ],
    minimum_arguments=1,
    maximum_arguments=2,
)
_PUSH = Command(
    "ketch manifest push [OPTIONS] MANIFEST_LIST",
    "Push a manifest list to a repository",
    [
        Flag("insecure", "", "bool", "Allow push to an insecure registry"),
        Flag("purge", "p", "bool", "Remove the local manifest list after push"),
    ],
    minimum_arguments=1,
    maximum_arguments=1,
)
_RM = Command(
    "ketch manifest rm MANIFEST_LIST [MANIFEST_LIST...]",
    "Delete one or more manifest lists from local storage",
    minimum_arguments=1,
)


def create(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Begin a list, or add to one."""
    parsed = parse(_CREATE, arguments)
    target, *images = parsed.arguments
    with Registries(os.environ) as registries:
        name = manifest_lists.create(
            ManifestLists(os.environ), registries, target, images,
            amend=parsed.enabled("amend"), insecure=parsed.enabled("insecure"),
        )  # fmt: skip
    print(f"Created manifest list {name}")
    return 0


def annotate(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Say more of an image of a list."""
    parsed = parse(_ANNOTATE, arguments)
    platform: dict[str, Any] = {}
    for flag, key in (("arch", "architecture"), ("os", "os"), ("os-version", "os.version"),
                      ("variant", "variant")):  # fmt: skip
        if text := parsed.text(flag):
            platform[key] = text
    features = [word for text in parsed.items("os-features") for word in text.split(",") if word]
    if features:
        platform["os.features"] = features
    target, image = parsed.arguments
    manifest_lists.annotate(ManifestLists(os.environ), target, image, platform)
    return 0


def inspect(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Show a manifest or a list, local ones first."""
    parsed = parse(_INSPECT, arguments)
    lists = ManifestLists(os.environ)
    names = [references.parse(text).tagged() for text in parsed.arguments]
    if len(names) == 2:
        if names[0] not in lists:
            raise NotFoundError(f"No such manifest: {names[0]}")
        entry = lists.entry(names[0], names[1])
        if entry is None:
            raise NotFoundError(f"No such manifest: {names[1]}")
        _write(entry.document() if parsed.enabled("verbose") else entry.manifest, "\t")
    elif names[0] in lists:
        entries = lists.entries(names[0])
        if parsed.enabled("verbose"):
            _write([entry.document() for entry in entries], "\t")
        else:
            _write(manifest_lists.index(names[0], entries), "   ")
    else:
        _inspect_remote(names[0], parsed)
    return 0


def push(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Push a list."""
    parsed = parse(_PUSH, arguments)
    lists = ManifestLists(os.environ)
    (target,) = parsed.arguments
    with Registries(os.environ) as registries:
        moved, digest = manifest_lists.push(
            lists, registries, target, insecure=parsed.enabled("insecure")
        )
    for name, image_digest in moved:
        print(f"Pushed ref {name} with digest: {image_digest}")
    print(digest)
    if parsed.enabled("purge"):
        lists.remove(references.parse(target).tagged())
    return 0


def rm(settings: "Settings", arguments: list[str]) -> int:  # noqa: ARG001
    """Forget lists, as many as can be."""
    parsed = parse(_RM, arguments)
    lists = ManifestLists(os.environ)
    errors: list[KetchError] = []
    for text in parsed.arguments:
        try:
            lists.remove(references.parse(text).tagged())
        except KetchError as error:
            errors.append(error)
    if errors:
        raise KetchError("\n".join(error.message for error in errors))
    return 0


def _inspect_remote(name: "Reference", parsed: Parsed) -> None:
    insecure = parsed.enabled("insecure")
    with Registries(os.environ) as registries:
        if parsed.enabled("verbose"):
            entries = manifest_lists.fetch_all(registries, name, insecure=insecure)
            shown = [entry.document() for entry in entries]
            _write(shown if len(shown) != 1 else shown[0], "\t")
            return
        _, document = manifest_lists.document(registries, name, insecure=insecure)
        try:
            content = json.loads(document.content)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"manifest of {name.familiar}: not JSON") from error
        _write(content, "   " if is_index(document) else "\t")


def _write(document: object, indent: str) -> None:
    sys.stdout.write(f"{legible(json.dumps(document, indent=indent, ensure_ascii=False))}\n")
