"""What ``--explain`` tells of what is done to containers, and how it is done by hand.

Loaded where somebody asks.
"""

from ketch.spec import signals
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.engine.records.rows import Container

_OLD_NAMES = ("CLD", "IOT", "POLL")


def of_signal(container: "Container", number: int) -> Told:
    """A signal to a container's first process."""
    pid, name = container.init_pid, _signal_name(number)
    words = f"send SIG{name} to the container's first process · pidfd_send_signal(2)"
    values = [("container", container.name), ("process", pid), ("signal", number)]
    return Told("program", words, values, outside=[f"kill -s {name} {pid}"])


def of_waiting(container: "Container", timeout_seconds: int) -> Told:
    """Waiting for a program that was asked to end; -1 stands for ever."""
    pid = container.init_pid
    if timeout_seconds < 0:
        patience, limit = "for ever", ""
    else:
        patience, limit = f"{timeout_seconds} seconds at most", f"timeout {timeout_seconds} "
    by_hand = [f"{limit}tail --pid={pid} -f /dev/null || true"]
    words = f"wait for the program's end, {patience} · poll(2)"
    return Told("program", words, [("process", pid)], outside=by_hand)


def of_calling_off(container: "Container") -> Told:
    """A container that waits for its restart is kept from it."""
    words = "end the monitor, which waits to start the container again · pidfd_send_signal(2)"
    pid = container.monitor_pid
    return Told("program", words, [("process", pid)], outside=[f"kill -s TERM {pid}"])


def of_note(container: "Container", event: str, columns: "Mapping[str, object]") -> Told:
    """What is recorded of a container, and the event of it."""
    values = [("container", container.id), *columns.items()]
    words = f"record the event {event}" if event else "record what is to be left out at its end"
    return Told("record", words, values)


def of_creation(container: "Container", image: str) -> Told:
    """A container's record, which is the first that there is of it."""
    values = [
        ("id", container.id), ("name", container.name), ("image", image or "none"),
        ("program", " ".join([container.record["Path"], *container.record["Args"]])),
    ]  # fmt: skip
    return Told("record", "record the container", values)


def of_renaming(container: "Container", old: str, new: str) -> Told:
    """A container has another name from now on; its processes do not hear of it."""
    values = [("container", container.id), ("old-name", old), ("name", new)]
    return Told("record", f"record that container {old} is called {new}", values)


def of_removal(container: "Container", directory: str, *, mounted: bool) -> Told:
    """A container goes: its record, its log, its writable layer.

    Args:
        container: the container.
        directory: what it has on the disk.
        mounted: whether ``ketch mount`` had its root filesystem mounted there.
    """
    by_hand = [f"umount {quote(directory)}/rootfs 2> /dev/null || true"]
    values = [("name", container.name), ("writable-layer", f"{directory}/upper")]
    if mounted:
        values.append(("unmounted", f"{directory}/mounted"))
        by_hand.insert(0, f"umount {quote(directory)}/mounted 2> /dev/null || true")
    by_hand.append(f"rm -r {quote(directory)}")
    words = f"remove the container and {directory} · unlinkat(2)"
    return Told("record", words, values, outside=by_hand)


def of_checkpoint(container: "Container", images: str) -> Told:
    """A place for what is saved of a container."""
    words = f"make a directory for the checkpoint of container {container.name} · mkdir(2)"
    return Told("files", words, [("images", images)], outside=[f"mkdir -p {quote(images)}"])


def of_checkpoint_removal(container: "Container", images: str) -> Told:
    """A checkpoint goes."""
    words = f"remove a checkpoint of container {container.name} · unlinkat(2)"
    return Told("files", words, [("images", images)], outside=[f"rm -r {quote(images)}"])


def _signal_name(number: int) -> str:
    """A signal's name, as each shell's kill knows it."""
    known = (name for name, one in signals.NUMBERS.items() if one == number)
    return next((name for name in known if name not in _OLD_NAMES), str(number))
