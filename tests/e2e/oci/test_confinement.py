"""What a program must not have from its caller, nor see of the machine."""

import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine

pytestmark = pytest.mark.root

INTERNAL = (32, 33)  # the C library's own, nptl(7)
STATUS = ("cat", "/proc/self/status")


def fields(text: str, pattern: str) -> dict[str, int]:
    found = re.findall(rf"^({pattern}):\s*([0-9a-f]+)$", text, re.MULTILINE)
    return {name: int(value, 16) for name, value in found}


def mounted(text: str) -> dict[str, set[str]]:
    """The options of what is mounted, from mountinfo: proc_pid_mountinfo(5)."""
    rows = (line.split() for line in text.splitlines() if " - " in line)
    return {row[4]: set(row[5].split(",")) for row in rows}


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("inheritable", [False, True])
def test_ambient_capabilities_are_the_configurations(
    runtime: Engine, bundle: Bundle, uid: int, *, inheritable: bool
) -> None:
    """Where they stay permitted and inheritable the kernel lets the caller's pass on."""

    def change(config: Any) -> None:
        sets = {"bounding", "effective", "permitted"} | ({"inheritable"} if inheritable else set())
        config["process"]["capabilities"] = {name: ["CAP_KILL"] for name in sets}

    giving = ["setpriv", "--inh-caps", "+kill,+chown", "--ambient-caps", "+kill,+chown"]
    ambient = Engine(runtime.name, [*giving, *runtime.prefix])
    path = bundle(*STATUS, change=change, user={"uid": uid, "gid": uid})
    kill = 1 << 5 if inheritable else 0
    assert fields(ambient.ok("run", "-b", path, "c"), "Cap(Amb|Inh)".replace("(", "(?:")) == {
        "CapInh": kill, "CapAmb": 0,
    }  # fmt: skip
    path = bundle("sleep", "100", change=change, user={"uid": uid, "gid": uid})
    assert oci.quietly(ambient, "run", "-d", "-b", path, "c") == 0
    assert fields(ambient.ok("exec", "c", *STATUS), "CapAmb") == {"CapAmb": 0}


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("user", [{"uid": 0, "gid": 0}, {"uid": 1000, "gid": 7}])
def test_the_callers_groups_are_not_the_containers(
    runtime: Engine, bundle: Bundle, user: dict[str, int]
) -> None:
    """Where the configuration adds none, there are none: what the caller has opens files."""
    belonging = Engine(runtime.name, ["setpriv", "--groups", "5,6", *runtime.prefix])
    words = ("grep", "Groups", "/proc/self/status")
    assert belonging.ok("run", "-b", bundle(*words, user=user), "c").split() == ["Groups:"]
    assert oci.quietly(belonging, "run", "-d", "-b", bundle("sleep", "100", user=user), "c") == 0
    assert belonging.ok("exec", "c", *words).split() == ["Groups:"]


@pytest.mark.parametrize("call", ["setresuid", "setresgid"])
def test_a_filter_that_says_that_ids_were_changed_is_not_believed(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path, call: str
) -> None:
    """Charliecloud's and mmdebstrap's say so to the programs beneath them, which stay root."""
    from ketch.linux import seccomp
    from ketch.runtime.libseccomp import Libseccomp

    rule: Any = {"names": [call], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}
    lying = Libseccomp().compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    done = subprocess.run(
        [ketch_oci, "--root", str(tmp_path / "state"), "run", "-b",
         bundle("id", user={"uid": 1000, "gid": 1000}), "c"],
        check=False, capture_output=True, text=True, preexec_fn=lambda: seccomp.load(lying),
    )  # fmt: skip
    assert done.returncode != 0
    assert (done.stdout, "process.user" in done.stderr) == ("", True)


def test_a_working_directory_outside_of_the_root(runtime: Engine, bundle: Bundle) -> None:
    """CVE-2024-21626, by a directory that was even given to the process on purpose."""
    assert oci.quietly(runtime, "run", "-d", "-b", bundle("sleep", "100"), "c") == 0
    words = ("exec", "--cwd", "/proc/self/fd/3", "--preserve-fds", "1", "c", "cat", "hostname")
    failed = subprocess.run(
        ["sh", "-c", 'exec "$@" 3</etc', "sh", *runtime.prefix, *words],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert failed.returncode != 0
    assert failed.stdout == ""
    assert "outside" in failed.stderr or "getcwd" in failed.stderr or "getwd" in failed.stderr


@pytest.mark.parametrize("mapped", [False, True])
def test_a_masked_directory_is_empty_and_cannot_be_written_to(
    runtime: Engine, bundle: Bundle, *, mapped: bool
) -> None:
    def change(config: Any) -> None:
        config["linux"]["maskedPaths"] = ["/proc/bus", "/proc/version"]
        if mapped:
            ids = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"] |= {"uidMappings": ids, "gidMappings": ids}

    script = "cat /proc/self/mountinfo; ls -A /proc/bus; cat /proc/version; mkdir /proc/bus/new"
    result = runtime("run", "-b", bundle("sh", "-c", script, change=change), "c")
    assert {line.count(" - ") for line in result.out.splitlines()} == {1}  # and nothing else
    assert "ro" in mounted(result.out)["/proc/bus"]
    assert "Read-only file system" in result.err


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_what_cannot_be_covered_is_not_left_open(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path, field: str
) -> None:
    """A path that is not there needs no cover; one that cannot be looked at is another matter."""
    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])

    def change(config: Any, *paths: str) -> None:
        config["linux"][field] = [*paths]

    missing = ("/missing", "/etc/passwd/below")
    path = bundle("echo", "ran", change=lambda config: change(config, *missing))
    assert engine.ok("run", "-b", path, "c") == "ran"
    path = bundle("echo", "ran", change=lambda config: change(config, "/proc/self/root/etc"))
    refused = engine("run", "-b", path, "c")
    assert refused.status != 0
    assert (refused.out, "too many levels of symbolic links" in refused.err.lower()) == ("", True)


def test_every_default_of_masked_and_read_only_paths_counts(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    subprocess.run([ketch_oci, "spec", "--bundle", tmp_path], check=True)
    linux = json.loads((tmp_path / "config.json").read_text())["linux"]
    # What runc 1.3 writes.
    assert set(linux["maskedPaths"]) == {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
        "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
    }  # fmt: skip
    assert set(linux["readonlyPaths"]) == {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    }  # fmt: skip

    def change(config: Any) -> None:
        config["linux"] |= {name: linux[name] for name in ("maskedPaths", "readonlyPaths")}

    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])
    covers = mounted(engine.ok("run", "-b", bundle("cat", "/proc/self/mountinfo", change=change),
                               "c"))  # fmt: skip
    there = {path for path in linux["maskedPaths"] + linux["readonlyPaths"] if os.path.exists(path)}
    assert there <= covers.keys()
    assert all("ro" in covers[path] for path in there)


def _give_signals(action: int) -> Callable[[], None]:
    """Have a child ignore (1) the C library's own signals, and block every other one."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
    what = (action).to_bytes(8, "little") + bytes(24)

    def give() -> None:
        for usual in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            signal.signal(usual, signal.SIG_DFL)  # as nohup leaves them, and jobs in the background
        for internal in INTERNAL:
            if libc.syscall(number, internal, what, None, ctypes.c_size_t(8)) != 0:
                os._exit(99)

    return give


@pytest.mark.skipif(os.uname().machine not in {"x86_64", "aarch64"}, reason="number not known")
def test_the_c_librarys_signals_are_not_ignored(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    engine = Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "state")])

    def run(*words: str) -> dict[str, int]:
        done = subprocess.run(
            [*engine.prefix, *words], check=True, capture_output=True, text=True,
            preexec_fn=_give_signals(1),
        )  # fmt: skip
        return fields(done.stdout, "Sig(?:Ign|Blk)")

    shown = subprocess.run(STATUS, check=True, capture_output=True, text=True,
                           preexec_fn=_give_signals(1))  # fmt: skip
    given = fields(shown.stdout, "SigIgn")["SigIgn"]
    assert all(given >> number - 1 & 1 for number in INTERNAL), "the caller ignores them"
    try:
        assert run("run", "-b", bundle(*STATUS), "c") == {"SigIgn": 0, "SigBlk": 0}
        assert oci.quietly(engine, "run", "-d", "-b", bundle("sleep", "100"), "c") == 0
        assert run("exec", "c", *STATUS) == {"SigIgn": 0, "SigBlk": 0}
    finally:
        oci.delete_all(engine)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_callers_umask_counts_for_nothing(
    ketch_oci: str, rootfs: pathlib.Path, tmp_path: pathlib.Path, umask: int
) -> None:
    own = tmp_path / "rootfs"
    shutil.copytree(rootfs, own, symlinks=True)
    (tmp_path / "file").write_text("")
    script = "umask; stat -c %a /made /made/below /made/file /made/work /dev/mine /new"
    config = oci.configuration(own, "sh", "-c", script)
    config["root"]["readonly"] = False
    config["process"]["cwd"] = "/made/work"
    config["mounts"] += [
        {"destination": "/made/below/here", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/made/file", "type": "bind", "source": str(tmp_path / "file"),
         "options": ["bind"]},
        {"destination": "/new", "type": "tmpfs", "source": "tmpfs"},
    ]  # fmt: skip
    (tmp_path / "file").chmod(0o604)
    config["linux"]["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o622}
    ]
    path = oci.write_bundle(tmp_path / "bundle", config)
    ran = subprocess.run(
        [ketch_oci, "--root", str(tmp_path / "state"), "run", "-b", path, "c"],
        check=True, capture_output=True, text=True, umask=umask,
    ).stdout.split()  # fmt: skip
    assert ran == ["0022", "755", "755", "604", "755", "622", "1777"]
    assert oct((own / "made" / "below").stat().st_mode & 0o777) == "0o755"


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_bound_devices_hear_nothing_of_the_machine(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    """In a user namespace they are the host's nodes: what it mounts on one stays its own."""
    shared = ["unshare", "--mount", "--propagation", "shared", ketch_oci]
    engine = Engine("ketch-oci", [*shared, "--root", str(tmp_path / "state")])

    def change(config: Any) -> None:
        ids = [{"containerID": 0, "hostID": 200_000, "size": 65_536}]
        config["linux"]["namespaces"].append({"type": "user"})
        config["linux"] |= {"uidMappings": ids, "gidMappings": ids}

    text = engine.ok("run", "-b", bundle("cat", "/proc/self/mountinfo", change=change), "c")
    nodes = [line for line in text.splitlines() if re.search(r" /dev/(null|zero|tty) ", line)]
    assert len(nodes) == 3
    assert [line for line in nodes if re.search(r" (shared|master):", line)] == []


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_nothing_of_a_shared_machine_stays_shared_unasked(
    ketch_oci: str, bundle: Bundle, tmp_path: pathlib.Path
) -> None:
    """Where all mounts are shared, as systemd has them, in a mount namespace of the test's own."""
    shared = ["unshare", "--mount", "--propagation", "shared", "sh", "-c"]
    state = ["sh", ketch_oci, "--root", str(tmp_path / "state")]
    before = Engine("ketch-oci", [*shared, 'cat /proc/self/mountinfo; echo; exec "$@"', *state])
    after = Engine("ketch-oci", [*shared, '"$@" >&2; cat /proc/self/mountinfo', *state])

    def change(config: Any) -> None:
        config["linux"]["rootfsPropagation"] = "rshared"
        config["mounts"] += [
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro"]},
            {"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["rbind"]},
        ]  # fmt: skip
        config["root"]["readonly"] = False

    (tmp_path / "outside").mkdir()

    def mount(config: Any) -> None:
        change(config)
        sets = config["process"]["capabilities"]
        config["process"]["capabilities"] = {name: ["CAP_SYS_ADMIN"] for name in sets}

    script = "mount -t tmpfs t /mnt/outside && grep /mnt/outside /proc/self/mountinfo"
    done = after("run", "-b", bundle("sh", "-c", script, change=mount), "c")
    assert " /mnt/outside " in done.err
    assert f" {tmp_path}/outside " not in done.out
    out = before.ok("run", "-b", bundle("cat", "/proc/self/mountinfo", change=change), "c")
    outside, inside = (set(re.findall(r" shared:\d+", text)) for text in out.split("\n\n"))
    # The root and all below is shared at the end, as asked, in groups of the container's own.
    assert len(inside) > 5
    assert inside.isdisjoint(outside)
