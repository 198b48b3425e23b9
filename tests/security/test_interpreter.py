"""The program that ketch itself is executed from, and ketch's processes seen from inside."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.security.hostile import (
    PROGRAMS,
    PYTHON,
    attack,
    make_image,
    program,
    unprotected,
    volumes,
)
from tests.support.archives import member
from tests.support.commands import Engine

# A copy of the interpreter, so that not even a successful attack reaches the real one.
OVERWRITE = """
import os, shutil, sys
from ketch.linux import libc, mount, process
victim, sealed = sys.argv[1:]
shutil.copy2(os.path.realpath(sys.executable), victim)
if os.fork() == 0:
    tree = mount.open_tree(libc.AT_FDCWD, victim, mount.OPEN_TREE_CLONE)
    if sealed == "sealed":
        mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    process.exec_descriptor(tree, [victim, "-I", "-S", "-c", '''if True:
        import os
        held = os.open("/proc/self/exe", os.O_RDONLY)
        os.set_inheritable(held, True)
        os.execv("/bin/busybox", ["busybox", "sh", "-c", f"echo evil > /proc/self/fd/{held}"])
    '''], {})
os.wait()
with open(victim, "rb") as file:
    print(file.read(4) == b"evil")
"""


@pytest.mark.parametrize(("sealed", "overwritten"), [("sealed", "False"), ("open", "True")])
def test_overwriting_works_unless_the_interpreter_is_sealed(
    tmp_path: pathlib.Path, sealed: str, overwritten: str
) -> None:
    """CVE-2019-5736, on a copy: what /proc/self/exe can be used for with and without a seal."""
    assert unprotected(OVERWRITE, str(tmp_path / "victim"), sealed) == overwritten


@pytest.mark.parametrize("zygote", ["zygote", "no zygote"])
def test_an_image_that_runs_its_runtime(ketch: Engine, attacker: str, zygote: str) -> None:
    """CVE-2019-5736: the entrypoint is `#!/proc/self/exe`, so the runtime is run, and overwritten.

    Our interpreter is executed from a detached, read-only mount of itself.
    """
    attack_program = b"#!/proc/self/exe\n" + PROGRAMS.joinpath("open_exe.py").read_bytes()
    links = [member(name, "2", link=b"usr/" + name, mode=0o777) for name in (b"lib", b"lib64")]
    make_image(ketch, "itself", *links, member(b"entry", data=attack_program, mode=0o755),
               change=('ENTRYPOINT ["/entry"]',))  # fmt: skip
    options = [] if zygote == "zygote" else ["--no-zygote"]
    text = ketch.ok(*options, "run", "--rm", "--network", "none", *volumes(), "itself")
    found = json.loads(text)
    assert found["inode"] == os.stat(PYTHON).st_ino, "it was not its runtime that it ran"
    assert found["chmod"] == "Read-only file system"
    assert found["read-only"] is True
    assert found["write"] != "done"


def test_an_exec_that_runs_its_runtime(ketch: Engine, attacker: str) -> None:
    """CVE-2019-5736, the published form: /bin/sh is replaced, and somebody execs it."""
    ketch.ok("run", "-d", "--name", "target", "--network", "none", *volumes(), attacker,
             "sleep", "1000")  # fmt: skip
    script = "{ echo '#!/proc/self/exe'; cat /attack/open_exe.py; } >/bin/evil; chmod +x /bin/evil"
    ketch.ok("exec", "target", "sh", "-c", script)
    found = json.loads(ketch.ok("exec", "target", "/bin/evil"))
    ketch.ok("rm", "-f", "target")
    assert found["inode"] == os.stat(PYTHON).st_ino, "it was not its runtime that it ran"
    assert found["chmod"] == "Read-only file system"
    assert found["read-only"] is True
    assert found["write"] != "done"


# As an exec would be that forgot to make itself non-dumpable.
VISIBLE_ENTRY = """
import os, sys, time
from ketch.linux import capabilities, namespaces, process
pidfd = os.pidfd_open(int(sys.argv[1]))
held = os.open(sys.argv[2], os.O_RDONLY)
flags = 0
for flag, name in namespaces.KINDS.values():
    if os.readlink(f"/proc/{sys.argv[1]}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
        flags |= flag
namespaces.setns(pidfd, flags)
if os.fork() == 0:
    with open(f"/proc/1/status") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff"))
    capabilities.restrict(mask)
    capabilities.apply(mask, mask, 0, 0)
    process.set_name("ketch-visible")
    time.sleep(0.5)
    os._exit(0)
os.wait()
"""


@pytest.mark.root_engine(
    "what is seen where the rule is left out is root's alone to see", of="visible"
)
@pytest.mark.parametrize("entry", ["exec", "visible"])
def test_watching_who_enters(
    ketch: Engine, attacker: str, shared: pathlib.Path, entry: str
) -> None:
    """CVE-2016-9962, CVE-2019-5736: between setns and execve, a container's root opens /proc/PID.

    Ours is non-dumpable before it enters, so nothing of it can be opened, read, copied or traced.
    """
    watcher = ketch.start(
        "run", "--name", "watcher", "--network", "none", "-v", f"{shared}:/shared", *volumes(),
        attacker, *program("watch", "/shared/stop", "busybox", "true", "python3.11"),
    )  # fmt: skip
    assert watcher.stderr is not None
    assert watcher.stderr.readline() == b"watching\n"
    # Each directory of a long PATH is looked into first: it is on its way the longer.
    path = ":".join(f"/{number}" for number in range(8000)) + ":/bin"
    deadline = time.monotonic() + 20
    for _ in range(6):
        if time.monotonic() > deadline:
            break
        if entry == "exec":
            ketch.ok("exec", "-e", f"PATH={path}", "watcher", "true")
        else:
            pid = ketch.ok("inspect", "--format", "{{.State.Pid}}", "watcher")
            subprocess.run([sys.executable, "-c", VISIBLE_ENTRY, pid, str(shared)], check=True)
            break
    (shared / "stop").touch()
    out, _ = watcher.communicate(timeout=20)
    ketch.ok("rm", "-f", "watcher")
    found = json.loads(out)
    assert found["seen"] > 0, "nobody was seen entering"
    if entry == "exec":
        assert {"ketch"} <= set(found["words"]) <= {"ketch", ""}, "it tells of the host"
        assert found["got"] == {}
        assert set(found["denied"]) == {"exe", "fd", "cwd", "root", "environ", "maps", "mem",
                                        "ptrace", "pidfd_getfd"}  # fmt: skip
    else:
        assert {"exe", "fd", "cwd", "ptrace", "mem"} <= set(found["got"])


@pytest.mark.parametrize("user", ["0", "1000"])
def test_pid_1_of_ketchs_own(ketch: Engine, attacker: str, user: str) -> None:
    """With --init, PID 1 can be looked at by whom it belongs to, and has nothing of the host."""
    words = [ketch.prefix[2], "ketch", "site-packages", "zygote"]
    options = ("--init", "--user", user, "--env", "MINE=yes", "--hostname", "boxed")
    found = attack(
        ketch, attacker, "look_at_init", *(word[::-1] for word in words), options=options
    )
    assert found["comm"] == "docker-init"
    assert found["cmdline"].startswith("/sbin/docker-init -- ")
    assert "MINE=yes" in found["environ"]
    assert found["outcomes"].pop("fd/0") == "No such file or directory", "it holds descriptors"
    assert set(found["outcomes"].values()) == {"opened"}, found
    assert found["bytes"] > 100_000, "its memory was not read"
    assert found["words"] == [], "it has memory of ketch's"


def test_pid_1_where_the_filter_lets_it_execute_nothing(
    ketch: Engine, attacker: str, tmp_path: pathlib.Path
) -> None:
    """Then it stays a process of ketch's, which is closed to those inside, under the same name."""
    profile = tmp_path / "profile.json"
    refused = {"names": ["memfd_create"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}))
    options = ("--init", "--security-opt", f"seccomp={profile}")
    found = attack(ketch, attacker, "look_at_init", options=options)
    assert found["comm"] == "docker-init"
    assert found["cmdline"].startswith("/sbin/docker-init -- ")
    assert str(ketch.prefix[2]) not in found["cmdline"]
    assert found["outcomes"].pop("fd/0") == "No such file or directory", "it holds descriptors"
    assert set(found["outcomes"].values()) == {"Permission denied"}, found
    done = ketch("run", "--rm", *options, "--network", "none", "busybox", "sh", "-c", "kill -9 $$")
    assert done.status == 128 + signal.SIGKILL


def test_taking_descriptors_with_ptrace(ketch: Engine, attacker: str, shared: pathlib.Path) -> None:
    """With CAP_SYS_PTRACE a container reaches who enters it, but no longer the engine's database.

    Before it enters, an exec closes all that it does not need inside.
    """
    watcher = ketch.start(
        "run", "--name", "watcher", "--network", "none", "--cap-add", "SYS_PTRACE",
        "-v", f"{shared}:/shared", *volumes(), attacker,
        *program("take_descriptors", "/shared/stop"),
    )  # fmt: skip
    assert watcher.stderr is not None
    assert watcher.stderr.readline() == b"watching\n"
    path = ":".join(f"/{number}" for number in range(8000)) + ":/bin"
    for _ in range(3):
        ketch.ok("exec", "-e", f"PATH={path}", "watcher", "true")
    (shared / "stop").touch()
    out, _ = watcher.communicate(timeout=20)
    ketch.ok("rm", "-f", "watcher")
    found = set(json.loads(out))
    assert found, "nobody was seen entering"
    assert [name for name in found if name.startswith(ketch.prefix[2])] == []
