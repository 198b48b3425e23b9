"""The end of a container's run: what it held is released, and what it ended with is recorded.

Done by a process that the monitor forks for it, or by the one that has begun the run.
"""

import os
import select
import time
from contextlib import ExitStack, contextmanager, suppress

from ketch import cgroups
from ketch.engine import logs, mishaps
from ketch.engine.containers import releasing, restarts, unrecorded
from ketch.engine.containers.ledger import Keeper
from ketch.engine.engine import Engine
from ketch.engine.home import entering
from ketch.engine.monitor import telling
from ketch.engine.requests import wire
from ketch.engine.settings import Settings
from ketch.errors import KetchError, PermissionDeniedError, UnavailableError
from ketch.linux import process
from ketch.network import sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from ketch.engine.monitor.handover import Channel
    from ketch.engine.monitor.running import Begun
    from ketch.engine.records.rows import Container
    from ketch.spec.container import HostConfig
    from ketch.spec.told import Say, Told

    Fields = Mapping[str, wire.Value]


# How long who has begun a run stays for its end: with all that it has loaded, written and opened,
# it takes half the time that a new process takes. Meanwhile it has 8 MB that the monitor has not.
_STAY_MS = 1000


def stay(channel: "Channel", engine: Engine, begun: "Begun") -> None:
    """Finish the run that the calling process has begun, if it ends soon.

    Args:
        channel: to the monitor, which says so; it finds the process gone otherwise.
        engine: where the container is recorded.
        begun: the run.
    """
    for descriptor in begun.handed:  # the monitor's alone from now on
        os.close(descriptor)
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    heard = channel.hear() if poll.poll(_STAY_MS) else None
    if heard is None:
        return
    process.prctl(process.PR_SET_PDEATHSIG, 0)
    process.set_name("ketch-finisher")
    fields, descriptors = heard
    finish(
        channel,
        fields,
        int(fields["status"]),  # type: ignore[arg-type]
        ran_ns=int(fields["ran_ns"]),  # type: ignore[arg-type]
        delay_ms=0,
        orphaned=bool(fields["orphaned"]),
        namespace=descriptors[0] if descriptors else -1,
        engine=engine,
    )


def finish(
    channel: "Channel",
    fields: "Fields",
    status: int,
    *,
    ran_ns: int,
    delay_ms: int,
    orphaned: bool,
    namespace: int,
    engine: Engine | None = None,
) -> None:
    """Release what a container held, record its end, and decide whether it is started again.

    Args:
        channel: to the monitor, which is told when to start it again, or never.
        fields: what the starter told the monitor.
        status: the program's exit status.
        ran_ns: how long it ran.
        delay_ms: how long the monitor waited before its start, 0 if it did not.
        orphaned: whether it was ended because its creator has.
        namespace: descriptor of its network namespace, -1 where it had none of its own.
        engine: where it is recorded, if the caller has that already.
    """
    engine = engine or Engine(Settings.told(fields), Keeper.parent())
    cgroup = _cgroup(str(fields["cgroup"]))
    ended = unrecorded.End(status, time.time_ns(), oom_killed=_oom_killed(cgroup))
    with _kept(engine.settings, str(fields["container"]), ended), ExitStack() as late:
        entering.enter_network(engine.settings)
        container = engine.containers.read(str(fields["container"]))
        restarting = _is_restarted(container, status, ran_ns, orphaned=orphaned)
        engine.settings.say = say = _teller(channel) if fields.get("explain") else None
        if say:
            say(telling.of_end(status, namespace, container.id[:12]))
        release(engine, container, namespace, restarting=restarting, late=late, cgroup=cgroup)
        if say:
            say(telling.of_record(status, oom_killed=ended.oom_killed, restarting=restarting))
        engine.containers.mark_exited(
            container.id,
            status,
            oom_killed=ended.oom_killed,
            finished_ns=ended.finished_ns,
            restarting=restarting,
            log_entries_lost=logs.lost(
                container, engine.settings.container_directory(container.id)
            ),
        )
        if not restarting and (orphaned or (container.auto_remove and container.on_end != "keep")):
            _remove(engine, container.id)
        again_ms = restarts.delay_ms(delay_ms, ran_ns) if restarting else restarts.NEVER
        channel.tell({"restart_ms": again_ms})
        if namespace >= 0:
            sandbox.bury(namespace)


def _teller(channel: "Channel") -> "Say":
    """Who passes on to the monitor what is told of steps."""

    def say(step: "Told") -> None:
        with suppress(OSError):  # it was killed, and all the more is this to come to its end
            channel.tell({"told": step.encode()})

    return say


@contextmanager
def _kept(
    settings: Settings, container_id: str, ended: unrecorded.End
) -> "Generator[None, None, None]":
    """Keep an end elsewhere where the block cannot record it."""
    try:
        yield
    except (UnavailableError, PermissionDeniedError):
        unrecorded.keep(settings, container_id, ended)
        raise


def _is_restarted(container: "Container", status: int, ran_ns: int, *, orphaned: bool) -> bool:
    """Whether a container's restart policy wants it to be started again."""
    end = restarts.End(
        status,
        ran_ns,
        container.restart_count,
        stopped_by_hand=container.stopped_by_hand,
        final=bool(container.on_end) or orphaned,
    )
    host_config: HostConfig = container.record["HostConfig"]
    return restarts.wanted(host_config.get("RestartPolicy") or {}, end)


def release(
    engine: Engine,
    container: "Container",
    namespace: int = -1,
    *,
    restarting: bool = False,
    late: ExitStack | None = None,
    cgroup: cgroups.Manager | None = None,
) -> None:
    """Release what a container held while it ran; what cannot be is noted and left.

    Args:
        engine: where it is recorded.
        container: the container, whose program has ended.
        namespace: descriptor of its network namespace, if somebody has it.
        restarting: whether its monitor keeps its socket for the next run.
        late: takes what may wait for a while, to be closed when nobody waits any more.
        cgroup: its cgroup, where the caller has found it.
    """
    try:
        releasing.release(
            engine.settings,
            engine.store,
            container,
            namespace=namespace,
            keep_socket=restarting,
            late=late,
            cgroup=cgroup,
        )
    except (KetchError, OSError) as error:
        # The program has ended all the same, and its status must not be lost.
        mishaps.note(f"release what container {container.id} held", error)


def _cgroup(path: str) -> cgroups.Manager | None:
    """Returns the cgroup of a path; None where there are none, or it cannot be said."""
    try:
        layout = cgroups.usable(path)
    except OSError as error:
        mishaps.note(f"look for {path}", error)
        return None
    return cgroups.manager(path, layout) if layout.hierarchies else None


def _oom_killed(cgroup: cgroups.Manager | None) -> bool:
    if cgroup is None:
        return False
    try:
        return cgroup.oom_kills() > 0
    except (KetchError, OSError) as error:
        mishaps.note(f"look for kills in {cgroup.path}", error)
        return False


def _remove(engine: Engine, container_id: str) -> None:
    """Remove a container that has ended; that this fails is not what its client waits to hear."""
    try:
        engine.containers.remove(container_id)
    except (KetchError, OSError) as error:
        mishaps.note(f"remove {container_id}", error)
