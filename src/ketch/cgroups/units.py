"""A container as a systemd unit: its name, its slice, its properties. No I/O.

Callers give a path as ``slice:prefix:name``: the unit ``prefix-name.scope`` in that slice, whose
cgroup systemd makes at ``/SLICE.../prefix-name.scope``; a name that ends in ``.slice`` is a slice
of its own.

Source: runc's docs/systemd.md, systemd.scope(5), systemd.slice(5), systemd.resource-control(5).
"""

from ketch.cgroups import cpu, devices
from ketch.errors import InvalidArgumentError
from ketch.spec import gvariant, number_lists
from ketch.spec.dbus import Variant
from ketch.spec.digits import decimal, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.spec.runtime import Memory, Resources

    Property = tuple[str, Variant]

_INFINITY = (1 << 64) - 1
_DEFAULT_PERIOD_US = 100_000
# systemd rounds a quota to this many microseconds a second: one hundredth of a processor.
_QUOTA_STEP_US = 10_000
_SHOWN = 60  # characters of a text in a message
_ANNOTATION = "org.systemd.property."
_UNIFIED_LIMITS = {
    "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax",
}  # fmt: skip
_ACCESS = (("r", devices.READ), ("w", devices.WRITE), ("m", devices.MKNOD))
_UNIFIED_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
# systemd that introduced what older ones would refuse.
CPU_QUOTA_PERIOD, ALLOWED_CPUS, CPU_IDLE = 242, 244, 252


class Unit:
    """The unit of one container.

    Args:
        path: ``slice:prefix:name``, each of which may be empty.
        container_id: the name where the path has none.
        default_slice: the slice where the path has none.

    Attributes:
        name: of the unit.
        slice: the slice it is in.

    Raises:
        InvalidArgumentError: the path does not read so.
    """

    __slots__ = ("name", "slice")

    def __init__(self, path: str, container_id: str, default_slice: str) -> None:
        parts = (path or f":ketch:{container_id}").split(":")
        if len(parts) != 3 or "/" in path:
            raise InvalidArgumentError(
                f'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got'
                f' "{path}" instead',
                "leave --systemd-cgroup out, or linux.cgroupsPath, or name a unit there",
            )
        slice_, prefix, name = parts
        self.slice = slice_ or default_slice
        expand(self.slice)
        name = name or container_id
        self.name = name if name.endswith(".slice") else f"{prefix}-{name}.scope"

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice, which takes no processes from systemd."""
        return self.name.endswith(".slice")

    @property
    def cgroup(self) -> str:
        """Where its cgroup is, below that of systemd itself."""
        return (
            expand(self.name) if self.is_slice else f"{expand(self.slice).rstrip('/')}/{self.name}"
        )


def expand(slice_: str) -> str:
    """A slice's cgroup: ``a-b.slice`` is ``/a.slice/a-b.slice``.

    Raises:
        InvalidArgumentError: no slice has such a name.
    """
    name = slice_.removesuffix(".slice")
    if name == "-" and slice_ != name:
        return "/"
    parts = name.split("-")
    if name == slice_ or "/" in name or not all(parts):
        raise InvalidArgumentError(f"invalid slice name: {slice_}", "such as machine.slice")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def birth(unit: Unit, description: str, pid: int, annotations: "dict[str, str]", *,
          v2: bool) -> "list[Property]":  # fmt: skip
    """What a unit is made with.

    Args:
        unit: which.
        description: what it is for.
        pid: its first process; of no use to a slice.
        annotations: of the container: those that begin with ``org.systemd.property.`` are
            properties as well.
        v2: whether block I/O is accounted as on cgroup v2.
    """
    found = [("Description", Variant("s", description))]
    if unit.is_slice:
        found.append(("Wants", Variant("as", [unit.slice])))
    else:
        found += [
            ("Slice", Variant("s", unit.slice)),
            # Its cgroup is ours: systemd neither moves processes in it nor writes below it.
            ("Delegate", Variant("b", True)),
            ("PIDs", Variant("au", [pid])),
            # One that failed (its last process killed for want of memory) is forgotten as well.
            ("CollectMode", Variant("s", "inactive-or-failed")),
        ]
    accounting = ("CPU", "Memory", "Tasks", "IO" if v2 else "BlockIO")
    found += [(f"{name}Accounting", Variant("b", True)) for name in accounting]
    # Nothing else of the machine's units is to start or stop with it.
    found.append(("DefaultDependencies", Variant("b", False)))
    return found + annotated(annotations)


def annotated(annotations: "dict[str, str]") -> "list[Property]":
    """The properties that annotations ask for, their values in GVariant's text format.

    A time may end in ``Sec``, as systemd's manual has it: it becomes ``USec``.

    Raises:
        InvalidArgumentError: a value is none.
    """
    found = []
    for key, text in annotations.items():
        name = key.removeprefix(_ANNOTATION)
        if name == key or not (name[:1].isupper() and name.isalnum() and len(name) > 2):
            continue
        try:
            value = gvariant.parse(text)
        except ValueError as error:
            raise InvalidArgumentError(f"annotation {key}={text}: {error}") from error
        if name.endswith("Sec") and not name.endswith("USec"):
            if value.signature not in "nqiuxtd":
                raise InvalidArgumentError(f"annotation {key}={text}: is not a number of seconds")
            name = f"{name[:-3]}USec"
            value = Variant("t", int(value.value * 1_000_000))
        found.append((name, value))
    return found


def limits(resources: "Resources", version: int, *, v2: bool) -> "list[Property]":
    """The limits that systemd knows of; it writes them anew whenever it likes.

    What it rounds, or does not know, is written to the cgroup's files as well.

    Args:
        resources: ``linux.resources``.
        version: systemd's.
        v2: whether systemd limits by cgroup v2.
    """
    processor = resources.get("cpu", {})
    found = _v2_limits(resources, version) if v2 else _v1_limits(resources)
    found += _quota(processor.get("quota", 0), processor.get("period", 0), version)
    if (limit := resources.get("pids", {}).get("limit")) is not None:
        found.append(("TasksMax", _unsigned(limit or 1)))
    if version >= ALLOWED_CPUS:
        for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            text = str(processor.get(key, ""))
            if text:
                found.append((name, Variant("ay", bitmap(text))))
    return found + _unified(resources, version)


def _v1_limits(resources: "Resources") -> "list[Property]":
    found = device_properties(resources)
    if limit := resources.get("memory", {}).get("limit", 0):
        found.append(("MemoryLimit", _unsigned(limit)))
    if shares := resources.get("cpu", {}).get("shares", 0):
        found.append(("CPUShares", _unsigned(shares)))
    if weight := resources.get("blockIO", {}).get("weight", 0):
        found.append(("BlockIOWeight", _unsigned(weight)))
    return found


def _v2_limits(resources: "Resources", version: int) -> "list[Property]":
    found = _v2_memory(resources.get("memory", {}))
    processor = resources.get("cpu", {})
    if processor.get("idle") == 1 and version >= CPU_IDLE:
        found.append(("CPUWeight", _unsigned(0)))
    elif shares := processor.get("shares", 0):
        found.append(("CPUWeight", _unsigned(cpu.weight_of_shares(shares))))
    return found


def _v2_memory(memory: "Memory") -> "list[Property]":
    limit, swap = memory.get("limit", 0), memory.get("swap", 0)
    if limit == -1 and swap == 0:
        swap = -1
    found = []
    if limit:
        found.append(("MemoryMax", _unsigned(limit)))
    if reservation := memory.get("reservation", 0):
        found.append(("MemoryLow", _unsigned(reservation)))
    # OCI counts memory and swap together.
    if swap == -1:
        found.append(("MemorySwapMax", _unsigned(-1)))
    elif swap and limit > 0:
        found.append(("MemorySwapMax", _unsigned(max(0, swap - limit))))
    return found


def _quota(quota: int, period: int, version: int) -> "list[Property]":
    if not quota and not period:
        return []
    found = []
    if period and version >= CPU_QUOTA_PERIOD:
        found.append(("CPUQuotaPeriodUSec", _unsigned(period)))
    a_second_us = _INFINITY
    if quota > 0:
        exact_us = quota * 1_000_000 // (period or _DEFAULT_PERIOD_US)
        # Upwards, so that systemd's own limit never is the lower one.
        a_second_us = -(-exact_us // _QUOTA_STEP_US) * _QUOTA_STEP_US
    found.append(("CPUQuotaPerSecUSec", _unsigned(a_second_us)))
    return found


def _unified(resources: "Resources", version: int) -> "list[Property]":
    """Of the files of cgroup v2 that are to be written, those that systemd writes too."""
    found: list[Property] = []
    files = resources.get("unified", {})
    for file, text in files.items():
        value = text.strip()
        try:
            if name := _UNIFIED_LIMITS.get(file):
                found.append((name, _unsigned(-1 if value == "max" else _number(value))))
            elif (name := _UNIFIED_SETS.get(file)) and version >= ALLOWED_CPUS:
                found.append((name, Variant("ay", bitmap(value))))
            elif file == "cpu.weight" and files.get("cpu.idle", "").strip() != "1":
                found.append(("CPUWeight", _unsigned(_number(value))))
            elif file == "cpu.idle" and value == "1" and version >= CPU_IDLE:
                found.append(("CPUWeight", _unsigned(0)))
            elif file == "cpu.max":
                quota, _, period = value.partition(" ")
                quota_us = -1 if quota == "max" else _number(quota)
                period_us = _number(period) if period else _DEFAULT_PERIOD_US
                found += _quota(quota_us, period_us, version)
        except ValueError as error:
            raise InvalidArgumentError(
                f"unified resource {file!r} value conversion error: {value!r} is not a number"
            ) from error
    return found


def _number(text: str) -> int:
    number = signed(text)
    if number is None:
        raise ValueError(text)
    return number


def device_properties(resources: "Resources") -> "list[Property]":
    """The device rules of cgroup v1, which systemd would lift again without knowing of them.

    On v2 they are a program of ours beside systemd's, and each has to allow what is used.
    """
    if "devices" not in resources:
        return []
    policy = devices.policy(resources["devices"])
    none: Property = ("DeviceAllow", Variant("a(ss)", []))
    if policy.allows:
        # systemd can forbid nothing by name: what is forbidden is written to the files alone.
        return [("DevicePolicy", Variant("s", "auto")), none]
    allowed = [
        (path, "".join(letter for letter, bit in _ACCESS if bit & access))
        for key, access in policy.exceptions.items()
        if (path := _device_path(*key))
    ]
    return [("DevicePolicy", Variant("s", "strict")), none,
            ("DeviceAllow", Variant("a(ss)", allowed))]  # fmt: skip


def _device_path(kind: int, major: int, minor: int) -> str:
    """Devices as systemd names them; empty for those of one minor number and any major one."""
    name = "block" if kind == devices.BLOCK else "char"
    if minor != devices.ALL:
        return f"/dev/{name}/{major}:{minor}" if major != devices.ALL else ""
    return f"{name}-{'*' if major == devices.ALL else major}"


def bitmap(text: str) -> list[int]:
    """A list of processors or memory nodes (``0-3,7``) as systemd takes it, one bit for each.

    Raises:
        InvalidArgumentError: the text is none.
    """
    try:
        bits = number_lists.bits(number_lists.without_blanks(text))
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"{text[:_SHOWN]!r} is not a list of numbers such as 0-3,7: {error.message[:_SHOWN]}"
        ) from error
    return list(bits.to_bytes((bits.bit_length() + 7) // 8, "little"))


def version_number(text: str) -> int:
    """Systemd's version: of ``v245.4-1.fc32`` 245; 0 where it cannot be read."""
    digits = ""
    for character in text.lstrip('"v'):
        if character not in "0123456789":
            break
        digits += character
    return decimal(digits) or 0


def _unsigned(value: "Any") -> Variant:
    """A number as systemd takes it, for which none is the greatest one."""
    return Variant("t", int(value) & _INFINITY)
