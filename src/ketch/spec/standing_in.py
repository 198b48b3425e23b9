"""System calls that are answered in the kernel's place, for a user who has no id but its own. Pure.

The kernel refuses to give a file, or a process, an id that its user namespace does not have, and
installers that do so give up. With these rules changes of a file's owner and device nodes are asked
of a supervisor, which remembers what was wanted (``runtime.standing_in``), and changes of a
process's ids are said to be done, as charliecloud's filter says it: everybody is the same user.
Whoever lacks the capability is refused by the kernel as ever.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ketch.spec.runtime import Seccomp, SeccompRule

APT_FILE = "/etc/apt/apt.conf.d/zz-ketch"
"""Where apt is told what such a user cannot have; mounted, and empty beneath that."""

_ALLOW, _NOTIFY, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO"

# By the capability that they want: whoever lacks it is told so.
_FILES: "Sequence[tuple[str, Sequence[str]]]" = (
    ("CAP_CHOWN",
     ("chown", "chown32", "fchown", "fchown32", "fchownat", "lchown", "lchown32")),
    ("CAP_MKNOD", ("mknod", "mknodat")),
)  # fmt: skip
_IDS: "Sequence[tuple[str, Sequence[str]]]" = (
    ("CAP_SETGID",
     ("setfsgid", "setfsgid32", "setgid", "setgid32", "setgroups", "setgroups32", "setregid",
      "setregid32", "setresgid", "setresgid32")),
    ("CAP_SETUID",
     ("setfsuid", "setfsuid32", "setresuid", "setresuid32", "setreuid", "setreuid32", "setuid",
      "setuid32")),
)  # fmt: skip


def asks(given: "Seccomp") -> bool:
    """Whether a filter has a supervisor of its own, of which there can be but one."""
    return any(rule["action"] == _NOTIFY for rule in given.get("syscalls", ()))


def section(
    given: "Seccomp | None", capabilities: "Collection[str]", architectures: "Sequence[str]"
) -> "Seccomp":
    """Returns a filter that has some calls answered.

    Args:
        given: the container's own, None where it has none; where that ``asks``, it goes on to, and
            nothing is asked besides.
        capabilities: the container's bounding set, by name.
        architectures: those of this machine, for where it has no filter.
    """
    before: Seccomp = given or {"defaultAction": _ALLOW, "architectures": [*architectures]}
    rules = before.get("syscalls", [])
    is_free = not asks(before)
    answered: list[SeccompRule] = []
    for capability, calls in _FILES:
        if is_free and capability in capabilities:
            answered.append({"names": [*calls], "action": _NOTIFY})
    for capability, calls in _IDS:
        if capability in capabilities:
            answered.append({"names": [*calls], "action": _ERRNO, "errnoRet": 0})
    taken = {call for rule in answered for call in rule["names"]}
    kept: list[SeccompRule] = [
        {**rule, "names": left}
        for rule in rules
        if (left := [call for call in rule["names"] if call not in taken])
    ]
    return {**before, "syscalls": [*kept, *answered]}
