"""``--userns``: containers whose ids are not the host's, over the same images and volumes."""

import json
import os
import pathlib
import re
import subprocess
import time
from collections.abc import Iterator

import pexpect
import pytest

from tests.support.commands import Engine
from tests.support.users import UsersEngine

COUNT = 65536


def run(engine: Engine, *arguments: str, mode: str = "auto") -> str:
    """Run a shell script in busybox with ids of its own."""
    *options, script = arguments
    return engine.ok("run", "--rm", "--userns", mode, *options, "busybox", "sh", "-c", script)


def first_id(engine: Engine, container: str) -> int:
    """Return what root of a running container is on the host, by the kernel."""
    return ids(engine, container)[0]


def ids(engine: Engine, container: str) -> tuple[int, int]:
    """Return that, and how many ids a running container has."""
    pid = engine.ok("inspect", "--format", "{{.State.Pid}}", container)
    inside, outside, count = pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()
    assert inside == "0"
    return int(outside), int(count)


@pytest.fixture
def apart(ketch: Engine) -> str:
    """Return a running container with ids of its own."""
    return ketch.ok("run", "-d", "--userns", "auto", "--ipc", "shareable", "busybox",
                    "sleep", "1000")  # fmt: skip


@pytest.mark.root_engine("a user counts in ids of its own: rootless/test_user_namespaces.py")
def test_root_inside_is_nobody_outside(ketch: Engine, apart: str) -> None:
    pid = ketch.ok("inspect", "--format", "{{.State.Pid}}", apart)
    first = first_id(ketch, apart)
    assert first >= 100_000
    assert os.stat(f"/proc/{pid}").st_uid == first
    assert ketch.ok("exec", apart, "id", "-u") == "0"
    shown = ketch.ok("inspect", "--format", "{{json .HostConfig.IDMappings}}", apart)
    assert json.loads(shown)["UidMap"] == [f"0:{first}:{COUNT}"]
    map_ = ketch.ok("exec", apart, "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    assert map_ == ["0", str(first), str(COUNT)] * 2
    ketch.ok("rm", "-f", apart)


def test_all_capabilities_count_for_nothing_outside(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """What makes a container root on the host, did it have the host's ids."""
    tmp_path.chmod(0o755)
    (tmp_path / "secret").touch(0o600)
    script = """
        mount -o remount,rw,bind /proc/sys
        for path in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /h/secret /h/new; do
            echo x > $path && echo wrote $path
        done
        mknod /b b 7 0 && echo made a device
        mount -t ext4 /dev/null /mnt && echo mounted
        chmod 0 /proc/self/fd/0 /dev/null && echo changed the null device
        date -s 2020-01-01 > /date
        grep CapEff /proc/self/status
    """
    pattern = pathlib.Path("/proc/sys/kernel/core_pattern").read_text()
    out = run(ketch, "--cap-add", "ALL", "--security-opt", "seccomp=unconfined", "--security-opt",
              "systempaths=unconfined", "-v", f"{tmp_path}:/h", script)  # fmt: skip
    show = [*ketch.python, "-c", "print(open('/proc/self/status').read())"]
    status = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    own = re.search(r"^CapPrm:\s+(\w+)$", status, re.MULTILINE)
    assert own is not None
    assert out.split() == ["CapEff:", own[1]]
    assert time.localtime().tm_year > 2020
    assert pathlib.Path("/proc/sys/kernel/core_pattern").read_text() == pattern


def test_no_two_have_the_same_ids(ketch: Engine, apart: str) -> None:
    other = ketch.ok("run", "-d", "--userns", "auto", "busybox", "sleep", "1000")
    (first, count), (second, _) = sorted([ids(ketch, apart), ids(ketch, other)])
    assert second - first >= count
    ketch.ok("rm", "-f", apart, other)
    third = ketch.ok("run", "-d", "--userns", "auto", "busybox", "sleep", "1000")
    assert first_id(ketch, third) == first
    ketch.ok("rm", "-f", third)


def test_ids_stay_over_a_restart(ketch: Engine, apart: str) -> None:
    before = first_id(ketch, apart)
    ketch.ok("exec", apart, "sh", "-c", "echo kept > /kept; chown 7:8 /kept")
    ketch.ok("restart", "-t", "0", apart)
    assert first_id(ketch, apart) == before
    assert ketch.ok("exec", apart, "stat", "-c", "%u:%g", "/kept") == "7:8"
    ketch.ok("rm", "-f", apart)


def test_how_many_can_be_said(ketch: Engine) -> None:
    assert run(ketch, "cut -c23- /proc/self/uid_map", mode="auto:size=1000").split() == ["1000"]
    script = "chown 999 /tmp && ! chown 1000 /tmp"
    run(ketch, script, mode="auto:size=1000")


def test_files_belong_to_whom_the_image_says(ketch: Engine) -> None:
    out = run(ketch, "stat -c %u:%g /bin/sh / /etc/hosts /etc/resolv.conf /dev/shm")
    assert out.split() == ["0:0"] * 5


@pytest.mark.vm
def test_everything_of_a_container_of_its_own_works(ketch: Engine) -> None:
    script = (
        "set -e; hostname boat; ip link set lo mtu 1400; ip link set eth0 down;"
        " mkdir /m; ! mount -t tmpfs t /m; echo out > /dev/stdout; echo err > /dev/stderr;"
        " touch /f; chown 5:6 /f; rm /bin/vi; mv /home /house; mkfifo /p; ! mknod /d b 7 0;"
        " echo x > /dev/null; cat /sys/class/net/eth0/mtu; ls -d /sys/fs/cgroup; echo ok"
    )
    run(ketch, "--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", "--security-opt",
        "seccomp=unconfined", script.replace("! mount", "mount"))  # fmt: skip
    out = run(ketch, "--cap-add", "NET_ADMIN", script.replace("hostname boat;", ""))
    assert out.endswith("ok")


def test_streams_can_be_opened_by_another_user(ketch: Engine, apart: str) -> None:
    out = run(ketch, "-u", "33", "echo out > /dev/stdout; echo err > /dev/stderr; id -u")
    assert set(out.split()) >= {"out", "33"}
    assert ketch.ok("exec", "-u", "34", apart, "sh", "-c", "echo exec > /dev/stdout") == "exec"
    ketch.ok("rm", "-f", apart)


def test_a_terminal(ketch: Engine, apart: str) -> None:
    child = ketch.terminal("run", "--rm", "-t", "--userns", "auto", "busybox",
                           "stat", "-c", "%u:%g", "/dev/console")  # fmt: skip
    child.expect("0:5\r")
    child.expect(pexpect.EOF)
    child = ketch.terminal("exec", "-t", apart, "tty")
    child.expect("/dev/pts/0\r")
    child.expect(pexpect.EOF)
    ketch.ok("rm", "-f", apart)


def test_copies_have_the_ids_inside(ketch: Engine, apart: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    os.chown(file, ketch.outside(3), ketch.outside(4))
    for step in ("stop", "start"):  # running, and stopped
        ketch.ok("cp", "-a", str(file), f"{apart}:/in")
        ketch.ok("cp", "-a", f"{apart}:/in", str(tmp_path / "out"))
        status = os.stat(tmp_path / "out")
        assert (status.st_uid, status.st_gid) == (ketch.outside(3), ketch.outside(4))
        ketch.ok(step, *(["-t", "0"] if step == "stop" else []), apart)
    assert ketch.ok("exec", apart, "stat", "-c", "%u:%g", "/in") == "3:4"
    ketch.ok("rm", "-f", apart)


def test_a_copy_cannot_bring_ids_that_the_container_lacks(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    container = ketch.ok("run", "-d", "--userns", "auto:size=100", "busybox", "sleep", "1000")
    file = tmp_path / "file"
    file.touch()
    os.chown(file, ketch.outside(5000), ketch.outside(0))
    result = ketch("cp", "-a", str(file), f"{container}:/in")
    assert (result.status, "id 5000 is not among those" in result.err) == (1, True)
    ketch.ok("rm", "-f", container)


@pytest.mark.vm
def test_what_is_committed_is_the_same_for_everybody(ketch: Engine, apart: str) -> None:
    ketch.ok("exec", apart, "sh", "-c", "touch /made; chown 7:8 /made; rm /bin/vi")
    assert ketch.ok("diff", apart).splitlines() == ["C /bin", "D /bin/vi", "A /made"]
    ketch.ok("commit", apart, "committed")
    ketch.ok("rm", "-f", apart)
    script = "stat -c %u:%g /made; test ! -e /bin/vi"
    try:
        assert ketch.ok("run", "--rm", "committed", "sh", "-c", script) == "7:8"
        out = ketch.ok("run", "--rm", "--userns", "auto", "committed", "sh", "-c", script)
        assert out == "7:8"
        shown = run(ketch, "--mount", "type=image,src=committed,dst=/i", "stat -c %u:%g /i/made")
        assert shown == "7:8"
    finally:
        ketch.ok("rmi", "committed")


@pytest.mark.root_engine("the kernel lets nobody else map ids in mounts")
@pytest.mark.vm
def test_a_volume_is_shared_by_those_with_other_ids(ketch: Engine) -> None:
    ketch.ok("volume", "create", "shared-ids")
    try:
        run(ketch, "-v", "shared-ids:/v", "touch /v/a; chown 7:8 /v/a")
        assert run(ketch, "-v", "shared-ids:/v", "stat -c %u:%g /v/a; chown 9 /v/a") == "7:8"
        out = ketch.ok("run", "--rm", "-v", "shared-ids:/v", "busybox", "stat", "-c", "%u", "/v/a")
        assert out == "9"
    finally:
        ketch.ok("volume", "rm", "shared-ids")


@pytest.mark.root_engine("the kernel lets nobody else map ids in mounts")
def test_the_host_s_files_stay_the_host_s(ketch: Engine, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch(0o644)
    out = run(ketch, "-v", f"{tmp_path}:/h", "stat -c %u /h/file; touch /h/new || echo refused")
    assert out.split() == ["65534", "refused"]
    mount = f"type=bind,src={tmp_path},dst=/h,idmap"
    assert run(ketch, "--mount", mount, "stat -c %u /h/file; touch /h/new") == "0"
    assert (tmp_path / "new").stat().st_uid == 0
    # As podman has it: without @ by the machine's ids, which nobody inside has.
    for word, owner in (("@", "5"), ("", "65534")):
        mount = f"type=bind,src={tmp_path},dst=/h,idmap=uids={word}0-5-1;gids={word}0-5-1"
        assert run(ketch, "--mount", mount, "stat -c %u /h/file") == owner
    mount = f"type=bind,src={tmp_path},dst=/h,idmap=uids=@0-1000000-1;gids=@0-0-1"
    refused = ketch("run", "--rm", "--userns", "auto", "--mount", mount, "busybox", "true")
    assert (refused.status, "does not have the ids from 1000000" in refused.err) == (125, True)


def test_another_one_s_namespaces_come_with_its_ids(ketch: Engine, apart: str) -> None:
    name = f"container:{apart}"
    joined = ("--network", name, "--pid", name, "--ipc", name)
    script = "cat /proc/self/uid_map /proc/1/cmdline; ip -o -4 address show eth0 | wc -l"
    first, *rest = run(ketch, *joined, script, mode=name).splitlines()
    inside = ketch.ok("exec", apart, "cat", "/proc/self/uid_map")
    assert first.split() == inside.split()
    assert rest == ["sleep\x001000\x001"]
    for option in ("--network", "--pid", "--ipc"):
        result = ketch("run", "--rm", "--userns", "auto", option, name, "busybox", "true")
        assert result.status == 125
        assert "cannot share another container's" in result.err
    ketch.ok("rm", "-f", apart)


def test_the_host_s_ids_are_nobody_s_to_share(ketch: Engine) -> None:
    other = ketch.ok("run", "-d", "busybox", "sleep", "1000")
    result = ketch("run", "--rm", "--userns", f"container:{other}", "busybox", "true")
    assert (result.status, "has no ids of its own" in result.err) == (125, True)
    ketch.ok("rm", "-f", other)


def test_networks_come_and_go_while_it_runs(ketch: Engine, apart: str) -> None:
    ketch.ok("network", "create", "apart-net")
    try:
        ketch.ok("network", "connect", "apart-net", apart)
        assert "eth1" in ketch.ok("exec", apart, "ls", "/sys/class/net").split()
        ketch.ok("network", "disconnect", "apart-net", apart)
        assert "eth1" not in ketch.ok("exec", apart, "ls", "/sys/class/net").split()
        ketch.ok("rm", "-f", apart)
    finally:
        ketch.ok("network", "rm", "apart-net")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--network", "host"], "cannot share the host's network namespace"),
        (["--pid", "host"], "cannot share the host's PID namespace"),
        (["--ipc", "host"], "cannot share the host's IPC namespace"),
    ],
)
def test_what_is_the_host_s_cannot_be_had(ketch: Engine, options: list[str], words: str) -> None:
    result = ketch("run", "--rm", "--userns", "auto", *options, "busybox", "true")
    assert result.status == 125
    assert words in result.err


def test_a_device_under_another_name(ketch: Engine) -> None:
    script = "stat -c '%t:%T' /dev/q /x/y; head -c 2 /dev/q | od -An -tx1; echo 1 >/x/y"
    result = ketch("run", "--rm", "--userns", "auto", "--device", "/dev/zero:/dev/q", "--device",
                   "/dev/full:/x/y", "busybox", "sh", "-c", script)  # fmt: skip
    assert result.out.split() == ["1:5", "1:7", "00", "00"]
    assert "No space left on device" in result.err


@pytest.mark.parametrize("mode", ["auto:size=0", "auto:size=x", "auto:", "nobody", "container:"])
def test_a_mode_that_is_none(ketch: Engine, mode: str) -> None:
    result = ketch("run", "--rm", "--userns", mode, "busybox", "true")
    assert result.status == 125
    assert re.search("invalid (USER|user namespace) mode", result.err)


def test_it_says_what_it_does(ketch: Engine) -> None:
    result = ketch("run", "--rm", "--userns", "auto", "--explain", "--mount",
                   "type=image,src=busybox,dst=/i", "busybox", "true")  # fmt: skip
    assert "new user namespace" in result.err
    assert "join the user namespace user:[" in result.err
    assert "bind image busybox to /i" in result.err
    # A descriptor of ours has a number that says nothing; the links of /dev are the container's.
    numbered = [line for line in result.err.splitlines() if "/proc/self/fd/" in line]
    assert not [line for line in numbered if not line.startswith("  /dev/")]


def all_ids(engine: Engine) -> list[str]:
    """Return how many ids there are in the ranges of the engine's own user namespace."""
    show = [*engine.python, "-c", "print(open('/proc/self/uid_map').read())"]
    return subprocess.run(show, check=True, capture_output=True, text=True).stdout.split()[2::3]


@pytest.fixture
def by_default(ketch: Engine) -> Iterator[pathlib.Path]:
    """Have the engine's configuration file give every container ids of its own."""
    directory = pathlib.Path(ketch.prefix[2])
    if isinstance(ketch, UsersEngine):
        directory = ketch.user.home / ".config" / "ketch"
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.json"
    path.write_text('{"userns": "auto:size=2000"}')
    yield path
    path.unlink()


def test_the_configuration_file_makes_it_the_default(
    ketch: Engine, by_default: pathlib.Path
) -> None:
    script = ("sh", "-c", "cut -c23- /proc/self/uid_map")
    assert ketch.ok("run", "--rm", "busybox", *script).strip() == "2000"
    out = ketch.ok("run", "--rm", "--userns", "host", "busybox", *script)
    assert out.split() == all_ids(ketch)
    result = ketch("run", "--rm", "--privileged", "busybox", "true")
    assert (result.status, "say --userns host" in result.err) == (125, True)
    ketch.ok("run", "--rm", "--privileged", "--userns", "host", "busybox", "true")


def test_by_default_namespaces_come_with_their_ids(ketch: Engine, by_default: pathlib.Path) -> None:
    apart = ketch.ok("run", "-d", "busybox", "sleep", "1000")
    plain = ketch.ok("run", "-d", "--userns", "host", "busybox", "sleep", "1000")
    for other, count in ((apart, ["2000"]), (plain, all_ids(ketch))):
        found = ketch.ok("run", "--rm", "--network", f"container:{other}", "busybox",
                         "sh", "-c", "cut -c23- /proc/self/uid_map")  # fmt: skip
        assert found.split() == count
    ketch.ok("rm", "-f", apart, plain)


@pytest.mark.parametrize("mode", ['"nobody"', '"container:web"', "7"])
def test_a_default_that_is_none(ketch: Engine, by_default: pathlib.Path, mode: str) -> None:
    by_default.write_text(f'{{"userns": {mode}}}')
    result = ketch("run", "--rm", "busybox", "true")
    assert result.status == 125
    assert f"{by_default}: userns: " in result.err


def test_docker_s_command_line_gets_the_default_as_well(
    served_engine: Engine, ketch: Engine, by_default: pathlib.Path
) -> None:
    script = ("sh", "-c", "cut -c23- /proc/self/uid_map; echo x > /dev/stdout")
    assert served_engine.ok("run", "--rm", "busybox", *script).split() == ["2000", "x"]
    out = served_engine.ok("run", "--rm", "--userns", "host", "busybox", *script)
    assert out.split() == [*all_ids(ketch), "x"]


@pytest.mark.root_engine("a user counts in ids of its own: rootless/test_user_namespaces.py")
@pytest.mark.ketch_only("podman's options")
def test_ids_can_be_named(ketch: Engine, run_name: str) -> None:
    maps = ["--uidmap", "0:100000:1000", "--uidmap", "5000:300000:2", "--gidmap", "0:200000:10"]
    ketch.ok("run", "-d", "--name", run_name, *maps, "busybox", "sh", "-c",
             "cat /proc/self/uid_map /proc/self/gid_map; touch /x; exec sleep 1000")  # fmt: skip
    deadline = time.monotonic() + 10
    while len(told := ketch.ok("logs", run_name).split()) < 9:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told == ["0", "100000", "1000", "5000", "300000", "2", "0", "200000", "10"]
    shown = json.loads(ketch.ok("inspect", "-f", "{{json .HostConfig.IDMappings}}", run_name))
    assert shown == {"UidMap": ["0:100000:1000", "5000:300000:2"], "GidMap": ["0:200000:10"]}
    assert ketch.ok("exec", run_name, "stat", "-c", "%u %g", "/x") == "0 0"
    pid = ketch.ok("inspect", "-f", "{{.State.Pid}}", run_name)
    assert os.stat(f"/proc/{pid}").st_uid == 100000
    ketch.ok("restart", "-t", "0", run_name)
    ketch.ok("rm", "-f", run_name)
    # One alone counts for both, and root alone is enough, though terminals have no group then.
    script = "cat /proc/self/uid_map /proc/self/gid_map"
    assert ketch.ok("run", "--rm", "-t", "--uidmap", "0:1000:1", "busybox", "sh", "-c",
                    script).split() == ["0", "1000", "1"] * 2  # fmt: skip
    words = ["--uidmap", "0:@100000:9", "--uidmap", "u+4:7:5", "--uidmap", "g20:30"]
    told = ketch.ok("run", "--rm", *words, "busybox", "sh", "-c", script).split()
    assert told == [
        "0",
        "100000",
        "4",
        "4",
        "7",
        "5",
        "0",
        "100000",
        "9",
        "20",
        "30",
        "1",
    ]


@pytest.mark.root_engine("keep-id is of a user's own id: rootless/test_user_namespaces.py")
@pytest.mark.ketch_only("podman's options")
def test_root_keeps_its_own_id_in_a_namespace_of_its_own(ketch: Engine) -> None:
    script = "readlink /proc/self/ns/user; cat /proc/self/uid_map; id -u; touch /bin/x"
    told = run(ketch, script, mode="keep-id").split()
    assert told[0] != os.readlink("/proc/self/ns/user")
    assert told[1:] == ["0", "0", "4294967295", "0"]
    assert run(ketch, "id -u; id -g", mode="keep-id:uid=5,gid=6").split() == ["5", "6"]


_ROOTS = pytest.mark.root_engine("for a user that can be")


@pytest.mark.ketch_only("podman's options")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--uidmap", "1:1000:1"], "root is not among the ids", marks=_ROOTS),
        pytest.param(["--userns", "nomap"], "only supported in rootless mode", marks=_ROOTS),
        (["--uidmap", "0:1000:5", "--uidmap", "4:1:1"], "overlap"),
        (["--uidmap", "0:1000:5", "--uidmap", "6:1004:1"], "overlap"),
        (["--uidmap", "0:x:1"], "INSIDE:OUTSIDE:COUNT"),
        (["--gidmap", "0"], "INSIDE:OUTSIDE:COUNT"),
        (["--gidmap", "0:1:0"], "32 bits"),
        (["--gidmap", "0:1:4294967295"], "32 bits"),
        (["--gidmap", "0:²:1"], "INSIDE:OUTSIDE:COUNT"),
        (["--uidmap", "0:1:1", "--userns", "auto"], "conflicting options"),
        (["--uidmap", "0:1000:1", "--privileged"], "privileged"),
    ],
)
def test_ids_that_cannot_be(ketch: Engine, options: list[str], words: str) -> None:
    refused = ketch("run", "--rm", *options, "busybox", "true")
    assert refused.status == 125
    assert words in refused.err
