"""Containers made by an ordinary user."""

import json
import os
import shutil
import traceback
from collections.abc import Callable

import pytest

from ketch.linux import mount, namespaces
from tests.kernel.runtime.bundles import Bundle, configuration, in_user_namespace

NOBODY = 65534

pytestmark = pytest.mark.root


def as_nobody(bundle: Bundle, work: Callable[[], object]) -> object:
    """What ``work`` returns, or the text of what it raises, in a process of an ordinary user.

    The user has a range of ids to map, in a mount namespace where nobody else sees it.
    """
    ranges = bundle.directory / "ranges"
    ranges.write_text("nobody:300000:65536\n")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mount.mount("", "/", flags=mount.MS_PRIVATE | mount.MS_REC)
            for file in ("/etc/subuid", "/etc/subgid"):
                mount.mount(str(ranges), file, flags=mount.MS_BIND)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            # Changing ids made the process's files under /proc root's; execve(2) would undo it.
            _make_dumpable()
            result = work()
        except BaseException as error:  # noqa: BLE001 the parent asserts on it
            result = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def _make_dumpable() -> None:
    from ketch.linux import process

    process.prctl(process.PR_SET_DUMPABLE, 1)


@pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is not installed")
def test_ranges_are_mapped_by_newuidmap(bundle: Bundle) -> None:
    config = in_user_namespace(
        configuration("sh", "-c", "id -u; grep CapEff /proc/self/status; cat /proc/self/uid_map")
    )
    own = {"containerID": 0, "hostID": NOBODY, "size": 1}
    rest = {"containerID": 1, "hostID": 300_000, "size": 1000}
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = [own, rest]
    config["process"]["user"] = {"uid": 33, "gid": 33, "additionalGids": [50]}
    config["process"]["capabilities"]["ambient"] = ["CAP_CHOWN"]
    config["process"]["capabilities"]["inheritable"] = ["CAP_CHOWN"]
    answer = as_nobody(bundle, lambda: bundle.run(config))
    assert isinstance(answer, list), answer
    status, output = answer
    assert status == 0, output
    assert output.split() == ["33", "CapEff:", "0000000000000001", "0", "65534", "1", "1",
                              "300000", "1000"]  # fmt: skip


def test_its_own_id_needs_no_program(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("sh", "-c", "id -u; cat /proc/self/setgroups"))
    own = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = own
    assert as_nobody(bundle, lambda: bundle.run(config)) == [0, "0\ndeny\n"]
    config["process"]["user"]["additionalGids"] = [4]
    answer = as_nobody(bundle, lambda: bundle.run(config))
    assert "InvalidArgumentError: process.user.additionalGids" in str(answer)


@pytest.mark.skipif(not shutil.which("newuidmap"), reason="newuidmap is not installed")
def test_a_range_of_others_is_refused_by_name(bundle: Bundle) -> None:
    answer = as_nobody(bundle, lambda: bundle.run(in_user_namespace(configuration("true"))))
    assert "InvalidArgumentError: linux.gidMappings: newgidmap: " in str(answer)


def test_binds_are_the_user_s_own(bundle: Bundle) -> None:
    config = in_user_namespace(configuration("cat", "/etc/passwd"))
    own = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = own
    source = bundle.directory / "source"
    source.write_text("bound\n")
    config["mounts"].append(
        {"destination": "/etc/passwd", "source": str(source), "options": ["bind", "ro"]}
    )
    assert as_nobody(bundle, lambda: bundle.run(config)) == [0, "bound\n"]
