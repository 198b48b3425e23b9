"""``exec``: another process in a container that runs."""

import os

from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, StartError
from ketch.linux import process as processes
from ketch.linux.scopes import owned
from ketch.runtime import enter
from ketch.runtime.cli import handover, seal
from ketch.runtime.process import ProcessSetup
from ketch.runtime.state import CREATING, PAUSED, STOPPED, Record, States
from ketch.runtime.validate import validate_process
from ketch.spec import json_text
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cgroups import Manager
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.runtime.create import Container
    from ketch.spec.runtime import Config, Process


def exec_(settings: "Settings", options: "Parsed") -> int:
    """Run another process in a container, in the foreground unless detached."""
    seal.ensure()
    states = States(settings.root)
    record = states.find(options.arguments[0])
    status = states.status(record)
    if status in {STOPPED, CREATING}:
        raise ConflictError("cannot exec in a stopped container")
    if status == PAUSED and not options.enabled("ignore-paused"):
        raise ConflictError("cannot exec in a paused container (use --ignore-paused to override)")
    config = states.config(record)
    process = _process(options, config)
    detached = options.enabled("detach")
    handover.check_terminal(options, terminal=process.get("terminal", False), detached=detached)
    preserved = handover.preserved(options, process.setdefault("env", []))
    section = config.get("linux", {}).get("seccomp")
    filter_ = handover.prepare_filter(settings, section) if section else None
    setup = ProcessSetup(process, filter_)
    settings.log.tell("nsexec container setup")
    entered = _enter(settings, options, record, config, setup, preserved)
    settings.log.tell("child process in init()", "setns_init: about to exec")
    for warning in setup.warnings:  # known now: a user namespace has all capabilities
        settings.log.warning(warning)
    foreground = None
    try:
        handover.hand_over(options, entered)
        if not detached:
            from ketch.runtime.cli.foreground import Foreground  # noqa: PLC0415

            foreground = Foreground(entered, adopt=False)
        entered.start()
    except BaseException:
        if foreground:
            foreground.restore()
        entered.abandon()
        raise
    return foreground.run() if foreground else 0


def _enter(
    settings: "Settings",
    options: "Parsed",
    record: Record,
    config: "Config",
    setup: ProcessSetup,
    preserved: int,
) -> "Container":
    cgroup = _cgroup(record, options)
    with owned(processes.pidfd_open(record.pid)) as pidfd:
        try:
            if not record.is_alive():
                raise ConflictError("cannot exec in a stopped container")
            return enter.enter(
                record.pid,
                pidfd,
                setup.specification,
                setup,
                cgroup,  # type: ignore[arg-type] # of a manager only the ways in are used
                (0, 1, 2),
                config=config,
                container_id=record.id,
                bundle=record.bundle,
                preserved=preserved,
                explain=handover.explainer(settings, options),
            )
        except StartError as error:
            raise handover.in_callers_words(error) from error


def _process(options: "Parsed", config: "Config") -> "Process":
    """The process that is asked for: from a file, or the container's own, changed by flags."""
    if path := options.text("process"):
        with open(path, "rb") as file:
            text = file.read()
        try:
            document = json_text.loads(text)
        except ValueError as error:
            raise InvalidArgumentError(f"--process {path}: {error}") from error
        process = validate_process(document)
        _inherit(process, config["process"])
    else:
        process = config["process"]
        process["args"] = options.arguments[1:]
        if not process["args"]:
            raise InvalidArgumentError("process args cannot be empty", "give a command")
        _change(process, options)
        validate_process(process)
    return process


def _inherit(process: "Process", own: "Process") -> None:
    """Give a process from a file the container's privileges and limits where it says nothing."""
    for name in ("capabilities", "rlimits", "apparmorProfile", "selinuxLabel"):
        if not process.get(name) and name in own:
            process[name] = own[name]


def _change(process: "Process", options: "Parsed") -> None:
    if options.text("cwd"):
        process["cwd"] = options.text("cwd")
    if options.text("apparmor"):
        process["apparmorProfile"] = options.text("apparmor")
    if options.text("process-label"):
        process["selinuxLabel"] = options.text("process-label")
    process["env"] = [*process.get("env", []), *options.items("env")]
    # Without -t none, whatever the container's own process has.
    process["terminal"] = options.enabled("tty")
    if "no-new-privs" in options.given:
        process["noNewPrivileges"] = options.enabled("no-new-privs")
    process.pop("consoleSize", None)
    if caps := options.items("cap"):
        sets: Any = process.setdefault("capabilities", {})
        # Ambient ones must be inheritable, which this flag makes none.
        for name in ("bounding", "effective", "permitted", *(
            ("ambient",) if sets.get("inheritable") else ()
        )):  # fmt: skip
            sets[name] = [*sets.get(name, ()), *caps]
    user: Any = process.setdefault("user", {"uid": 0, "gid": 0})
    if text := options.text("user"):
        uid, colon, gid = text.partition(":")
        user["uid"] = _id(uid, "uid")
        if colon:
            user["gid"] = _id(gid, "gid")
    if groups := options.items("additional-gids"):
        user["additionalGids"] = [
            *user.get("additionalGids", ()), *(_id(text, "gid") for text in groups)
        ]  # fmt: skip


def _id(text: str, kind: str) -> int:
    number = decimal(text)
    if number is None:
        raise InvalidArgumentError(f"parsing {text} as int for {kind} failed", "give a number")
    return number


def _cgroup(record: Record, options: "Parsed") -> "Manager | _SubCgroups":
    cgroup = record.manager()
    if cgroup is None:
        return _SubCgroups({}, "")
    if not (asked := options.items("cgroup")):
        return cgroup
    paths = cgroup.paths()
    chosen = dict(paths)
    for text in asked:
        names, colon, path = text.rpartition(":")
        for name in names.split(",") if colon else list(paths):
            if name not in paths:
                raise InvalidArgumentError(f"--cgroup {text}: there is no {name} controller here")
            directory = os.path.normpath(f"{paths[name]}/{path}")
            if not f"{directory}/".startswith(f"{paths[name]}/"):
                raise InvalidArgumentError(f"--cgroup {text}: leads out of the container's cgroup")
            if not os.path.isdir(directory):
                raise NotFoundError(f"--cgroup {text}: {directory} does not exist")
            chosen[name] = directory
    return _SubCgroups(chosen, paths.get("", ""))


class _SubCgroups:
    """Cgroups below the container's own, to be entered as a Manager's is.

    Args:
        directories: by controller; the v2 hierarchy's under the empty name.
        unified: the container's own v2 directory, empty where there is none.
    """

    __slots__ = ("_directories", "_unified")

    def __init__(self, directories: dict[str, str], unified: str) -> None:
        self._unified = directories.get("", "") if unified else ""
        # Controllers of v2 are reached by its directory.
        self._directories = sorted(
            {path for path in directories.values() if not unified or not _within(path, unified)}
        )

    def descriptor(self, *, near: int | None = None) -> int | None:  # noqa: ARG002 as a manager's
        """As ``Manager.descriptor``."""
        if not self._unified:
            return None
        return os.open(self._unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def adopt(self, pid: int) -> None:
        """As ``Manager.adopt``."""

    def entrances(self) -> list[int]:
        """As ``Manager.entrances``."""
        return [os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in self._directories]


def _within(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory}/")
