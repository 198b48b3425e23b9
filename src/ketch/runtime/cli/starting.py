"""``create`` and ``run``."""

import os

from ketch import cgroups
from ketch.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    StartError,
    UnavailableError,
)
from ketch.runtime import create as creation
from ketch.runtime import init
from ketch.runtime.cli import handover, seal
from ketch.runtime.cli.handover import listen, run_poststart
from ketch.runtime.plan import Plan
from ketch.runtime.process import ProcessSetup
from ketch.runtime.state import Entry, Record, States, remove_cgroup
from ketch.runtime.validate import validate
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups import Layout, Manager
    from ketch.runtime.cli.grammar import Parsed
    from ketch.runtime.cli.main import Settings
    from ketch.spec.runtime import Config, Resources


def create(settings: "Settings", options: "Parsed") -> int:
    """Make a container up to the moment before its program runs."""
    seal.ensure()
    made = Making(settings, options, detached=True)
    container = made.make(waits_for_start=True)
    container.close()
    made.entry.close()
    return 0


def run(settings: "Settings", options: "Parsed") -> int:
    """Make a container and run its program, in the foreground unless detached."""
    seal.ensure()
    made = Making(settings, options, detached=options.enabled("detach"))
    return stay(settings, options, made, made.make(waits_for_start=False))


def stay(
    settings: "Settings",
    options: "Parsed",
    made: "Making",
    container: creation.Container,
    *,
    restored: bool = False,
) -> int:
    """Start a container that was made, and stay with it unless detached.

    Args:
        settings: what stands before the command.
        options: the command's.
        made: its creation.
        container: what came of it.
        restored: whether it runs already.

    Returns:
        The program's exit status; 0 when detached.
    """
    listener = listen(made.entry)
    foreground = None
    if not options.enabled("detach"):
        from ketch.runtime.cli.foreground import Foreground  # noqa: PLC0415 not for create

        adopt = not options.enabled("no-subreaper")
        foreground = Foreground(container, adopt=adopt, listener=listener)
    try:
        if not restored:
            container.start()
            run_poststart(settings, made.config, made.record)
    except BaseException:
        if foreground:
            foreground.restore()
        container.abandon()
        made.destroy(made.entry)
        raise
    made.entry.close()
    if foreground is None:
        if listener is not None:
            listener.wait(container.pid, container.pidfd)
        container.close()
        return 0
    status = foreground.run()
    if not options.enabled("keep"):
        # Somebody may have deleted it meanwhile.
        try:
            with States(settings.root).lock(made.record.id) as entry:
                made.destroy(entry)
        except NotFoundError:
            return status
    return status


def load(bundle: str) -> "tuple[Config, bytes]":
    """Read and check a bundle's configuration; give it parsed, and as text.

    Raises:
        InvalidArgumentError: there is no bundle, or a fault in it.
    """
    try:
        with open(f"{bundle}/config.json", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        if not os.path.isdir(bundle):
            raise InvalidArgumentError(f"chdir {bundle}: no such file or directory") from None
        raise InvalidArgumentError(
            "JSON specification file config.json not found",
            f"make {bundle} a bundle: ketch-oci spec",
        ) from None
    try:
        document = json_text.loads(text)
    except ValueError as error:
        raise InvalidArgumentError(f"{bundle}/config.json: {error}") from error
    return validate(document), text


class Making:
    """One container's creation: what is decided first, and then done.

    Attributes:
        config: the configuration.
        record: what is stored.
        entry: the container's directory, locked.
    """

    __slots__ = ("_detached", "_options", "_preserved", "_settings", "_text", "config", "entry",
                 "record")  # fmt: skip

    entry: Entry

    def __init__(self, settings: "Settings", options: "Parsed", *, detached: bool) -> None:
        self._settings = settings
        self._options = options
        self._detached = detached
        bundle = os.path.abspath(options.text("bundle") or ".")
        self.config, self._text = load(bundle)
        process = self.config.get("process")
        if process is None:
            raise InvalidArgumentError("process property must not be empty")
        terminal = process.get("terminal", False)
        handover.check_terminal(options, terminal=terminal, detached=detached)
        self._preserved = handover.preserved(options, process.setdefault("env", []))
        self.record = Record(options.arguments[0], bundle, self.config)

    def make(self, *, waits_for_start: bool) -> creation.Container:
        """Make it, and hand over what the caller wants of it.

        Args:
            waits_for_start: whether another process will start it, by its fifo.
        """
        self.entry = States(self._settings.root).create(self.record.id)
        try:
            self.entry.write_config(self._text)
            if os.environ.get("NOTIFY_SOCKET"):
                from ketch.runtime.cli import notify  # noqa: PLC0415 wanted by few

                notify.show(self.config, self.entry)
            container = self._create(waits_for_start=waits_for_start)
            try:
                self.record.born(container.pid)
                handover.hand_over(self._options, container)
                self.entry.write(self.record)
            except BaseException:
                container.abandon()
                raise
        except BaseException:
            # What runs is gone; its poststop hooks free what its other hooks took.
            self.destroy(self.entry)
            raise
        return container

    def destroy(self, entry: Entry) -> None:
        """Remove all that is left of it once its init has ended."""
        from ketch.runtime.cli.removing import destroy  # noqa: PLC0415 not for create

        destroy(self._settings, entry, self.record, self.config)

    def _create(self, *, waits_for_start: bool) -> creation.Container:
        settings, config, process = self._settings, self.config, self.config["process"]
        section = config.get("linux", {}).get("seccomp")
        filter_ = handover.prepare_filter(settings, section) if section else None
        setup = ProcessSetup(process, filter_)
        cgroup = self._make_cgroup()
        fifo = self.entry.make_fifo() if waits_for_start else None
        birth = init.Birth(
            Plan(config, cgroup.layout if cgroup else _layout(), self.record.bundle),
            setup,
            self.record.bundle,
            fifo=fifo,
            preserved=self._preserved,
            explain=handover.explainer(settings, self._options),
            container_id=self.record.id,
            new_keyring=not self._options.enabled("no-new-keyring"),
            no_pivot=self._options.enabled("no-pivot"),
        )
        for warning in (
            *birth.plan.warnings,
            *setup.warnings,
        ):  # known now: a user namespace has all capabilities
            settings.log.warning(warning)
        settings.log.tell("nsexec container setup")
        try:
            created = creation.create(birth, cgroup)
        except StartError as error:
            raise handover.in_callers_words(error) from error
        finally:
            if fifo is not None:
                os.close(fifo)
        settings.log.tell("child process in init()", "init: closing the pipe to signal completion")
        return created

    def _make_cgroup(self) -> "Manager | None":
        """Make and limit the cgroup; None where a rootless caller may not and asked for none."""
        linux = self.config.get("linux", {})
        path = linux.get("cgroupsPath", "")
        if self._settings.systemd:
            cgroup = self.record.place_in_unit(path, user=self._settings.rootless)
        else:
            cgroup = self.record.place(path or self.record.id)
        self.entry.write(self.record)
        # Without rules of its own a container has the devices that every container has.
        resources: Resources = {"devices": [], **linux.get("resources", {})}
        try:
            try:
                cgroup.create()
            except (AlreadyExistsError, ConflictError):
                self.record.cgroup = ""  # somebody else's, to be left as it is
                raise
            self.record.owns_cgroup = True
            self.entry.write(self.record)
            self._limit(cgroup, resources)
        except PermissionDeniedError:
            if path or not self._settings.rootless:
                raise
            remove_cgroup(self.record)
            self.record.cgroup = ""
            return None
        return cgroup

    def _limit(self, cgroup: "Manager", resources: "Resources") -> None:
        """Limit the cgroup; device rules only as far as a rootless caller may set any."""
        try:
            cgroup.set(resources)
        except PermissionDeniedError as error:
            if not self._settings.rootless:
                raise
            del resources["devices"]
            cgroup.set(resources)
            self._settings.log.debug(f"no device rules: {error.message}")


def _layout() -> "Layout | None":
    """The machine's hierarchies, or None where a rootless caller has none to see."""
    try:
        return cgroups.detect()
    except UnavailableError:
        return None
