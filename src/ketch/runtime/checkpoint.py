"""A running container saved to files, and made to run again from them, by criu(8).

Two files beside criu's own tell what was outside of the container::

    IMAGES/descriptors.json  where init's standard streams led, as runc writes it
    IMAGES/ketch.json        which open files were the null device

Source: https://criu.org, runc's docs/checkpoint-restore.md.
"""

import os

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.linux import process
from ketch.linux.namespaces import CLONE_NEWNET
from ketch.runtime import null_device, outside
from ketch.runtime.create import Container
from ketch.runtime.criu import Criu
from ketch.runtime.handshake import Channel
from ketch.spec import criu, json_text
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ketch.cgroups import Manager
    from ketch.spec.runtime import Config
    from ketch.spec.told import Say

_STREAMS = "descriptors.json"
_FACTS = "ketch.json"
_CONFIGURATION = "/etc/criu/runc.conf"
_CONFIGURATION_ANNOTATION = "org.criu.config"
_VERBOSE = 4


class Options:
    """What is asked of criu; the names are those of runc's flags.

    Attributes:
        image_path: directory of criu's images.
        program: criu's name or path.
        work_path: directory of its logs and work files; empty for the images' own.
        parent_path: of the images of an earlier pre-dump, relative to ``image_path``.
        page_server: address and port to send memory to, or None.
        status_fd: descriptor to tell once lazy pages are ready, or -1.
        manage_cgroups_mode: a name of ``ketch.spec.criu.CGROUP_MODES``.
        flags: names of criu's own options that are on: ``leave_running``, ``tcp_established``,
            ``ext_unix_sk``, ``shell_job``, ``file_locks``, ``auto_dedup``, ``lazy_pages``,
            ``tcp_skip_in_flight``, ``link_remap``.
        pre_dump: whether to save memory alone and let the container run on.
        lsm_profile: security profile of restored processes, ``TYPE:NAME``.
        lsm_mount_context: security context of restored mounts.
    """

    __slots__ = (
        "flags", "image_path", "lsm_mount_context", "lsm_profile", "manage_cgroups_mode",
        "page_server", "parent_path", "pre_dump", "program", "status_fd", "work_path",
    )  # fmt: skip

    def __init__(self, image_path: str, *, program: str = "criu") -> None:
        self.image_path = image_path
        self.program = program
        self.work_path = self.parent_path = self.lsm_profile = self.lsm_mount_context = ""
        self.page_server: tuple[str, int] | None = None
        self.status_fd = -1
        self.manage_cgroups_mode = ""
        self.flags: set[str] = set()
        self.pre_dump = False

    def told(self, log: str, config: "Config") -> "dict[str, Any]":
        """What criu is told in both directions.

        Args:
            log: name of its log.
            config: the container's configuration, which may name a file of criu's settings.

        Raises:
            InvalidArgumentError: a value is wrong.
        """
        if self.manage_cgroups_mode not in criu.CGROUP_MODES:
            raise InvalidArgumentError(
                "invalid manage-cgroups-mode value", "say soft, full, strict or ignore"
            )
        told: dict[str, Any] = {
            "log_level": _VERBOSE,
            "log_file": log,
            "notify_scripts": True,
            "manage_cgroups": True,
            "manage_cgroups_mode": criu.CGROUP_MODES[self.manage_cgroups_mode],
            "orphan_pts_master": True,
            "ext_masters": True,
            # Interfaces and addresses are made again by whoever made them.
            "empty_ns": CLONE_NEWNET,
            **dict.fromkeys(self.flags, True),
        }
        for name in ("lsm_profile", "lsm_mount_context"):
            if value := getattr(self, name):
                told[name] = value
        annotated = config.get("annotations", {}).get(_CONFIGURATION_ANNOTATION)
        if annotated != "":
            told["config_file"] = annotated or _CONFIGURATION
        return told


def describe(options: Options, told: "Mapping[str, Any]") -> Told:
    """What criu is asked to save, to be told; by hand it has flags for most of that."""
    pid, images, work = told["pid"], options.image_path, options.work_path or options.image_path
    values = [("process", pid), ("images", images), ("log", f"{work}/{told['log_file']}")]
    words = ["criu", "pre-dump" if options.pre_dump else "dump", "--tree", str(pid)]
    words += ["--images-dir", images, "--work-dir", work, "--root", told["root"]]
    words += ["--log-file", told["log_file"], "-v4", "--manage-cgroups", "--empty-ns", "net"]
    words += ["--ext-mount-map", "auto", "--enable-external-sharing", "--orphan-pts-master"]
    for flag in sorted(options.flags):
        words.append(_FLAGS.get(flag, f"--{flag.replace('_', '-')}"))
    if "freeze_cgroup" in told:
        values.append(("frozen-by", told["freeze_cgroup"]))
        words += ["--freeze-cgroup", told["freeze_cgroup"]]
    for one in told["external"]:
        values.append(("external", one))
        words += ["--external", one]
    for one in told.get("ext_mnt", ()):
        values.append(("external-mount", one["key"]))
        words += ["--external", f"mnt[{one['key']}]:{one['val']}"]
    stays = "they run on" if "leave_running" in options.flags else "they end with that"
    return Told("program", f"save the processes, {stays} · criu(8), ptrace(2)", values,
                outside=[" ".join(map(quote, words))])  # fmt: skip


_FLAGS = {"leave_running": "--leave-running", "ext_unix_sk": "--ext-unix-sk"}


def checkpoint(
    config: "Config",
    pid: int,
    rootfs: str,
    cgroup: "Manager | None",
    options: Options,
    say: "Say | None" = None,
) -> None:
    """Save a running container; unless it is to run on, its processes have ended then.

    Args:
        config: its configuration.
        pid: its init.
        rootfs: absolute path of its root filesystem.
        cgroup: its control groups.
        options: what is asked for.
        say: takes what is told of the step, when it begins.

    Raises:
        UnavailableError: criu is not there, or failed; the container runs on.
    """
    told = options.told("dump.log", config)
    _require(options)
    for directory in (options.image_path, options.work_path):
        if directory:
            os.makedirs(directory, 0o700, exist_ok=True)
    told |= {"pid": pid, "root": rootfs, "external": outside.left_alone(config)}
    if cgroup is not None:
        paths = cgroup.paths()
        told["freeze_cgroup"] = paths.get("freezer") or paths[""]
    if options.page_server:
        told["ps"] = dict(zip(("address", "port"), options.page_server, strict=True))
    if options.parent_path:
        told |= {"parent_img": options.parent_path, "track_mem": True}
    if not options.pre_dump:
        files = outside.Files(pid, cgroup.processes() if cgroup else [])
        told["external"] += files.external()
        told["ext_mnt"] = [
            {"key": path, "val": path} for path, _ in outside.mounts(config, rootfs, cgroup)
        ]
        told["ext_mnt"] += [
            {"key": path, "val": outside.COVER} for path in outside.covers(config, pid)
        ]
        _write(f"{options.image_path}/{_STREAMS}", files.streams)
        _write(f"{options.image_path}/{_FACTS}", {"null": files.nulls})

    def notified(script: str, _pid: int, descriptor: int | None) -> None:
        if descriptor is not None:
            os.close(descriptor)
        if script == "status-ready" and options.status_fd >= 0:
            os.write(options.status_fd, b"\0")
            os.close(options.status_fd)
            options.status_fd = -1

    run = Criu(options.program, images=options.image_path, work=options.work_path)
    if say is not None:
        say(describe(options, told))
    _ask(options, run, criu.PRE_DUMP if options.pre_dump else criu.DUMP, told, notified)


def is_saved(image_path: str) -> bool:
    """Whether a container was saved in a directory; it is none where a link leads to one."""
    return not os.path.islink(image_path) and os.path.isfile(f"{image_path}/{_STREAMS}")


def _require(options: Options) -> None:
    """Make sure that criu and kernel have what is asked for beyond the usual."""
    wanted = {"mem_track": options.pre_dump, "lazy_pages": "lazy_pages" in options.flags}
    wanted = {name: True for name, asked in wanted.items() if asked}
    if not wanted:
        return
    with Criu(options.program) as run:
        answer = run.ask({"type": criu.FEATURE_CHECK, "features": wanted})
    if missing := [name for name in wanted if not answer.get("features", {}).get(name)]:
        raise UnavailableError(f"criu is missing features: {', '.join(missing)}")


def restore(
    config: "Config",
    rootfs: str,
    cgroup: "Manager | None",
    options: Options,
    place: str,
    *,
    serve: "Callable[[int], None]",
    streams: tuple[int, int, int] = (0, 1, 2),
    trees: "Mapping[str, int] | None" = None,
    sibling: bool = False,
) -> Container:
    """Make a container run again from what was saved.

    Args:
        config: its configuration.
        rootfs: absolute path of its root filesystem.
        cgroup: its control groups, made and limited.
        options: what is asked for.
        place: a directory of the host to cover with mounts that criu alone sees.
        serve: what to do once its namespaces are there, given init's pid.
        streams: descriptors to be its standard streams, where those were pipes or files.
        trees: detached mounts that are moved to where criu finds them, by the paths that
            ``rootfs`` or sources of binds name them with.
        sibling: whether the container becomes a child of the caller's parent; then that has also
            to reap ``Container.between``.

    Returns:
        The container, running; a child of the caller, or its sibling.

    Raises:
        UnavailableError: criu is not there, or failed.
    """
    told = options.told("restore.log", config)
    told |= {"root": f"{place}/root", "rst_sibling": True, "evasive_devices": True}
    moved = outside.places(trees or {}, place)
    sources = dict(outside.mounts(config, rootfs, cgroup)) | {outside.COVER: f"{place}/null"}
    told["ext_mnt"] = [
        {"key": path, "val": moved.get(source, source)} for path, source in sources.items()
    ]
    if options.work_path:
        os.makedirs(options.work_path, 0o700, exist_ok=True)
    told["join_ns"], given = outside.rejoined(config)
    null = null_device.open_unchangeable()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) if null < 0 else null
    nulls, masters = [null], list[int]()

    def notified(script: str, pid: int, descriptor: int | None) -> None:
        if descriptor is not None:
            masters.append(descriptor)
        if script == "setup-namespaces":
            serve(pid)

    try:
        told["inherit_fd"] = [{"key": key, "fd": number} for key, number in given.items()]
        inherited = _inherited(options.image_path, null)
        for each in [each for each in inherited if each["fd"] == null][1:]:
            each["fd"] = os.dup(null)  # criu closes each that it has taken
            nulls.append(each["fd"])
        told["inherit_fd"] += inherited
        run = Criu(
            options.program,
            images=options.image_path,
            work=options.work_path,
            streams=streams,
            inherited=(*nulls, *given.values()),
            cgroup=cgroup,
            prepare=lambda: outside.lay_out(config, rootfs, place, trees or {}),
            sibling=sibling,
        )
        if cgroup is not None:
            told["cg_root"] = _cgroups_of(run.pid)
        answer = _ask(options, run, criu.RESTORE, told, notified)
        container = _adopt(answer["restore"]["pid"], masters)
        container.between = run.pid if sibling else 0
        return container
    finally:
        for descriptor in (*nulls, *given.values(), *masters):
            os.close(descriptor)


def _adopt(pid: int, masters: list[int]) -> Container:
    """The restored init as a container; it has nothing to say to us any more."""
    ours, theirs = Channel.pair()
    theirs.close()
    container = Container(pid, process.pidfd_open(pid), ours)
    if masters:
        container.console = masters.pop(0)
    return container


def _ask(
    options: Options,
    run: Criu,
    kind: int,
    told: "dict[str, Any]",
    notified: "Callable[[str, int, int | None], None]",
) -> "dict[str, Any]":
    """Ask criu; where it fails, say what it logged as the reason."""
    with run:
        try:
            return run.ask({"type": kind, "opts": told | run.directories}, notified)
        except UnavailableError as error:
            path = f"{options.work_path or options.image_path}/{told['log_file']}"
            reason = _logged_error(path)
            raise UnavailableError(
                f"{error.message}: {reason}" if reason else error.message,
                f"criu's log tells more: {path}",
            ) from error


def _logged_error(path: str) -> str:
    """What a log of criu's says went wrong; the last of its errors is always that all failed."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            errors = [line.partition("Error ")[2].strip() for line in file if "Error " in line]
    except OSError:
        return ""
    return (errors[-2:] or [""])[0]


def _inherited(image_path: str, null: int) -> "list[dict[str, Any]]":
    """The open files that criu is given in the place of those that were saved."""
    try:
        saved = _read(f"{image_path}/{_STREAMS}")
    except FileNotFoundError as error:
        raise InvalidArgumentError(
            f"{image_path} has no {_STREAMS}: no container was saved there"
        ) from error
    try:
        nulls = _read(f"{image_path}/{_FACTS}")["null"]
    except FileNotFoundError:  # saved by runc
        nulls = []
    return outside.streams(saved, nulls, null)


def _cgroups_of(pid: int) -> list[dict[str, str]]:
    """The control groups of a process, one for each controller; that of v2 has no name."""
    found = []
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            found += [{"ctrl": name, "path": path} for name in controllers.split(",")]
    return found


def _write(path: str, content: object) -> None:
    # The directory may be in a volume, where a container can have left a link to a host's file.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(json_text.dumps(content))


def _read(path: str) -> "Any":
    with open(path, "rb") as file:
        return json_text.loads(file.read())
