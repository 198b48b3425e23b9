"""What ``--explain`` tells of a start, beside what the runtime and the networks say themselves.

Loaded where somebody asks.
"""

import os

from ketch.spec.seccomp_summary import summary
from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.user_namespaces import UserNamespace
    from ketch.spec.runtime import Seccomp


def of_user_namespace(apart: "UserNamespace") -> Told:
    """A user namespace of the container's own."""
    words = "new user namespace: ids inside are not ids outside · clone3(2) CLONE_NEWUSER"
    maps = (("uids", apart.uids), ("gids", apart.gids))
    values = [
        (name, f"{inside}:{outside}:{count} (inside, outside, how many)")
        for name, ids in maps
        for inside, outside, count in ids.ranges
    ]
    return Told("namespaces", words, values)


def of_name_server(address: str) -> Told:
    """Who answers when the container looks a name up."""
    words = f"name server {address} · bpf(2) BPF_PROG_TYPE_SK_LOOKUP"
    return Told("network", words, [("answers", "names of containers, and passes on the rest")])


def of_files(written: "Iterable[tuple[str, str]]") -> Told:
    """The files that say what the container and others are called."""
    by_hand = [
        f"mkdir -p $(dirname {quote(path)}); printf %b {quote(_printf(text))} > {quote(path)}"
        for path, text in written
    ]
    words = "write the container's /etc/hosts, /etc/hostname and /etc/resolv.conf · write(2)"
    return Told("files", words, [(path, _printf(text)) for path, text in written], outside=by_hand)


def _printf(text: str) -> str:
    return text.replace("\n", "\\n").replace("\t", "\\t")


def of_end(status: int, network: int, name: str) -> Told:
    """The program has ended, and with it all that lasted as long as it.

    Args:
        status: its exit status.
        network: descriptor of its network namespace, which the monitor has held; -1 for none.
        name: by what name that is found by hand.
    """
    words = f"the program has ended with status {status}; its namespaces go with their last process"
    values = [("unmounted", "all that was mounted in its mount namespace")]
    by_hand = []
    if network >= 0:
        values.append(("held-until-now", os.readlink(f"/proc/self/fd/{network}")))
        by_hand.append(f"ip netns delete {name}")
    return Told("namespaces", f"{words} · waitid(2)", values, outside=by_hand)


def of_record(status: int, *, oom_killed: bool, restarting: bool) -> Told:
    """The end is recorded."""
    values = [("status", status), ("out-of-memory", oom_killed), ("starts-again", restarting)]
    return Told("record", "record the end", values)


def of_filter(section: "Seccomp") -> Told:
    """Which system calls a filter refuses."""
    found = summary(section)
    values: list[tuple[str, object]] = [("default", found["default"])]
    if "allowed" in found:
        values.append(("allowed", f"{found['allowed']} system calls"))
    values.append(("refused", " ".join(found["refused"]) or "none"))
    return Told("privileges", "make the system call filter · libseccomp(3)", values)
