"""What enters a container is executed from where no container can write: CVE-2019-5736."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from ketch.runtime.cli import seal
from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine

# The attack as published: the container's program is the runtime itself, whose loader opens
# /proc/self/exe for reading and, once nobody executes that file any more, its descriptor for
# writing. Here the file is Python, which these tests execute too, so that the kernel says ETXTBSY
# before it looks at the mount: the mount is looked at instead.
ATTACK = (
    "import os\n"
    "reader = os.open('/proc/self/exe', os.O_RDONLY)\n"
    "print('read-only' if os.fstatvfs(reader).f_flag & os.ST_RDONLY else 'writable')\n"
    "try: os.open(f'/proc/self/fd/{reader}', os.O_WRONLY)\n"
    "except OSError as error: print('refused')\n"
)


@pytest.fixture
def unsealed(tmp_path: pathlib.Path) -> Engine:
    """Return the runtime as started by hand, from an interpreter that root may write."""
    package = str(pathlib.Path(seal.__file__).parents[3])
    words = [os.path.realpath(sys.executable), "-I", "-S", "-c", seal.BOOT, package]
    return Engine("unsealed", [*words, "--root", str(tmp_path / "unsealed")])


@pytest.fixture(params=["kept mount", "detached mount"])
def ketch(
    request: pytest.FixtureRequest, ketch_oci: str, unsealed: Engine, tmp_path: pathlib.Path
) -> Engine:
    if request.param == "detached mount":
        return unsealed
    return Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "sealed")])


def test_init_cannot_be_opened_for_writing(ketch: Engine, bundle: Bundle) -> None:
    assert oci.quietly(ketch, "create", "-b", bundle("true"), "c") == 0
    try:
        pid = json.loads(ketch.ok("state", "c"))["pid"]
        assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
        with pytest.raises(OSError):  # noqa: PT011 ETXTBSY as long as any Python runs
            os.open(f"/proc/{pid}/exe", os.O_WRONLY)
    finally:
        ketch("delete", "--force", "c")


@pytest.mark.parametrize("entering", ["run", "exec"])
def test_the_runtime_as_the_containers_program(
    ketch: Engine, bundle: Bundle, entering: str
) -> None:
    def with_the_hosts_libraries(config: dict[str, object]) -> None:
        mounts = config["mounts"]
        assert isinstance(mounts, list)
        for path in ("/usr", "/lib", "/lib64"):
            if os.path.exists(path):
                mounts.append({"destination": path, "source": path, "type": "bind",
                               "options": ["rbind", "ro"]})  # fmt: skip

    program = ["/proc/self/exe", "-I", "-S", "-c", ATTACK]
    words = program if entering == "run" else ["sleep", "100"]
    path = bundle(*words, change=with_the_hosts_libraries)
    config = pathlib.Path(path, "config.json")
    document = json.loads(config.read_text())
    document["root"]["readonly"] = False
    config.write_text(json.dumps(document))
    try:
        if entering == "run":
            out = ketch.ok("run", "-b", path, "c")
        else:
            assert oci.quietly(ketch, "run", "-d", "-b", path, "c") == 0
            out = ketch.ok("exec", "c", *program)
        assert out.split() == ["read-only", "refused"]
    finally:
        ketch("delete", "--force", "c")


def test_the_mount_is_made_once(ketch_oci: str) -> None:
    def mounts() -> int:
        return pathlib.Path("/proc/self/mountinfo").read_text().count("/run/ketch-oci/.python/bin/")

    commands = [subprocess.Popen([ketch_oci, "list", "-q"]) for _ in range(4)]
    assert [command.wait() for command in commands] == [0] * 4
    assert mounts() == 1


def test_another_interpreter_is_noticed(ketch_oci: str) -> None:
    """As after an upgrade of Python or of ketch: what is kept is not what is to run."""
    start = pathlib.Path("/run/ketch-oci/.python/start")
    subprocess.run([ketch_oci, "list", "-q"], check=True)
    good = start.read_text()
    start.write_text(good.replace("sealed='", "sealed='/nosuch"))
    subprocess.run([ketch_oci, "list", "-q"], check=True)
    assert start.read_text() == good
