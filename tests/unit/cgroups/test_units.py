"""systemd units: names, slices, properties."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cgroups import units
from ketch.errors import InvalidArgumentError
from ketch.spec import dbus
from ketch.spec.dbus import Variant

EVERYTHING: Any = {
    "memory": {"limit": 1 << 20, "reservation": 1 << 19, "swap": 3 << 20},
    "cpu": {"shares": 1024, "quota": 50_000, "period": 100_000, "cpus": "0,2-3", "mems": "0"},
    "pids": {"limit": 9},
    "blockIO": {"weight": 500},
    "devices": [],
    "unified": {"memory.high": "max", "cpu.weight": " 7 "},
}


def named(properties: list[tuple[str, Variant]]) -> dict[str, Any]:
    """Properties by name; all of them can be sent."""
    dbus.marshal("a(sv)", [properties])
    return {name: value.value for name, value in properties}


@pytest.mark.parametrize(
    ("path", "name", "cgroup"),
    [
        ("", "ketch-box.scope", "/system.slice/ketch-box.scope"),
        ("a-b.slice:p:n", "p-n.scope", "/a.slice/a-b.slice/p-n.scope"),
        (":p:n", "p-n.scope", "/system.slice/p-n.scope"),
        ("-.slice:p:n", "p-n.scope", "/p-n.scope"),
        ("a.slice:p:", "p-box.scope", "/a.slice/p-box.scope"),
        ("a.slice::a-x.slice", "a-x.slice", "/a.slice/a-x.slice"),
    ],
)
def test_paths(path: str, name: str, cgroup: str) -> None:
    unit = units.Unit(path, "box", "system.slice")
    assert (unit.name, unit.cgroup) == (name, cgroup)


@pytest.mark.parametrize(
    "path", ["/a/b", "a.slice:b", "a:b:c:d", "a:b:c", "a--b.slice:p:n", "-a.slice:p:n", "x/y:p:n"]
)
def test_paths_that_name_no_unit(path: str) -> None:
    with pytest.raises(InvalidArgumentError, match="slice"):
        units.Unit(path, "box", "system.slice")


def test_birth() -> None:
    unit = units.Unit("a.slice:p:n", "box", "system.slice")
    annotations = {
        "org.systemd.property.TimeoutStopSec": "1.5",
        "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.lower": "1",
        "other": "x",
    }
    properties = units.birth(unit, "box", 7, annotations, v2=True)
    found = named(properties)
    assert found["Slice"] == "a.slice"
    assert found["PIDs"] == [7]
    assert found["TimeoutStopUSec"] == 1_500_000
    assert found["CollectMode"] == "inactive"
    assert "IOAccounting" in found
    assert "lower" not in found
    unit = units.Unit("a.slice::a-x.slice", "box", "system.slice")
    found = named(units.birth(unit, "box", 0, {}, v2=False))
    assert found["Wants"] == ["a.slice"]
    assert "BlockIOAccounting" in found
    assert not {"PIDs", "Slice", "Delegate"} & set(found)


@pytest.mark.parametrize(
    ("name", "text"), [("TimeoutStopSec", "'7s'"), ("X", "1"), ("KillMode", "control-group")]
)
def test_annotations_that_are_wrong(name: str, text: str) -> None:
    annotations = {f"org.systemd.property.{name}": text}
    if name == "X":
        assert units.annotated(annotations) == []  # no property has such a name
        return
    with pytest.raises(InvalidArgumentError, match=name):
        units.annotated(annotations)


def test_limits_of_v2() -> None:
    found = named(units.limits(EVERYTHING, 252, v2=True))
    assert found == {
        "MemoryMax": 1 << 20, "MemoryLow": 1 << 19, "MemorySwapMax": 2 << 20, "CPUWeight": 7,
        "CPUQuotaPeriodUSec": 100_000, "CPUQuotaPerSecUSec": 500_000, "TasksMax": 9,
        "AllowedCPUs": [0b1101], "AllowedMemoryNodes": [1], "MemoryHigh": (1 << 64) - 1,
    }  # fmt: skip


def test_limits_of_v1() -> None:
    resources: Any = {**EVERYTHING, "unified": {}}
    found = named(units.limits(resources, 239, v2=False))
    assert ("/dev/char/1:3", "rwm") in found["DeviceAllow"]
    assert ("char-136", "rwm") in found["DeviceAllow"]
    assert ("block-*", "m") in found["DeviceAllow"]
    assert found | {"DeviceAllow": []} == {
        "MemoryLimit": 1 << 20, "CPUShares": 1024, "BlockIOWeight": 500, "TasksMax": 9,
        "CPUQuotaPerSecUSec": 500_000, "DevicePolicy": "strict", "DeviceAllow": [],
    }  # fmt: skip
    allowed: Any = {"devices": [{"allow": True, "access": "rwm"}]}
    assert named(units.limits(allowed, 252, v2=False))["DevicePolicy"] == "auto"


def test_no_limit_is_the_greatest_number() -> None:
    lifted: Any = {"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}}
    found = named(units.limits(lifted, 252, v2=True))
    assert set(found.values()) == {(1 << 64) - 1}
    assert set(found) == {"MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"}


@given(st.integers(1, 10**7), st.integers(1_000, 10**6))
def test_systemds_quota_is_never_the_lower_one(quota: int, period: int) -> None:
    resources: Any = {"cpu": {"quota": quota, "period": period}}
    a_second_us = named(units.limits(resources, 252, v2=True))["CPUQuotaPerSecUSec"]
    assert a_second_us % 10_000 == 0
    assert a_second_us * period >= (quota * 1_000_000 // period) * period


@given(st.sets(st.integers(0, 200), min_size=1))
def test_bitmaps(numbers: set[int]) -> None:
    bits = units.bitmap(",".join(map(str, sorted(numbers))))
    assert {8 * i + b for i, byte in enumerate(bits) for b in range(8) if byte >> b & 1} == numbers


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "-1", ",", "1,,2", "0-40000000", "\u00b2"])
def test_no_bitmaps(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="list of numbers"):
        units.bitmap(text)


def test_versions() -> None:
    texts = ["252 (252.39-1~deb12u2)", "v245.4-1.fc32", '"v256~rc1"', "x"]
    assert [units.version_number(text) for text in texts] == [252, 245, 256, 0]
