"""What ``--explain`` tells of control groups, and how they are made by hand."""

import os

from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.cgroups.filesystem import Manager


def of_making(cgroup: "Manager") -> Told:
    """A control group that is made."""
    words = f"make and limit the control group {cgroup.path} · cgroups(7)"
    by_hand = []
    for directory in cgroup.directories:
        by_hand.append(f"mkdir -p {directory}")
        if f"/cpuset{cgroup.path}" in directory:  # cgroup v1 leaves a new one without any
            by_hand += [
                f"for place in {os.path.dirname(directory)} {directory}; do"
                f" cat $place/../cpuset.{what} > $place/cpuset.{what}; done"
                for what in ("cpus", "mems")
            ]
    return Told("limits", words, outside=by_hand)


def of_limits(written: "Sequence[tuple[str, str]]") -> Told:
    """What was written to a control group's files.

    Args:
        written: their paths, and what to each.
    """
    by_hand = [f"echo {quote(value)} > {path}" for path, value in written]
    return Told("limits", "limits of the control group · write(2)", written, outside=by_hand)


def of_freezing(cgroup: "Manager", *, frozen: bool) -> Told:
    """All processes of a control group are held, or let go on."""
    path = cgroup.freezer_file()
    is_old = os.path.basename(path) == "freezer.state"
    value = ("FROZEN" if frozen else "THAWED") if is_old else str(int(frozen))
    words = "hold all processes of the control group" if frozen else "let all processes go on"
    pids = " ".join(map(str, cgroup.processes()))
    values = [(path, value), ("processes", pids or "none")]
    return Told("limits", f"{words} · cgroups(7), write(2)", values,
                outside=[f"echo {value} > {path}"])  # fmt: skip


def of_removal(cgroup: "Manager") -> Told:
    """A control group whose processes have ended goes."""
    words = f"remove the control group {cgroup.path} · rmdir(2)"
    by_hand = []
    for directory in cgroup.directories:
        by_hand += [f"echo $$ > {directory.removesuffix(cgroup.path)}/cgroup.procs",
                    f"rmdir {directory}"]  # fmt: skip
    return Told("limits", words, outside=by_hand)
