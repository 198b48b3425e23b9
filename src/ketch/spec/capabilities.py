"""Capabilities by name: the kernel's table, Docker's default set, ``--cap-add`` and ``--cap-drop``.

A set of capabilities is an integer, bit n for capability number n, as the kernel has it.
"""

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.runtime import Capabilities

# In the order of their numbers: <linux/capability.h>, Linux 5.9.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


def mask(names: "Iterable[str]") -> int:
    """The set of the named capabilities; what is not in NAMES counts for nothing."""
    result = 0
    for name in names:
        if name in _NUMBERS:
            result |= 1 << _NUMBERS[name]
    return result


def to_names(capabilities: int) -> list[str]:
    """The names of a set's capabilities, by number; bits without a name are left out."""
    return [name for number, name in enumerate(NAMES) if capabilities >> number & 1]


# What Docker gives a container that asks for nothing.
DEFAULT = mask((
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
))  # fmt: skip


def spelt_out(names: "Iterable[str]") -> list[str]:
    """Names as a command line gives them, in the kernel's spelling, each once and in order.

    What there is not of them is left for who knows the kernel to refuse. As Docker's since 28.2.
    """
    return sorted({_spelt_out(name.strip()) for name in names})


def _spelt_out(name: str) -> str:
    name = name.upper()
    return name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"


def choose(add: "Iterable[str]", drop: "Iterable[str]", available: int) -> int:
    """What a container gets under Docker's ``--cap-add`` and ``--cap-drop``.

    ``ALL`` added stands for everything available but what is dropped by name; ``ALL`` dropped
    leaves only what is added by name; otherwise Docker's defaults lose ``drop`` and gain ``add``.

    Args:
        add: names in any case, with or without ``CAP_``, or ``ALL``.
        drop: the same.
        available: the set that the engine itself can give.

    Raises:
        InvalidArgumentError: a name is unknown, or not available here.
    """
    added, add_all = _parse("CapAdd", add, available)
    dropped, drop_all = _parse("CapDrop", drop, available)
    if add_all:
        return available & ~dropped
    return added if drop_all else (DEFAULT & ~dropped) | added


def _parse(option: str, names: "Iterable[str]", available: int) -> tuple[int, bool]:
    """The set that names denote, and whether ``ALL`` is among them."""
    result, everything = 0, False
    for given in names:
        name = _spelt_out(given)
        if name == "ALL":
            everything = True
            continue
        number = _NUMBERS.get(name)
        if number is None:
            raise InvalidArgumentError(
                f'invalid {option}: unknown capability: "{name}"', "capabilities(7) has the names"
            )
        if not available >> number & 1:
            raise InvalidArgumentError(
                f"invalid {option}: capability not supported by your kernel "
                f'or not available in the current environment: "{name}"'
            )
        result |= 1 << number
    return result, everything


def resolve(wanted: "Capabilities", available: int) -> tuple["Sets", list[str]]:
    """Turn ``process.capabilities`` into sets that the kernel will accept.

    The runtime specification wants what cannot be granted (a name or a capability that this kernel
    does not have, one that the runtime itself lacks) to be left out with a warning, not to fail.
    The same goes for what the kernel's own rules forbid: an effective capability that is not
    permitted, an ambient one that is not permitted and inheritable.

    Args:
        wanted: the section of ``config.json``; absent sets are empty.
        available: the set that this process can give.

    Returns:
        The five sets, and warnings: each names the field and the capability.
    """
    warnings: list[str] = []

    def grant(field: str, names: "Iterable[str]", allowed: int, reason: str = "") -> int:
        granted = 0
        for name in names:
            number = _NUMBERS.get(name)
            if number is not None and allowed >> number & 1:
                granted |= 1 << number
            elif number is None or not available >> number & 1:
                warnings.append(f"process.capabilities.{field}: {name} is not available here")
            else:
                warnings.append(f"process.capabilities.{field}: {name} is not {reason}")
        return granted

    sets = Sets()
    sets.bounding = grant("bounding", wanted.get("bounding", ()), available)
    sets.permitted = grant("permitted", wanted.get("permitted", ()), available)
    sets.inheritable = grant("inheritable", wanted.get("inheritable", ()), available)
    sets.effective = grant("effective", wanted.get("effective", ()), sets.permitted, "permitted")
    both = sets.permitted & sets.inheritable
    sets.ambient = grant("ambient", wanted.get("ambient", ()), both, "permitted and inheritable")
    return sets, warnings


class Sets:
    """The five sets of one process, capabilities(7)."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    bounding: int
    permitted: int
    inheritable: int
    effective: int
    ambient: int
