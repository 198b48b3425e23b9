"""Mounts with every option of the specification, devices, and the root itself."""

import os
import pathlib
import stat
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.linux import mount
from ketch.linux.procfs import unescape
from tests.kernel.runtime.bundles import (
    MAPPED,
    Bundle,
    Config,
    configuration,
    in_user_namespace,
)

pytestmark = pytest.mark.root

ON_TMPFS = pytest.mark.skipif(
    tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 3),
    reason="tmpfs maps ids since Linux 6.3",
)


def mounts(pid: int) -> dict[str, str]:
    """What is mounted in a process's root: the whole line by the mount point."""
    with open(f"/proc/{pid}/mountinfo") as stream:
        return {unescape(line.split()[4]): line for line in stream}


def hosts(bundle: Bundle) -> dict[str, str]:
    """The host's mounts, less what tests beside this one mount and unmount meanwhile."""
    own, others = str(bundle.directory), (f"{tempfile.gettempdir()}/", "/run/netns")
    return {
        place: line
        for place, line in mounts(os.getpid()).items()
        if place.startswith(own) or not place.startswith(others)
    }


@pytest.fixture
def tree(bundle: Bundle) -> Iterator[pathlib.Path]:
    """A directory with a file, and another file system mounted below it."""
    top = bundle.directory / "tree"
    (top / "below").mkdir(parents=True)
    mount.mount("tmpfs", str(top), "tmpfs")
    mount.mount("", str(top), flags=mount.MS_PRIVATE)
    (top / "file").write_text("top\n")
    (top / "below").mkdir()
    mount.mount("tmpfs", str(top / "below"), "tmpfs")
    (top / "below" / "file").write_text("below\n")
    yield top
    mount.umount2(str(top), mount.MNT_DETACH)


def bind(config: Config, source: object, *options: str, destination: str = "/mnt") -> Config:
    config["mounts"].append(
        {"destination": destination, "source": str(source), "type": "bind", "options": [*options]}
    )
    return config


def test_bind_and_rbind(bundle: Bundle, tree: pathlib.Path) -> None:
    script = configuration("sh", "-c", "cat /mnt/file; ls /mnt/below")
    assert bundle.output(bind(script, tree, "bind")) == "top\n"
    script = configuration("sh", "-c", "cat /mnt/file /mnt/below/file")
    assert bundle.output(bind(script, tree, "rbind")) == "top\nbelow\n"


def test_a_source_relative_to_the_bundle(bundle: Bundle) -> None:
    (bundle.directory / "near").write_text("near\n")
    config = bind(configuration("cat", "/etc/group"), "near", "bind", destination="/etc/group")
    assert bundle.output(config) == "near\n"


@pytest.mark.parametrize(
    ("options", "top", "below"),
    [
        (["ro"], "ro", "rw"),
        (["rro"], "ro", "ro"),
        (["ro", "rrw"], "rw", "rw"),
        (["rnosuid", "rnodev", "rnoexec"], "nosuid,nodev,noexec", "nosuid,nodev,noexec"),
        (["noexec"], "noexec", "rw,relatime"),
        (["rnoatime"], "noatime", "noatime"),
        (["rnodiratime", "rstrictatime"], "rw,nodiratime", "rw,nodiratime"),
        (["nosymfollow"], "nosymfollow", "rw,relatime"),
        (["rnosymfollow"], "nosymfollow", "nosymfollow"),
    ],
    ids=",".join,
)
def test_attributes_and_recursive_ones(
    bundle: Bundle, tree: pathlib.Path, options: list[str], top: str, below: str
) -> None:
    config = bind(configuration("sleep", "60"), tree, "rbind", *options)
    with bundle.container(config) as container:
        found = mounts(container.pid)
        assert top in found["/mnt"].split()[5]
        assert below in found["/mnt/below"].split()[5]
    assert "rw,relatime" in mounts(os.getpid())[str(tree)]


@pytest.mark.parametrize(
    ("option", "marks", "marks_below"),
    [
        ("private", 0, 0), ("rprivate", 0, 0), ("shared", 1, 0), ("rshared", 1, 1),
        ("unbindable", "unbindable", 0), ("runbindable", "unbindable", "unbindable"),
    ],
)  # fmt: skip
def test_propagation(
    bundle: Bundle, tree: pathlib.Path, option: str, marks: object, marks_below: object
) -> None:
    config = bind(configuration("sleep", "60"), tree, "rbind", option)
    with bundle.container(config) as container:
        found = mounts(container.pid)
        for path, expected in (("/mnt", marks), ("/mnt/below", marks_below)):
            fields = found[path].split(" - ")[0].split()[6:]
            if expected == "unbindable":
                assert fields == ["unbindable"]
            else:
                assert [field.split(":")[0] for field in fields] == ["shared"] * bool(expected)


def test_a_slave_hears_of_the_host_s_mounts_and_a_shared_one_tells(bundle: Bundle) -> None:
    source = bundle.directory / "source"
    (source / "later").mkdir(parents=True)
    (source / "inner").mkdir()
    mount.mount("tmpfs", str(source), "tmpfs")
    mount.mount("", str(source), flags=mount.MS_SHARED)
    try:
        (source / "later").mkdir()
        (source / "inner").mkdir()
        config = bind(configuration("sleep", "60"), source, "rbind", "rslave")
        with bundle.container(config) as container:
            mount.mount("tmpfs", str(source / "later"), "tmpfs")
            assert "/mnt/later" in mounts(container.pid)
            mount.umount2(str(source / "later"), 0)
            assert "/mnt/later" not in mounts(container.pid)
        script = "mount -t tmpfs none /mnt/inner && sleep 60"
        config = bind(configuration("sh", "-c", script), source, "rbind", "rshared")
        config["linux"]["rootfsPropagation"] = "rshared"
        with bundle.container(config) as container:
            assert " shared:" in mounts(container.pid)["/"]
            container.start()
            for _ in range(500):
                if str(source / "inner") in mounts(os.getpid()):
                    break
                os.sched_yield()
                subprocess.run(["sleep", "0.01"], check=True)
            assert str(source / "inner") in mounts(os.getpid())
            assert not any(path.startswith(str(bundle.rootfs)) for path in mounts(os.getpid()))
    finally:
        mount.umount2(str(source), mount.MNT_DETACH)


@pytest.mark.parametrize(
    ("propagation", "mark"),
    [("", ""), ("private", ""), ("rprivate", ""), ("slave", "master"), ("rslave", "master"),
     ("shared", "shared"), ("rshared", "shared"), ("unbindable", "unbindable")],
)  # fmt: skip
def test_the_root_s_propagation(bundle: Bundle, propagation: str, mark: str) -> None:
    mount.mount(str(bundle.rootfs), str(bundle.rootfs), flags=mount.MS_BIND)
    mount.mount("", str(bundle.rootfs), flags=mount.MS_SHARED)
    try:
        config = configuration("sleep", "60")
        if propagation:
            config["linux"]["rootfsPropagation"] = propagation
        with bundle.container(config) as container:
            fields = mounts(container.pid)["/"].split(" - ")[0].split()[6:]
            assert [field.split(":")[0] for field in fields] == ([mark] if mark else [])
            assert str(bundle.rootfs / "proc") not in mounts(os.getpid())
    finally:
        mount.umount2(str(bundle.rootfs), mount.MNT_DETACH)


@ON_TMPFS
def test_ids_of_a_mount_are_mapped(bundle: Bundle, tree: pathlib.Path) -> None:
    os.chown(tree, 3000, 4000)
    os.chown(tree / "file", 1000, 2000)
    config = bind(
        configuration("sh", "-c", "stat -c %u:%g /mnt/file /mnt/below/file; touch /mnt/new"),
        tree, "rbind",
    )  # fmt: skip
    config["mounts"][-1] |= {
        "uidMappings": [{"containerID": 1000, "hostID": 33, "size": 1},
                        {"containerID": 3000, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": 2000, "hostID": 50, "size": 1},
                        {"containerID": 4000, "hostID": 0, "size": 1}],
    }  # fmt: skip
    assert bundle.output(config) == "33:50\n0:0\n"
    made = (tree / "new").stat()
    assert (made.st_uid, made.st_gid) == (3000, 4000)


@ON_TMPFS
def test_idmap_takes_the_container_s_maps_and_ridmap_goes_below(
    bundle: Bundle, tree: pathlib.Path
) -> None:
    (bundle.rootfs / "mnt").mkdir()
    script = "stat -c %u /mnt/file /mnt/below/file; touch /mnt/new /mnt/below/new"
    config = in_user_namespace(configuration("sh", "-c", script))
    assert bundle.output(bind(config, tree, "rbind", "ridmap")) == "0\n0\n"
    assert (tree / "below" / "new").stat().st_uid == 0
    config["mounts"][-1]["options"] = ["rbind", "idmap"]
    status, output = bundle.run(config)
    assert (status, output.split()[:2]) == (1, ["0", "65534"])


@ON_TMPFS
def test_idmap_with_a_joined_user_namespace(bundle: Bundle, tree: pathlib.Path) -> None:
    (bundle.rootfs / "mnt").mkdir()
    with bundle.container(in_user_namespace(configuration("sleep", "60"))) as owner:
        config = configuration("stat", "-c", "%u", "/mnt/file")
        namespace = f"/proc/{owner.pid}/ns/user"
        config["linux"]["namespaces"].append({"type": "user", "path": namespace})
        assert bundle.output(bind(config, tree, "rbind", "idmap")) == "0\n"


def test_idmap_without_any_map_is_refused(bundle: Bundle, tree: pathlib.Path) -> None:
    with pytest.raises(InvalidArgumentError, match="idmap without ids to map"):
        bundle.run(bind(configuration("true"), tree, "rbind", "idmap"))


def test_a_file_system_that_cannot_map_ids_is_named(bundle: Bundle) -> None:
    config = bind(configuration("true"), "/proc", "bind")
    config["mounts"][-1] |= {"uidMappings": MAPPED, "gidMappings": MAPPED}
    with pytest.raises(UnsupportedError, match=r"mounts\[3\]: ids of /proc cannot be mapped"):
        bundle.run(config)


def test_tmpcopyup_begins_with_what_is_covered(bundle: Bundle) -> None:
    script = "ls /etc | wc -l; stat -c %a:%F /etc/shadow; readlink /etc/link; touch /etc/new"
    (bundle.rootfs / "etc" / "link").symlink_to("passwd")
    config = configuration("sh", "-c", script)
    config["mounts"].append(
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    )
    assert bundle.output(config) == "5\n600:regular file\npasswd\n"
    assert not (bundle.rootfs / "etc" / "new").exists()


def test_missing_mount_points_are_made_and_symlinks_stay_inside(bundle: Bundle) -> None:
    outside = bundle.directory / "outside"
    outside.mkdir()
    (bundle.directory / "source").write_text("bound\n")
    (bundle.rootfs / "way-out").symlink_to(f"../../../../{outside}")
    (bundle.rootfs / "inside").symlink_to("/var/www")
    config = configuration("cat", "/a/b/c", "/var/www/page")
    source = bundle.directory / "source"
    bind(config, source, "bind", destination="/a/b/c")
    bind(config, source, "bind", destination="/inside/page")
    bind(config, source, "bind", destination="/way-out/file")
    assert bundle.output(config) == "bound\nbound\n"
    assert list(outside.iterdir()) == []


def test_a_mount_is_changed_by_remount(bundle: Bundle) -> None:
    config = configuration("sleep", "60")
    config["mounts"] += [
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/tmp", "options": ["remount", "ro", "nosuid"]},
    ]
    with bundle.container(config) as container:
        assert mounts(container.pid)["/tmp"].split()[5].startswith("ro,nosuid")


def test_a_tmpfs_takes_the_mode_of_what_it_covers(bundle: Bundle) -> None:
    config = configuration("stat", "-c", "%a", "/root", "/new")
    (bundle.rootfs / "root").mkdir(exist_ok=True)
    (bundle.rootfs / "root").chmod(0o750)
    config["mounts"] += [
        {"destination": where, "type": "tmpfs", "source": "tmpfs"} for where in ("/root", "/new")
    ]
    assert bundle.output(config).split() == ["750", "1777"]


def test_options_of_a_file_system_reach_it(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "stat -c %a /tmp; df -k /tmp | tail -1")
    config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "mine",
         "options": ["size=1m", "mode=1700", "nodev", "sync", "defaults"]}
    )  # fmt: skip
    mode, line = bundle.output(config).splitlines()
    assert (mode, line.split()[:2]) == ("1700", ["mine", "1024"])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "tmpfs", "options": ["sizee=1m"]}, r"mounts\[3\]: /tmp: .*sizee"),
        ({"type": "nofs"}, r"mounts\[3\]\.type: this kernel has no file system nofs"),
        ({"type": "bind", "source": "/nowhere"}, r"mounts\[3\]\.source: /nowhere does not exist"),
        ({"type": "bind", "source": "/etc/passwd"}, r"mounts\[3\]: /tmp is a directory, and /etc"),
    ],
)
def test_a_mount_that_cannot_be_is_named(
    bundle: Bundle, entry: dict[str, object], message: str
) -> None:
    config = configuration("true")
    config["mounts"].append({"destination": "/tmp", "source": "tmpfs", **entry})
    with pytest.raises((InvalidArgumentError, UnsupportedError), match=message):
        bundle.run(config)


def test_devices_with_their_owners_and_modes(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "cd /dev; stat -c '%n %F %a %u:%g %t:%T' mine loop9 pipe")
    config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 33,
         "gid": 50},
        {"path": "/dev/loop9", "type": "b", "major": 7, "minor": 9},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
    ]  # fmt: skip
    assert bundle.output(config).splitlines() == [
        "mine character special file 640 33:50 1:5",
        "loop9 block special file 666 0:0 7:9",
        "pipe fifo 622 0:0 0:0",
    ]
    mapped = in_user_namespace(configuration("stat", "-c", "%F", "/dev/pipe", "/dev/mine"))
    (bundle.directory / "x").mkdir()
    mapped["linux"]["devices"] = [
        {"path": "/dev/pipe", "type": "p"}, {"path": "/dev/fuse", "type": "c", "major": 10,
                                             "minor": 229},
    ]  # fmt: skip
    mapped["process"]["args"][-1] = "/dev/fuse"
    if not stat.S_ISCHR(os.stat("/dev/null").st_mode) or not os.path.exists("/dev/fuse"):
        mapped["linux"]["devices"].pop()
        mapped["process"]["args"].pop()
    assert bundle.output(mapped).splitlines()[0] == "fifo"


def test_in_a_user_namespace_the_device_is_meant_not_its_path(bundle: Bundle) -> None:
    """Where none can be made the host's is bound, which may be elsewhere."""
    config = in_user_namespace(configuration("stat", "-c", "%t:%T", "/dev/mine", "/dev/random"))
    config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/random", "type": "c", "major": 1, "minor": 7},
    ]
    assert bundle.output(config).split() == ["1:5", "1:7"]
    config["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 250, "minor": 250}]
    with pytest.raises(InvalidArgumentError, match="the host has no node of the device c 250:250"):
        bundle.run(config)


def test_the_root_is_read_only_where_asked(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "touch /x || touch /tmp/x")
    config["root"]["readonly"] = True
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    status, output = bundle.run(config)
    assert status == 0
    assert "Read-only file system" in output


def test_the_root_is_moved_where_it_cannot_be_pivoted(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "ls /; cat /proc/self/mounts")
    output = bundle.output(config, no_pivot=True)
    assert output.startswith("bin\ndev\netc\n")
    status, text = bundle.run(configuration("ls", "/proc/1/root/"), no_pivot=True)
    assert status == 0
    assert "bin" in text.split()
    assert "rootfs" not in text.split()


@pytest.mark.parametrize("path", ["/nowhere", "/etc/hostname"])
def test_a_root_that_is_no_directory(bundle: Bundle, path: str) -> None:
    config = configuration("true")
    config["root"]["path"] = path
    with pytest.raises(InvalidArgumentError, match=rf"root\.path: {path}"):
        bundle.run(config)


def test_nothing_is_left_in_the_host_s_mount_table(bundle: Bundle) -> None:
    before = hosts(bundle).keys()
    with bundle.container(configuration("sleep", "60")) as container:
        container.start()
        assert hosts(bundle).keys() == before


def attributes(bundle: Bundle, config: Config, path: str = "/mnt") -> str:
    with bundle.container(config) as container:
        return mounts(container.pid)[path].split()[5]


@pytest.mark.parametrize(
    ("source", "options", "outside", "mapped"),
    [
        ("ro,noexec", [], "ro,noexec,relatime", "ro,noexec,relatime"),
        ("ro,noexec", ["rprivate"], "ro,noexec,relatime", "ro,noexec,relatime"),
        ("ro,noexec", ["nosuid", "nodev"], "rw,nosuid,nodev,relatime",
         "ro,nosuid,nodev,noexec,relatime"),
        ("ro,nosuid", ["rw"], "rw,relatime", "ro,nosuid,relatime"),
        ("nodev,noexec", ["ro"], "ro,relatime", "ro,nodev,noexec,relatime"),
        ("noatime", ["atime"], "rw,noatime", "rw,noatime"),
        ("noatime", ["nosuid"], "rw,nosuid,noatime", "rw,nosuid,noatime"),
        ("noatime,nodiratime", ["relatime"], "rw,relatime", "rw,relatime"),
        ("strictatime", ["diratime"], "rw", "rw"),
        ("noatime", ["nodiratime"], "rw,nodiratime,relatime", "rw,nodiratime,relatime"),
    ],
)  # fmt: skip
def test_a_bind_loses_what_is_not_named_but_not_in_a_user_namespace(
    bundle: Bundle, tree: pathlib.Path, source: str, options: list[str], outside: str, mapped: str
) -> None:
    (bundle.rootfs / "mnt").mkdir()
    subprocess.run(["mount", "-o", f"remount,bind,{source}", tree], check=True)
    config = bind(configuration("sleep", "60"), tree, "bind", *options)
    assert attributes(bundle, config) == outside
    assert attributes(bundle, in_user_namespace(config)) == mapped


@pytest.mark.parametrize("mapped", [False, True])
def test_a_bind_of_what_an_earlier_mount_brought(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("cat", "/copy/inner", "/again/a")
    # Below a directory that the container's root may not enter on the host.
    hidden = bundle.directory / "hidden"
    hidden.mkdir(mode=0o700)
    bundle.rootfs.rename(hidden / "rootfs")
    config["root"]["path"] = "hidden/rootfs"
    source = bundle.directory / "source"
    source.mkdir()
    (source / "inner").write_text("brought\n")
    rootfs = hidden / "rootfs"
    for name in ("copy", "data", "again"):
        (rootfs / name).mkdir()
    (rootfs / "data" / "inner").write_text("covered\n")
    (rootfs / "again" / "a").write_text("of the image\n")
    bind(config, source, "bind", destination="/data")
    bind(config, f"{rootfs}/data", "bind", destination="/copy")
    bind(config, f"{rootfs}/again", "bind", destination="/again")
    if mapped:
        config = in_user_namespace(config)
    assert bundle.output(config) == "brought\nof the image\n"
    bind(config, f"{rootfs}/data/nothing", "bind", destination="/tmp")
    with pytest.raises(InvalidArgumentError, match=r"mounts\[6\]\.source: .*nothing does not"):
        bundle.run(config)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_source_in_the_container_is_looked_up_there(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("cat", "/mnt/hostname", "/opt/hostname")
    (bundle.rootfs / "mnt").mkdir()
    (bundle.rootfs / "etc" / "hostname").write_text("the image's\n")
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    (bundle.directory / "link").symlink_to("/etc")
    bind(config, bundle.directory / "link", "bind", destination="/srv")  # the host's, as ever
    (bundle.rootfs / "srv").mkdir()
    # A symlink that an earlier mount brings is the container's, and leads nowhere else.
    brought = bundle.directory / "brought"
    brought.mkdir()
    (brought / "way").symlink_to("/etc")
    (bundle.rootfs / "data").mkdir()
    bind(config, brought, "bind", destination="/data")
    bind(config, bundle.rootfs / "data" / "way", "bind")
    # So is one that is there from the beginning.
    (bundle.rootfs / "direct").symlink_to("/etc")
    (bundle.rootfs / "opt").mkdir()
    bind(config, bundle.rootfs / "direct", "bind", destination="/opt")
    assert bundle.output(in_user_namespace(config) if mapped else config) == "the image's\n" * 2


@pytest.mark.parametrize("mapped", [False, True])
def test_destinations_that_begin_with_the_root_s_path(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("sh", "-c", "test -c /dev/null && cat /etc/group && mount | grep /tmp")
    (bundle.directory / "near").write_text("near\n")
    for entry in config["mounts"]:
        entry["destination"] = f"{bundle.rootfs}{entry['destination']}/"
    bind(config, "near", "bind", destination=f"{bundle.rootfs}//etc/./group")
    config["mounts"].append({"destination": f"{bundle.rootfs}/../rootfs/tmp", "type": "tmpfs"})
    first, second = bundle.output(in_user_namespace(config) if mapped else config).splitlines()
    assert first == "near"
    assert " on /tmp " in second
    assert not (bundle.rootfs / "tmp" / "pytest").exists()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_read_only_tmpfs_is_filled_first(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("sh", "-c", "cat /srv/file; mount | grep ' /srv '; touch /srv/new")
    (bundle.rootfs / "srv").mkdir()
    (bundle.rootfs / "srv" / "file").write_text("of the image\n")
    config["mounts"].append(
        {"destination": "/srv", "type": "tmpfs", "source": "tmpfs",
         "options": ["", "ro", "nosuid", "tmpcopyup", "rnoexec", "size=1m"]}
    )  # fmt: skip
    status, output = bundle.run(in_user_namespace(config) if mapped else config)
    assert output.startswith("of the image\n")
    assert "(ro,nosuid,noexec,relatime" in output
    assert "Read-only file system" in output
    assert status == 1


def test_paths_that_say_the_same_are_covered_once(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "cat /proc/self/mountinfo; ls -l /dev/mine")
    config["linux"]["maskedPaths"] = [
        "/proc/version",
        "/proc/version",
        "/proc//version/",
        "/proc/acpi",
    ]
    config["linux"]["readonlyPaths"] = ["/proc/sys", "/proc/sys/", "/proc/sys"]
    config["linux"]["devices"] = [{"path": "/dev/mine/", "type": "c", "major": 1, "minor": 3}]
    output = bundle.output(config)
    assert output.count(" /proc/version ") == 1
    assert output.count(" /proc/sys ") == 1
    assert "/dev/mine" in output


def test_a_device_that_cannot_be_made_is_named(bundle: Bundle) -> None:
    config = configuration("true")
    config["linux"]["devices"] = [{"path": "/proc/mine", "type": "c", "major": 1, "minor": 3}]
    with pytest.raises(InvalidArgumentError, match="/proc/mine cannot be made: No"):
        bundle.output(config)


@pytest.mark.parametrize("mapped", [False, True])
def test_links_of_dev_lead_somewhere(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("sh", "-c", "ls -l /dev; test -e /dev/core || test ! -L /dev/core")
    output = bundle.output(in_user_namespace(config) if mapped else config)
    assert "ptmx -> pts/ptmx" in output
    assert ("core -> /proc/kcore" in output) == os.path.exists("/proc/kcore")


def test_parents_of_mount_points_belong_to_the_group_of_a_setgid_directory(bundle: Bundle) -> None:
    (bundle.rootfs / "srv").mkdir()
    os.chown(bundle.rootfs / "srv", 0, 50)
    (bundle.rootfs / "srv").chmod(0o2775)
    config = configuration("stat", "-c", "%a %g", "/srv/a/b", "/srv/a")
    config["mounts"].append({"destination": "/srv/a/b/c", "type": "tmpfs", "source": "tmpfs"})
    assert bundle.output(config) == "2755 50\n2755 50\n"
    # A device's owner is what its entry says: root where it says nothing.
    config["process"]["args"] = ["stat", "-c", "%a %u:%g", "/srv/null"]
    config["linux"]["devices"] = [{"path": "/srv/null", "type": "c", "major": 1, "minor": 3}]
    assert bundle.output(config) == "666 0:0\n"
