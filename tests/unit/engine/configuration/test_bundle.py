"""Against the config.json that Docker's daemon made for the same command lines."""

import pytest

from ketch.cli.flags import Command, parse
from ketch.engine.configuration import bundle, configuration
from ketch.engine.configuration.devices import Devices
from ketch.engine.host import DEFAULT_SYSCTLS, Host
from ketch.errors import InvalidArgumentError
from ketch.spec import capabilities
from ketch.spec.container import Request
from ketch.spec.options import OPTIONS, Caller, request
from ketch.spec.passwd import User
from ketch.spec.runtime import Config, Device, Mount

ID = "808a9bf40082" + "a" * 52
RUN = Command("ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]", "", OPTIONS, 1, None, False)
EVERYTHING = (1 << len(capabilities.NAMES)) - 1
HOST = Host(
    cpus="0-1",
    capabilities=EVERYTHING,
    machine="x86_64",
    release="6.1.0",
    hostname="box",
    sysctls=tuple(DEFAULT_SYSCTLS),
    thermal_paths=("/sys/devices/system/cpu/cpu0/thermal_throttle",),
)
FILES = bundle.Files("/c/hosts", "/c/hostname", "/c/resolv.conf")
ROOT = User(0, 0, [], "/root")


def complete(*words: str) -> Request:
    parsed = parse(RUN, [*words, "busybox", "sleep", "10"])
    caller = Caller("/", {}, lambda name: name.encode())
    asked = request(parsed.values, parsed.given, parsed.arguments, caller)
    return configuration.complete(asked, {}, ID, HOST)[0]


def build(
    *words: str,
    user: User = ROOT,
    extra_groups: tuple[int, ...] = (),
    devices: Devices | None = None,
    host: Host = HOST,
) -> Config:
    return bundle.build(
        complete(*words),
        container_id=ID,
        user=user,
        extra_groups=list(extra_groups),
        files=FILES,
        devices=devices or Devices([], []),
        host=host,
    )


def mounted(config: Config) -> dict[str, Mount]:
    return {mount["destination"]: mount for mount in config["mounts"]}


DOCKERS_CAPABILITIES = {
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}  # fmt: skip

DOCKERS_MOUNTS = [
    ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts", "devpts",
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", ["ro", "nosuid", "noexec", "nodev"]),
    ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ("/etc/resolv.conf", "bind", ["rbind", "rprivate"]),
    ("/etc/hostname", "bind", ["rbind", "rprivate"]),
    ("/etc/hosts", "bind", ["rbind", "rprivate"]),
]  # fmt: skip

DOCKERS_DEVICE_RULES = [
    (False, None, None, None), (True, "c", 1, 5), (True, "c", 1, 3), (True, "c", 1, 9),
    (True, "c", 1, 8), (True, "c", 5, 0), (True, "c", 5, 1), (False, "c", 10, 229),
]  # fmt: skip


def test_a_plain_container_is_dockers() -> None:
    config = build("--network", "none")
    process = config["process"]
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["args"] == ["sleep", "10"]
    assert process["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=808a9bf40082",
        "HOME=/root",
    ]
    assert process["cwd"] == "/"
    assert not process["terminal"]
    assert not process["noNewPrivileges"]
    sets = process["capabilities"]
    assert set(sets["bounding"]) == DOCKERS_CAPABILITIES
    assert sets["bounding"] == sets["effective"] == sets["permitted"]
    assert set(sets) == {"bounding", "effective", "permitted"}
    assert config["hostname"] == "808a9bf40082"
    assert [
        (mount["destination"], mount["type"], mount["options"]) for mount in config["mounts"]
    ] == DOCKERS_MOUNTS
    linux = config["linux"]
    assert [
        (rule["allow"], rule.get("type"), rule.get("major"), rule.get("minor"))
        for rule in linux["resources"]["devices"]
    ] == DOCKERS_DEVICE_RULES
    assert all(rule["access"] == "rwm" for rule in linux["resources"]["devices"])
    assert set(linux["resources"]) == {"devices"}
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert [space["type"] for space in linux["namespaces"]] == [
        "mount", "network", "uts", "pid", "ipc", "cgroup",
    ]  # fmt: skip
    assert linux["cgroupsPath"] == f"/ketch/{ID}"
    assert linux["maskedPaths"] == [
        "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
        "/sys/devices/system/cpu/cpu0/thermal_throttle",
    ]  # fmt: skip
    assert linux["readonlyPaths"] == [
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    ]  # fmt: skip
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "rootfsPropagation" not in linux
    assert "annotations" not in config


def test_a_container_with_most_options_is_dockers() -> None:
    node = {"type": "c", "path": "/dev/xx", "major": 1, "minor": 7, "fileMode": 0o666}
    rule = {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "r"}
    config = build(
        "--network", "host", "--init", "--read-only", "-it", "-e", "A=1", "-e", "TERM=foo",
        "-e", "PATH=/x", "-w", "/tmp/new", "-h", "hh", "--domainname", "dd",
        "-v", "/img:/m:ro", "-v", "/nn:/n",
        "--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700",
        "--tmpfs", "/u:size=5m,exec", "--cap-add", "NET_ADMIN", "--cap-drop", "chown",
        "--security-opt", "no-new-privileges", "--ulimit", "nofile=500:900", "--ulimit", "core=-1",
        "--shm-size", "3m", "-m", "64m", "--memory-reservation", "10m", "--cpus", "0.5",
        "--cpuset-cpus", "0", "--pids-limit", "40", "--oom-score-adj", "100",
        user=User(5, 60, [29], "/usr/games"), extra_groups=(29, 77),
        devices=Devices([node], [rule]),  # type: ignore[list-item]
    )  # fmt: skip
    process = config["process"]
    assert process["user"] == {"uid": 5, "gid": 60, "additionalGids": [60, 29, 77]}
    assert process["env"] == ["PATH=/x", "HOSTNAME=hh", "TERM=foo", "A=1", "HOME=/usr/games"]
    assert process["cwd"] == "/tmp/new"
    assert process["terminal"]
    assert process["noNewPrivileges"]
    assert process["oomScoreAdj"] == 100
    assert set(process["capabilities"]) == {"bounding"}
    assert set(process["capabilities"]["bounding"]) == (
        DOCKERS_CAPABILITIES - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}
    )
    assert process["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 500, "hard": 900},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]
    assert config["root"]["readonly"]
    assert config["hostname"] == "hh"
    assert config["domainname"] == "dd"
    assert config["annotations"] == {"org.ketch.init": "true"}
    mounts = mounted(config)
    assert mounts["/n"] == {
        "destination": "/n", "type": "bind", "source": "/nn", "options": ["rbind", "rprivate"],
    }  # fmt: skip
    assert mounts["/m"]["options"] == ["rbind", "rro", "rprivate"]
    assert mounts["/u"]["options"] == ["nosuid", "nodev", "rprivate", "size=5m", "exec"]
    assert mounts["/t"]["options"] == [
        "noexec", "nosuid", "nodev", "rprivate", "mode=700", "size=1048576",
    ]  # fmt: skip
    assert mounts["/etc/hosts"]["options"] == ["rbind", "ro", "rprivate"]
    assert mounts["/dev/shm"]["options"][-1] == "size=3145728"
    linux = config["linux"]
    assert linux["devices"] == [node]
    assert linux["resources"]["devices"][-1] == rule
    assert linux["resources"]["memory"] == {
        "limit": 64 << 20, "reservation": 10 << 20, "swap": 128 << 20,
    }  # fmt: skip
    assert linux["resources"]["cpu"] == {"quota": 50000, "period": 100000, "cpus": "0"}
    assert linux["resources"]["pids"] == {"limit": 40}
    assert linux["sysctl"] == {}
    assert "network" not in {space["type"] for space in linux["namespaces"]}


def test_a_privileged_container_has_no_walls() -> None:
    every = Devices([], [{"allow": True, "access": "rwm"}])
    config = build("--privileged", "--cap-drop", "chown", devices=every)
    sets = config["process"]["capabilities"]
    assert sets["effective"] == list(capabilities.NAMES)
    linux = config["linux"]
    assert "seccomp" not in linux
    assert "maskedPaths" not in linux
    assert "readonlyPaths" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    mounts = mounted(config)
    assert "ro" not in mounts["/sys"]["options"]
    assert "ro" not in mounts["/sys/fs/cgroup"]["options"]


def test_shared_namespaces() -> None:
    config = build(
        "--pid", "host", "--uts", "host", "--ipc", "host", "--cgroupns", "host", "--init"
    )
    assert [space["type"] for space in config["linux"]["namespaces"]] == ["mount", "network"]
    assert "hostname" not in config
    assert "annotations" not in config
    assert mounted(config)["/dev/shm"]["source"] == "/dev/shm"


def test_a_network_namespace_of_another_maker_is_joined() -> None:
    config = bundle.build(
        complete(), container_id=ID, user=ROOT, extra_groups=[], files=FILES,
        devices=Devices([], []), host=HOST, joined={"network": "/run/netns/x"},
    )  # fmt: skip
    assert {"type": "network", "path": "/run/netns/x"} in config["linux"]["namespaces"]


def test_users_mounts_replace_the_default_ones() -> None:
    mounts = mounted(build("-v", "/h:/etc/hosts", "--tmpfs", "/sys"))
    assert mounts["/etc/hosts"]["source"] == "/h"
    assert mounts["/sys"]["type"] == "tmpfs"
    targets = mounted(build("-v", "/dev:/dev"))
    assert [path for path in targets if path.startswith("/dev")] == ["/dev"]
    assert "/dev/shm" not in mounted(build("--ipc", "none"))


def test_a_read_only_root_leaves_the_users_mounts_alone() -> None:
    mounts = mounted(build("--read-only", "-v", "/a:/b", "--tmpfs", "/t"))
    assert "ro" not in mounts["/b"]["options"]
    assert "ro" not in mounts["/t"]["options"]
    assert "ro" not in mounts["/dev/shm"]["options"]


@pytest.mark.parametrize(
    ("mode", "root"),
    [("rshared", "shared"), ("shared", "shared"), ("rslave", "rslave"), ("private", None)],
)
def test_the_root_propagates_where_a_mount_is_to(mode: str, root: str | None) -> None:
    config = build("-v", f"/a:/b:{mode}")
    assert mounted(config)["/b"]["options"] == ["rbind", mode]
    assert config["linux"].get("rootfsPropagation") == root


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("bind-recursive=disabled", ["bind", "ro", "rprivate"]),
        ("bind-recursive=writable", ["rbind", "ro", "rprivate"]),
        ("bind-recursive=readonly,bind-propagation=rprivate", ["rbind", "rro", "rprivate"]),
        ("bind-nonrecursive", ["bind", "ro", "rprivate"]),
    ],
)
def test_how_far_read_only_reaches(option: str, words: list[str]) -> None:
    config = build("--mount", f"type=bind,src=/a,dst=/b,readonly,{option}")
    assert mounted(config)["/b"]["options"] == words


def test_limits_that_mean_unlimited() -> None:
    limits = build("--pids-limit", "-1", "-m", "64m", "--memory-swap", "-1")["linux"]["resources"]
    assert "pids" not in limits
    assert limits["memory"] == {"limit": 64 << 20}


def test_seccomp_profiles() -> None:
    assert "seccomp" not in build("--security-opt", "seccomp=unconfined")["linux"]
    allow = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}'
    asked = complete()
    asked["HostConfig"]["SecurityOpt"] = [f"seccomp={allow}"]
    asked["HostConfig"]["Privileged"] = True
    config = bundle.build(
        asked, container_id=ID, user=ROOT, extra_groups=[], files=FILES,
        devices=Devices([], []), host=HOST,
    )  # fmt: skip
    assert config["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"
    with pytest.raises(InvalidArgumentError, match="seccomp profile"):
        build("--security-opt", "seccomp=no-json")


def test_a_cgroup_parent_cannot_leave_the_hierarchy() -> None:
    assert build("--cgroup-parent", "a/b")["linux"]["cgroupsPath"] == f"/a/b/{ID}"
    assert build("--cgroup-parent", "/../../x")["linux"]["cgroupsPath"] == f"/x/{ID}"
    given = Host(cgroups="/user.slice/ketch.scope")
    for parent in ("x", "/../../x"):
        linux = build("--cgroup-parent", parent, host=given)["linux"]
        assert linux["cgroupsPath"] == f"/user.slice/ketch.scope/x/{ID}"
    assert build(host=Host(cgroups="/"))["linux"]["cgroupsPath"] == f"/ketch/{ID}"


def test_volumes_come_from_where_a_start_has_found_them() -> None:
    request = complete("-v", "data:/d:ro", "--mount", "type=image,src=x,dst=/i")
    config = bundle.build(
        request, container_id=ID, user=ROOT, extra_groups=[], files=FILES,
        devices=Devices([], []), host=HOST,
        sources={
            "/d": bundle.Source("/volumes/data/_data"),
            "/i": bundle.Source("/proc/self/fd/7", [{"containerID": 5, "hostID": 0, "size": 1}],
                                [{"containerID": 6, "hostID": 0, "size": 1}]),
        },
    )  # fmt: skip
    mounts = mounted(config)
    assert mounts["/d"] == {
        "destination": "/d", "type": "bind", "source": "/volumes/data/_data",
        "options": ["rbind", "rro", "rprivate"],
    }  # fmt: skip
    assert mounts["/i"]["source"] == "/proc/self/fd/7"
    assert "idmap" in mounts["/i"]["options"]
    assert mounts["/i"]["uidMappings"][0]["containerID"] == 5


def test_the_namespaces_of_other_containers() -> None:
    request = complete("--network", "container:a", "--ipc", "container:a", "--pid", "container:a")
    request["Config"]["Hostname"] = "its"
    joined = {kind: f"/proc/self/fd/{n}" for n, kind in enumerate(("network", "ipc", "pid"), 5)}
    config = bundle.build(
        request, container_id=ID, user=ROOT, extra_groups=[], files=FILES,
        devices=Devices([], []), host=HOST, joined=joined,
        sources={"/dev/shm": bundle.Source("/proc/self/fd/9")},
    )  # fmt: skip
    assert {
        space["type"]: space["path"] for space in config["linux"]["namespaces"] if "path" in space
    } == joined
    assert mounted(config)["/dev/shm"]["source"] == "/proc/self/fd/9"
    # They are the other container's to set.
    assert config["linux"]["sysctl"] == {}


def test_what_security_options_come_to() -> None:
    linux = build("--security-opt", "systempaths=unconfined")["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    mounts = mounted(build("--security-opt", "writable-cgroups=true"))
    assert "rw" in mounts["/sys/fs/cgroup"]["options"]
    mounts = mounted(build("--privileged", "--security-opt", "writable-cgroups=false"))
    assert "ro" in mounts["/sys/fs/cgroup"]["options"]


def test_what_systemd_gets() -> None:
    nodes: list[Device] = [
        {"type": "c", "path": path, "major": 4, "minor": minor}
        for minor, path in enumerate(("/dev/tty", "/dev/tty0", "/dev/tty1", "/dev/ttyS0"))
    ]
    config = build(
        "--systemd=always", "--privileged", "--read-only", "--tmpfs", "/run/lock:size=1m",
        "--device", "/dev/tty1", devices=Devices(nodes, []),
    )  # fmt: skip
    assert [node["path"] for node in config["linux"]["devices"]] == [
        "/dev/tty", "/dev/tty1", "/dev/ttyS0"
    ]  # fmt: skip
    mounts = mounted(config)
    for place in ("/run", "/tmp", "/var/log/journal"):
        assert mounts[place]["options"] == ["rprivate", "nosuid", "nodev", "tmpcopyup"]
    assert "size=1m" in mounts["/run/lock"]["options"]
    assert config["annotations"] == {"org.ketch.systemd": "true"}
    variables = config["process"]["env"]
    assert {"container=ketch", f"container_uuid={ID[:32]}"} <= set(variables)
    own = build("--systemd=always", "-e", "container=oci")["process"]["env"]
    assert "container=oci" in own
    assert "container=ketch" not in own


def test_realtime_limits() -> None:
    limits = build("--cpu-rt-runtime", "5", "--cpu-rt-period", "9")["linux"]["resources"]["cpu"]
    assert limits == {"realtimeRuntime": 5, "realtimePeriod": 9}
