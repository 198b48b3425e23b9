"""Block I/O: v1's blkio and v2's io controller; OCI limits to file writes, and their figures.

Source: runtime-spec config-linux.md "Block IO", Documentation/admin-guide/cgroup-v1/
blkio-controller.rst, cgroup-v2.rst "IO Interface Files", Documentation/block/bfq-iosched.rst.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.facts import Facts, Write
    from ketch.cgroups.figures import BlockStatistics
    from ketch.spec.runtime import BlockIo, Resources, ThrottleDevice

# OCI name of a throttle -> v1 file, v2 key.
_THROTTLES = {
    "throttleReadBpsDevice": ("blkio.throttle.read_bps_device", "rbps"),
    "throttleWriteBpsDevice": ("blkio.throttle.write_bps_device", "wbps"),
    "throttleReadIOPSDevice": ("blkio.throttle.read_iops_device", "riops"),
    "throttleWriteIOPSDevice": ("blkio.throttle.write_iops_device", "wiops"),
}


def _throttles(block: "BlockIo") -> "list[tuple[str, str, ThrottleDevice]]":
    entries: dict[str, list[ThrottleDevice]] = block  # type: ignore[assignment]
    return [
        (file, key, device)
        for name, (file, key) in _THROTTLES.items()
        for device in entries.get(name, [])
    ]


def v1(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write on v1."""
    block = resources.get("blockIO", {})
    writes: list[Write] = []
    weight, devices = block.get("weight", 0), block.get("weightDevice", [])
    if weight or devices:
        # The scheduler that gave blkio.weight (CFQ) left with Linux 5.0; BFQ has its own file.
        bfq = facts.read("blkio", "blkio.weight") is None
        prefix = "blkio.bfq." if bfq else "blkio."
        if weight:
            writes.append(("blkio", f"{prefix}weight", str(weight)))
        writes += [
            ("blkio", f"{prefix}weight_device", f"{d['major']}:{d['minor']} {d['weight']}")
            for d in devices
            if d.get("weight")
        ]
    if leaf := block.get("leafWeight", 0):
        writes.append(("blkio", "blkio.leaf_weight", str(leaf)))
    writes += [
        ("blkio", "blkio.leaf_weight_device", f"{d['major']}:{d['minor']} {d['leafWeight']}")
        for d in devices
        if d.get("leafWeight")
    ]
    writes += [
        ("blkio", file, f"{device['major']}:{device['minor']} {device.get('rate', 0)}")
        for file, _, device in _throttles(block)
    ]
    return writes


def v2(resources: "Resources", facts: "Facts") -> "list[Write]":
    """What to write on v2: all throttles of one device in one write; a rate of 0 is no throttle.

    BFQ's file takes OCI's weights as they are; io.weight's range is wider, so they are stretched
    from 10..1000 to 1..10000 as runc and crun do. v2 has no leaf weights, and no scheduler has
    had them since Linux 5.0: they are left out.
    """
    block = resources.get("blockIO", {})
    writes: list[Write] = []
    weight, devices = block.get("weight", 0), block.get("weightDevice", [])
    if weight or devices:
        bfq = facts.read("io", "io.bfq.weight") is not None
        file = "io.bfq.weight" if bfq else "io.weight"
        if weight:
            writes.append(("io", file, f"default {weight if bfq else _stretched(weight)}"))
        writes += [
            ("io", file, f"{d['major']}:{d['minor']} {own if bfq else _stretched(own)}")
            for d in devices
            if (own := d.get("weight", 0))
        ]
    limits: dict[str, list[str]] = {}
    for _, key, device in _throttles(block):
        numbers = f"{device['major']}:{device['minor']}"
        limits.setdefault(numbers, []).append(f"{key}={device.get('rate') or 'max'}")
    writes += [("io", "io.max", f"{numbers} {' '.join(each)}") for numbers, each in limits.items()]
    return writes


def _stretched(weight: int) -> int:
    return 1 + (weight - 10) * 9999 // 990


def v1_statistics(facts: "Facts") -> "list[BlockStatistics]":
    """The figures of a v1 cgroup, one entry a device."""
    found: dict[str, dict[str, int]] = {}
    for file, unit in (("io_service_bytes", "bytes"), ("io_serviced", "operations")):
        text = facts.value("blkio", f"blkio.throttle.{file}_recursive", "")
        for line in text.splitlines():
            fields = line.split()
            # The last line, "Total N", belongs to no device.
            if len(fields) == 3 and fields[1] in {"Read", "Write"}:
                name = f"{fields[1].lower()}_{unit}"
                found.setdefault(fields[0], {})[name] = int(fields[2])
    return [_entry(numbers, counts) for numbers, counts in found.items()]


def v2_statistics(facts: "Facts") -> "list[BlockStatistics]":
    """The figures of a v2 cgroup, one entry a device."""
    names = {
        "rbytes": "read_bytes",
        "wbytes": "write_bytes",
        "rios": "read_operations",
        "wios": "write_operations",
    }
    found = []
    for line in facts.value("io", "io.stat", "").splitlines():
        numbers, *fields = line.split()
        pairs = (field.split("=") for field in fields)
        found.append(_entry(numbers, {names[k]: int(v) for k, v in pairs if k in names}))
    return found


def _entry(numbers: str, counts: dict[str, int]) -> "BlockStatistics":
    major, minor = numbers.split(":")
    return {
        "major": int(major),
        "minor": int(minor),
        "read_bytes": counts.get("read_bytes", 0),
        "write_bytes": counts.get("write_bytes", 0),
        "read_operations": counts.get("read_operations", 0),
        "write_operations": counts.get("write_operations", 0),
    }
