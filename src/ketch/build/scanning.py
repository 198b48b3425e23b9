"""What is in a result, as a scanner's image tells it: an SBOM.

The scanner is a step like any other, in an image of its own: it sees the result, and what it writes
to its output directory are statements without a subject. Source: moby/buildkit,
docs/attestations/sbom-protocol.md and frontend/attestations/sbom/sbom.go.
"""

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ketch.build.graph import ImageSource, MakeDirectory, Mount, MountKind, Run
from ketch.errors import InvalidArgumentError
from ketch.linux import beneath
from ketch.linux.scopes import owned
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references

if TYPE_CHECKING:
    from ketch.build.graph import Target, Vertex
    from ketch.build.resolving import Resolver
    from ketch.build.trees import Tree

_SOURCE, _EXTRAS, _OUTPUT = "/run/src/core/sbom", "/run/src/extras", "/run/out"
_FILES_MAX = 32
_BYTES_MAX = 64 << 20


def scan(target: "Target", scanner: str, resolver: "Resolver") -> Run:
    """Returns the step that scans what one platform's image is.

    Args:
        target: the image.
        scanner: the scanner's image.
        resolver: finds that.

    Raises:
        KetchError: there is no such image.
        InvalidArgumentError: the image says nothing of what is to be run.
    """
    name = references.parse(scanner).tagged()
    host = documents.host_platform()
    platform = platforms.shown(host)
    found = resolver.resolve(str(name), platform)
    config = found.config.get("config") or {}
    words = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not words:
        raise InvalidArgumentError(
            f"scanner {scanner} cannot be run: its image has no entrypoint", "name another"
        )
    source = ImageSource(
        name=f"resolve image config for {scanner}", platform=platform, reference=str(name),
        digest=found.digest, config_digest=found.config_digest,
    )  # fmt: skip
    seen: list[tuple[str, Vertex]] = [(_SOURCE, target.root)]
    seen += [(f"{_EXTRAS}/sbom-{key}", vertex) for key, vertex in target.scanned.items()]
    return Run(
        name=f"[{target.platform}] generating sbom using {scanner}",
        platform=platform,
        base=MakeDirectory(name=f"mkdir {_OUTPUT}", base=source, path=_OUTPUT),
        arguments=tuple(words),
        environment=(
            *(config.get("Env") or ()),
            f"BUILDKIT_SCAN_DESTINATION={_OUTPUT}/",
            f"BUILDKIT_SCAN_SOURCE={_SOURCE}",
            f"BUILDKIT_SCAN_SOURCE_EXTRAS={_EXTRAS}/",
        ),
        user=config.get("User") or "",
        directory=config.get("WorkingDir") or "/",
        mounts=tuple(
            Mount(MountKind.BIND, where, vertex, read_only=True) for where, vertex in seen
        ),
    )


def predicates(tree: "Tree") -> list[tuple[str, Mapping[str, Any]]]:
    """Returns what a scanner has written: kinds of predicates, and these.

    Args:
        tree: its files.

    Raises:
        InvalidArgumentError: it has written what is no statement, or nothing.
    """
    found = []
    for name in _names(tree.directory):
        content = beneath.read_file(tree.directory, f"{_OUTPUT}/{name}", _BYTES_MAX + 1)
        if len(content) > _BYTES_MAX:
            raise InvalidArgumentError(f"the scanner's {name} is larger than {_BYTES_MAX} bytes")
        found.append(_predicate(name, content))
    if not found:
        raise InvalidArgumentError("the scanner has written no SBOM")
    return found


def _names(root: int) -> list[str]:
    try:
        with owned(beneath.open_path(root, _OUTPUT)) as place:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            with owned(os.open(f"/proc/self/fd/{place}", flags)) as directory:
                names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except OSError:
        return []
    if len(names) > _FILES_MAX:
        raise InvalidArgumentError(f"the scanner has written more than {_FILES_MAX} files")
    return names


def _predicate(name: str, content: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the scanner's {name} is no JSON") from error
    if not isinstance(said, dict):
        raise InvalidArgumentError(f"the scanner's {name} is no statement")
    kind, predicate = said.get("predicateType"), said.get("predicate")
    if not isinstance(kind, str) or not isinstance(predicate, dict):
        raise InvalidArgumentError(f"the scanner's {name} is no statement")
    return kind, predicate
