"""What a program finds of its process: limits, processors, its home, and whether it may run."""

import os
import pathlib
import shutil
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine

pytestmark = pytest.mark.root

MAPPED = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]


@pytest.fixture
def own_rootfs(tmp_path: pathlib.Path, rootfs: pathlib.Path) -> pathlib.Path:
    """Return a root file system that the test may write to."""
    copy = tmp_path / "rootfs"
    shutil.copytree(rootfs, copy, symlinks=True)
    tmp_path.chmod(0o755)
    return copy


def in_user_namespace(config: Any) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {"uidMappings": MAPPED, "gidMappings": MAPPED}


def allow(*words: str) -> dict[str, list[str]]:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return {name: [*words] for name in sets}


@pytest.mark.parametrize("mapped", [False, True])
def test_limits_come_last_and_before_the_user(
    runtime: Engine, bundle: Bundle, *, mapped: bool
) -> None:
    def change(config: Any) -> None:
        config["root"]["readonly"] = False
        config["process"]["rlimits"] = [
            {"type": "RLIMIT_NOFILE", "soft": 20, "hard": 20},
            {"type": "RLIMIT_CORE", "soft": 5120, "hard": 2**64 - 1},
        ]
        config["mounts"] += [
            {"destination": f"/tmp/{number}", "type": "tmpfs", "source": "tmpfs"}
            for number in range(20)
        ]
        config["mounts"].insert(-20, {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
        if mapped:
            in_user_namespace(config)

    script = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc"
    path = bundle("sh", "-c", script, change=change, user={"uid": 1000, "gid": 1000})
    output = runtime("run", "-b", path, "c").out.split()
    assert output == ["20", "20", "10", "unlimited"]


def test_limits_do_not_race_with_the_user(
    ketch_oci: str, rootfs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])
    config = oci.configuration(rootfs, "sh", "-c", "ulimit -n")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 700, "hard": 700}]

    def run(number: int) -> str:
        own = {**config, "linux": {**config["linux"]}}
        own["linux"]["cgroupsPath"] += f"-{number}"
        path = oci.write_bundle(tmp_path / f"bundle-{number}", own)
        return engine("run", "-b", path, f"c{number}").out

    with ThreadPoolExecutor(8) as workers:
        assert set(workers.map(run, range(24))) == {"700\n"}


def test_limits_of_what_exec_adds(runtime: Engine, bundle: Bundle) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 16, "hard": 16}]
    path = bundle("sleep", "100", rlimits=limits, user={"uid": 1000, "gid": 1000})
    assert oci.quietly(runtime, "run", "-d", "-b", path, "c") == 0
    assert runtime("exec", "c", "sh", "-c", "ulimit -n").out == "16\n"


@pytest.mark.parametrize("program", ["/mine", "mine"])
def test_a_program_that_a_capability_opens(
    runtime: Engine, bundle: Bundle, own_rootfs: pathlib.Path, program: str
) -> None:
    (own_rootfs / "mine").write_text("#!/bin/sh\nid -u\n")
    (own_rootfs / "mine").chmod(0o700)

    def change(config: Any) -> None:
        config["root"]["path"] = str(own_rootfs)
        config["process"]["capabilities"] = allow("CAP_DAC_OVERRIDE")
        config["process"]["env"] = ["PATH=/:/bin"]

    path = bundle(program, change=change, user={"uid": 1000, "gid": 1000})
    assert runtime("run", "-b", path, "c").out == "1000\n"
    path = bundle("sleep", "100", change=change, user={"uid": 1000, "gid": 1000})
    assert oci.quietly(runtime, "run", "-d", "-b", path, "c") == 0
    assert runtime("exec", "c", program).out == "1000\n"
    runtime("delete", "-f", "c")

    def forbid(config: Any) -> None:
        change(config)
        config["process"]["capabilities"] = allow()

    path = bundle(program, change=forbid, user={"uid": 1000, "gid": 1000})
    failed = runtime("run", "-b", path, "c")
    assert failed.status == 1
    assert "permission denied" in failed.err or "not found in $PATH" in failed.err


@pytest.mark.parametrize(
    ("variables", "home"),
    [
        (["HOME=/a", "HOME="], "/root"),
        (["HOME=", "HOME=/b"], "/b"),
        (["HOME=/a", "HOME=/b"], "/b"),
        (["HOME="], "/root"),
        ([], "/root"),
    ],
)
def test_the_last_home_counts_unless_it_is_empty(
    runtime: Engine, bundle: Bundle, variables: list[str], home: str
) -> None:
    path = bundle("env", env=["PATH=/bin", *variables])
    lines = runtime("run", "-b", path, "c").out.splitlines()
    assert [line for line in lines if line.startswith("HOME")] == [f"HOME={home}"]


def test_the_callers_processors_are_not_the_containers(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor leaves nothing to tell apart")
    plain = [ketch_oci, "--root", str(tmp_path / "state")]
    first = str(min(os.sched_getaffinity(0)))
    bound = Engine("ketch-oci", ["taskset", "-c", first, *plain])
    show = ("sh", "-c", "grep Cpus_allowed_list /proc/self/status")
    try:
        everywhere = Engine("ketch-oci", plain)("run", "-b", bundle(*show), "c").out
        assert everywhere.split()[1] != first
        assert bound("run", "-b", bundle(*show), "c").out == everywhere
        path = bundle("sleep", "100", execCPUAffinity={"initial": first})
        assert oci.quietly(bound, "run", "-d", "-b", path, "c") == 0
        assert bound("exec", "c", *show).out == everywhere
        bound("delete", "-f", "c")

        def confine(config: Any) -> None:
            config["linux"]["resources"]["cpu"] = {"cpus": first}

        confined = Engine("ketch-oci", plain)("run", "-b", bundle(*show, change=confine), "c").out
        assert confined.split()[1] == first
        path = bundle("sleep", "100", execCPUAffinity={"final": first})
        assert oci.quietly(bound, "run", "-d", "-b", path, "c") == 0
        assert bound("exec", "c", *show).out.split()[1] == first
    finally:
        oci.delete_all(bound)


def test_a_root_that_only_the_mapped_root_may_reach(
    ketch_oci: str, tmp_path: pathlib.Path, own_rootfs: pathlib.Path
) -> None:
    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])
    outer, inner = tmp_path / "of-the-host", tmp_path / "of-the-host" / "of-the-mapped"
    inner.mkdir(parents=True)
    own_rootfs.rename(inner / "rootfs")
    subprocess.run(["chown", "-hR", "200000:200000", inner], check=True)
    inner.chmod(0o700)
    outer.chmod(0o711)
    config = oci.configuration(inner / "rootfs", "id", "-u")
    in_user_namespace(config)
    path = oci.write_bundle(tmp_path / "bundle", config)
    assert {engine("run", "-b", path, "c").out for _ in range(10)} == {"0\n"}
    # Nor need it be able to reach all of what leads there.
    outer.chmod(0o700)
    assert engine("run", "-b", path, "c").out == "0\n"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_debug_log_says(
    runtime: Engine, bundle: Bundle, tmp_path: pathlib.Path, form: str
) -> None:
    debug = Engine(runtime.name, [*runtime.prefix, "--debug", "--log-format", form])
    level = '"level":"debug"' if form == "json" else "level=debug"
    words = ("nsexec container setup", "child process in init()")
    err = debug("run", "-b", bundle("true"), "c").err
    for line in (*words, "init: closing the pipe to signal completion"):
        assert any(level in said and line in said for said in err.splitlines()), line
    path = bundle("sleep", "100")
    log = tmp_path / "log"
    assert oci.quietly(debug, "--log", str(log), "run", "-d", "-b", path, "c") == 0
    assert words[1] in log.read_text()
    err = debug("exec", "c", "true").err
    for line in (*words, "setns_init: about to exec"):
        assert any(level in said and line in said for said in err.splitlines()), line
    assert runtime("exec", "c", "true").err == ""


def test_a_null_device_that_is_closed(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    """Which root does not notice, and root of a user namespace does."""
    closed = tmp_path / "null"
    os.mknod(closed, stat.S_IFCHR, os.makedev(1, 3))

    prefix = ["unshare", "--mount", "sh", "-c", f'mount --bind {closed} /dev/null && exec "$@"',
              "sh", ketch_oci, "--root", str(tmp_path / "state")]  # fmt: skip
    result = Engine("ketch-oci", prefix)("run", "-b", bundle("true", change=in_user_namespace), "c")
    assert result.status == 1
    assert "/dev/null has mode 0000, by which not everybody can use it" in result.err
    assert "chmod 666 /dev/null" in result.err
