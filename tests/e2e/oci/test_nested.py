"""The runtime in a user namespace itself, as rootless engines start it."""

import pathlib
import shutil
from typing import Any

import pytest

from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed"),
]


@pytest.fixture(params=["runc", "ketch-oci"])
def nested(request: pytest.FixtureRequest, ketch_oci: str, tmp_path: pathlib.Path) -> Engine:
    """Return a runtime that runs as root of a user namespace, which has a network of others."""
    program = {"runc": shutil.which("runc"), "ketch-oci": ketch_oci}[request.param]
    if program is None:
        pytest.skip("runc is not installed")
    inside = ["unshare", "--user", "--map-root-user", "--mount", program]
    return Engine(request.param, [*inside, "--root", str(tmp_path / "state")])


@pytest.mark.parametrize("own", [False, True], ids=["the runtime's ids", "ids of its own"])
def test_a_network_of_its_own(nested: Engine, bundle: Bundle, *, own: bool) -> None:
    def change(config: Any) -> None:
        del config["linux"]["resources"], config["linux"]["cgroupsPath"]
        if own:
            ids = [{"containerID": 0, "hostID": 0, "size": 1}]
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"] |= {"uidMappings": ids, "gidMappings": ids}

    script = "ip link show lo | head -1; ls /sys/class/net"
    path = bundle("sh", "-c", script, change=change)
    output = nested.ok("run", "-b", path, "c")
    assert "LOOPBACK,UP" in output
    assert output.split()[-1] == "lo"


def test_no_groups_can_be_given_up_nor_taken_on(nested: Engine, bundle: Bundle) -> None:
    def change(config: Any) -> None:
        del config["linux"]["resources"], config["linux"]["cgroupsPath"]

    assert nested.ok("run", "-b", bundle("id", "-u", change=change), "c") == "0"
    if nested.name == "runc":
        return  # it goes without the groups that were asked for, and says nothing
    groups = {"uid": 0, "gid": 0, "additionalGids": [5]}
    failed = nested("run", "-b", bundle("id", change=change, user=groups), "c")
    assert failed.status == 1
    assert failed.out == ""
    oci.delete_all(nested)
