"""What the guest's kernel must offer before a failure of ketch's in it means anything.

Not collected by name, since it describes the guest; `boot.py` names it first.
"""

import ctypes
import os
import pathlib
import subprocess

CGROUP = pathlib.Path("/sys/fs/cgroup")


def shell(command: str) -> str:
    """Run a command line and return what it printed."""
    done = subprocess.run(["sh", "-ec", command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_cgroup_v2_has_every_controller_and_v1_none() -> None:
    mounted = [line.split()[:3] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    assert [mount[1] for mount in mounted if mount[2] == "cgroup2"] == [str(CGROUP)]
    assert not [mount for mount in mounted if mount[2] == "cgroup"]
    controllers = (CGROUP / "cgroup.controllers").read_text().split()
    assert {"cpu", "cpuset", "hugetlb", "io", "memory", "pids"} <= set(controllers)


def test_two_cpus_so_that_a_cpuset_can_leave_one_out() -> None:
    assert os.sched_getaffinity(0) == {0, 1}


def test_overlay_with_its_writable_layer_on_the_disk(tmp_path: pathlib.Path) -> None:
    shell(
        f"cd {tmp_path} && mkdir lower upper work merged && echo old > lower/file"
        " && unshare --mount sh -ec 'mount -t overlay overlay"
        " -o lowerdir=lower,upperdir=upper,workdir=work merged && echo new > merged/file'"
    )
    assert (tmp_path / "upper/file").read_text() == "new\n"


def test_bridge_veth_and_nftables_with_masquerading_and_maps() -> None:
    shell(
        """unshare --net sh -ec '
        ip link add ketch0 type bridge
        ip link add one type veth peer name two
        ip link set one master ketch0
        nft -f - <<END
table ip test {
    map published { type inet_proto . inet_service : ipv4_addr . inet_service; }
    chain postrouting {
        type nat hook postrouting priority srcnat
        ip saddr 10.0.0.0/8 oifname != "ketch0" masquerade
    }
    chain prerouting {
        type nat hook prerouting priority dstnat
        fib daddr type local dnat ip to meta l4proto . th dport map @published
    }
    chain forward { type filter hook forward priority filter; ct state established,related accept; }
}
END
        '"""
    )


def test_user_namespaces_for_everyone() -> None:
    shell("setpriv --reuid 65534 --regid 65534 --clear-groups unshare --user --map-root-user true")


def test_seccomp_filters_and_libseccomp() -> None:
    assert "Seccomp_filters:" in pathlib.Path("/proc/self/status").read_text()
    assert ctypes.CDLL("libseccomp.so.2").seccomp_api_get() >= 5
