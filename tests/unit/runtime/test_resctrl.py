"""The group of a container in resctrl, in a directory that stands for the file system."""

import pathlib

import pytest

from ketch.errors import ConflictError, InvalidArgumentError, UnsupportedError
from ketch.runtime import resctrl

MOUNTINFO = (
    "22 28 0:21 / /sys rw,nosuid - sysfs sysfs rw\n"
    "40 22 0:35 / /sys/fs/res\\040ctrl rw,relatime shared:9 - resctrl resctrl rw\n"
)


def test_where_it_is_mounted() -> None:
    assert resctrl.mountpoint(MOUNTINFO) == "/sys/fs/res ctrl"
    with pytest.raises(UnsupportedError, match=r"linux\.intelRdt: resctrl is not mounted"):
        resctrl.mountpoint(MOUNTINFO.splitlines()[0])


def test_schemata_come_after_the_older_fields() -> None:
    assert resctrl.schemata({
        "schemata": ["L3:0=f", "MB:0=50"], "l3CacheSchema": "L3:0=ff\nL3:1=f",
        "memBwSchema": "MB:0=20",
    }) == ["L3:0=ff", "L3:1=f", "MB:0=20", "L3:0=f", "MB:0=50"]  # fmt: skip
    assert resctrl.schemata({}) == []


def test_a_shared_group_must_agree(tmp_path: pathlib.Path) -> None:
    directory = tmp_path / "gold"
    directory.mkdir()
    (directory / "schemata").write_text("    L3:0=ff;1=ff\n    MB:0=100;1=100\n")
    (directory / "tasks").touch()
    group = resctrl.Group(str(tmp_path), {"closID": "gold", "schemata": ["L3:1=ff;0=ff"]}, "boxed")
    group.apply(77)
    assert (directory / "tasks").read_text() == "77"
    other = resctrl.Group(str(tmp_path), {"closID": "gold", "schemata": ["L3:0=f;1=f"]}, "boxed")
    with pytest.raises(ConflictError, match="with another schema"):
        other.apply(78)
    other.remove()
    assert directory.exists()


def test_a_group_by_name_must_be_there_or_be_described(tmp_path: pathlib.Path) -> None:
    group = resctrl.Group(str(tmp_path), {"closID": "silver"}, "boxed")
    with pytest.raises(InvalidArgumentError, match="there is no group"):
        group.apply(77)


def test_a_group_that_the_kernel_refuses_is_removed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "info").mkdir()
    (tmp_path / "info" / "last_cmd_status").write_text("Unknown or unsupported resource name\n")
    group = resctrl.Group(str(tmp_path), {"schemata": ["XX:0=1"]}, "boxed")
    with pytest.raises(InvalidArgumentError, match="unsupported resource name"):
        group.apply(77)  # the directory that stands for resctrl has no schemata to write to
    assert not (tmp_path / "boxed").exists()


def test_a_running_container_is_limited_otherwise(tmp_path: pathlib.Path) -> None:
    class Recorded(resctrl.Group):
        """Files of resctrl take each write by itself; those of a directory keep the last."""

        written: list[str] = []  # noqa: RUF012 of this one test

        def _write(self, file: str, words: str) -> None:
            self.written.append(f"{file}: {words.strip()}")

    group = Recorded(str(tmp_path), {"l3CacheSchema": "L3:0=f"}, "boxed")
    group.change({"memBwSchema": "MB:0=20"}, [7, 8])
    assert (tmp_path / "boxed").is_dir()
    assert Recorded.written == ["schemata: MB:0=20", "tasks: 7", "tasks: 8"]
