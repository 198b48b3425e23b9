"""Containers in user namespaces, seen from inside and from outside."""

import os
import pathlib
from typing import Any

import pytest

from ketch.errors import InvalidArgumentError
from ketch.runtime import enter
from ketch.runtime.process import ProcessSetup
from tests.kernel.runtime.bundles import (
    MAPPED,
    Bundle,
    NoCgroup,
    configuration,
    in_user_namespace,
    join,
)

pytestmark = pytest.mark.root


def test_ids_inside_are_others_outside(bundle: Bundle) -> None:
    config = in_user_namespace(
        configuration("sh", "-c", "id -u; id -g; cat /proc/self/uid_map; echo $HOME")
    )
    config["process"]["user"] = {"uid": 33, "gid": 50, "additionalGids": [4, 33]}
    with bundle.container(config) as container:
        status = pathlib.Path(f"/proc/{container.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines())
        assert fields["Uid"].split() == ["200033"] * 4
        assert fields["Gid"].split() == ["200050"] * 4
        assert fields["Groups"].split() == ["200004", "200033"]
        container.start()
        assert container.wait() == 0
        uid, gid, uid_map, home = container.output().splitlines()
    assert (uid, gid, uid_map.split()) == ("33", "50", ["0", "200000", "65536"])
    assert home == "/var/www"


def test_its_root_has_capabilities_inside_alone(bundle: Bundle) -> None:
    script = """
    grep CapEff /proc/self/status
    mount -t tmpfs none /tmp && echo mounted
    hostname other && hostname
    ip link add br0 type bridge && echo linked
    mknod /tmp/sda b 8 0 || echo no device
    """
    config = in_user_namespace(configuration("sh", "-c", script))
    config["hostname"] = "boxed"
    output = bundle.output(config)
    assert "mounted\nother\nlinked\n" in output
    assert output.endswith("no device\n")


def test_every_default_device_works(bundle: Bundle) -> None:
    script = """
    for name in null zero full random urandom; do test -c /dev/$name || echo $name; done
    echo x > /dev/null && head -c 4 /dev/zero | wc -c && ls -l /dev/ptmx | cut -d'>' -f2
    """
    assert bundle.output(in_user_namespace(configuration("sh", "-c", script))) == "4\n pts/ptmx\n"


def test_binds_come_from_where_only_the_runtime_may_go(bundle: Bundle) -> None:
    secret = bundle.directory / "secret"
    (secret / "inner").mkdir(parents=True)
    secret.chmod(0o700)
    (secret / "inner" / "file").write_text("reached\n")
    (bundle.rootfs / "mnt").mkdir()
    config = in_user_namespace(configuration("cat", "/mnt/file"))
    config["mounts"].append(
        {"destination": "/mnt", "source": str(secret / "inner"), "options": ["rbind", "ro"]}
    )
    assert bundle.output(config) == "reached\n"


def test_a_mount_point_that_its_root_cannot_make_is_named(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("true"))
    config["mounts"].append({"destination": "/missing", "type": "tmpfs", "source": "tmpfs"})
    with pytest.raises(InvalidArgumentError, match=r"mounts\[3\]: /missing"):
        bundle.run(config)


def test_read_only_and_masked_paths_and_a_read_only_root(bundle: Bundle) -> None:
    script = """
    touch /etc/x 2>/dev/null || echo root read-only
    cat /etc/group | wc -c
    echo 1 2>/dev/null > /proc/sys/kernel/hostname || echo sys read-only
    cat /proc/self/mounts | grep -c ' /proc/sys '
    """
    config = in_user_namespace(configuration("sh", "-c", script))
    config["root"]["readonly"] = True
    config["linux"]["maskedPaths"] = ["/etc/group", "/proc/kcore", "/var/tmp"]
    config["linux"]["readonlyPaths"] = ["/proc/sys"]
    assert bundle.output(config) == "root read-only\n0\nsys read-only\n1\n"


def test_names_and_sysctls_are_the_container_s_own(bundle: Bundle) -> None:
    config = in_user_namespace(
        configuration("sh", "-c", "hostname; cat /proc/sys/kernel/domainname; cd /proc/sys;"
                      "cat net/ipv4/ip_unprivileged_port_start kernel/shmmax")
    )  # fmt: skip
    config |= {"hostname": "inner", "domainname": "inner.example"}
    config["linux"]["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "7", "kernel.shmmax": "1234567"
    }  # fmt: skip
    host_name = os.uname().nodename
    assert bundle.output(config) == "inner\ninner.example\n7\n1234567\n"
    assert os.uname().nodename == host_name


def test_a_terminal_belongs_to_the_user(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("sh", "-c", "tty; stat -c %u $(tty)"))
    config["process"] |= {"terminal": True, "user": {"uid": 33, "gid": 33}}
    with bundle.container(config) as container:
        container.start()
        assert container.made.console is not None
        text = b""
        while text.count(b"\n") < 2:
            text += os.read(container.made.console, 4096)
        assert container.wait() == 0
        os.close(container.made.console)
        container.made.console = None
    assert text.decode().split() == ["/dev/pts/0", "33"]


def test_a_map_without_root_is_refused_by_name(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("true"))
    config["linux"]["uidMappings"] = [{"containerID": 1, "hostID": 200_000, "size": 10}]
    with pytest.raises(InvalidArgumentError, match=r"linux\.uidMappings"):
        bundle.run(config)


def test_a_user_who_is_not_mapped_is_refused_by_name(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("true"))
    config["process"]["user"] = {"uid": 70_000, "gid": 0}
    with pytest.raises(InvalidArgumentError, match=r"process.user: uid 70000, gid 0"):
        bundle.run(config)


def test_sysfs_of_the_host_s_network_is_refused_with_the_reason(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("true"))
    config["linux"]["namespaces"] = [
        entry for entry in config["linux"]["namespaces"] if entry["type"] != "network"
    ]
    config["mounts"].append({"destination": "/sys", "type": "sysfs", "source": "sysfs"})
    with pytest.raises(InvalidArgumentError, match=r"mounts\[3\]: /sys") as caught:
        bundle.run(config)
    assert "network namespace" in caught.value.hint


def test_exec_enters_the_user_namespace(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("sleep", "60"))
    with bundle.container(config) as container:
        container.start()
        again = configuration("sh", "-c", "id -u; grep -c 200000 /proc/self/uid_map; echo $HOME")
        again["process"]["user"] = {"uid": 33, "gid": 33}
        assert container.execute(again) == (0, "33\n1\n/var/www\n")
        root = configuration("sh", "-c", "mount -t tmpfs none /tmp && id -u")
        assert container.execute(root) == (0, "0\n")


def test_exec_before_the_program_is_executed(bundle: Bundle) -> None:
    """Init's memory is still that of the runtime then, at which nobody inside may look."""
    config = in_user_namespace(configuration("sleep", "60"))
    config["linux"]["namespaces"] = [
        *(one for one in config["linux"]["namespaces"] if one["type"] != "cgroup"),
        {"type": "cgroup"},
    ]
    with bundle.container(config) as container:
        assert container.namespace("cgroup") != os.readlink("/proc/self/ns/cgroup")
        assert container.execute(configuration("echo", "here")) == (0, "here\n")
        container.start()


def test_a_joined_user_namespace(bundle: Bundle) -> None:
    first = in_user_namespace(configuration("sleep", "60"))
    with bundle.container(first) as container:
        container.start()
        second = configuration("sh", "-c", "id -u; cat /proc/self/uid_map; mount -t tmpfs t /tmp")
        join(second, "user", f"/proc/{container.pid}/ns/user")
        join(second, "network", f"/proc/{container.pid}/ns/net")
        with bundle.container(second) as other:
            assert other.namespace("user") == container.namespace("user")
            assert other.namespace("net") == container.namespace("net")
            assert other.namespace("pid") != container.namespace("pid")
            other.start()
            assert other.wait() == 0, other.output()
            assert other.output().split() == ["0", "0", "200000", "65536"]


def test_maps_beside_a_joined_user_namespace_must_be_its_own(bundle: Bundle) -> None:
    first = in_user_namespace(configuration("sleep", "60"))
    extra = {"containerID": 70_000, "hostID": 7, "size": 1}
    first["linux"]["uidMappings"] = [*MAPPED, extra]
    with bundle.container(first) as container:
        second = configuration("cat", "/proc/self/uid_map")
        join(second, "user", f"/proc/{container.pid}/ns/user")
        # As pods have it whose ids are not the host's: both say the same, in whatever order.
        second["linux"] |= {"uidMappings": [extra, *MAPPED], "gidMappings": MAPPED}
        assert bundle.output(second).split()[:3] == ["0", "200000", "65536"]
        assert "those of the joined user namespace count" in bundle.birth(second).plan.warnings[0]
        # However they are cut.
        halves = [{"containerID": first, "hostID": 200_000 + first, "size": 32_768}
                  for first in (32_768, 0)]  # fmt: skip
        cut = {**second, "linux": {**second["linux"], "uidMappings": [*halves, extra]}}
        assert bundle.output({**cut, "linux": {**cut["linux"], "gidMappings": halves}})
        for field, maps in (
            ("uidMappings", MAPPED),
            ("uidMappings", [halves[0], {**halves[1], "size": 32_767}, extra]),
            ("uidMappings", [halves[0], {**halves[1], "hostID": 300_000}, extra]),
            ("gidMappings", [{"containerID": 0, "hostID": 200_001, "size": 65_536}]),
        ):
            other = {**second, "linux": {**second["linux"], field: maps}}
            with pytest.raises(InvalidArgumentError, match=rf"linux\.{field}: .* is not what the"):
                bundle.run(other)
        join(second, "user", f"/proc/{container.pid}/ns/uts")
        with pytest.raises(InvalidArgumentError, match="the user namespace cannot be joined"):
            bundle.run(second)
        join(second, "user", "/nowhere")
        with pytest.raises(InvalidArgumentError, match="user namespace /nowhere: no such file"):
            bundle.run(second)


def test_maps_of_several_ranges(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("cat", "/proc/self/gid_map"))
    config["linux"]["gidMappings"] = [*MAPPED, {"containerID": 70_000, "hostID": 7, "size": 1}]
    assert bundle.output(config).split() == ["0", "200000", "65536", "70000", "7", "1"]


def test_exec_with_a_terminal_in_a_user_namespace(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("sleep", "60"))
    with bundle.container(config) as container:
        container.start()
        again = configuration("sh", "-c", "tty; stat -c %u $(tty); stty size", terminal=True)
        again["process"] |= {
            "user": {"uid": 33, "gid": 33}, "consoleSize": {"height": 33, "width": 99}
        }  # fmt: skip
        specification: Any = again["process"]
        entered = enter.enter(
            container.pid, container.made.pidfd, specification, ProcessSetup(specification),
            NoCgroup(), (0, 1, 2),  # type: ignore[arg-type]
        )  # fmt: skip
        try:
            entered.start()
            assert entered.console is not None
            text = b""
            while text.count(b"\n") < 3:
                text += os.read(entered.console, 4096)
            assert os.waitstatus_to_exitcode(os.waitpid(entered.pid, 0)[1]) == 0
            os.close(entered.console)
        finally:
            entered.close()
    assert text.decode().split() == ["/dev/pts/0", "33", "33", "99"]
