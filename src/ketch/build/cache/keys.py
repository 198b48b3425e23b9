"""Cache keys: digests of all that a step could see, and of nothing else.

What a step lies on counts by its layers' content, whichever way that came about; what it copies or
binds, by the content of the files. Times of files do not count, nor names and places of steps. A
secret's value never does: what a step does with one is the same whatever it is. Nor do limits on
memory and processors, and the control group, as in BuildKit: they say how fast a step goes. The
values of proxies are hidden by definition.
"""

import hashlib
import json
from typing import TYPE_CHECKING

from ketch.build.graph import MountKind, Network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ketch.build.graph import Copy, MakeDirectory, Mount, Run
    from ketch.build.request import Request

# Whoever changes what a step does with the same description changes this.
_VERSION = 1


def of_run(vertex: "Run", base: str, sources: "Sequence[str]", request: "Request") -> str:
    """Returns the key of a program.

    Args:
        vertex: what is run.
        base: chain ID of its root.
        sources: digest of each mount's files, empty for a mount without any.
        request: what all steps of the build have in common.
    """
    return _digest(
        "run",
        platform=vertex.platform,
        base=base,
        arguments=vertex.arguments,
        environment=vertex.environment,
        user=vertex.user,
        directory=vertex.directory,
        mounts=[_mount(one, digest) for one, digest in zip(vertex.mounts, sources, strict=True)],
        network=vertex.network,
        insecure=vertex.insecure,
        devices=vertex.devices,
        files={name: content.hex() for name, content in vertex.files.items()},
        hostname=vertex.hostname,
        hosts=[*request.add_hosts, *vertex.hosts],
        shm_size=request.shm_size_bytes,
        ulimits=sorted(request.ulimits),
        reached=request.network or Network.DEFAULT if vertex.network is Network.DEFAULT else "",
    )


def of_copy(vertex: "Copy", base: str, digest: str) -> str:
    """Returns the key of a copy.

    Args:
        vertex: what is copied.
        base: chain ID of what it is put on; empty where that has no part in it.
        digest: of the files: their names and contents.
    """
    return _digest(
        "copy",
        base=base,
        files=digest,
        unpack=[item.unpack for item in vertex.items],
        target=vertex.target,
        owner=vertex.owner,
        mode=vertex.mode,
        time=vertex.time_s,
        link=vertex.link,
    )


def of_directory(vertex: "MakeDirectory", base: str) -> str:
    """Returns the key of a directory that is made."""
    return _digest("directory", base=base, path=vertex.path, owner=vertex.owner, time=vertex.time_s)


def of_selection(chain_id: str, description: "Any") -> str:
    """Returns what the digest of some files of a stack of layers is kept under.

    Args:
        chain_id: the stack's.
        description: which files.
    """
    return _digest("selection", chain=chain_id, files=description)


def _mount(mount: "Mount", digest: str) -> "list[Any]":
    what: list[Any] = [mount.kind, mount.target, mount.read_only]
    if mount.kind == MountKind.BIND:
        return [*what, digest]
    if mount.kind == MountKind.CACHE:
        return [*what, digest, mount.id, mount.sharing, mount.mode, mount.uid, mount.gid]
    if mount.kind == MountKind.TMPFS:
        return [*what, mount.size_bytes]
    return [*what, mount.id, mount.mode, mount.uid, mount.gid, mount.required, mount.variable]


def _digest(kind: str, **facts: "Any") -> str:
    text = json.dumps(
        [_VERSION, kind, facts], sort_keys=True, separators=(",", ":"), default=_plain
    )
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def _plain(value: "Mapping[str, Any]") -> "Any":
    return dict(value)
