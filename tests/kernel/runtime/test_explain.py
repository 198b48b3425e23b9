"""What is explained is what is done, in its order, by both sides."""

import os

import pytest

from ketch import cgroups
from tests.kernel.runtime.bundles import Bundle, configuration, in_user_namespace, join

pytestmark = pytest.mark.root


def told(bundle: Bundle, config: dict[str, object], **options: object) -> list[str]:
    lines: list[str] = []
    status, output = bundle.run(config, explain=lambda step: lines.append(step.words), **options)
    assert (status, output) == (0, "")
    return lines


def test_the_steps_of_a_plain_container(bundle: Bundle) -> None:
    cgroup = cgroups.manager(f"/ketch-test-{os.getpid()}", cgroups.detect())
    cgroup.create()
    try:
        config = configuration("true", noNewPrivileges=True, oomScoreAdj=7)
        config["hostname"] = "boxed"
        config["linux"]["namespaces"].append({"type": "cgroup"})
        config["linux"]["maskedPaths"] = ["/proc/version", "/proc/not-there"]
        config["root"]["readonly"] = True
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}]
        lines = told(bundle, config, cgroup=cgroup, container_id="boxed")
    finally:
        cgroup.delete()
    core = " /dev/core" if os.path.exists("/proc/kcore") else ""
    assert lines == [
        f"enter the control group {cgroup.path} · cgroups(7)",
        "new IPC namespace: shared memory and message queues of its own · clone3(2) CLONE_NEWIPC",
        "new UTS namespace: a host name of its own · clone3(2) CLONE_NEWUTS",
        "new network namespace: interfaces, addresses and ports of its own"
        " · clone3(2) CLONE_NEWNET",
        "new PID namespace: the program will be its PID 1 · clone3(2) CLONE_NEWPID",
        "new mount namespace: what is mounted inside is seen inside only · clone3(2) CLONE_NEWNS",
        "out-of-memory score +7 · proc_pid_oom_score_adj(5)",
        "switch the loopback interface on · netdevice(7) SIOCSIFFLAGS",
        "new cgroup namespace: its own cgroup is the root of what it sees"
        " · unshare(2) CLONE_NEWCGROUP",
        "load no module from here on, which might be the container's",
        "host name boxed · sethostname(2)",
        "session keyring _ses.boxed · keyctl(2) KEYCTL_JOIN_SESSION_KEYRING",
        "keep mounts from travelling to the host · mount(2) MS_REC",
        f"mount the root file system at {bundle.rootfs} · open_tree(2), move_mount(2)",
        "mount proc on /proc · fsopen(2), fsmount(2), move_mount(2)",
        "mount tmpfs on /dev · fsopen(2), fsmount(2), move_mount(2)",
        "mount devpts on /dev/pts · fsopen(2), fsmount(2), move_mount(2)",
        "make /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty · mknod(2)",
        f"link /dev/fd /dev/stdin /dev/stdout /dev/stderr{core} /dev/ptmx · symlink(2)",
        "hide /proc/version · move_mount(2)",
        "make the root read-only · mount_setattr(2)",
        "make it the root and let go of the host's · pivot_root(2), umount2(2)",
        "close every descriptor but the program's · close_range(2)",
        "limit RLIMIT_NOFILE to 64:128 · prlimit(2)",
        "keep the capabilities of the configuration alone · prctl(2) PR_CAPBSET_DROP, capset(2)",
        "become uid 0, gid 0 · setresuid(2), setresgid(2), setgroups(2)",
        "no program gains privileges by execve(2) · prctl(2) PR_SET_NO_NEW_PRIVS",
        "become /bin/true · execve(2)",
    ]


def test_the_steps_through_a_process_in_between(bundle: Bundle) -> None:
    with bundle.container(configuration("sleep", "60")) as owner:
        owner.start()
        config = in_user_namespace(configuration("true"))
        path = f"/proc/{owner.pid}/ns/ipc"
        join(config, "ipc", path)
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 5}}
        config["hooks"] = {
            "createRuntime": [{"path": "/bin/true"}], "startContainer": [{"path": "/bin/true"}],
        }  # fmt: skip
        lines = told(bundle, config)
    wanted = [
        "new user namespace: ids inside are not ids outside · unshare(2) CLONE_NEWUSER",
        "new time namespace: clocks with offsets of their own · unshare(2) CLONE_NEWTIME",
        f"join the ipc namespace {path} · setns(2)",
        "map uids 0 200000 65536 (inside, outside, how many) · user_namespaces(7)",
        "shift the container's clocks · time_namespaces(7)",
        "become the root of the user namespace · setresuid(2), setresgid(2)",
        "createRuntime hook: /bin/true · execve(2)",
        "make it the root and let go of the host's · pivot_root(2), umount2(2)",
        "startContainer hook: /bin/true · execve(2)",
        "become /bin/true · execve(2)",
    ]
    assert [line for line in lines if line in wanted] == wanted


def test_the_steps_of_exec(bundle: Bundle) -> None:
    with bundle.container(configuration("sleep", "60")) as container:
        container.start()
        lines: list[str] = []
        done = container.execute(
            configuration("true"), explain=lambda step: lines.append(step.words)
        )
        assert done == (0, "")
    assert lines == [
        "enter the container's namespaces · setns(2)",
        "keep the capabilities of the configuration alone · prctl(2) PR_CAPBSET_DROP, capset(2)",
        "become uid 0, gid 0 · setresuid(2), setresgid(2), setgroups(2)",
        "become /bin/true · execve(2)",
    ]
