"""OCI ``linux.resources`` to an ordered list of file writes: everything but doing them.

Each controller decides in its own module from the configuration and from ``Facts``, the present
contents of its files; the small ones stand here. Files are written in the order of the list, since
the kernel checks some pairs of limits against each other at every step.

Source: runtime-spec config-linux.md "Control groups".
"""

from ketch.cgroups import blkio, cpu, devices, memory
from ketch.cgroups.facts import Facts, Write
from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.layout import Layout
    from ketch.spec.runtime import Resources

DELEGATE = (
    "as root: systemctl edit user@.service, with [Service] and Delegate=cpu cpuset io memory pids"
)
"""What has systemd pass on all controllers that limits ask for."""


def pids(resources: "Resources", facts: Facts) -> list[Write]:  # noqa: ARG001
    """A limit of 0 allows no new task, which 1 says as well, and the kernel can start under it."""
    limit = resources.get("pids", {}).get("limit")
    if limit is None:
        return []
    return [("pids", "pids.max", "max" if limit < 0 else str(limit or 1))]


def _hugetlb(resources: "Resources", facts: Facts, limit: str) -> list[Write]:
    writes: list[Write] = []
    for each in resources.get("hugepageLimits", []):
        size, value = each["pageSize"], str(each["limit"])
        writes.append(("hugetlb", f"hugetlb.{size}.{limit}", value))
        # Limits what is reserved too, not only what is touched: no SIGBUS later (Linux 5.7).
        reserved = f"hugetlb.{size}.rsvd.{limit}"
        if facts.read("hugetlb", reserved) is not None:
            writes.append(("hugetlb", reserved, value))
    return writes


def v1_hugetlb(resources: "Resources", facts: Facts) -> list[Write]:
    """Limits of huge pages, in bytes for each page size."""
    return _hugetlb(resources, facts, "limit_in_bytes")


def v2_hugetlb(resources: "Resources", facts: Facts) -> list[Write]:
    """Limits of huge pages, in bytes for each page size."""
    return _hugetlb(resources, facts, "max")


def net_cls(resources: "Resources", facts: Facts) -> list[Write]:  # noqa: ARG001
    """The class that v1 marks packets with."""
    identifier = resources.get("network", {}).get("classID", 0)
    return [("net_cls", "net_cls.classid", str(identifier))] if identifier else []


def net_prio(resources: "Resources", facts: Facts) -> list[Write]:  # noqa: ARG001
    """The priority that v1 gives to traffic by interface."""
    return [
        ("net_prio", "net_prio.ifpriomap", f"{each['name']} {each['priority']}")
        for each in resources.get("network", {}).get("priorities", [])
    ]


def v2_network(resources: "Resources", facts: Facts) -> list[Write]:  # noqa: ARG001
    """v2 marks no packets: network filters match the cgroup's path instead."""
    network = resources.get("network", {})
    if network.get("classID") or network.get("priorities"):
        raise UnsupportedError(
            "cgroup v2 has neither net_cls nor net_prio",
            "match the container's cgroup in nftables (socket cgroupv2) instead",
        )
    return []


def rdma(resources: "Resources", facts: Facts) -> list[Write]:  # noqa: ARG001
    """Limits of RDMA devices, the same on v1 and v2."""
    writes: list[Write] = []
    for name, limits in resources.get("rdma", {}).items():
        text = name
        if (handles := limits.get("hcaHandles")) is not None:
            text += f" hca_handle={handles}"
        if (objects := limits.get("hcaObjects")) is not None:
            text += f" hca_object={objects}"
        if text != name:
            writes.append(("rdma", "rdma.max", text))
    return writes


def v1_devices(resources: "Resources", facts: Facts) -> list[Write]:
    """The exceptions that a v1 device cgroup needs."""
    if "devices" not in resources:
        return []
    present = devices.parse_list(facts.read("devices", "devices.list") or "")
    target = devices.policy(resources["devices"])
    return [
        ("devices", file, value)
        for file, value in devices.transition(present, target, fresh=facts.fresh)
    ]


def device_policy(resources: "Resources", layout: "Layout") -> "devices.Policy | None":
    """The policy to compile to a program: where rules are given and v1 does not take them."""
    if "devices" not in resources or layout.hierarchy_of("devices") is not None:
        return None
    if layout.unified is None:
        raise _missing(layout, "devices", "device rules")
    return devices.policy(resources["devices"])


_UNLIMITED = {"-1", "max"}

# Key of the configuration, what is limited, v1's controller and its conversion, v2's controller
# and its conversion.
_TABLE = (
    ("cpu", "a cpuset", "cpuset", cpu.cpuset, "cpuset", cpu.cpuset),
    ("memory", "memory", "memory", memory.v1, "memory", memory.v2),
    ("cpu", "processor time", "cpu", cpu.v1, "cpu", cpu.v2),
    ("pids", "the number of processes", "pids", pids, "pids", pids),
    ("blockIO", "block I/O", "blkio", blkio.v1, "io", blkio.v2),
    ("hugepageLimits", "huge pages", "hugetlb", v1_hugetlb, "hugetlb", v2_hugetlb),
    ("network", "a network class", "net_cls", net_cls, "", v2_network),
    ("network", "network priorities", "net_prio", net_prio, "", v2_network),
    ("rdma", "RDMA", "rdma", rdma, "rdma", rdma),
)


def v2_controllers(resources: "Resources", layout: "Layout") -> set[str]:
    """The controllers of the v2 hierarchy that a configuration may touch."""
    offered = set(layout.unified.controllers if layout.unified else ())
    asked = {name for key, _, _, _, name, _ in _TABLE if resources.get(key)}
    return offered & (asked | {file.split(".", 1)[0] for file in resources.get("unified", {})})


def plan(resources: "Resources", layout: "Layout", facts: Facts) -> list[Write]:
    """Decide what to write; device rules on v2 are ``device_policy``'s.

    Args:
        resources: of the OCI configuration; what it does not name stays as it is.
        layout: decides between v1's and v2's files for each controller.
        facts: of the cgroup in question.

    Raises:
        InvalidArgumentError: values that contradict each other or their ranges.
        UnavailableError: a controller that is needed is not mounted, or not in this kernel.
        UnsupportedError: the hierarchy's version has no such limit.
        ConflictError: the cgroup's use already exceeds a limit that was to be checked first.
    """
    writes: list[Write] = []
    for _, subject, v1_name, v1_convert, v2_name, v2_convert in _TABLE:
        hierarchy = layout.hierarchy_of(v1_name) or layout.hierarchy_of(v2_name)
        version = hierarchy.version if hierarchy else 2 if layout.mode == "v2" else 1
        found = (v1_convert, v2_convert)[version - 1](resources, facts)
        if found and hierarchy is None:
            raise _missing(layout, found[0][0], f"a limit of {subject}")
        writes += found
    if layout.hierarchy_of("devices") is not None:
        writes += v1_devices(resources, facts)
    return writes + _unified(resources, layout)


def asked(resources: "Resources") -> list[str]:
    """What a configuration limits, in words; to be unlimited is not to be limited.

    Args:
        resources: of the OCI configuration.

    Raises:
        InvalidArgumentError: values that contradict each other or their ranges.
    """
    facts = Facts(lambda _controller, _file: None, fresh=True)
    found = [
        f"a limit of {subject}"
        for _, subject, _, convert, _, _ in _TABLE
        if any(value not in _UNLIMITED for _, _, value in convert(resources, facts))
    ]
    found += [
        f"unified resource {file}"
        for file, value in resources.get("unified", {}).items()
        if value.strip() not in _UNLIMITED
    ]
    return found


def _unified(resources: "Resources", layout: "Layout") -> list[Write]:
    writes: list[Write] = []
    for file, value in resources.get("unified", {}).items():
        controller = file.split(".", 1)[0]
        if "/" in file or controller == file:
            raise InvalidArgumentError(f"unified resource {file!r} is not the name of a v2 file")
        if layout.unified is None:
            raise UnsupportedError(
                f"unified resource {file}: this machine has cgroup v1 only",
                "use the limits of v1 (memory, cpu, ...) instead",
            )
        if controller != "cgroup" and controller not in layout.unified.controllers:
            raise _missing(layout, controller, f"unified resource {file}")
        writes.append((controller, file, value))
    return writes


def _missing(layout: "Layout", controller: str, asked: str) -> UnavailableError:
    if layout.withholds(controller):
        return UnavailableError(
            f"{asked} was asked for, but the controller {controller} is not delegated to this user",
            f"leave the limit out, or {DELEGATE}",
        )
    return UnavailableError(
        f"{asked} was asked for, but this machine has no {controller} controller for cgroups",
        "leave the limit out, or boot a kernel with the controller enabled (see /proc/cgroups)",
    )
