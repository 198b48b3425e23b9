"""What a program in a container sees, in Docker and in ketch."""

import os
import pathlib
import re

import pytest

from tests.support.commands import Engine, finish


def inside(engine: Engine, script: str, *options: str) -> list[str]:
    """Run a shell script in a new container and return the lines that it prints."""
    return engine.ok("run", "--rm", *options, "busybox", "sh", "-c", script).splitlines()


@pytest.mark.parametrize("namespace", ["mnt", "pid", "uts", "ipc", "net"])
def test_namespaces_are_new(engine: Engine, namespace: str) -> None:
    (link,) = inside(engine, f"readlink /proc/self/ns/{namespace}")
    assert re.fullmatch(rf"{namespace}:\[\d+\]", link)
    assert link != os.readlink(f"/proc/self/ns/{namespace}")


@pytest.mark.ketch_only("docker makes a cgroup namespace on cgroup v2 alone")
def test_the_cgroup_namespace_is_new(engine: Engine) -> None:
    namespace, *paths = inside(engine, "readlink /proc/self/ns/cgroup; cut -d: -f3 /proc/1/cgroup")
    assert namespace != os.readlink("/proc/self/ns/cgroup")
    assert set(paths) == {"/"}


@pytest.mark.root_engine("an ordinary user's containers are in a user namespace of the user's")
def test_the_user_namespace_is_the_hosts(engine: Engine) -> None:
    assert inside(engine, "readlink /proc/self/ns/user") == [os.readlink("/proc/self/ns/user")]


def test_the_root_is_an_overlay_and_the_hosts_files_are_gone(engine: Engine) -> None:
    marker = pathlib.Path(__file__)
    lines = inside(engine, f"grep ' / ' /proc/mounts; ls {marker} /.pivot* /old_root 2>&1 | wc -l")
    assert len(lines) == 2, "more than one file system is mounted on the root"
    assert lines[0].startswith("overlay / overlay rw,")


def test_mounts_do_not_propagate(engine: Engine) -> None:
    assert inside(engine, "grep -c shared: /proc/self/mountinfo; true") == ["0"]


@pytest.mark.user
def test_mounts_are_dockers(engine: Engine) -> None:
    """Mount point, type and options of everything that docker mounts by itself."""
    script = """awk '{print $2, $3, substr($4, 1, 2)}' /proc/mounts | grep -v '^/sys/fs/cgroup'"""
    found = set(inside(engine, script))
    assert found >= {
        "/ overlay rw",
        "/dev tmpfs rw",
        "/dev/mqueue mqueue rw",
        "/dev/pts devpts rw",
        "/dev/shm tmpfs rw",
        "/proc proc rw",
        "/proc/bus proc ro",
        "/proc/fs proc ro",
        "/proc/irq proc ro",
        "/proc/sys proc ro",
        "/sys sysfs ro",
        "/sys/firmware tmpfs ro",
    }
    places = {line.split()[0] for line in found}
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/acpi", "/proc/keys"} <= places


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("/proc", "nosuid,nodev,noexec"),
        ("/sys", "ro,nosuid,nodev,noexec"),
        ("/dev", "nosuid"),
        ("/dev/pts", "nosuid,noexec"),
        ("/dev/shm", "nosuid,nodev,noexec"),
        ("/dev/mqueue", "nosuid,nodev,noexec"),
        ("/proc/sys", "ro"),
    ],
)
def test_mount_options_are_dockers(engine: Engine, place: str, options: str) -> None:
    (found,) = inside(engine, f"""awk '$2 == "{place}" {{print $4}}' /proc/mounts""")
    assert set(options.split(",")) <= set(found.split(","))


@pytest.mark.parametrize(
    "attempt",
    [
        "echo 1 > /proc/sys/kernel/sysrq",
        "echo b > /proc/sysrq-trigger",
        "mkdir /sys/x",
        "mkdir /sys/fs/cgroup/*/x",
        "echo 1 > /sys/kernel/mm/ksm/run",
        "mount -t tmpfs tmpfs /tmp",
        "mount -o remount,rw /proc/sys",
        "umount /proc/sys",
        "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
        "chroot / unshare -m true",
        "hostname other",
        "date -s 1999-01-01; test $(date +%Y) -lt 2000",
        "ip link add dummy0 type dummy",
        "dmesg",
    ],
)
def test_what_could_change_the_host_is_refused(engine: Engine, attempt: str) -> None:
    result = engine("run", "--rm", "busybox", "sh", "-c", attempt)
    assert result.status != 0, result.out


@pytest.mark.parametrize(
    "path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats"]
)
def test_masked_files_are_empty(engine: Engine, path: str) -> None:
    assert inside(engine, f"test -e {path} || exit 0; head -c 1 {path} | wc -c") in (["0"], [])


@pytest.mark.parametrize("path", ["/proc/acpi", "/proc/scsi", "/sys/firmware"])
def test_masked_directories_are_empty(engine: Engine, path: str) -> None:
    assert inside(engine, f"test -d {path} || exit 0; ls -A {path}") == []


@pytest.mark.root_engine("devices are the machine's own, whose owner has no id here")
def test_devices(engine: Engine) -> None:
    names = "null zero full random urandom tty"
    script = f"cd /dev; for f in {names}; do stat -c '%n %a %u:%g %t:%T' $f; done"
    assert inside(engine, script) == [
        "null 666 0:0 1:3",
        "zero 666 0:0 1:5",
        "full 666 0:0 1:7",
        "random 666 0:0 1:8",
        "urandom 666 0:0 1:9",
        "tty 666 0:0 5:0",
    ]


def test_device_links(engine: Engine) -> None:
    script = "for f in fd stdin stdout stderr ptmx; do readlink /dev/$f; done"
    assert inside(engine, script) == [
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


def test_nothing_else_is_in_dev(engine: Engine) -> None:
    expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert set(inside(engine, "ls /dev")) - {"core"} == set(expected.split())


def test_the_console_is_the_terminal_with_t(engine: Engine) -> None:
    child = engine.terminal("run", "--rm", "-t", "busybox", "sh", "-c",
                            "test -c /dev/console && grep /dev/console /proc/mounts")  # fmt: skip
    child.expect("devpts /dev/console devpts rw")
    child.expect("\n")
    assert finish(child) == 0


def test_shm_is_64_mib_and_writable_for_all(engine: Engine) -> None:
    assert inside(engine, "df -k /dev/shm | awk 'END{print $2}'; stat -c %a /dev/shm") == [
        "65536",
        "1777",
    ]


def test_capabilities_are_dockers_default(engine: Engine) -> None:
    out = dict(line.split(":\t") for line in inside(engine, "grep ^Cap /proc/self/status"))
    default = "00000000a80425fb"
    assert out == {"CapInh": "0" * 16, "CapPrm": default, "CapEff": default, "CapBnd": default,
                   "CapAmb": "0" * 16}  # fmt: skip


def test_another_user_has_no_capabilities(engine: Engine) -> None:
    out = dict(
        line.split(":\t") for line in inside(engine, "grep ^Cap /proc/self/status", "-u", "1000")
    )
    assert out["CapEff"] == out["CapPrm"] == "0" * 16
    assert out["CapBnd"] == "00000000a80425fb"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "all", "--cap-add", "NET_ADMIN"], 1 << 12),
        (["--cap-add", "CAP_SYS_TIME"], 0xA80425FB | 1 << 25),
        (["--cap-drop", "chown", "--cap-drop", "cap_net_raw"], 0xA80425FB & ~1 & ~(1 << 13)),
    ],
)
def test_capabilities_are_added_and_dropped(
    engine: Engine, options: list[str], expected: int
) -> None:
    (line,) = inside(engine, "grep ^CapEff /proc/self/status", *options)
    assert int(line.split()[1], 16) == expected


def test_capabilities_are_on_record_spelt_out(engine: Engine) -> None:
    added = [f"--cap-add={name}" for name in ("sys_time", "NET_ADMIN", "CAP_SYS_TIME")]
    identifier = engine.ok("create", *added, "--cap-drop=all", "busybox", "true").strip()
    form = "{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}"
    expected = '["CAP_NET_ADMIN","CAP_SYS_TIME"] ["ALL"]'
    assert engine.ok("inspect", "--format", form, identifier) == expected
    engine.ok("rm", identifier)


@pytest.mark.ketch_only("runc asks for capabilities that a host's root may not have itself")
@pytest.mark.root_engine("in a user namespace there are all capabilities")
def test_privileged(engine: Engine) -> None:
    script = """grep -E '^(CapEff|Seccomp):' /proc/self/status
        awk '$2 == "/sys" {print substr($4, 1, 2)}' /proc/mounts
        mount -t tmpfs tmpfs /home && echo mounted"""
    lines = inside(engine, script, "--privileged")
    host = pathlib.Path("/proc/self/status").read_text()
    mine = re.search(r"^CapEff:\s*(\w+)", host, re.MULTILINE)
    assert mine is not None
    assert int(lines[0].split()[1], 16) & ~int(mine[1], 16) == 0
    assert lines[1:] == ["Seccomp:\t0", "rw", "mounted"]


def test_seccomp_filters(engine: Engine) -> None:
    assert inside(engine, "awk '/^Seccomp:/{print $2}' /proc/self/status") == ["2"]


def test_seccomp_can_be_switched_off(engine: Engine) -> None:
    script = "awk '/^Seccomp:/{print $2}' /proc/self/status"
    assert inside(engine, script, "--security-opt", "seccomp=unconfined") == ["0"]


def test_seccomp_profile_from_a_file(engine: Engine, tmp_path: pathlib.Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":'
        ' [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
    )
    result = engine("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x")
    assert result.status == 1
    assert "not supported" in result.err


def test_no_new_privileges(engine: Engine) -> None:
    script = "awk '/^NoNewPrivs:/{print $2}' /proc/self/status"
    assert inside(engine, script) == ["0"]
    assert inside(engine, script, "--security-opt", "no-new-privileges") == ["1"]


@pytest.mark.user
def test_no_stray_descriptors(engine: Engine) -> None:
    """The listing's own descriptor is the one above 2."""
    out = engine.ok("run", "--rm", "busybox", "ls", "/proc/self/fd")
    assert out.split() == ["0", "1", "2", "3"]
    out = engine.ok("run", "--rm", "-i", "busybox", "ls", "/proc/self/fd", stdin="x")
    assert out.split() == ["0", "1", "2", "3"]


def test_signals_are_neither_blocked_nor_ignored(engine: Engine) -> None:
    out = dict(
        line.split(":\t")
        for line in engine.ok(
            "run", "--rm", "busybox", "grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"
        ).splitlines()
    )
    # 32 and 33 are the C library's own, and its posix_spawn(3) leaves them ignored at times.
    own = 1 << 31 | 1 << 32
    masks = {name: int(mask, 16) & ~own for name, mask in out.items()}
    assert masks == {"SigBlk": 0, "SigIgn": 0, "SigCgt": 0}


def test_the_callers_processors_are_not_the_containers(engine: Engine) -> None:
    every = os.sched_getaffinity(0)
    if len(every) < 2:
        pytest.skip("one processor leaves nothing to tell apart")
    show = ("busybox", "grep", "Cpus_allowed_list", "/proc/self/status")
    bound = Engine(
        engine.name, ["taskset", "-c", str(min(every)), *engine.prefix], engine.environment
    )
    everywhere = engine.ok("run", "--rm", *show)
    assert everywhere.split()[1] != str(min(every))
    assert bound.ok("run", "--rm", *show) == everywhere
    confined = bound.ok("run", "--rm", "--cpuset-cpus", str(max(every)), *show)
    assert confined.split()[1] == str(max(every))


def test_umask_and_oom_score(engine: Engine) -> None:
    assert inside(engine, "umask; cat /proc/self/oom_score_adj") == ["0022", "0"]
    assert inside(engine, "cat /proc/self/oom_score_adj", "--oom-score-adj", "250") == ["250"]


def test_only_the_containers_processes_are_seen(engine: Engine) -> None:
    assert inside(engine, "ls -d /proc/[0-9]* | head -n 1; ps > /tmp/ps; wc -l < /tmp/ps") == [
        "/proc/1",
        "3",
    ]


@pytest.mark.user
def test_the_host_files(engine: Engine) -> None:
    hosts, hostname = (
        inside(engine, f"cat {path}", "-h", "boat", "--add-host", "pier:192.0.2.9")
        for path in ("/etc/hosts", "/etc/hostname")
    )
    entries = {line.split()[0]: line.split()[1:] for line in hosts}
    assert entries["127.0.0.1"] == ["localhost"]
    assert "localhost" in entries["::1"]
    assert entries["192.0.2.9"] == ["pier"]
    assert ["boat"] in entries.values()
    assert hostname == ["boat"]


def test_the_host_files_can_be_written(engine: Engine) -> None:
    script = "echo 192.0.2.7 buoy >> /etc/hosts && grep buoy /etc/hosts"
    assert inside(engine, script) == ["192.0.2.7 buoy"]


def test_dns_options(engine: Engine) -> None:
    # ketch's containers have a name server of their own on every network, which asks these.
    server = "127.0.0.11" if engine.name != "docker" else "192.0.2.53"
    assert f"nameserver {server}" in inside(engine, "cat /etc/resolv.conf", "--dns", "192.0.2.53")


def test_sysctl_and_ulimit(engine: Engine) -> None:
    lines = inside(
        engine, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ulimit -n; ulimit -Hn",
        "--sysctl", "net.ipv4.ip_unprivileged_port_start=99", "--ulimit", "nofile=100:200",
    )  # fmt: skip
    assert lines == ["99", "100", "200"]


def test_files_keep_modes_and_links(engine: Engine) -> None:
    script = "stat -c %a /tmp /root /etc/shadow; stat -c %h /bin/busybox"
    *modes, links = inside(engine, script)
    assert modes == ["1777", "700", "600"]
    assert int(links) > 200


def test_writes_stay_in_their_container(engine: Engine) -> None:
    inside(engine, "echo changed > /etc/passwd; rm /bin/vi; echo new > /new")
    assert inside(engine, "head -n 1 /etc/passwd; ls /bin/vi; ls /new 2>/dev/null; true") == [
        "root:x:0:0:root:/root:/bin/sh",
        "/bin/vi",
    ]


def test_no_path_of_the_host_is_in_the_environment(engine: Engine) -> None:
    out = engine.ok("run", "--rm", "busybox", "cat", "/proc/self/environ")
    names = [variable.partition("=")[0] for variable in out.rstrip("\0").split("\0")]
    assert names == ["PATH", "HOSTNAME", "HOME"]


def test_the_session_has_no_controlling_terminal_without_t(engine: Engine) -> None:
    assert inside(engine, "awk '{print $6, $7}' /proc/1/stat") == ["1 0"]


def test_the_keyring_is_new(engine: Engine) -> None:
    """A container that shares the host's session keyring can read its keys."""
    assert inside(engine, "cat /proc/keys; true") == []


@pytest.mark.ketch_only("Docker has the first and the last of them")
def test_programs_find_out_that_they_are_in_a_container(ketch: Engine, run_name: str) -> None:
    script = "ls /.dockerenv /run/.containerenv; readlink /etc/mtab; grep -c ' / ' /etc/mtab"
    ketch.ok("run", "--name", run_name, "--read-only", "busybox", "sh", "-c", script)
    assert ketch.ok("logs", run_name).split() == [
        "/.dockerenv", "/run/.containerenv", "/proc/mounts", "1",
    ]  # fmt: skip
    assert ketch.ok("diff", run_name) == ""
    ketch.ok("rm", run_name)
    assert (
        ketch.ok("run", "--rm", "--userns", "auto", "busybox", "sh", "-c", script).split()[3] == "1"
    )


def test_a_tmpfs_over_what_the_image_lacks_is_everybodys(engine: Engine) -> None:
    asked = (
        "--tmpfs",
        "/run",
        "--mount",
        "type=tmpfs,dst=/new",
        "--tmpfs",
        "/etc",
        "--tmpfs",
        "/var",
    )
    modes = engine.ok(
        "run", "--rm", *asked, "busybox", "stat", "-c", "%a", "/run", "/new", "/etc", "/var"
    )
    assert modes.split() == ["1777", "1777", "755", "755"]
    chosen = ("--tmpfs", "/run:mode=700")
    assert engine.ok("run", "--rm", *chosen, "busybox", "stat", "-c", "%a", "/run") == "700"


def test_a_tmpfs_over_the_images_own_run_has_that_ones_mode(engine: Engine, run_name: str) -> None:
    engine.ok("run", "--name", run_name, "busybox", "mkdir", "-p", "-m", "750", "/run/x")
    engine.ok("commit", run_name, f"{run_name}:own")
    engine.ok("rm", run_name)
    out = engine.ok("run", "--rm", "--tmpfs", "/run", f"{run_name}:own", "stat", "-c", "%a", "/run")
    assert out == "755"
    engine.ok("rmi", f"{run_name}:own")


@pytest.mark.ketch_only("Docker's runc makes it 755 at the second start")
def test_a_tmpfs_has_its_mode_at_each_start(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    ketch.ok("create", "--name", run_name, "--user", "65534", "--tmpfs", "/t", "--tmpfs",
             "/new/deep/t/", "--tmpfs", "/root", "--tmpfs", "/m:mode=700", "--mount",
             "type=tmpfs,target=/n", "-v", f"{tmp_path}:/host", "--tmpfs", "/host/t",
             "busybox", "stat", "-c", "%a", "/t", "/new/deep/t", "/root", "/m", "/n",
             "/new/deep")  # fmt: skip
    first = ketch.ok("start", "-a", run_name)
    assert first.split() == ["1777", "1777", "700", "700", "1777", "755"]
    again = ketch.ok("start", "-a", run_name).split()
    assert again[:5] == first.split()[:5]
    # The host's own directory is not everybody's.
    assert (tmp_path / "t").stat().st_mode & 0o7777 == 0o755
    ketch.ok("rm", run_name)
