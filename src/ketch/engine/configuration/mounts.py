"""The host's side of a container's mounts: found and checked, made, filled, held while it runs.

Four moments: ``resolve`` decides what a new container will have mounted and changes nothing;
``acquire`` makes its volumes and fills the new ones from its image; ``attach`` takes each source in
hand before a start; ``volumes.uses.detach`` lets go of them after the end.
"""

import os
from contextlib import ExitStack

from ketch.engine.configuration import selinux
from ketch.engine.configuration.bundle_mounts import Source
from ketch.engine.records import events
from ketch.engine.volumes import mounts, records, sources, telling, uses, volumes
from ketch.engine.volumes.population import populate
from ketch.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
)
from ketch.linux import contested, namespaces, owners, procfs
from ketch.linux.scopes import owned
from ketch.spec import mount_flag
from ketch.spec import mounts as requests
from ketch.spec.user_namespaces import OVERFLOW_ID
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.engine.user_namespaces import UserNamespace
    from ketch.spec.container import Mount, MountPoint, Request
    from ketch.spec.passwd import User
    from ketch.spec.runtime import IdMapping
    from ketch.spec.user_namespaces import IdMap

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def resolve(engine: "Engine", request: "Request") -> "list[MountPoint]":
    """Returns everything that a new container will have mounted; nothing is made yet.

    Args:
        engine: where volumes, images and other containers are.
        request: a whole configuration.

    Raises:
        InvalidArgumentError: a mount cannot be.
        NotFoundError: a container, an image or a driver is not there.
        UnsupportedError: ids are to be mapped, and the kernel does not let this user.
    """
    host = request["HostConfig"]
    inherited: list[MountPoint] = []
    for text in host.get("VolumesFrom", ()):
        reference, read_only = requests.volumes_from(text)
        donor = engine.containers.find(reference)
        inherited += [
            requests.inherit(point, read_only=read_only) for point in donor.record.get("Mounts", ())
        ]
    points = requests.of_container(host, request["Config"].get("Volumes") or {}, inherited)
    check_sources(point["Spec"] for point in points)
    for point in points:
        section = point["Spec"].get("BindOptions") or point["Spec"].get("VolumeOptions") or {}
        if section.get("IdMap") and not namespaces.in_initial_user_namespace():
            raise UnsupportedError(
                "idmap is for root of the machine: the kernel lets nobody else map ids in mounts",
                "say U=true, which changes the owners, or --userns keep-id",
            )
        if point["Type"] == "volume":
            _resolve_volume(engine, point)
        elif point["Type"] == "image":
            point["Source"] = _image_id(engine, point["Source"])
    return points


def _image_id(engine: "Engine", reference: str) -> str:
    try:
        return engine.images.resolve(reference).id
    except NotFoundError as error:
        # Of another class: it is not the container's own image, which the caller might pull.
        raise NotFoundError(error.message, f"pull it first: ketch pull {reference}") from error


def _resolve_volume(engine: "Engine", point: "MountPoint") -> None:
    options = point["Spec"].get("VolumeOptions", {})
    driver = options.get("DriverConfig", {})
    if name := point.get("Name"):
        volumes.check_name(name)
    else:
        point["Name"] = name = os.urandom(32).hex()
    volumes.check_driver(name, point.get("Driver", ""), driver.get("Options") or {})
    point["Source"] = records.data_directory(engine.settings, name)


def acquire(
    engine: "Engine",
    container_id: str,
    points: "Sequence[MountPoint]",
) -> None:
    """Make what a recorded container's mounts need, and fill its new volumes from its image.

    Args:
        engine: where it is recorded.
        container_id: the container; its root is prepared.
        points: its mounts, from ``resolve``.

    Raises:
        InvalidArgumentError: a source cannot be made, or a volume would cover a file.
        UnavailableError: a volume's data cannot be written.
    """
    prepare_sources(point["Spec"] for point in points)
    own = [point for point in points if point["Type"] == "volume"]
    if not own:
        return
    new = []
    with engine.store.transaction() as connection:
        for point in own:
            options = point["Spec"].get("VolumeOptions", {})
            labels = {**options.get("Labels", {})}
            if not point["Spec"].get("Source"):
                labels[records.ANONYMOUS_LABEL] = ""
            driver = options.get("DriverConfig", {})
            if volumes.add(connection, point["Name"], driver.get("Options") or {}, labels):
                new.append(point["Name"])
            connection.execute(
                "INSERT OR IGNORE INTO volume_use (volume, container_id) VALUES (?, ?)",
                (point["Name"], container_id),
            )
    if engine.settings.say:
        for name in new:
            volume = engine.volumes.find(name)
            engine.settings.tell(telling.of_record, volume)
            engine.settings.tell(telling.of_directory, volume)
    populate(engine, container_id, own)


def attach(
    engine: "Engine",
    container: "Container",
    user: "User",
    held: "ExitStack",
    apart: "UserNamespace | None" = None,
) -> dict[str, Source]:
    """Take a container's mounts in hand before it starts.

    Args:
        engine: where it is recorded.
        container: the container.
        user: whom its program runs as, for mounts that map ids.
        held: takes what is to be let go of when the container has ended, or could not be started.
        apart: the user namespace that it has, if its ids are not the host's.

    Returns:
        Where mounts come from that do not lie at a path that was asked for, by destination.

    Raises:
        InvalidArgumentError: a source is gone, or a subpath leads nowhere.
    """
    points: list[MountPoint] = container.record.get("Mounts", [])
    if not points:
        return {}
    check_sources(point["Spec"] for point in points)
    prepare_sources(point["Spec"] for point in points)
    named = [point for point in points if point["Type"] == "volume"]
    _relabel(points)
    if named:
        held.callback(uses.detach, engine.settings, engine.store, container.id)
        _mount_volumes(engine, container.id, named)
        if apart is not None and apart.mapping is None:
            _hand_over_empty(engine, named, apart)
    found: dict[str, Source] = {}
    for number, point in enumerate(points):
        source = None
        if point["Type"] == "volume":
            source = Source(point["Source"])
            if part := sources.subpath(point):
                shown = f"{part} of volume {point['Name']}"
                source = _hold(sources.part_of_volume(point), held, shown)
            source.mapped = apart is not None and apart.mapping is not None
        elif point["Type"] == "image":
            user_namespace = apart.mapping if apart else None
            directory = sources.image_directory(engine, container, number, point)
            snapshotter = engine.images.snapshotter
            tree = sources.of_image(snapshotter, directory, point, user_namespace)
            source = _hold(tree, held, f"image {point['Spec'].get('Source') or point['Source']}")
        elif size_bytes := point["Spec"].get("BindOptions", {}).get("CopyOnWrite"):
            source = _copied(engine, container, number, size_bytes, held, apart)
        section = point["Spec"].get("BindOptions") or point["Spec"].get("VolumeOptions") or {}
        if "U" in point["Mode"].split(",") or section.get("Chown"):
            _give(point, source.path if source else point["Source"], user, apart)
        if id_map := section.get("IdMap"):
            source = source or Source(point["Source"])
            source.uids, source.gids = _id_maps(str(id_map), source.path, user, apart)
            source.mapped = apart is not None
        if source is not None:
            found[point["Destination"]] = source
    return found


def _copied(
    engine: "Engine", container: "Container", number: int, size_bytes: int, held: "ExitStack",
    apart: "UserNamespace | None",
) -> Source:  # fmt: skip
    """A directory of the host that the container changes for itself."""
    from ketch.engine.volumes import copy_on_write  # noqa: PLC0415 - wanted by few

    path = container.record["Mounts"][number]["Source"]
    tree, kept = copy_on_write.over(
        engine.images.snapshotter, engine.settings.container_directory(container.id), number,
        path, size_bytes, apart.mapping if apart else None,
    )  # fmt: skip
    source = _hold(tree, held, path)
    source.beside = (copy_on_write.place(number), _hold(kept, held, f"changes to {path}"))
    return source


def _give(point: "MountPoint", source: str, user: "User", apart: "UserNamespace | None") -> None:
    """Give what is mounted to the container's user: ``U`` of ``-v`` and ``--mount``, podman's."""
    from ketch.linux.chowntree import chown_tree  # noqa: PLC0415 - wanted by few

    uid, gid = user.uid, user.gid
    if apart is not None and (apart.mapping is None or point["Type"] == "bind"):
        uid, gid = apart.uids.outside(uid), apart.gids.outside(gid)
    place = os.path.realpath(point["Source"])
    if place in _NOBODYS or place == os.path.realpath(os.environ.get("HOME") or "/root"):
        raise InvalidArgumentError(
            f'chowning host path "{place}" is not allowed', f"do it by hand: chown -R {uid}:{gid}"
        )
    try:
        with owned(os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            chown_tree(top, uid, gid)
    except NotADirectoryError:
        with owned(os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            owners.give(contested.path(file), uid, gid)
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{source}: cannot be given to {uid}:{gid}, as U asks for: "
            f"{os.strerror(error.errno or 0).lower()}",
            "some of it is another user's; leave U out",
        ) from error


def _hand_over_empty(
    engine: "Engine", points: "Sequence[MountPoint]", apart: "UserNamespace"
) -> None:
    """Give volumes without content to a container's root, where it has not their owner's id.

    What is filled from the image has ids of the container's, and a mount that maps ids shows root's
    as such. Here nobody inside could write to them.
    """
    for point in points:
        if engine.volumes.find(point["Name"]).options:
            continue  # a directory of somebody's choice
        with owned(os.open(point["Source"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as top:
            if apart.uids.inside(os.fstat(top).st_uid) != OVERFLOW_ID or os.listdir(top):
                continue
            os.fchown(top, apart.uids.first_outside(), apart.gids.first_outside())


def _relabel(points: "Sequence[MountPoint]") -> None:
    asked = [point for point in points if {"z", "Z"} & set(point["Mode"].split(","))]
    if asked and selinux.is_active():
        for point in asked:
            selinux.relabel(point["Source"])


def _mount_volumes(engine: "Engine", container_id: str, points: "Sequence[MountPoint]") -> None:
    """Have volumes in place, and on record that the container has them mounted."""
    names = sorted({point["Name"] for point in points})
    with ExitStack() as locks:
        # In one order, so that no two starts wait for each other. Nobody fills one meanwhile.
        for name in names:
            locks.enter_context(mounts.locked_name(engine.settings, name))
        with engine.store.transaction() as connection:
            for point in points:
                # A volume can only be missing here where its data was removed by hand.
                volumes.add(connection, point["Name"], {}, {})
                connection.execute(
                    "INSERT OR REPLACE INTO volume_use (volume, container_id, mounted)"
                    " VALUES (?, ?, 1)",
                    (point["Name"], container_id),
                )
                attributes = {
                    "container": container_id, "destination": point["Destination"],
                    "driver": point.get("Driver", volumes.LOCAL), "propagation": "",
                    "read/write": "true" if point["RW"] else "false",
                }  # fmt: skip
                events.record(connection, "volume", "mount", point["Name"], attributes)
        for name in names:
            mounts.mount_(engine.settings, engine.volumes.find(name))


def _hold(tree: int, held: "ExitStack", shown: str) -> Source:
    held.callback(os.close, tree)
    return Source(f"/proc/self/fd/{tree}", shown=shown)


# What no container is to own: podman's pkg/util, ``DangerousHostPath``.
_NOBODYS = {
    "/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib",
    "/lib64", "/media", "/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr",
    "/var", "/var/lib", "/var/log",
}  # fmt: skip
_IDS = (1 << 32) - 1


def _id_maps(
    text: str, source: str, user: "User", apart: "UserNamespace | None"
) -> "tuple[list[IdMapping], list[IdMapping]]":
    """How ids on the disk appear on the machine, for users and groups; empty where they stay."""
    ranges = mount_flag.id_map(text)
    uids, gids = (apart.uids, apart.gids) if apart is not None else (None, None)
    if ranges is not None:
        return [*_asked(ranges["uids"], uids)], [*_asked(ranges["gids"], gids)]
    owner = os.stat(source)
    if (owner.st_uid, owner.st_gid) == (user.uid, user.gid):
        return [], []
    maps = _swapped(owner.st_uid, user.uid), _swapped(owner.st_gid, user.gid)
    if apart is None:
        return list(maps[0]), list(maps[1])
    return list(apart.uids.composed(maps[0])), list(apart.gids.composed(maps[1]))


def _asked(
    ranges: "Iterable[tuple[int, int, int, bool]]", own: "IdMap | None"
) -> "Iterator[IdMapping]":
    """The ranges of ``idmap=``, by the machine's ids."""
    for on_disk, seen, count, is_relative in ranges:
        asked: IdMapping = {"containerID": on_disk, "hostID": seen, "size": count}
        if own is None or not is_relative:
            yield asked
            continue
        found = list(own.composed([asked]))
        if sum(one["size"] for one in found) != count:
            raise InvalidArgumentError(
                f"idmap: the container does not have the ids from {seen} to {seen + count - 1}",
                "leave out the @ to name ids of the machine",
            )
        yield from found


def _swapped(outside: int, inside: int) -> "Iterator[IdMapping]":
    """One id on the disk appears as another; the others stay, but for those two.

    Whoever has the first id inside gets no id on the disk: were the two exchanged, it would write
    files of the second's there, which is mostly root.
    """
    low, high = sorted((outside, inside))
    yield {"containerID": outside, "hostID": inside, "size": 1}
    for first, last in ((0, low), (low + 1, high), (high + 1, _IDS)):
        if last > first:
            yield {"containerID": first, "hostID": first, "size": last - first}


def check_sources(requested: "Iterable[Mount]") -> None:
    """Checks, before anything is made, that the sources exist which are not made when missing.

    Raises:
        InvalidArgumentError: one does not.
    """
    for asked in requested:
        made = asked.get("BindOptions", {}).get("CreateMountpoint", False)
        if asked["Type"] == "bind" and not made and not os.path.lexists(asked["Source"]):
            raise InvalidArgumentError(
                f"invalid mount config for type {quoted('bind')}: "
                f"bind source path does not exist: {asked['Source']}",
                "make it, or use -v, which makes a missing directory",
            )


def prepare_sources(requested: "Iterable[Mount]") -> None:
    """Makes missing directories, and checks that the propagation asked for is possible.

    Raises:
        InvalidArgumentError: a source cannot be made, or lies on a mount whose propagation does
            not allow what was asked for.
    """
    for asked in requested:
        if asked["Type"] != "bind":
            continue
        options = asked.get("BindOptions", {})
        if options.get("CreateMountpoint"):
            try:
                if not os.path.lexists(asked["Source"]):
                    os.makedirs(asked["Source"], 0o755, exist_ok=True)
            except OSError as error:
                raise InvalidArgumentError(
                    f"error while creating mount source path '{asked['Source']}': "
                    f"mkdir {error.filename}: {(error.strerror or '').lower()}"
                ) from error
        propagation = options.get("Propagation", "").removeprefix("r")
        if propagation in {"shared", "slave"}:
            _check_propagation(asked["Source"], propagation)


def _check_propagation(source: str, propagation: str) -> None:
    point, tags = _mount_of(os.path.realpath(source))
    allowed = ("shared:",) if propagation == "shared" else ("shared:", "master:")
    if not any(tag.startswith(allowed) for tag in tags):
        wanted = "a shared mount" if propagation == "shared" else "a shared or slave mount"
        raise InvalidArgumentError(
            f"path {source} is mounted on {point} but it is not {wanted}",
            f"mount --make-shared {point}",
        )


def _mount_of(path: str) -> tuple[str, list[str]]:
    """The mount point that a path lies on, and its optional fields: proc_pid_mountinfo(5)."""
    best, tags = "", []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mountinfo:
        for line in mountinfo:
            fields = line.split()
            point = procfs.unescape(fields[4])
            covers = path == point or path.startswith(f"{point.rstrip('/')}/")
            # A later mount at the same place lies on top of the earlier one.
            if covers and len(point) >= len(best):
                best, tags = point, fields[6 : fields.index("-")]
    return best, tags
