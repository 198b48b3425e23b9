"""The machine that a benchmark has to itself.

Everything, the script included, runs in network and mount namespaces of its own, so that no
engine's bridge, rules or mounts touch the machine and all share the same conditions.
"""

import compileall
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import ketch
from tests.support import peers
from tests.support.commands import Engine
from tests.support.images import busybox_archive

_INSIDE = "KETCH_BENCH_INSIDE"


@contextlib.contextmanager
def machine(module: str) -> Iterator[tuple[contextlib.ExitStack, pathlib.Path]]:
    """Run a module's command line in namespaces of its own, as root.

    Args:
        module: its name.

    Returns:
        For the length of the block: what ends with it, and a directory.
    """
    if os.geteuid() != 0:
        raise SystemExit(f"{module}: needs root")
    _enter_namespaces(module)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ketch-bench-"))
        yield stack, pathlib.Path(directory)


def _enter_namespaces(module: str) -> None:
    """Run a module's command line anew in network and mount namespaces of its own, once."""
    if _INSIDE not in os.environ:
        os.environ[_INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private",
                              sys.executable, "-m", module, *sys.argv[1:]])  # fmt: skip
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if os.path.ismount("/sys/fs/cgroup/unified"):
        # crun refuses a machine that has cgroup v1 and v2 side by side; none of these needs both.
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)


def engines(
    stack: contextlib.ExitStack, scratch: pathlib.Path, names: Sequence[str]
) -> tuple[list[Engine], list[str]]:
    """Start ketch and what is installed of the peers; return them and what is not there."""
    found = [stack.enter_context(_ketch(scratch))]
    notes = []
    starts = {"docker": peers.docker, "podman": peers.podman}
    for name in names:
        directory = scratch / name
        directory.mkdir()
        try:
            found.append(stack.enter_context(starts[name](directory)))
        except peers.PeerUnavailableError as error:
            notes.append(str(error))
    return found, notes


@contextlib.contextmanager
def _ketch(scratch: pathlib.Path) -> Iterator[Engine]:
    program = pathlib.Path(sys.executable).with_name("ketch")
    places = [
        "--root",
        str(scratch / "ketch" / "root"),
        "--state",
        str(scratch / "ketch" / "state"),
    ]
    # As pip does when it installs: else each command compiles what has changed in a checkout.
    compileall.compile_dir(pathlib.Path(ketch.__file__).parent, quiet=1)
    engine = Engine("ketch", [str(program), *places])
    engine.ok("import", str(busybox_archive()), "busybox")
    yield engine
