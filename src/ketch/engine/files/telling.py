"""What ``--explain`` tells of how a container's files are reached, copied, compared and archived.

Loaded where somebody asks. By hand a root that is mounted is at ``rootfs`` in the container's
directory.
"""

import os

from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.records.rows import Container
    from ketch.spec.container import MountPoint

_PATHS_MAX = 1000


def of_process(container: "Container") -> Told:
    """A running container's files are those that its first process sees."""
    words = "reach the container's files by its first process · openat2(2) RESOLVE_IN_ROOT"
    root = root_of(container, "")
    return Told("files", words, [("root", root)], outside=[f"test -d {root}"])


def of_mount(point: "MountPoint", directory: str) -> Told:
    """What a stopped container would have mounted is mounted, volumes among it."""
    source, target = point.get("Source", ""), point["Destination"]
    words = f"bind {source} to {target} · open_tree(2) OPEN_TREE_CLONE, move_mount(2)"
    place = quote(f"{directory}/rootfs{target}")
    is_directory = os.path.isdir(source)
    make = f"mkdir -p {place}" if is_directory else f"test -e {place} || : > {place}"
    return Told("files", words, outside=[make, f"mount --bind {quote(source)} {place}"])


def of_unmounting(directory: str) -> Told:
    """A stopped container's files are mounted no longer."""
    words = f"unmount {directory}/rootfs · umount2(2)"
    return Told("files", words, outside=[f"umount -R {quote(directory)}/rootfs"])


def of_copied_root(container: "Container") -> Told:
    """The root of a running container is copied in its mount namespace; no command does that."""
    words = "take a copy of the root mount that the container has · setns(2), open_tree(2)"
    return Told("files", words, [("root", root_of(container, ""))])


def of_attaching(directory: str, place: str) -> Told:
    """A root is mounted where everybody finds it.

    Args:
        directory: of the container, or the image.
        place: where it is now.
    """
    # By hand it is at rootfs, where the step before has mounted it, unless that has no command.
    made = f"{quote(directory)}/rootfs"
    by_hand = [
        f"mkdir -p {quote(place)}",
        f"if mountpoint -q {made}; then mount --bind {made} {quote(place)}; umount {made}; fi",
    ]
    return Told("files", f"mount it on {place} · move_mount(2)", outside=by_hand)


def of_detaching(place: str) -> Told:
    """A root is mounted no longer."""
    return Told("files", f"unmount {place} · umount2(2)", outside=[f"umount {quote(place)}"])


def of_claims(directory: str, place: str, count: int) -> Told:
    """How often a root was asked for and not given back."""
    values = [("file", f"{directory}/mounted"), ("times", count)]
    return Told("record", f"record how often {place} is wanted", values)


def of_copying_out(
    container: "Container", directory: str, source: str, target: str, *, size_bytes: int,
    owner: "tuple[int, int] | None", follow: bool, began_ns: int,
) -> Told:  # fmt: skip
    """Files are copied out of a container.

    Args:
        container: the container.
        directory: its directory.
        source: a path in it.
        target: a path here.
        size_bytes: how long the archive was that went from one to the other.
        owner: whose all of it is now; None where owners are kept.
        follow: whether what a symlink leads to was copied.
        began_ns: when that was begun.
    """
    flags = "-a" if owner is None else "-dR --preserve=mode,timestamps,links"
    path = quote(f"{root_of(container, directory)}/{source.lstrip('/')}")
    by_hand = f"cp {flags}{' -L' if follow else ''} {path} {quote(target)}"
    values = [("from", source), ("to", target), *_amount(size_bytes, owner)]
    words = f"copy {source} of container {container.name} to {target} · mkdirat(2), openat(2)"
    return Told("files", words, values, outside=[by_hand], began_ns=began_ns)


def of_copying_in(
    container: "Container", directory: str, source: str, target: str, *, size_bytes: int,
    owner: "tuple[int, int] | None", follow: bool, began_ns: int,
) -> Told:  # fmt: skip
    """Files are copied into a container; see ``of_copying_out``."""
    path = quote(f"{root_of(container, directory)}/{target.lstrip('/')}")
    by_hand = [f"cp -a{' -L' if follow else ''} {quote(source)} {path}"]
    if owner is not None:
        by_hand.append(f"chown -R {owner[0]}:{owner[1]} {path}")
    values = [("from", source), ("to", target), *_amount(size_bytes, owner)]
    words = f"copy {source} to {target} of container {container.name} · mkdirat(2), openat(2)"
    return Told("files", words, values, outside=by_hand, began_ns=began_ns)


def of_unpacking(container: "Container", directory: str, target: str, *, began_ns: int) -> Told:
    """An archive from somewhere else is unpacked in a container."""
    path = quote(f"{root_of(container, directory)}/{target.lstrip('/')}")
    words = f"unpack an archive in {target} of container {container.name} · mkdirat(2), openat(2)"
    by_hand = f"tar -C {path} --numeric-owner -xpf -"
    return Told("files", words, [("to", target)], outside=[by_hand], began_ns=began_ns)


def of_archive(
    container: "Container", directory: str, source: str, *, size_bytes: int, began_ns: int
) -> Told:
    """A path in a container, as an archive for somebody else."""
    head, last = os.path.split(source.rstrip("/"))
    path = quote(f"{root_of(container, directory)}/{head.lstrip('/')}")
    by_hand = f"tar -C {path} --numeric-owner -cf - {quote(last or '.')}"
    words = f"archive {source} of container {container.name} · openat(2), read(2)"
    values = [("from", source), ("bytes", str(size_bytes))]
    return Told("files", words, values, outside=[by_hand], began_ns=began_ns)


def of_export(directory: str, *, size_bytes: int, began_ns: int) -> Told:
    """All of a container's files, as an archive."""
    by_hand = f"tar -C {quote(directory)}/rootfs --numeric-owner --one-file-system -cf - ."
    words = "archive all of the container's own files · openat(2), read(2)"
    return Told("files", words, [("bytes", str(size_bytes))], outside=[by_hand],
                began_ns=began_ns)  # fmt: skip


def of_changes(
    upper: str, lower: "Sequence[str]", *, counts: "Sequence[int]", hidden: "Sequence[bytes]",
    opaque: "Sequence[bytes]", began_ns: int,
) -> Told:  # fmt: skip
    """What a container changed is found without any mount.

    Args:
        upper: the tree that it writes to.
        lower: the trees below, topmost first.
        counts: how much was changed, added and deleted.
        hidden: paths that whiteouts hide.
        opaque: paths of directories that hide all that lower ones have.
        began_ns: when that was begun.
    """
    values = [("upperdir", upper), *(("lowerdir", one) for one in lower)]
    values += list(zip(("changed", "added", "deleted"), map(str, counts), strict=True))
    values += [("whiteout", f"/{os.fsdecode(path)}") for path in hidden[:_PATHS_MAX]]
    values += [("opaque", f"/{os.fsdecode(path)}") for path in opaque[:_PATHS_MAX]]
    below = " ".join(map(quote, lower))
    by_hand = [
        "(",
        f"cd {quote(upper)}",
        "find . -mindepth 1 ! -path ./dev ! -path ./proc ! -path ./sys ! -path ./etc/hosts"
        " ! -path ./etc/hostname ! -path ./etc/resolv.conf | sort | while read -r path; do",
        "kind=A",
        f"for lower in {below}; do",
        'if [ -e "$lower/$path" ] || [ -L "$lower/$path" ]; then kind=C; fi',
        "done",
        'if [ "$(stat -c %F,%t,%T "$path")" = "character special file,0,0" ]; then kind=D; fi',
        'echo "$kind /${path#./}"',
        "done",
        ")",
    ]
    words = "compare what the container wrote with the layers below · lstat(2), getxattr(2)"
    return Told("files", words, values, outside=by_hand, began_ns=began_ns)


def root_of(container: "Container", directory: str) -> str:
    """Where a container's files are found by hand."""
    if container.is_active and container.init_pid:
        return f"/proc/{container.init_pid}/root"
    return f"{directory}/rootfs"


def _amount(size_bytes: int, owner: "tuple[int, int] | None") -> "list[tuple[str, str]]":
    kept = "kept" if owner is None else f"{owner[0]}:{owner[1]}"
    return [("archive-bytes", str(size_bytes)), ("owner", kept)]
