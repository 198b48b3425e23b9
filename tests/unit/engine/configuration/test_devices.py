from pathlib import Path

import pytest

from ketch.engine.configuration import devices
from ketch.errors import InvalidArgumentError
from ketch.spec.container import DeviceMapping


def mapping(source: str, target: str, access: str = "rwm") -> DeviceMapping:
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access}


def test_a_device_becomes_a_node_and_a_rule(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/dev/full")
    found = devices.gather({"Devices": [mapping(str(link), "/dev/x", "r")]})
    assert [(node["path"], node["type"]) for node in found.nodes] == [("/dev/x", "c")]
    assert (found.nodes[0]["major"], found.nodes[0]["minor"]) == (1, 7)
    assert found.rules == [{"allow": True, "type": "c", "major": 1, "minor": 7, "access": "r"}]


def test_rules_by_number() -> None:
    found = devices.gather({"DeviceCgroupRules": ["c 7:* rm"]})
    assert found.nodes == []
    assert found.rules == [{"allow": True, "type": "c", "major": 7, "minor": -1, "access": "rm"}]


@pytest.mark.parametrize(
    ("source", "reason"),
    [("/dev/nope", "no such file or directory"), ("/etc", "not a device node")],
)
def test_what_is_no_device(source: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        devices.gather({"Devices": [mapping(source, "/dev/x")]})
    assert caught.value.message == (
        f'error gathering device information while adding custom device "{source}": {reason}'
    )


def test_a_privileged_container_gets_the_hosts_but_what_it_has_of_its_own() -> None:
    found = devices.gather(
        {
            "Privileged": True,
            "Devices": [mapping("/dev/full", "/dev/y"), mapping("/dev/a", "/dev/a")],
        }
    )
    assert found.rules == [{"allow": True, "access": "rwm"}]
    paths = [node["path"] for node in found.nodes]
    assert "/dev/y" in paths
    assert not {"/dev/null", "/dev/console", "/dev/ptmx", "/dev/tty"} & set(paths)
    assert not any(path.startswith(("/dev/pts/", "/dev/shm/")) for path in paths)


def test_weights_and_throttles_are_by_number() -> None:
    found = devices.gather(
        {
            "BlkioWeight": 300,
            "BlkioWeightDevice": [{"Path": "/dev/full", "Weight": 200}],
            "BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1}],
            "BlkioDeviceWriteIOps": [{"Path": "/dev/zero", "Rate": 2}],
        }
    ).block
    assert found == {
        "weight": 300,
        "weightDevice": [{"major": 1, "minor": 7, "weight": 200}],
        "throttleReadBpsDevice": [{"major": 1, "minor": 3, "rate": 1}],
        "throttleWriteIOPSDevice": [{"major": 1, "minor": 5, "rate": 2}],
    }
    with pytest.raises(InvalidArgumentError, match="stat /dev/gone: no such file or directory"):
        devices.gather({"BlkioDeviceReadBps": [{"Path": "/dev/gone", "Rate": 1}]})
