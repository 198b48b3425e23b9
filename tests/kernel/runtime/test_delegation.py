"""A cgroup given to a container's user, on the v2 hierarchy that this machine has."""

import os

import pytest

from ketch import cgroups
from ketch.runtime import delegation
from tests.kernel.runtime.bundles import Bundle, configuration, in_user_namespace

pytestmark = pytest.mark.root


def test_what_the_kernel_lists_changes_hands() -> None:
    layout = cgroups.detect()
    cgroup = cgroups.manager(f"/ketch-test-{os.getpid()}", layout)
    cgroup.create()
    try:
        directory = cgroup.descriptor()
        if directory is None:
            pytest.skip("no v2 hierarchy is mounted")
        try:
            delegation.delegate(directory, 200_000)
            owners = {
                name: os.stat(name, dir_fd=directory).st_uid
                for name in (".", "cgroup.procs", "cgroup.threads", "cgroup.events")
            }
        finally:
            os.close(directory)
    finally:
        cgroup.delete()
    assert owners == {
        ".": 200_000, "cgroup.procs": 200_000, "cgroup.threads": 200_000, "cgroup.events": 0
    }  # fmt: skip


@pytest.mark.skipif(cgroups.detect().mode != "v2", reason="only v2 is safe to delegate")
def test_the_root_of_a_user_namespace_divides_its_cgroup(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("mkdir", "/sys/fs/cgroup/part"))
    config["linux"]["namespaces"].append({"type": "cgroup"})
    config["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs"},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"},
    ]
    cgroup = cgroups.manager(f"/ketch-test-{os.getpid()}", cgroups.detect())
    cgroup.create()
    try:
        bundle.output(config, cgroup=cgroup)
    finally:
        cgroup.delete()
