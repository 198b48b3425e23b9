"""Options of ``run`` that no other module is about: what they do, and how they are refused."""

import json
import os
import pathlib
import stat
import subprocess

import pytest

from tests.support import images
from tests.support.commands import Engine


def run(engine: Engine, *words: str) -> str:
    return engine.ok("run", "--rm", "--network", "none", *words)


def test_block_devices_are_throttled(engine: Engine) -> None:
    # By so much that neither the container's start nor its own reading feels it.
    disks = [p for p in pathlib.Path("/dev").glob("[vs]d[a-z]") if stat.S_ISBLK(p.stat().st_mode)]
    folder = "/sys/fs/cgroup/blkio/blkio.throttle"
    if not disks or not pathlib.Path(f"{folder}.read_bps_device").exists():
        pytest.skip("this machine has no disk, or no blkio controller of cgroup v1")
    out = run(engine, "--device-read-bps", f"{disks[0]}:900mb", "--device-write-iops",
              f"{disks[0]}:70000", "busybox", "cat", f"{folder}.read_bps_device",
              f"{folder}.write_iops_device")  # fmt: skip
    assert [line.split()[1] for line in out.splitlines()] == ["943718400", "70000"]


def test_devices_of_a_directory(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "below").mkdir()
    os.mknod(tmp_path / "full", 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    os.mknod(tmp_path / "below" / "zero", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    out = run(engine, "--device", f"{tmp_path}:/dev/mine:r", "busybox", "sh", "-c",
              "find /dev/mine -type c | sort; head -c 1 /dev/mine/full | wc -c")  # fmt: skip
    assert out.splitlines() == ["/dev/mine/below/zero", "/dev/mine/full", "1"]


def test_masked_paths_and_cgroups(engine: Engine) -> None:
    script = "head -c 1 /proc/kcore | wc -c; mount | grep -c ' on /proc/'"
    assert run(engine, "busybox", "sh", "-c", script).split()[0] == "0"
    bare = ["--security-opt", "systempaths=unconfined", "busybox"]
    assert run(engine, *bare, "sh", "-c", "mount | grep ' on /proc/' || true") == ""


@pytest.mark.root_engine("cgroup v1 gives ordinary users none")
@pytest.mark.ketch_only("newer than Debian's dockerd")
def test_writable_cgroups(engine: Engine) -> None:
    place = (
        "/sys/fs/cgroup/pids" if pathlib.Path("/sys/fs/cgroup/pids").exists() else "/sys/fs/cgroup"
    )
    script = f"mkdir {place}/x && rmdir {place}/x && echo made"
    assert run(engine, "--security-opt", "writable-cgroups=true", "busybox", "sh", "-c",
               script) == "made"  # fmt: skip
    refused = engine("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
    assert "Read-only file system" in refused.err


@pytest.mark.ketch_only("Debian's dockerd knows no such devices")
def test_devices_by_their_cdi_name(engine: Engine, tmp_path: pathlib.Path) -> None:
    directory = pathlib.Path("/var/run/cdi")
    existed = directory.exists()
    directory.mkdir(exist_ok=True)
    (tmp_path / "library").write_text("a library\n")
    specification = directory / "ketch-test.json"
    specification.write_text(json.dumps({
        "cdiVersion": "0.6.0",
        "kind": "test.example/thing",
        "containerEdits": {"env": ["THING=yes"]},
        "devices": [{
            "name": "one",
            "containerEdits": {
                "deviceNodes": [{"path": "/dev/thing", "hostPath": "/dev/full"}],
                "mounts": [{"hostPath": f"{tmp_path}/library", "containerPath": "/lib/thing"}],
                "additionalGids": [4242],
            },
        }],
    }))  # fmt: skip
    try:
        script = "stat -c %t:%T /dev/thing; cat /lib/thing; echo $THING; id -G; echo >/dev/thing"
        result = engine("run", "--rm", "--network", "none", "--device", "test.example/thing=one",
                        "busybox", "sh", "-c", script)  # fmt: skip
        assert result.out.splitlines() == ["1:7", "a library", "yes", "0 4242"]
        assert "No space left on device" in result.err
        refused = engine("run", "--rm", "--device", "test.example/thing=two", "busybox", "true")
        assert "unresolvable CDI devices test.example/thing=two" in refused.err
    finally:
        specification.unlink()
        if not existed:
            directory.rmdir()


@pytest.mark.ketch_only("Debian's dockerd is older, and its words differ")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--runtime foo", "unknown or invalid runtime name: foo"),
        ("--isolation hyperv", "invalid isolation 'hyperv' on linux"),
        ("--storage-opt foo=1g", "Unknown option foo"),
        ("--gpus all", 'could not select device driver "" with capabilities: [[gpu]]'),
        ("--restart foo", "invalid restart policy: unknown policy 'foo'"),
        ("--restart always:3", "maximum retry count can only be used with 'on-failure'"),
        ("--blkio-weight 5", "Range of blkio weight is from 10 to 1000"),
        ("--security-opt foo=bar", 'invalid --security-opt 2: "foo=bar"'),
        ("--annotation =x", "the empty string is not permitted as an annotation key"),
        ("--mount type=cluster,src=x,dst=/x", "ketch has no swarm"),
        ("--mount type=image,src=nope,dst=/x", "No such image: nope"),
        ("--volume-driver foo -v vv:/x", 'plugin "foo" not found'),
        ("--use-api-socket --mount type=bind,src=/gone,dst=/x", "/gone"),
    ],
)
def test_what_cannot_be_is_refused_by_name(engine: Engine, words: str, reason: str) -> None:
    refused = engine("create", *words.split(), "busybox", "true")
    assert refused.status == 1
    assert reason in refused.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--mount type=foo,dst=/x", 'invalid mount config for type "foo": mount type unknown'),
        ("-v vv:/b:copy,nocopy", "invalid mode: copy,nocopy"),
        ("-v a/b:/c", "includes invalid characters for a local volume name"),
        ("-v vv:/x:shared", "field BindOptions must not be specified"),
        ("--volumes-from gone", "No such container: gone"),
        ("--network host --link x", "host type networking can't be used with links"),
        ("--network container:", "invalid container format container:<name|id>"),
        ("--cpu-rt-runtime 9 --cpu-rt-period 5", "cannot be higher than cpu real-time period"),
        ("--health-cmd x --health-interval 1us", "Interval in Healthcheck cannot be less than 1ms"),
    ],
)
def test_refusals_in_dockers_words(engine: Engine, words: str, reason: str) -> None:
    refused = engine("create", *words.split(), "busybox", "true")
    assert refused.status == 1
    assert reason in refused.err


@pytest.mark.ketch_only("on a disk of its own, docker's daemon would need to be there as well")
@pytest.mark.vm
def test_a_size_that_the_writable_layer_is_held_to(engine: Engine, tmp_path: pathlib.Path) -> None:
    disk, top = tmp_path / "disk", tmp_path / "top"
    top.mkdir()
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    for module in ("loop", "quota_v2"):
        subprocess.run(["modprobe", module], check=False, capture_output=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "quota,project", disk], check=True)
    mounted = subprocess.run(["mount", "-o", "loop,prjquota", disk, top], check=False)
    if mounted.returncode:
        refused = engine("create", "--storage-opt", "size=1g", "busybox", "true")
        assert "--storage-opt size is supported only where" in refused.err
        assert engine.ok("ps", "-aq") == ""
        return
    try:
        program = engine.prefix[0]
        limited = Engine(
            "ketch", [program, "--root", f"{top}/root", "--state", f"{tmp_path}/state"]
        )
        limited.ok("import", str(images.busybox_archive()), "busybox")
        script = "head -c 30000000 /dev/zero > /big; stat -c %s /big"
        result = limited("run", "--rm", "--network", "none", "--storage-opt", "size=10m", "busybox",
                         "sh", "-c", script)  # fmt: skip
        assert 8_000_000 < int(result.out) <= 10 << 20
        free = limited("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
        assert free.out == "30000000\n"
    finally:
        subprocess.run(["umount", "-l", top], check=True)


def test_the_caller_is_attached_to_what_it_names(engine: Engine) -> None:
    script = "echo out; echo error >&2; exit 3"
    for words, out, err in (
        (["-a", "stdout"], "out\n", ""),
        (["-a", "STDERR"], "", "error\n"),
        (["-a", "stdout", "-a", "stderr"], "out\n", "error\n"),
    ):
        result = engine("run", "--rm", "--network", "none", *words, "busybox", "sh", "-c", script)
        assert (result.status, result.out, result.err) == (3, out, err)
    script = "read word; echo $word; exit ${#word}"
    result = engine("run", "--rm", "--network", "none", "-i", "-a", "stdin", "busybox", "sh", "-c",
                    script, stdin="seven..\n")  # fmt: skip
    assert (result.status, result.out, result.err) == (7, "", "")
