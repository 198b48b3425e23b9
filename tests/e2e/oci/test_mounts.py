"""What bundles say of mounts, by the installed runtime: where they lie, and what they leave."""

import copy
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import oci
from tests.support.commands import Engine

pytestmark = pytest.mark.root

IDS = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]


@pytest.fixture
def own(rootfs: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a root file system that the test may write to."""
    directory = tmp_path / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "mnt", "copy", "data", "srv"):
        (directory / name).mkdir(parents=True)
    shutil.copy2(rootfs / "bin" / "busybox", directory / "bin")
    for name in ("cat", "cut", "grep", "ls", "sh", "sleep", "stat", "touch", "true"):
        (directory / "bin" / name).symlink_to("busybox")
    return directory


@pytest.fixture
def mine(ketch_oci: str, tmp_path: pathlib.Path) -> Iterator[Engine]:
    """Return ketch-oci alone, where runc of this machine's age does otherwise."""
    found = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "alone")])
    yield found
    oci.delete_all(found)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Return a mount in a peer group of the host's, with another one below it."""
    top = tmp_path / "tree"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top], check=True)
    try:
        subprocess.run(["mount", "--make-shared", top], check=True)
        for name in ("empty", "below"):
            (top / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "below"], check=True)
        (top / "below" / "file").write_text("the host's\n")
        yield top
    finally:
        subprocess.run(["umount", "-l", top], check=True)


def configured(own: pathlib.Path, *arguments: str, mapped: bool = False) -> dict[str, Any]:
    config = oci.configuration(own, *arguments)
    config["root"]["readonly"] = False
    if mapped:
        os.chown(own, 200_000, 200_000)
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"] |= {"uidMappings": IDS, "gidMappings": IDS}
    return config


def bind(config: Any, source: object, destination: str, *options: str) -> None:
    config["mounts"].append(
        {"destination": destination, "type": "bind", "source": str(source), "options": [*options]}
    )


def ran(engine: Engine, directory: pathlib.Path, config: Any) -> str:
    return engine.ok("run", "-b", oci.write_bundle(directory / "bundle", config), "c")


def refused(engine: Engine, directory: pathlib.Path, config: Any) -> str:
    result = engine("run", "-b", oci.write_bundle(directory / "bundle", config), "c")
    assert result.status != 0, str(result)
    assert result.out == ""
    return result.err


def below(place: pathlib.Path) -> list[str]:
    """The host's mounts at a place, without what says how far they are shared."""
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(str(place))]


def options_of(text: str, place: str) -> str:
    (line,) = [line for line in text.splitlines() if line.split()[4] == place]
    return line.split()[5]


@pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])
def test_a_binds_flags(
    mine: Engine, own: pathlib.Path, tree: pathlib.Path, tmp_path: pathlib.Path, *, mapped: bool
) -> None:
    """As runc has them since 1.2: what is not named goes, but where the kernel holds it."""
    subprocess.run(["mount", "-o", "remount,bind,ro,noexec", tree], check=True)
    cases = [
        ([], "ro,noexec,relatime", "ro,noexec,relatime"),
        (["nosuid", "nodev"], "rw,nosuid,nodev,relatime", "ro,nosuid,nodev,noexec,relatime"),
        (["rw"], "rw,relatime", "ro,noexec,relatime"),
    ]
    config = configured(own, "cat", "/proc/self/mountinfo", mapped=mapped)
    for number, (options, _, _) in enumerate(cases):
        bind(config, tree, f"/mnt/{number}", "bind", *options)
        (own / "mnt" / str(number)).mkdir()
    text = ran(mine, tmp_path, config)
    found = [options_of(text, f"/mnt/{number}") for number in range(len(cases))]
    assert found == [case[2 if mapped else 1] for case in cases]


@pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])
def test_what_earlier_mounts_and_links_bring_is_the_containers(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path, *, mapped: bool
) -> None:
    """Sources in its own tree, links in them, and destinations that begin with the root's path."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "inner").write_text("brought\n")
    (source / "way").symlink_to("/etc")
    (own / "data" / "inner").write_text("covered\n")
    (own / "etc" / "hostname").write_text("the image's\n")
    script = "cat /copy/inner /srv/hostname; grep -c ' /tmp/here ' /proc/self/mountinfo"
    config = configured(own, "sh", "-c", script, mapped=mapped)
    bind(config, source, f"{own}/data/", "bind")
    bind(config, f"{own}/data", "/copy", "bind")
    bind(config, f"{own}/data/way", "/srv", "bind")
    (own / "tmp" / "here").mkdir(parents=True)
    config["mounts"].append({"destination": f"{own}/../{own.name}/tmp/here", "type": "tmpfs"})
    assert ran(mine, tmp_path, config) == "brought\nthe image's\n1"
    bind(config, f"{own}/data/nothing", "/opt", "bind")
    assert re.search(r"mounts\[\d+\]\.source: .*nothing does not exist",
                     refused(mine, tmp_path, config))  # fmt: skip


@pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])
def test_a_read_only_tmpfs_is_filled_and_an_empty_option_is_none(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path, *, mapped: bool
) -> None:
    (own / "srv" / "file").write_text("of the image\n")
    config = configured(own, "sh", "-c", "cat /srv/file; touch /srv/new || echo read-only",
                        mapped=mapped)  # fmt: skip
    config["mounts"].append(
        {"destination": "/srv", "type": "tmpfs", "source": "tmpfs",
         "options": ["", "ro", "tmpcopyup", "size=1m"]}
    )  # fmt: skip
    assert ran(mine, tmp_path, config) == "of the image\nread-only"


def test_what_is_made_for_mounts_and_devices(
    runtime: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Parents in a set-group-id directory, a device with a slash behind it, a path named twice."""
    os.chown(own / "srv", 0, 50)
    (own / "srv").chmod(0o2775)
    script = (
        "stat -c '%a %g' /srv/a/b /srv/a; ls -l /dev/mine | cut -c1; "
        "grep -c ' /proc/version ' /proc/self/mountinfo"
    )
    config = configured(own, "sh", "-c", script)
    config["mounts"].append({"destination": "/srv/a/b/c", "type": "tmpfs", "source": "tmpfs"})
    config["linux"]["devices"] = [{"path": "/dev/mine/", "type": "c", "major": 1, "minor": 3}]
    config["linux"]["maskedPaths"] = ["/proc/version"]
    if runtime.name != "runc":  # which covers it twice
        config["linux"]["maskedPaths"] += ["/proc//version/", "/proc/version"]
    assert ran(runtime, tmp_path, config).splitlines() == ["2755 50", "2755 50", "c", "1"]


def test_core_of_dev_does_not_dangle(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    script = "test -e /dev/core || test ! -L /dev/core; echo $?"
    for mapped in (False, True):
        config = configured(own, "sh", "-c", script, mapped=mapped)
        assert ran(mine, tmp_path, config) == "0"


def _plain(config: Any, source: pathlib.Path) -> None:
    bind(config, source, "/mnt", "rbind")


def _idmapped(config: Any, source: pathlib.Path) -> None:
    bind(config, source, "/mnt", "rbind")
    config["mounts"][-1] |= {"uidMappings": IDS, "gidMappings": IDS}


def _in_a_shared_root(config: Any, source: pathlib.Path) -> None:
    config["linux"]["rootfsPropagation"] = "rshared"
    bind(config, source, "/mnt", "rbind")


def _asked_by_the_mount_alone(config: Any, source: pathlib.Path) -> None:
    bind(config, source, "/mnt", "rbind", "rshared")


ON_TMPFS = pytest.mark.skipif(
    tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 3),
    reason="tmpfs maps ids since Linux 6.3",
)


@pytest.mark.parametrize("mapped", [False, True], ids=["root", "mapped"])
@pytest.mark.parametrize(
    "way",
    [_plain, _in_a_shared_root, _asked_by_the_mount_alone, pytest.param(_idmapped, marks=ON_TMPFS)],
)
def test_what_is_mounted_on_a_bind_never_shows_on_the_host(
    mine: Engine,
    own: pathlib.Path,
    tree: pathlib.Path,
    tmp_path: pathlib.Path,
    way: Callable[[Any, pathlib.Path], None],
    *,
    mapped: bool,
) -> None:
    before = below(tree)
    config = configured(own, "grep", "-c", " /mnt/", "/proc/self/mountinfo", mapped=mapped)
    way(config, tree)
    for place in ("empty", "below"):
        config["mounts"].append(
            {"destination": f"/mnt/{place}", "type": "tmpfs", "source": "tmpfs"}
        )
    path = oci.write_bundle(tmp_path / "bundle", config)
    config["process"]["args"] = ["sleep", "100"]
    oci.write_bundle(tmp_path / "bundle", config)
    assert oci.quietly(mine, "run", "-d", "-b", path, "c") == 0
    inside = mine.ok("exec", "c", "cat", "/proc/self/mountinfo")
    assert {"/mnt/empty", "/mnt/below"} <= {line.split()[4] for line in inside.splitlines()}
    assert below(tree) == before
    mine.ok("delete", "--force", "c")
    # A creation that fails on the way takes nothing of the host's away.
    config["mounts"].append({"destination": "/mnt/late", "type": "tmpfs", "options": ["nonsense"]})
    assert "nonsense" in refused(mine, tmp_path, config)
    assert below(tree) == before
    assert (tree / "below" / "file").read_text() == "the host's\n"


def test_the_hosts_control_groups_stay_whatever_is_mounted_on_them(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """/sys is bound with all below it, and the start fails after more was mounted there."""
    before = below(pathlib.Path("/sys"))
    listed = sorted(os.listdir("/sys/fs/cgroup"))
    for mapped in (False, True):
        config = configured(own, "true", mapped=mapped)
        config["mounts"] = [one for one in config["mounts"] if one["destination"] != "/sys"]
        bind(config, "/sys", "/sys", "rbind")
        config["mounts"] += [
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
            {"destination": "/sys/fs", "type": "tmpfs", "source": "tmpfs"},
        ]
        assert ran(mine, tmp_path, config) == ""
        config["mounts"].append(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense"]}
        )
        assert "nonsense" in refused(mine, tmp_path, config)
        assert below(pathlib.Path("/sys")) == before
        assert sorted(os.listdir("/sys/fs/cgroup")) == listed


@pytest.mark.parametrize("destination", ["/", "/..", "/to-root", "/tmp/../..", "ROOTFS"])
def test_a_mount_on_the_root_itself_is_refused(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path, destination: str
) -> None:
    (own / "to-root").symlink_to("..")
    config = configured(own, "true")
    destination = destination.replace("ROOTFS", str(own))
    for kind, source in (("tmpfs", "tmpfs"), ("bind", "/tmp")):
        mounts = copy.deepcopy(config["mounts"])
        mounts.insert(0, {"destination": destination, "type": kind, "source": source})
        said = refused(mine, tmp_path, {**config, "mounts": mounts})
        assert "is the container's root itself" in said


def test_hooks_have_the_environment_of_where_they_run(
    runtime: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Who runs in the container's namespaces learns of the container's variables alone."""
    if runtime.name == "runc":
        pytest.skip("runc's hooks without an environment have the caller's or none, by version")
    config = configured(own, "true")
    config["process"]["env"].append("INSIDE=yes")
    config["hooks"] = {}
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer")
    for kind in kinds:
        log = f"{'' if kind == 'startContainer' else own}/told.{kind}"
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"{{ export -p; echo --; }} >> {log}"]}
        config["hooks"][kind] = [hook, {**hook, "env": []}, {**hook, "env": ["GIVEN=yes"]}]
    caller = Engine(runtime.name, runtime.prefix, {"OF_THE_CALLER": "secret"})
    assert ran(caller, tmp_path, config) == ""
    for kind in kinds:
        told = (own / f"told.{kind}").read_text().split("--\n")
        found = [
            [name for name in ("OF_THE_CALLER", "INSIDE", "GIVEN") if name in text] for text in told
        ]
        inherited = "OF_THE_CALLER" if kind in {"prestart", "createRuntime"} else "INSIDE"
        assert found == [[inherited], [], ["GIVEN"], []], kind


@pytest.mark.parametrize("where", ["policy", "affinity", "cpuset"])
def test_lists_of_ranges_are_refused_before_they_are_written_out(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path, where: str
) -> None:
    config = configured(own, "true")
    wide = "0-400000000"
    if where == "policy":
        config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": wide}
    elif where == "affinity":
        config["process"]["execCPUAffinity"] = {"initial": wide}
    else:
        config["linux"]["resources"]["cpu"] = {"cpus": wide}
    path = oci.write_bundle(tmp_path / "bundle", config)
    # Written out they would be gigabytes.
    limited = ["prlimit", f"--as={1 << 30}", "--cpu=10"]
    bounded = Engine(mine.name, [*limited, *mine.prefix])
    result = bounded("run", "-b", path, "c")
    assert result.status != 0
    assert re.search(r"0-400000000|must be a list such as 0-3,7", result.err), str(result)


def test_maps_beside_a_joined_user_namespace_must_be_its_own(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = configured(own, "sleep", "100", mapped=True)
    path = oci.write_bundle(tmp_path / "first", first)
    assert oci.quietly(mine, "run", "-d", "-b", path, "one") == 0
    pid = mine.ok("state", "one").partition('"pid":')[2].partition(",")[0].strip()
    second = configured(own, "cat", "/proc/self/uid_map")
    second["linux"]["cgroupsPath"] += "-second"
    second["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
    second["linux"] |= {"uidMappings": IDS, "gidMappings": IDS}
    done = mine("run", "-b", oci.write_bundle(tmp_path / "bundle", second), "two")
    assert (done.status, done.out.split()) == (0, ["0", "200000", "65536"])
    assert "those of the joined user namespace count" in done.err
    second["linux"]["gidMappings"] = [{**IDS[0], "hostID": 300_000}]
    assert re.search(r"linux\.gidMappings: .* is not what", refused(mine, tmp_path, second))


def test_a_pid_file_is_written_to_nothing_that_is_there(
    mine: Engine, own: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A fifo would keep it waiting, a link or another name would lead it elsewhere."""
    victim = tmp_path / "victim"
    path = oci.write_bundle(tmp_path / "bundle", configured(own, "sleep", "100"))
    for kind in ("fifo", "link", "name"):
        victim.write_text("the host's\n")
        place = tmp_path / f"pid.{kind}"
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "link":
            place.symlink_to(victim)
        else:
            os.link(victim, place)
        assert oci.quietly(mine, "run", "-d", "--pid-file", str(place), "-b", path, "c") == 0
        assert int(place.read_text()) > 1
        assert not place.is_symlink()
        assert victim.read_text() == "the host's\n"
        mine.ok("delete", "--force", "c")
