"""``-v``, ``--mount``, ``--tmpfs``, ``--shm-size`` and ``--device``."""

import pathlib
import stat

import pytest

from tests.support.commands import Engine


@pytest.fixture
def shared(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a host directory with a file in it."""
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "file").write_text("from the host\n")
    return directory


def test_a_directory_is_shared_both_ways(engine: Engine, shared: pathlib.Path) -> None:
    script = "cat /data/file; echo from inside > /data/new"
    out = engine.ok("run", "--rm", "-v", f"{shared}:/data", "busybox", "sh", "-c", script)
    assert out == "from the host"
    assert (shared / "new").read_text() == "from inside\n"


def test_a_file_can_be_mounted(engine: Engine, shared: pathlib.Path) -> None:
    file = shared / "file"
    out = engine.ok("run", "--rm", "-v", f"{file}:/etc/motd", "busybox", "cat", "/etc/motd")
    assert out == "from the host"


def test_a_missing_target_is_made(engine: Engine, shared: pathlib.Path) -> None:
    out = engine.ok("run", "--rm", "-v", f"{shared}:/a/b/c", "busybox", "ls", "/a/b/c")
    assert out == "file"


def test_a_missing_source_is_made_by_v(engine: Engine, tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "not" / "yet"
    engine.ok("run", "--rm", "-v", f"{missing}:/data", "busybox", "touch", "/data/x")
    assert (missing / "x").exists()


def test_a_missing_source_is_an_error_with_mount(engine: Engine, tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "not" / "yet"
    result = engine(
        "run", "--rm", "--mount", f"type=bind,source={missing},target=/data", "busybox", "true"
    )
    assert result.status == 125
    assert str(missing) in result.err
    assert not missing.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["-v", "{}:/data:ro"],
        ["--mount", "type=bind,src={},dst=/data,readonly"],
        ["--mount", "type=bind,source={},target=/data,ro=true"],
    ],
)
def test_read_only(engine: Engine, shared: pathlib.Path, options: list[str]) -> None:
    mount = [option.format(shared) for option in options]
    result = engine("run", "--rm", *mount, "busybox", "touch", "/data/x")
    assert result.status == 1
    assert "Read-only file system" in result.err
    assert not (shared / "x").exists()


def test_mount_options_of_the_source_stay(engine: Engine, shared: pathlib.Path) -> None:
    out = engine.ok("run", "--rm", "-v", f"{shared}:/data", "busybox", "sh", "-c",
                    "grep ' /data ' /proc/mounts")  # fmt: skip
    assert " rw," in out


def test_tmpfs(engine: Engine) -> None:
    script = "touch /t/x /u/x && df -k /u | awk 'END{print $2}'; grep -E ' /[tu] ' /proc/mounts"
    size, *mounts = engine.ok("run", "--rm", "--tmpfs", "/t", "--mount",
                           "type=tmpfs,destination=/u,tmpfs-size=1m,tmpfs-mode=700",
                           "busybox", "sh", "-c", script).splitlines()  # fmt: skip
    assert size == "1024"
    t, u = sorted(mounts)
    assert t.startswith("tmpfs /t tmpfs rw,nosuid,nodev,noexec")
    assert "mode=700" in u


def test_tmpfs_options(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--tmpfs", "/t:rw,size=2m,mode=755,exec", "busybox", "grep",
                    " /t ", "/proc/mounts")  # fmt: skip
    assert "size=2048k" in out
    assert "mode=755" in out
    assert "noexec" not in out


def test_tmpfs_in_a_read_only_container(engine: Engine) -> None:
    engine.ok("run", "--rm", "--read-only", "--tmpfs", "/tmp", "busybox", "touch", "/tmp/x")


def test_shm_size(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--shm-size", "2m", "busybox", "df", "-k", "/dev/shm")
    assert out.split()[-5] == "2048"


@pytest.mark.user
def test_device(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--device", "/dev/null:/dev/nothing", "busybox", "stat", "-c",
                    "%F %t:%T", "/dev/nothing")  # fmt: skip
    assert out == "character special file 1:3"


@pytest.mark.user
def test_a_device_under_the_name_of_another(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "--device", "/dev/zero:/dev/kmsg", "--device",
                    "/dev/null:/dev/zero", "--device", "/dev/full:/new/place/full", "busybox",
                    "stat", "-c", "%t:%T", "/dev/kmsg", "/dev/zero", "/new/place/full")  # fmt: skip
    assert out.split() == ["1:5", "1:3", "1:7"]


@pytest.mark.root_engine("a device's own mode keeps an ordinary user from it first")
def test_only_given_devices_can_be_used(engine: Engine) -> None:
    disks = [p for p in pathlib.Path("/dev").iterdir() if stat.S_ISBLK(p.lstat().st_mode)]
    if not disks:
        pytest.skip("this machine has no block device")
    disk = str(disks[0])
    script = f"head -c 1 {disk} | wc -c"
    refused = engine("run", "--rm", "--device", f"{disk}:{disk}:w", "busybox", "sh", "-c", script)
    assert refused.out.strip() == "0"
    assert "Operation not permitted" in refused.err


@pytest.mark.parametrize(
    ("option", "word"),
    [
        (["-v", "/a:/b:nonsense"], "nonsense"),
        (["-v", "/a:relative"], "relative"),
        (["-v", "/a:/"], "/"),
        (["--mount", "type=bind,source=/tmp"], "target"),
        (["--mount", "type=nonsense,target=/x"], "nonsense"),
        (["--mount", "source"], "source"),
        (["--tmpfs", "relative"], "relative"),
        (["--shm-size", "big"], "big"),
        (["--device", "/dev/no-such-device"], "no-such-device"),
    ],
)
def test_malformed_mounts_are_told(engine: Engine, option: list[str], word: str) -> None:
    result = engine("run", "--rm", *option, "busybox", "true")
    # Docker makes 127 of every failure that has "no such file" in its words.
    assert result.status in ({127, 125} if "no-such-device" in word else {125})
    assert word in result.err
    assert result.out == ""
