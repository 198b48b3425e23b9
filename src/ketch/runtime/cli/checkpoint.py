"""``checkpoint`` and ``restore``, by criu(8) where it is installed."""

import os

from ketch.errors import ConflictError, InvalidArgumentError
from ketch.linux.namespaces import KINDS
from ketch.runtime.checkpoint import Options
from ketch.runtime.checkpoint import checkpoint as save
from ketch.runtime.checkpoint import restore as bring_back
from ketch.runtime.cli import handover
from ketch.runtime.cli.removing import destroy, end
from ketch.runtime.cli.starting import Making, stay
from ketch.runtime.state import CREATED, CRIU, STOPPED, States
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.runtime.create import Container
    from ketch.spec.runtime import Config

_FLAGS = (
    "leave-running", "tcp-established", "tcp-skip-in-flight", "link-remap", "ext-unix-sk",
    "shell-job", "file-locks", "auto-dedup", "lazy-pages",
)  # fmt: skip
_EMPTY_NAMESPACES = {"network"}


def checkpoint(settings: "Settings", options: "Parsed") -> int:
    """Save a running container's processes."""
    if settings.rootless:
        settings.log.warning("runc checkpoint is untested with rootless containers")
    asked = _asked(settings, options)
    states = States(settings.root)
    with states.lock(options.arguments[0]) as entry:
        record = entry.record()
        status = states.status(record)
        if status in {CREATED, STOPPED}:
            raise ConflictError(f"Container cannot be checkpointed in {status} state")
        config = _located(states.config(record), record.bundle)
        save(config, record.pid, record.rootfs, record.manager(), asked)
        if not (asked.pre_dump or "leave_running" in asked.flags):
            end(record)
            destroy(settings, entry, record, config)
    return 0


def restore(settings: "Settings", options: "Parsed") -> int:
    """Run a container again from what was saved."""
    if settings.rootless:
        settings.log.warning("runc restore is untested with rootless containers")
    asked = _asked(settings, options)
    detached = options.enabled("detach")
    made = _Restoring(settings, options, asked, detached=detached)
    container = made.make(waits_for_start=False)
    return stay(settings, options, made, container, restored=True)


class _Restoring(Making):
    """A container's creation from what was saved."""

    __slots__ = ("_asked",)

    def __init__(
        self, settings: "Settings", options: "Parsed", asked: Options, *, detached: bool
    ) -> None:
        super().__init__(settings, options, detached=detached)
        self._asked = asked

    def _create(self, *, waits_for_start: bool) -> "Container":  # noqa: ARG002 as the other's
        cgroup = self._make_cgroup()
        config = _located(self.config, self.record.bundle)
        place = f"{self.entry.path}/{CRIU}"
        os.mkdir(place, 0o700)
        try:
            container = bring_back(
                config, self.record.rootfs, cgroup, self._asked, place, serve=self._run_hooks
            )
        finally:
            os.rmdir(place)
        if cgroup is not None:
            cgroup.settled()
        return container

    def _run_hooks(self, pid: int) -> None:
        """Run those that make the container's network, in its namespaces that are there now."""
        if not self.config.get("hooks"):
            return
        from ketch.runtime import hooks  # noqa: PLC0415 wanted by few

        told = hooks.state(self.config, self.record.id, self.record.bundle, "creating", pid)
        say = handover.log(self._settings)
        hooks.run(self.config, "prestart", told, say)
        hooks.run(self.config, "createRuntime", told, say)


def _located(config: "Config", bundle: str) -> "Config":
    """The configuration with the sources of its binds absolute."""
    for entry in config.get("mounts", []):
        if "source" in entry:
            entry["source"] = os.path.join(bundle, entry["source"])
    return config


def _asked(settings: "Settings", options: "Parsed") -> Options:
    image_path = os.path.abspath(options.text("image-path") or "checkpoint")
    asked = Options(image_path, program=settings.criu)
    asked.work_path = options.text("work-path")
    asked.manage_cgroups_mode = options.text("manage-cgroups-mode")
    asked.flags = {name.replace("-", "_") for name in _FLAGS if options.enabled(name)}
    asked.pre_dump = options.enabled("pre-dump")
    asked.lsm_profile = options.text("lsm-profile")
    asked.lsm_mount_context = options.text("lsm-mount-context")
    if text := options.text("status-fd"):
        asked.status_fd = _number(text, "status-fd")
    if text := options.text("page-server"):
        address, colon, port = text.rpartition(":")
        number = decimal(port, 5)
        if not colon or not address or number is None:
            raise InvalidArgumentError("Use --page-server ADDRESS:PORT to specify page server")
        asked.page_server = address, number
    for kind in options.items("empty-ns"):
        if kind not in _EMPTY_NAMESPACES & KINDS.keys():
            raise InvalidArgumentError(f'namespace "{kind}" is not supported', "say network")
    if path := options.text("parent-path"):
        if os.path.isabs(path):
            raise InvalidArgumentError("--parent-path must be relative to --image-path")
        if not os.path.isdir(os.path.normpath(os.path.join(image_path, path))):
            raise InvalidArgumentError(f"--parent-path {path}: no such directory in {image_path}")
        asked.parent_path = path
    return asked


def _number(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgumentError(f"invalid value for --{flag}: {text}", "give a number") from None
