"""What a configuration's ``process`` and ``linux`` ask for the program, as the kernel shows it."""

import array
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import platform
import resource
import select
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    StartError,
    UnavailableError,
    UnsupportedError,
)
from ketch.runtime import seccomp
from tests.kernel.runtime.bundles import Bundle, Config, configuration, in_user_namespace

pytestmark = pytest.mark.root


def status(pid: int) -> dict[str, str]:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines()}


def test_user_groups_umask_and_directory(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "id -u; id -G; umask; pwd", cwd="/made/here")
    config["process"]["user"] = {
        "uid": 33, "gid": 50, "additionalGids": [4, 1234], "umask": 0o027
    }  # fmt: skip
    assert bundle.output(config) == "33\n50 4 1234\n0027\n/made/here\n"


@pytest.mark.parametrize(
    ("uid", "environment", "home"),
    [
        (0, [], "/root"),
        (33, [], "/var/www"),
        (33, ["HOME="], "/var/www"),
        (4242, [], "/"),
        (33, ["HOME=/elsewhere"], "/elsewhere"),
    ],
)
def test_home_comes_from_the_image(
    bundle: Bundle, uid: int, environment: list[str], home: str
) -> None:
    config = configuration("sh", "-c", "echo $HOME", env=["PATH=/bin", *environment])
    config["process"]["user"] = {"uid": uid, "gid": uid}
    assert bundle.output(config) == f"{home}\n"


def test_a_passwd_file_that_would_block_is_no_obstacle(bundle: Bundle) -> None:
    (bundle.rootfs / "etc" / "passwd").unlink()
    os.mkfifo(bundle.rootfs / "etc" / "passwd")
    assert bundle.output(configuration("sh", "-c", "echo $HOME")) == "/\n"


def test_limits(bundle: Bundle) -> None:
    config = configuration("cat", "/proc/self/limits")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 77, "hard": min(hard, 99)},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_LOCKS", "soft": 5, "hard": 6},
        {"type": "RLIMIT_CPU", "soft": 9, "hard": 2**64 - 1},
    ]
    for each in (config, in_user_namespace(config)):
        lines = {line[:26].strip(): line[26:].split() for line in bundle.output(each).splitlines()}
        assert lines["Max open files"][:2] == ["77", "99"]
        assert lines["Max core file size"][:2] == ["0", "0"]
        assert lines["Max file locks"][:2] == ["5", "6"]
        assert lines["Max cpu time"][:2] == ["9", "unlimited"]


def test_a_hard_limit_that_cannot_be_raised_is_named(bundle: Bundle) -> None:
    config = configuration("true")
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**40}]
    with pytest.raises(InvalidArgumentError, match=r"process\.rlimits\[0\]: RLIMIT_NOFILE"):
        bundle.run(config)


@pytest.mark.parametrize("mapped", [False, True], ids=["plain", "user namespace"])
def test_out_of_memory_score_and_no_new_privileges(bundle: Bundle, *, mapped: bool) -> None:
    config = configuration("cat", "/proc/self/oom_score_adj", oomScoreAdj=321,
                           noNewPrivileges=True)  # fmt: skip
    with bundle.container(in_user_namespace(config) if mapped else config) as container:
        assert status(container.pid)["NoNewPrivs"] == "1"
        container.start()
        assert container.wait() == 0
        assert container.output() == "321\n"


def test_schedulers(bundle: Bundle) -> None:
    def policy(**scheduler: object) -> tuple[int, int]:
        with bundle.container(configuration("true", scheduler=scheduler)) as container:
            nice = os.getpriority(os.PRIO_PROCESS, container.pid)
            return os.sched_getscheduler(container.pid), nice

    assert policy(policy="SCHED_BATCH", nice=7) == (os.SCHED_BATCH, 7)
    assert policy(policy="SCHED_IDLE") == (os.SCHED_IDLE, 0)
    assert policy(policy="SCHED_OTHER", nice=-5) == (os.SCHED_OTHER, -5)
    fifo = configuration("true", scheduler={"policy": "SCHED_FIFO", "priority": 10})
    with bundle.container(fifo) as container:
        assert os.sched_getscheduler(container.pid) == os.SCHED_FIFO
        assert os.sched_getparam(container.pid).sched_priority == 10
        container.start()
        assert container.wait() == 0


def test_deadline_scheduling(bundle: Bundle) -> None:
    scheduler = {
        "policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000,
        "period": 30_000_000, "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }  # fmt: skip
    with bundle.container(configuration("true", scheduler=scheduler)) as container:
        attributes = ctypes.create_string_buffer(48)
        number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
        assert ctypes.CDLL(None).syscall(number, container.pid, attributes, 48, 0) == 0
        fields = struct.unpack("IIQiIQQQ", attributes.raw)
        assert fields[1:] == (6, 1, 0, 0, 10_000_000, 30_000_000, 30_000_000)
        container.start()
        assert container.wait() == 0


@pytest.mark.parametrize(
    ("process", "message"),
    [
        ({"scheduler": {"policy": "SCHED_ISO"}}, r"process\.scheduler: SCHED_ISO"),
        ({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 2, "period": 1}},
         r"process\.scheduler: SCHED_DEADLINE"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 9}}, r"process\.ioPriority"),
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_named(
    bundle: Bundle, process: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        bundle.run(configuration("true", **process))


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        ({"class": "IOPRIO_CLASS_BE", "priority": 6}, 2 << 13 | 6),
        ({"class": "IOPRIO_CLASS_IDLE"}, 3 << 13),
        ({"class": "IOPRIO_CLASS_RT", "priority": 1}, 1 << 13 | 1),
    ],
)
def test_input_and_output_priority(bundle: Bundle, wanted: dict[str, Any], value: int) -> None:
    with bundle.container(configuration("true", ioPriority=wanted)) as container:
        number = {"x86_64": 252, "aarch64": 31}[platform.machine()]
        assert ctypes.CDLL(None).syscall(number, 1, container.pid) == value


def test_personality(bundle: Bundle) -> None:
    config = configuration("uname", "-m")
    config["linux"]["personality"] = {"domain": "LINUX"}
    assert bundle.output(config).strip() == platform.machine()
    config["linux"]["personality"] = {"domain": "LINUX32"}
    with bundle.container(config) as container:
        shown = pathlib.Path(f"/proc/{container.pid}/personality").read_text()
        assert int(shown, 16) == 0x8
        container.start()
        assert container.wait() == 0
        assert container.output().strip() != "x86_64"


def test_memory_policy(bundle: Bundle) -> None:
    config = configuration("sh", "-c", "head -1 /proc/self/numa_maps | cut -d' ' -f2")
    config["linux"]["memoryPolicy"] = {
        "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]
    }  # fmt: skip
    assert bundle.output(config) == "bind=static:0\n"
    config["linux"]["memoryPolicy"] = {"mode": "MPOL_PREFERRED"}
    assert bundle.output(config) == "local\n"
    config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "500"}
    with pytest.raises(
        InvalidArgumentError, match=r"linux\.memoryPolicy: MPOL_BIND on nodes '500'"
    ):
        bundle.run(config)


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("apparmorProfile", "/sys/module/apparmor/parameters/enabled"),
        ("selinuxLabel", "/sys/fs/selinux/enforce"),
    ],
)
def test_a_label_that_nobody_enforces_is_refused(bundle: Bundle, field: str, path: str) -> None:
    if os.path.exists(path):
        pytest.skip("this machine has the security module")
    with pytest.raises(UnsupportedError, match=rf"process\.{field}: .* is not active"):
        bundle.run(configuration("true", **{field: "some-label"}))
    config = configuration("true")
    config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"
    with pytest.raises(UnsupportedError, match=r"linux\.mountLabel: selinux"):
        bundle.run(config)


@pytest.mark.skipif(
    not os.path.exists("/sys/module/apparmor/parameters/enabled"),
    reason="apparmor is not active",
)
def test_apparmor_profiles(bundle: Bundle) -> None:
    config = configuration("cat", "/proc/self/attr/current", apparmorProfile="unconfined")
    assert bundle.output(config).strip() == "unconfined"
    config["process"]["apparmorProfile"] = "no-such-profile"
    with pytest.raises(InvalidArgumentError, match=r"apparmorProfile: 'exec no-such-profile'"):
        bundle.run(config)
    with bundle.container(configuration("sleep", "60")) as container:
        container.start()
        with pytest.raises(InvalidArgumentError, match="no-such-profile"):
            container.execute(config)


_PROFILE = """profile ketch-test flags=(attach_disconnected) {
    file, mount, umount, capability, signal, ptrace, unix, network, pivot_root,
    deny /forbidden w,
}"""


@pytest.mark.skipif(
    not os.path.exists("/sys/kernel/security/apparmor/.load")
    or not shutil.which("apparmor_parser"),
    reason="apparmor is not active, or has no parser here",
)
def test_a_profile_of_apparmor_confines_and_holds_for_exec_too(bundle: Bundle) -> None:
    def parser(option: str) -> None:
        subprocess.run(["apparmor_parser", option], input=_PROFILE, text=True, check=True)

    parser("-rK")
    try:
        write = "cat /proc/self/attr/current; echo 1 > /allowed && ! echo 1 > /forbidden"
        config = configuration("sh", "-c", f"{write} && sleep 60", apparmorProfile="ketch-test")
        with bundle.container(config) as container:
            container.start()
            again = configuration("sh", "-c", write, apparmorProfile="ketch-test")
            status, text = container.execute(again)
            assert status == 0, text
            assert text.startswith("ketch-test (enforce)")
            assert not (bundle.rootfs / "forbidden").exists()
    finally:
        parser("-RK")


def test_cache_allocation_without_resctrl_is_refused(bundle: Bundle) -> None:
    config = configuration("true")
    config["linux"]["intelRdt"] = {"closID": "group"}
    if os.path.ismount("/sys/fs/resctrl"):
        pytest.skip("this machine has resctrl mounted")
    with pytest.raises(UnsupportedError, match=r"linux\.intelRdt: resctrl is not mounted"):
        bundle.run(config, container_id="boxed")


def test_processors_of_a_process_that_exec_adds(bundle: Bundle) -> None:
    last = max(os.sched_getaffinity(0))
    with bundle.container(configuration("sleep", "60")) as container:
        container.start()
        config = configuration("grep", "Cpus_allowed_list", "/proc/self/status")
        config["process"]["execCPUAffinity"] = {"initial": "0", "final": str(last)}
        assert container.execute(config) == (0, f"Cpus_allowed_list:\t{last}\n")
        # Without "final" those that the container has, says runtime-spec's config.md.
        own = configuration("grep", "Cpus_allowed_list", "/proc/1/status")
        config["process"]["execCPUAffinity"] = {"initial": "0"}
        assert container.execute(config) == container.execute(own)
        config["process"]["execCPUAffinity"] = {"final": "8000"}
        with pytest.raises(InvalidArgumentError, match=r"execCPUAffinity\.final: 8000"):
            container.execute(config)


def test_what_holds_for_the_container_holds_for_exec(bundle: Bundle) -> None:
    config = configuration("sleep", "60")
    config["linux"]["personality"] = {"domain": "LINUX32"}
    with bundle.container(config) as container:
        container.start()
        again = configuration(
            "sh", "-c", "cat /proc/self/personality /proc/self/oom_score_adj", oomScoreAdj=99,
            scheduler={"policy": "SCHED_IDLE"},
        )  # fmt: skip
        assert container.execute(again, config=config) == (0, "00000008\n99\n")


def test_preserved_descriptors(bundle: Bundle) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        config = configuration("sh", "-c", f"echo through >&{writer}; ls /proc/self/fd")
        status_, output = bundle.run(config, preserved=writer - 2)
        assert status_ == 0
        assert os.read(reader, 100) == b"through\n"
        assert {str(number) for number in (0, 1, 2, writer)} <= set(output.split())
        assert str(reader) not in output.split()
    finally:
        os.close(reader)
        os.close(writer)


def test_a_container_that_is_started_through_its_fifo(bundle: Bundle) -> None:
    path = bundle.directory / "fifo"
    os.mkfifo(path)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with bundle.container(configuration("echo", "started"), fifo=fifo) as container:
            container.made.close()
            assert container.output() == ""
            path.write_bytes(b"0")
            assert container.wait() == 0
            assert container.output() == "started\n"
    finally:
        os.close(fifo)


def test_a_program_that_fails_after_the_fifo_ends_with_its_status(bundle: Bundle) -> None:
    path = bundle.directory / "fifo"
    os.mkfifo(path)
    (bundle.rootfs / "bin" / "odd").write_text("no program\n")
    (bundle.rootfs / "bin" / "odd").chmod(0o755)
    fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with bundle.container(configuration("odd"), fifo=fifo) as container:
            container.made.close()
            path.write_bytes(b"0")
            assert container.wait() in {126, 127}
    finally:
        os.close(fifo)


def test_a_container_that_is_not_started_ends_with_its_maker(bundle: Bundle) -> None:
    with bundle.container(configuration("sleep", "60")) as container:
        container.made.close()
        assert container.wait() == 1


@pytest.mark.parametrize(("uid", "mapped"), [(0, False), (33, False), (33, True)])
def test_a_container_may_die_with_its_parent(bundle: Bundle, uid: int, *, mapped: bool) -> None:
    config = configuration("sleep", "60")
    config["process"]["user"] = {"uid": uid, "gid": uid}
    if mapped:
        config = in_user_namespace(config)
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        with (
            contextlib.suppress(BaseException),
            bundle.container(config, die_with_parent=True) as container,
        ):
            container.start()
            os.write(writer, struct.pack("i", container.pid))
            os.kill(os.getpid(), 9)
        os._exit(1)
    os.close(writer)
    pid = struct.unpack("i", os.read(reader, 4))[0]
    os.close(reader)
    pidfd = os.pidfd_open(pid)
    os.waitpid(parent, 0)
    try:
        assert select.select([pidfd], [], [], 5)[0] == [pidfd]
    finally:
        os.close(pidfd)


def test_a_program_that_is_not_there(bundle: Bundle) -> None:
    with pytest.raises(StartError) as caught:
        bundle.run(configuration("nothing"))
    assert caught.value.exit_status == 127


# Notifications


class Supervisor:
    """A process that receives a listener and answers notifications with errno 71, EPROTO."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = str(path)
        server = socket.socket(socket.AF_UNIX)
        server.bind(self.path)
        server.listen()
        reader, writer = os.pipe()
        # A process of its own, since who makes containers has one thread.
        self._pid = os.fork()
        if self._pid == 0:
            os.close(reader)
            with contextlib.suppress(BaseException):
                self._serve(server, writer)
            os._exit(0)
        server.close()
        os.close(writer)
        self._reader = os.fdopen(reader)

    @staticmethod
    def _serve(server: socket.socket, writer: int) -> None:
        server.settimeout(10)
        connection, _ = server.accept()
        data, rights, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        descriptor = array.array("i", rights[0][2])[0]
        what = os.readlink(f"/proc/self/fd/{descriptor}")
        os.write(writer, json.dumps([json.loads(data), what]).encode() + b"\n")
        while True:
            request = fcntl.ioctl(descriptor, _NOTIF_RECV, bytes(80))
            identifier, _, _, number = struct.unpack_from("QIIi", request)
            os.write(writer, b"%d\n" % number)
            fcntl.ioctl(descriptor, _NOTIF_SEND, struct.pack("QqiI", identifier, 0, -71, 0))

    def heard(self) -> tuple[dict[str, Any], str, set[int]]:
        """The message, what the descriptor is, and the numbers of the calls; then end it."""
        message, what = json.loads(self._reader.readline())
        numbers = {int(self._reader.readline())}
        self.end()
        return message, what, numbers

    def end(self) -> None:
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
            self._reader.close()
            self._pid = 0


# linux/seccomp.h
_NOTIF_RECV = 0xC0502100
_NOTIF_SEND = 0xC0182101


@pytest.fixture
def supervisor(bundle: Bundle) -> Iterator[Supervisor]:
    made = Supervisor(bundle.directory / "listener")
    yield made
    made.end()


def notifying(supervisor: Supervisor) -> Any:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "listenerPath": supervisor.path,
        "listenerMetadata": "some words",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }


_ON_X86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the system call's number is x86_64's"
)


@_ON_X86_64
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_filter_s_listener_goes_to_the_supervisor(
    bundle: Bundle, supervisor: Supervisor, *, no_new_privileges: bool
) -> None:
    config = configuration("mkdir", "/tmp/new", noNewPrivileges=no_new_privileges)
    config["linux"]["seccomp"] = notifying(supervisor)
    with bundle.container(config, container_id="boxed") as container:
        container.start()
        assert container.wait() == 1
        assert "Protocol error" in container.output()
        made = container.pid
    message, what, numbers = supervisor.heard()
    assert what == "anon_inode:seccomp notify"
    assert numbers <= {83, 258}
    assert message == {
        "ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": made, "metadata": "some words",
        "state": {"ociVersion": "1.3.0", "id": "boxed", "status": "creating", "pid": made,
                  "bundle": str(bundle.directory)},
    }  # fmt: skip


@_ON_X86_64
def test_so_does_that_of_a_process_that_exec_adds(bundle: Bundle, supervisor: Supervisor) -> None:
    config = configuration("sleep", "60")
    with bundle.container(config) as container:
        container.start()
        config["linux"]["seccomp"] = section = notifying(supervisor)
        filter_ = seccomp.prepare(section, str(bundle.directory / "cache"))
        again = configuration("mkdir", "/tmp/new", noNewPrivileges=True)
        status_, output = container.execute(
            again, filter_=filter_, config=config, container_id="boxed", new_keyring=False,
            bundle=str(bundle.directory),
        )  # fmt: skip
        assert status_ == 1
        assert "Protocol error" in output
        message, _, numbers = supervisor.heard()
        assert numbers <= {83, 258}
        assert message["pid"] != container.pid
        assert message["state"] == {
            "ociVersion": "1.3.0", "id": "boxed", "status": "running", "pid": container.pid,
            "bundle": str(bundle.directory),
        }  # fmt: skip


def test_a_supervisor_that_is_missing_is_named(bundle: Bundle) -> None:
    config = configuration("true")
    config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/nowhere/socket",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    with pytest.raises(UnavailableError, match=r"linux\.seccomp\.listenerPath: /nowhere/socket"):
        bundle.run(config)


# Network devices


@pytest.fixture
def interface() -> Iterator[str]:
    """A bridge of the host's with addresses, as a network device that can be moved."""
    name = f"kt{os.getpid() % 10**6}"
    for arguments in (
        ["link", "add", name, "address", "02:00:00:00:07:07", "mtu", "1400", "type", "veth",
         "peer", "name", f"{name}p"],
        ["addr", "add", "198.51.100.7/24", "dev", name],
        ["addr", "add", "2001:db8::7/64", "dev", name, "nodad"],
        ["link", "set", name, "up"],
    ):  # fmt: skip
        subprocess.run(["ip", *arguments], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", f"{name}p"], check=False, capture_output=True)


def moving(config: Config, name: str, /, **settings: str) -> Config:
    config["linux"]["netDevices"] = {name: settings}
    return config


def test_an_interface_moves_in_with_its_addresses(bundle: Bundle, interface: str) -> None:
    config = moving(configuration("ip", "addr", "show", "inner0"), interface, name="inner0")
    with bundle.container(config) as container:
        assert not os.path.exists(f"/sys/class/net/{interface}")
        container.start()
        assert container.wait() == 0, container.output()
        output = container.output()
    for expected in ("inet 198.51.100.7/24", "inet6 2001:db8::7/64", "02:00:00:00:07:07",
                     "mtu 1400", "UP"):  # fmt: skip
        assert expected in output


def test_an_interface_moves_into_a_joined_namespace_and_a_user_namespace(
    bundle: Bundle, interface: str
) -> None:
    config = in_user_namespace(configuration("ip", "addr", "show", interface))
    assert "198.51.100.7/24" in bundle.output(moving(config, interface))


def test_interfaces_that_cannot_move_are_named(bundle: Bundle, interface: str) -> None:
    with pytest.raises(NotFoundError, match=r"linux\.netDevices\.nothing0"):
        bundle.run(moving(configuration("true"), "nothing0"))
    with pytest.raises(ConflictError, match="already has an interface lo"):
        bundle.run(moving(configuration("true"), interface, name="lo"))
    with pytest.raises(InvalidArgumentError, match=r"linux\.netDevices\.lo: lo cannot be moved"):
        bundle.run(moving(configuration("true"), "lo", name="other"))
    assert os.path.exists(f"/sys/class/net/{interface}")
