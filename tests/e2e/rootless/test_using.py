"""What an ordinary user does with containers, images and networks, as root would."""

import contextlib
import pathlib
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine
from tests.support.users import User

CHECKOUT = pathlib.Path(__file__).parents[3]


def test_the_working_directory_stays(user: User) -> None:
    user.run("mkdir", "-p", "work")
    result = user.run("sh", "-c", "cd work && echo told > file && ketch run --rm --network none"
                      " -v ./file:/file busybox cat /file")  # fmt: skip
    assert (result.status, result.out) == (0, "told\n"), str(result)


def test_a_directory_made_anew_hides_what_the_image_has_there(user: User) -> None:
    ketch = user.ketch
    ketch.ok("run", "--name", "emptied", "busybox", "sh", "-c",
             "rm -r /etc/shadow /root && mkdir /root && touch /root/new")  # fmt: skip
    ketch.ok("commit", "--pause=false", "emptied", "emptied")
    ketch.ok("rm", "emptied")
    assert (
        ketch.ok("run", "--rm", "emptied", "sh", "-c", "ls -A /root; ls /etc/shadow || true")
        == "new"
    )
    ketch.ok("rmi", "emptied")


def test_what_the_readme_types_first(user: User) -> None:
    """Less the terminal, for which a pipe stands, and limits, which cgroup v1 does not give."""
    text = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    session = text.partition("```console\n")[2].partition("```")[0]
    told = {}
    subprocess.run(["cp", "-r", CHECKOUT / "docs", user.home], check=True)
    for line in re.findall("^# (ketch .*)$", session, re.MULTILINE):
        command = line.replace("-it ", "-i ").replace("-m 64m --cpus 0.5 ", "")
        script = f"printf 'hostname; ip -4 address show eth0 | grep inet' | {command}"
        result = user.run("sh", "-c", script)
        assert (result.status, result.err) == (0, ""), str(result)
        told[command.split()[1:][0]] = result.out
    assert told["exec"] == "# How ketch is built\n"
    assert "web" in told["ps"]
    assert told["rm"] == "web\n"
    assert len(told) == 4


def test_containers_of_a_network_know_each_other_by_name(user: User) -> None:
    ketch = user.ketch
    ketch.ok("network", "create", "inner")
    ketch.ok(
        "run", "--detach", "--name", "server", "--network", "inner", "busybox", "sleep", "1000"
    )
    try:
        told = ketch.ok("run", "--rm", "--network", "inner", "busybox", "ping", "-c1", "server")
        assert "1 packets received" in told
    finally:
        ketch.ok("rm", "--force", "server")
        ketch.ok("network", "rm", "inner")


def test_the_hosts_network_is_the_machines(user: User) -> None:
    own = user.run("readlink", "/proc/self/ns/net").out
    inside = user.ketch.ok("run", "--rm", "--network", "host", "busybox", "readlink",
                           "/proc/self/ns/net")  # fmt: skip
    assert inside == own.strip()


@pytest.mark.parametrize("kind", ["pid", "ipc"])
def test_other_namespaces_of_the_machines_are_shared(user: User, kind: str) -> None:
    """What shows them is another user's to mount."""
    own = user.run("readlink", f"/proc/self/ns/{kind}").out
    shown = "readlink /proc/self/ns/$0; grep -c : /proc/$$/mountinfo; ls /proc/keys"
    for options in ((), ("--read-only",), ("--privileged",)):
        told = user.ketch.ok("run", "--rm", f"--{kind}=host", *options, "busybox", "sh", "-c",
                             shown, kind)  # fmt: skip
        assert told.splitlines()[0] == own.strip(), (options, told)
    told = user.ketch.ok("run", "--rm", f"--{kind}=host", "busybox", "wc", "-c", "/proc/keys")
    assert told.split()[0] == "0"  # masked


@contextlib.contextmanager
def mounted(user: User, *options: str) -> Iterator[None]:
    """Have root mount something where the user is, whose next command has namespaces of its own."""
    inside = ["nsenter", f"--target={user.mounts}", "--mount"]
    user.end()
    subprocess.run([*inside, "mount", *options], check=True)
    try:
        yield
    finally:
        user.end()
        subprocess.run([*inside, "umount", options[-1]], check=True)


@pytest.mark.parametrize("mode", ["host", "keep-id"])
def test_what_roots_mounts_forbid_stays_forbidden(user: User, mode: str) -> None:
    """In a user namespace the kernel lets nobody take that from a bind."""
    directory = str(user.home / "closed")
    user.run("mkdir", "-p", directory)
    strict = "ro,nosuid,nodev,noexec,nosymfollow,noatime,mode=777"
    run = ("run", "--rm", "--network", "none", "--userns", mode)
    with mounted(user, "-t", "tmpfs", "-o", strict, "tmpfs", directory):
        for option in ("", ":ro", ":rw"):
            script = "grep ' /c ' /proc/mounts; ! touch /c/x"
            told = user.ketch(*run, "-v", f"{directory}:/c{option}", "busybox", "sh", "-c", script)
            assert told.status == 0, str(told)
            assert {"ro", "nosuid", "nodev", "noexec"} <= {*told.out.split()[3].split(",")}
            assert "Read-only file system" in told.err
        device = user.ketch(*run, "--device", "/dev/null:/dev/nothing", "busybox", "sh", "-c",
                            "echo x > /dev/nothing")  # fmt: skip
        assert device.status == 0, str(device)


def test_a_device_is_the_one_that_is_named(user: User) -> None:
    """Not another node of its number: this one's mode is its own."""
    path = f"{user.session.removesuffix('/session')}/odd"
    inside = ["nsenter", f"--target={user.mounts}", "--mount"]
    subprocess.run([*inside, "mknod", "-m", "604", path, "c", "1", "5"], check=True)
    told = user.ketch.ok("run", "--rm", "--network", "none", "--device", f"{path}:/dev/odd",
                         "busybox", "stat", "-c", "%a %t:%T", "/dev/odd")  # fmt: skip
    assert told == "604 1:5"


def test_the_hosts_network_where_sysfs_is_read_only(user: User) -> None:
    """As it is in a container."""
    remount = ["nsenter", f"--target={user.mounts}", "--mount", "mount", "-o"]
    user.end()  # the next command has namespaces of its own
    subprocess.run([*remount, "remount,bind,ro", "/sys"], check=True)
    try:
        ketch = user.ketch
        told = ketch.ok("run", "--rm", "--network", "host", "busybox", "ls", "/sys/class/net")
        assert "lo" in told.split()
        told = ketch.ok("run", "--rm", "--network", "host", "--privileged", "busybox", "grep",
                        " /sys ", "/proc/mounts")  # fmt: skip
        assert told.split()[3].startswith("ro,")
    finally:
        user.end()
        subprocess.run([*remount, "remount,bind,rw", "/sys"], check=True)


def test_killed_holder_and_zygote_cost_no_container_anything(user: User) -> None:
    ketch = user.ketch
    ketch.ok("run", "--detach", "--name", "server", "busybox", "sleep", "1000")
    try:
        names = "for p in $(pgrep -u $(id -u) 'ketch-(holder|zygote|names)'); do kill -9 $p; done"
        assert user.run("sh", "-c", names).status == 0
        assert "Up" in ketch.ok("ps", "--filter", "name=server")
        assert "1 packets received" in ketch.ok("run", "--rm", "busybox", "ping", "-c1", "server")
        assert ketch.ok("exec", "server", "echo", "here") == "here"
    finally:
        ketch.ok("rm", "--force", "server")


def test_an_image_is_built(user: User) -> None:
    dockerfile = "FROM busybox\\nRUN id -u > /built\\n"
    script = f"mkdir -p context && cd context && printf '{dockerfile}' > Dockerfile"
    assert user.run("sh", "-c", f"{script} && ketch build -q -t built .").status == 0
    assert user.ketch.ok("run", "--rm", "--network", "none", "built", "cat", "/built") == "0"
    user.ketch.ok("rmi", "built")


def test_what_others_have_built_is_theirs(
    user: User, root_engine: Engine, tmp_path: pathlib.Path
) -> None:
    """Neither steps nor cache mounts of the same names are another user's, root's least of all."""
    text = "FROM busybox\nRUN --mount=type=cache,id=shared,target=/c ls /c > /seen; touch /c/left\n"
    kept = tmp_path / "kept"
    root_engine.ok(
        "build", "-t", "theirs", "--cache-to", f"type=local,dest={kept}", "-", stdin=text
    )
    kept.chmod(0o700)
    given = f"type=local,src={kept}"
    done = user.ketch("build", "--progress=plain", "-t", "mine", "--cache-from", given, "-",
                      stdin=text)  # fmt: skip
    assert done.status == 0, str(done)
    assert re.search(r"^#\d+ ERROR: .*ermission denied", done.err, re.MULTILINE), str(done)
    assert not re.search(r"\] RUN .*\n#\d+ CACHED", done.err)
    seen = ("run", "--rm", "--network", "none", "mine", "cat", "/seen")
    assert user.ketch.ok(*seen) == ""
    user.ketch.ok("build", "--no-cache", "-q", "-t", "mine", "-", stdin=text)
    assert user.ketch.ok(*seen) == "left"
    root = root_engine.ok("info", "--format", "{{.DockerRootDir}}")
    assert "Permission denied" in user.run("ls", f"{root}/build-cache").err
    user.ketch.ok("rmi", "mine")
    root_engine.ok("rmi", "theirs")


def test_what_needs_root_is_refused_by_name(user: User) -> None:
    if user.run("test", "-e", "/sys/fs/cgroup/cgroup.controllers").status:
        limited = user.ketch("run", "--rm", "-m", "64m", "busybox", "true")
        assert limited.status == 125
        assert "a limit of memory" in limited.err
    assert user.ketch.ok("ps", "-a", "-q") == ""
