"""``--systemd-cgroup``: systemd makes the cgroup, on a machine that has it as its init."""

import contextlib
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import oci
from tests.support.commands import Engine

Bundle = Callable[..., str]

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not pathlib.Path("/run/systemd/system").is_dir(),
        reason="systemd is not init here",
    ),
]


@pytest.fixture(params=["runc", "ketch-oci"])
def driven(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, ketch_oci: str
) -> Iterator[Engine]:
    """Return runc, then ketch-oci, each with the systemd driver."""
    program = {"runc": shutil.which("runc"), "ketch-oci": ketch_oci}[request.param]
    if program is None:
        pytest.skip("runc is not installed")
    engine = Engine(request.param, [program, "--root", f"{tmp_path}/state", "--systemd-cgroup"])
    yield engine
    oci.delete_all(engine)
    subprocess.run(["systemctl", "stop", "ketchtest.slice"], check=False)


def properties(unit: str, *names: str, command: tuple[str, ...] = ("systemctl",)) -> dict[str, str]:
    words = [*command, "show", unit, f"--property={','.join(names)}"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def cgroup_of(pid: int) -> pathlib.Path:
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (path,) = [line[3:] for line in lines if line.startswith("0::")]
    return pathlib.Path(f"/sys/fs/cgroup{path}")


def in_slice(config: Any) -> None:
    config["linux"]["cgroupsPath"] = "ketchtest-a.slice:kt:one"
    config["linux"]["resources"] |= {
        "memory": {"limit": 64 << 20},
        "cpu": {"shares": 512, "quota": 25_250, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20},
    }
    config["annotations"] = {"org.systemd.property.TimeoutStopSec": "uint64 7"}


def test_the_container_is_a_scope_with_its_limits(driven: Engine, bundle: Bundle) -> None:
    path = bundle("sleep", "100", change=in_slice)
    assert oci.quietly(driven, "run", "--detach", "-b", path, "c") == 0
    pid = json.loads(driven.ok("state", "c"))["pid"]
    scope = cgroup_of(pid)
    assert str(scope).endswith("/ketchtest.slice/ketchtest-a.slice/kt-one.scope")
    assert (scope / "memory.max").read_text() == f"{64 << 20}\n"
    assert (scope / "cpu.max").read_text() in {"25250 100000\n", "26000 100000\n"}
    assert (scope / "pids.max").read_text() == "20\n"
    assert (scope / "cpuset.cpus").read_text() == "0\n"
    assert (scope / "cgroup.procs").read_text() == f"{pid}\n"
    found = properties("kt-one.scope", "ActiveState", "Slice", "MemoryMax", "TasksMax",
                       "TimeoutStopUSec", "Delegate")  # fmt: skip
    assert found == {
        "ActiveState": "active", "Slice": "ketchtest-a.slice", "MemoryMax": str(64 << 20),
        "TasksMax": "20", "TimeoutStopUSec": "7s", "Delegate": "yes",
    }  # fmt: skip

    driven.ok("update", "--memory", str(128 << 20), "c")
    assert (scope / "memory.max").read_text() == f"{128 << 20}\n"
    # What systemd restores whenever it reloads is what was asked for last.
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert (scope / "memory.max").read_text() == f"{128 << 20}\n"
    assert (scope / "pids.max").read_text() == "20\n"

    inside = driven.ok("exec", "c", "cat", "/proc/self/cgroup").splitlines()
    assert inside[-1].endswith("/kt-one.scope")
    driven.ok("pause", "c")
    assert json.loads(driven.ok("state", "c"))["status"] == "paused"
    driven.ok("resume", "c")
    driven.ok("delete", "--force", "c")
    assert not scope.exists()
    assert properties("kt-one.scope", "LoadState") == {"LoadState": "not-found"}


def test_a_single_process_may_be_the_limit(driven: Engine, bundle: Bundle) -> None:
    if driven.name == "runc":
        pytest.skip("its init, of several threads, cannot start under such a limit")

    def change(config: Any) -> None:
        config["linux"]["cgroupsPath"] = ""
        config["linux"]["resources"]["pids"] = {"limit": 1}

    path = bundle("cat", "/proc/self/cgroup", change=change)
    assert driven.ok("run", "-b", path, "alone") == "0::/system.slice/ketch-alone.scope"


def test_create_start_and_a_container_that_ends_by_itself(driven: Engine, bundle: Bundle) -> None:
    def change(config: Any) -> None:
        config["linux"]["cgroupsPath"] = ":kt:two"

    path = bundle("true", change=change)
    assert oci.quietly(driven, "create", "-b", path, "c") == 0
    assert properties("kt-two.scope", "ActiveState") == {"ActiveState": "active"}
    driven.ok("start", "c")
    deadline = time.monotonic() + 20
    while json.loads(driven.ok("state", "c"))["status"] != "stopped":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driven.ok("delete", "c")
    assert properties("kt-two.scope", "LoadState") == {"LoadState": "not-found"}


def test_what_is_wrong_is_said(driven: Engine, bundle: Bundle) -> None:
    for wrong in ("/plain/path", "a.slice:b", "nothing:kt:x", "a--b.slice:kt:x"):

        def change(config: Any, wrong: str = wrong) -> None:
            config["linux"]["cgroupsPath"] = wrong

        result = driven("run", "-b", bundle("true", change=change), "c")
        assert result.status == 1
        assert "slice" in result.err
    assert driven.ok("list", "-q") == ""


@contextlib.contextmanager
def user_manager(user: pwd.struct_passwd) -> Iterator[tuple[str, ...]]:
    """Run a user's systemd; yield what makes a command one of that user's."""
    uid = user.pw_uid
    runtime = f"/run/user/{uid}"
    os.makedirs(runtime, 0o700, exist_ok=True)
    os.chown(runtime, uid, user.pw_gid)
    subprocess.run(
        ["systemd-run", "--quiet", "--unit=ketchtest-user", f"--uid={uid}", "-pDelegate=yes",
         f"--setenv=XDG_RUNTIME_DIR={runtime}", "-pType=notify", "-pSlice=ketchtest.slice",
         "/lib/systemd/systemd", "--user"],
        check=True,
    )  # fmt: skip
    try:
        yield ("setpriv", f"--reuid={uid}", f"--regid={user.pw_gid}", "--clear-groups", "env",
               f"XDG_RUNTIME_DIR={runtime}", f"HOME={runtime}")  # fmt: skip
    finally:
        subprocess.run(["systemctl", "stop", "ketchtest-user", "ketchtest.slice"], check=True)
        shutil.rmtree(runtime, ignore_errors=True)


def test_a_user_asks_the_systemd_of_its_own(
    tmp_path: pathlib.Path, ketch_oci: str, rootfs: pathlib.Path
) -> None:
    user = pwd.getpwnam("games")  # there is one on every Debian
    uid, gid = user.pw_uid, user.pw_gid
    config = oci.configuration(rootfs, "cat", "/proc/self/cgroup")
    linux = config["linux"]
    linux["cgroupsPath"] = ":kt:mine"
    linux["resources"] = {"pids": {"limit": 30}}
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "user")]
    linux["uidMappings"] = [{"containerID": 0, "hostID": uid, "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": gid, "size": 1}]
    config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
    ]
    # Where an ordinary user may come.
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and directory.is_relative_to("/tmp/pytest-of-root"):
            directory.chmod(0o755)
    path = oci.write_bundle(tmp_path / "bundle", config)
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", uid, gid)
    with user_manager(user) as prefix:
        # The caller is in a cgroup that is not the user's own.
        engine = Engine("user", [*prefix, ketch_oci, "--root", f"{tmp_path}/state",
                                 "--systemd-cgroup"])  # fmt: skip
        result = engine("run", "-b", path, "c")
        assert result.status == 0, str(result)
        assert result.out.strip().endswith("/user.slice/kt-mine.scope")
        assert not result.err
