"""The mounts of a container's ``config.json``: every container's own, and those asked for. Pure."""

import os.path

from ketch.spec import endpoints, user_namespaces
from ketch.spec import mounts as mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ketch.engine.configuration.security import SecurityOptions
    from ketch.spec.container import HostConfig, MountPoint, Request
    from ketch.spec.container import Mount as MountRequest
    from ketch.spec.passwd import User
    from ketch.spec.runtime import IdMapping, Mount

TERMINALS = 5  # group tty, in every distribution
# A read-only root makes the other default mounts read-only as well, but not these.
_ALWAYS_WRITABLE = ("/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev")


class Files:
    """Files of the host that appear in the container under /etc.

    Args:
        hosts: path of what becomes /etc/hosts.
        hostname: likewise /etc/hostname; empty where the container has its image's.
        resolv_conf: likewise /etc/resolv.conf.
        read_only: whether they cannot be written to.
    """

    __slots__ = ("hostname", "hosts", "read_only", "resolv_conf")

    def __init__(
        self, hosts: str, hostname: str, resolv_conf: str, *, read_only: bool = False
    ) -> None:
        self.hosts = hosts
        self.hostname = hostname
        self.resolv_conf = resolv_conf
        self.read_only = read_only


class Source:
    """Where what is mounted comes from, as a start has found it.

    Args:
        path: a path, or ``/proc/self/fd/N`` for a tree that the caller holds open.
        shown: what such a tree is, in words.
        uids: how user ids on the disk appear inside; empty to leave them.
        gids: likewise group ids.
        mapped: whether they appear as ids of the container's user namespace, one for one.

    Attributes:
        beside: what is mounted read-only besides, where and from where; None for nothing.
    """

    __slots__ = ("beside", "gids", "mapped", "path", "shown", "uids")

    def __init__(
        self,
        path: str,
        uids: "list[IdMapping] | None" = None,
        gids: "list[IdMapping] | None" = None,
        *,
        mapped: bool = False,
        shown: str = "",
    ) -> None:
        self.path = path
        self.shown = shown
        self.uids = uids or []
        self.gids = gids or []
        self.mapped = mapped
        self.beside: tuple[str, Source] | None = None


def points(request: "Request") -> "list[MountPoint]":
    """Returns the mounts that a recorded container has, or that a request asks for."""
    if "Mounts" in request:
        return request["Mounts"]
    return mount_options.of_container(request["HostConfig"], request["Config"].get("Volumes") or {})


def build(
    request: "Request",
    files: Files,
    security: "SecurityOptions",
    sources: "Mapping[str, Source]",
    *,
    user: "User",
    elsewhere: "Sequence[str]" = (),
    maps_ids: bool = True,
    last_group: int = TERMINALS,
) -> "list[Mount]":
    """Returns the runtime's ``mounts``, in the order in which they must be made.

    Args:
        request: a whole configuration.
        files: what to mount under /etc.
        security: what its security options come to.
        sources: where mounts come from that do not lie at a path that the request names, by
            destination: volumes, images, and /dev/shm where another container's is shared.
        user: whom the program runs as, and whose a tmpfs is that is given to it.
        elsewhere: which of sysfs, proc and mqueue show a namespace that is not the user's to mount
            them for: the container sees the host's.
        last_group: the last of the groups that there are from 0 on.
        maps_ids: whether mounts show files with the ids of a container that has its own.
    """
    resources = request["HostConfig"]
    asked = {point["Destination"]: point["Spec"] for point in points(request)}
    for path in resources.get("Tmpfs", {}):
        asked[os.path.normpath(path)] = {"Type": "tmpfs", "Target": path}
    taken = asked.keys()
    read_only = resources.get("ReadonlyRootfs", False)
    apart = maps_ids and user_namespaces.is_apart(resources.get("UsernsMode", ""))
    defaults = _default_mounts(resources, security, elsewhere, last_group=last_group)
    memory = systemd_mounts() if request["Config"].get("SystemdMode") else []
    own = [
        mount
        for mount in [*defaults, *memory]
        if mount["destination"] not in taken
        and not ("/dev" in taken and mount["destination"].startswith("/dev/"))
    ]
    if read_only:
        for mount in own:
            if (
                mount not in memory
                and mount["destination"] not in _ALWAYS_WRITABLE
                and "ro" not in mount["options"]
            ):
                mount["options"].append("ro")
    bound = {
        "/etc/resolv.conf": files.resolv_conf,
        "/etc/hostname": files.hostname,
        "/etc/hosts": files.hosts,
    }
    if resources.get("IpcMode") == "host":
        bound["/dev/shm"] = "/dev/shm"
    shared = sources.get("/dev/shm")
    return [
        *own,
        *(
            _asked_mount(target, asked[target], resources, sources.get(target), user)
            for target in sorted(asked, key=lambda target: target.count("/"))
        ),
        *(
            _bind(path, source, read_only=read_only or files.read_only, apart=apart)
            if path != "/dev/shm"
            else _bind(path, source)
            for path, source in bound.items()
            if path not in taken and source
        ),
        *([_bind_held("/dev/shm", shared)] if shared and "/dev/shm" not in taken else []),
        *(_bind_held(*each.beside, read_only=True) for each in sources.values() if each.beside),
    ]


def systemd_mounts() -> "list[Mount]":
    """File systems in memory that systemd expects, each beginning with what the image has there.

    Podman's. They are writable whether the root is or not.
    """
    options = ("rprivate", "nosuid", "nodev", "tmpcopyup")
    return [
        {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": [*options]}
        for path in ("/run", "/run/lock", "/tmp", "/var/log/journal")
    ]


def _bind(target: str, source: str, *, read_only: bool = False, apart: bool = False) -> "Mount":
    words = ["rbind", *(["ro"] if read_only else []), "rprivate", *(["idmap"] if apart else [])]
    return {"destination": target, "type": "bind", "source": source, "options": words}


def _bind_held(target: str, source: Source, *, read_only: bool = False) -> "Mount":
    return {**_bind(target, source.path, read_only=read_only), "shown": source.shown}


def _default_mounts(
    resources: "HostConfig",
    security: "SecurityOptions",
    elsewhere: "Sequence[str]",
    *,
    last_group: int,
) -> "list[Mount]":
    """What every container has; writable, if privileged, where it would be read-only."""
    privileged = resources.get("Privileged", False)
    system = "rw" if privileged else "ro"
    chosen = security.writable_cgroups
    cgroups = "rw" if (privileged if chosen is None else chosen) else "ro"
    safe = ("nosuid", "noexec", "nodev")
    # Terminals' group is given to those who have it, as podman does.
    mode = resources.get("UsernsMode", "")
    terminals = (
        user_namespaces.has_group(mode, TERMINALS)
        if user_namespaces.is_apart(mode)
        else last_group >= TERMINALS
    )
    table: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
        ("/proc", "proc", "proc", safe),
        ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        (
            "/dev/pts", "devpts", "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620",
             *([f"gid={TERMINALS}"] if terminals else [])),
        ),
        ("/sys", "sysfs", "sysfs", (*safe, system)),
        ("/sys/fs/cgroup", "cgroup", "cgroup", (cgroups, *safe)),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
    )  # fmt: skip
    ipc = resources.get("IpcMode", "")
    if ipc not in {"none", "host"} and not endpoints.is_container(ipc):
        size = f"size={resources['ShmSize']}"
        table = (*table, ("/dev/shm", "tmpfs", "shm", (*safe, "mode=1777", size)))
    return [
        {"destination": target, "type": kind, "source": source, "options": [*options]}
        if kind not in elsewhere
        else _hosts(target, [option if option != "ro" else "rro" for option in options])
        for target, kind, source, options in table
        if kind not in elsewhere or os.path.isdir(target)  # few hosts mount mqueue
    ]


def _hosts(path: str, options: list[str]) -> "Mount":
    """What the host has mounted there, and below it."""
    options = ["rbind", "rprivate", *options]
    return {"destination": path, "type": "bind", "source": path, "options": options}


def _asked_mount(
    target: str,
    mount: "MountRequest",
    resources: "HostConfig",
    source: Source | None,
    user: "User",
) -> "Mount":
    if mount["Type"] == "tmpfs":
        return {
            "destination": target,
            "type": "tmpfs",
            "source": "tmpfs",
            "options": mount_options.tmpfs_options(_tmpfs_data(mount, resources, user)),
        }
    if source is None:
        source = Source(os.path.normpath(mount["Source"]))
    options = mount.get("BindOptions", {})
    words = ["bind" if options.get("NonRecursive") else "rbind"]
    if mount.get("ReadOnly"):
        # Docker's since 25.0: what is mounted below becomes read-only too, unless asked otherwise.
        shallow = options.get("NonRecursive") or options.get("ReadOnlyNonRecursive")
        words.append("ro" if shallow else "rro")
    words.append(options.get("Propagation") or "rprivate")
    made: Mount = {
        "destination": target,
        "type": "bind",
        "source": source.path,
        "options": words,
    }
    if source.shown:
        made["shown"] = source.shown
    if source.uids or source.mapped:
        words.append("idmap")
    if source.uids:
        made["uidMappings"], made["gidMappings"] = source.uids, source.gids
    return made


def _tmpfs_data(mount: "MountRequest", resources: "HostConfig", user: "User") -> str:
    """The options of a tmpfs, from ``--tmpfs`` or from ``--mount type=tmpfs``."""
    given = resources.get("Tmpfs", {}).get(mount["Target"])
    if given is not None:
        return given
    options = mount.get("TmpfsOptions", {})
    words = ["ro"] if mount.get("ReadOnly") else []
    if options.get("Mode"):
        words.append(f"mode={options['Mode']:o}")
    if options.get("SizeBytes"):
        words.append(f"size={options['SizeBytes']}")
    words += ["=".join(each) for each in options.get("Options") or ()]
    if options.get("Chown"):
        words += [f"uid={user.uid}", f"gid={user.gid}"]
    return ",".join(words)
