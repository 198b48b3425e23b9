import json
from pathlib import Path

import pytest

from ketch.engine.configuration import cdi
from ketch.engine.configuration.devices import Devices, apply
from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ketch.spec.container import DeviceRequest

EDITS = {
    "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/full", "permissions": "r"}],
    "mounts": [{"hostPath": "/lib/x", "containerPath": "/y"}],
    "hooks": [{"hookName": "createContainer", "path": "/hook", "args": ["hook", "a"]}],
    "env": ["A=1"],
}


def write(directory: Path, name: str, kind: str, *devices: str) -> None:
    document = {
        "cdiVersion": "0.6.0",
        "kind": kind,
        "containerEdits": {"env": ["ALL=1"]},
        "devices": [{"name": device, "containerEdits": EDITS} for device in devices],
    }
    (directory / name).write_text(json.dumps(document))


def add(found: Devices, names: list[str], directories: list[str]) -> None:
    for edits in cdi.edits(names, directories):
        apply(found, edits)


def test_a_device_brings_what_its_specification_says(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "vendor.com/thing", "one", "two")
    found = Devices([], [])
    add(found, ["vendor.com/thing=one"], [str(tmp_path)])
    assert [(node["path"], node["major"], node["minor"]) for node in found.nodes] == [
        ("/dev/thing", 1, 7)
    ]
    assert found.rules[0]["access"] == "r"
    assert found.mounts == [
        {
            "destination": "/y",
            "source": "/lib/x",
            "type": "bind",
            "options": ["ro", "nosuid", "nodev", "rbind"],
        }
    ]
    assert found.hooks == {"createContainer": [{"path": "/hook", "args": ["hook", "a"]}]}
    assert found.variables == ["ALL=1", "A=1"]


def test_what_all_devices_share_comes_once(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "vendor.com/thing", "one", "two")
    found = Devices([], [])
    add(found, ["vendor.com/thing=one", "vendor.com/thing=two"], [str(tmp_path)])
    assert found.variables == ["ALL=1", "A=1", "A=1"]


def test_the_later_directory_counts(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "a.json", "vendor.com/thing", "one")
    path = tmp_path / "second" / "a.json"
    path.write_text(path.read_text().replace("A=1", "A=2"))
    found = Devices([], [])
    directories = [str(tmp_path / "first"), str(tmp_path / "second")]
    add(found, ["vendor.com/thing=one"], directories)
    assert found.variables[-1] == "A=2"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "vendor.com/thing", "one")
    names = ["vendor.com/thing=one", "vendor.com/thing=nine", "other.com/x=y"]
    with pytest.raises(InvalidArgumentError) as caught:
        cdi.edits(names, [str(tmp_path), "/not/there"])
    assert caught.value.message == (
        "CDI device injection failed: unresolvable CDI devices vendor.com/thing=nine, other.com/x=y"
    )


def test_a_broken_specification(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UnavailableError, match="CDI specification"):
        cdi.edits(["vendor.com/thing=one"], [str(tmp_path)])


def test_edits_that_lack_something_are_told_of() -> None:
    with pytest.raises(InvalidArgumentError, match="malformed containerEdits: no 'path'"):
        apply(Devices([], []), {"deviceNodes": [{"hostPath": "/dev/full"}]})
    with pytest.raises(InvalidArgumentError, match="malformed containerEdits: no 'hostPath'"):
        apply(Devices([], []), {"mounts": [{"containerPath": "/y"}]})


def test_gpus_come_from_the_vendor_that_is_there(tmp_path: Path) -> None:
    gpus: list[DeviceRequest] = [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    with pytest.raises(UnsupportedError) as caught:
        cdi.names(gpus, [str(tmp_path)])
    assert caught.value.message == ('could not select device driver "" with capabilities: [[gpu]]')
    write(tmp_path, "a.json", "nvidia.com/gpu", "all", "0", "1")
    directories = [str(tmp_path)]
    assert cdi.names(gpus, directories) == ["nvidia.com/gpu=all"]
    gpus[0] |= {"Count": 2}
    assert cdi.names(gpus, directories) == ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
    gpus[0] |= {"Count": 0, "DeviceIDs": ["GPU-7"], "Driver": "nvidia"}
    assert cdi.names(gpus, directories) == ["nvidia.com/gpu=GPU-7"]
    gpus[0] |= {"Driver": "other"}
    with pytest.raises(UnsupportedError, match='could not select device driver "other"'):
        cdi.names(gpus, directories)
    assert cdi.names([{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}], directories) == ["a.b/c=d"]


def test_a_step_of_a_build_names_devices_by_kind_and_class(tmp_path: Path) -> None:
    write(tmp_path, "a.json", "vendor.com/thing", "one", "two")
    document = json.loads((tmp_path / "a.json").read_text())
    document["annotations"] = {"org.mobyproject.buildkit.device.class": "all"}
    document["devices"][1]["annotations"] = {"org.mobyproject.buildkit.device.class": "second"}
    (tmp_path / "a.json").write_text(json.dumps(document))

    def found(*names: str) -> list[str]:
        wanted = [(f"vendor.com/thing{name}", True) for name in names]
        return [name.partition("=")[2] for name in cdi.matching(wanted, [str(tmp_path)])]

    assert found("") == ["one"]
    assert found("=*") == ["one", "two"]
    assert found("=two", "=two", "") == ["two", "one"]
    assert found("=all") == ["one"]
    assert found("=second") == ["two"]
    assert cdi.matching([("vendor.com/other", False)], [str(tmp_path)]) == []
    for name in ("vendor.com/other", "vendor.com/thing=three", "thing"):
        with pytest.raises(InvalidArgumentError, match=f'required device "{name}" is not'):
            cdi.matching([(name, True)], [str(tmp_path)])
