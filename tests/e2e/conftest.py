"""The installed ketch, and beside it a private docker that the same tests must pass against."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.support import images, leftovers, peers, serving
from tests.support.commands import Engine


@pytest.fixture(scope="session")
def scratch(run_name: str) -> Iterator[pathlib.Path]:
    """Return a directory for the engines of this run, removed with all they stored."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def ketch_engine(scratch: pathlib.Path, run_name: str) -> Iterator[Engine]:
    """Return the installed ketch with a root and a state of its own and image ``busybox``."""
    program = pathlib.Path(sys.executable).with_name("ketch")
    engine = Engine(
        "ketch", [str(program), "--root", f"{scratch}/root", "--state", f"{scratch}/state"]
    )
    try:
        engine.ok("import", str(images.busybox_archive()), "busybox")
        link = bridge(engine)  # a first start makes it, and it stays
        yield engine
        _force_remove(engine, engine("ps", "-aq").out.split())
        leftovers.remove_network(link)
    finally:
        leftovers.stop_zygotes(run_name)


@pytest.fixture
def bridge_name(ketch: Engine) -> str:
    """Return the name of the default network's link in the host."""
    return bridge(ketch)


@pytest.fixture(scope="session")
def docker_engine(scratch: pathlib.Path) -> Iterator[Engine]:
    """Return docker with a daemon of its own and image ``busybox``."""
    directory = scratch / "docker"
    directory.mkdir()
    try:
        with peers.docker(directory) as engine:
            yield engine
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def ketch(ketch_engine: Engine, run_name: str) -> Iterator[Engine]:
    """Return ketch alone; the test must take away what it starts."""
    yield from _checked(ketch_engine, run_name)


@pytest.fixture(scope="session")
def served_engine(ketch_engine: Engine, scratch: pathlib.Path) -> Iterator[Engine]:
    """Return docker's command line, spoken to by ``ketch serve`` on the same engine as ketch."""
    socket = scratch / "api.sock"
    peers.give_plugins(scratch)
    with serving.served([*ketch_engine.prefix], socket, scratch / "serve.log") as _:
        yield Engine(
            "served",
            ["docker", "--host", f"unix://{socket}"],
            {"DOCKER_CONFIG": str(scratch), "DOCKER_CLI_HINTS": "false", "TMPDIR": str(scratch)},
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on ketch, on docker and, a chosen few, by docker's command line on ketch."""
    if "engine" not in metafunc.fixturenames:
        return
    names = ["ketch", *(["docker"] if shutil.which("dockerd") else [])]
    wanted = os.environ.get("KETCH_TEST_SERVED") or metafunc.definition.get_closest_marker("served")
    if wanted and shutil.which("docker"):
        names.append("served")
    metafunc.parametrize("engine", names, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, run_name: str) -> Iterator[Engine]:
    """Return ketch, then docker, which shows that what the test asks for is Docker's behaviour."""
    if request.param != "ketch" and (marker := request.node.get_closest_marker("ketch_only")):
        pytest.skip(marker.args[0])
    yield from _checked(request.getfixturevalue(f"{request.param}_engine"), run_name)


@pytest.fixture
def debian(engine: Engine) -> str:
    """Return the name of a whole Debian's image, imported where the engine has none yet."""
    if "debian" not in engine.ok("images"):
        try:
            archive = images.debian_archive()
        except images.CannotMakeError as error:
            pytest.skip(f"no Debian image: {error}")
        engine.ok("import", str(archive), "debian", timeout=120)
    return "debian"


def bridge(engine: Engine) -> str:
    """Return the name of the default network's link in the host."""
    default = engine.ok("run", "--rm", "busybox", "ip", "route", "show", "default")
    gateway = default.split()[2]
    listing = subprocess.run(["ip", "-4", "-o", "address"], check=True, capture_output=True,
                             text=True).stdout  # fmt: skip
    (name,) = [line.split()[1] for line in listing.splitlines() if f" inet {gateway}/" in line]
    return name


def _checked(engine: Engine, run_name: str) -> Iterator[Engine]:
    """Fail a test that leaves a container, a mount, a link or a cgroup behind."""
    before = leftovers.state(run_name, cheap=True)
    yield engine
    containers = engine("ps", "-aq").out.split()
    _force_remove(engine, containers)
    found = [f"container {name}" for name in containers]
    found += leftovers.left(before, run_name, patience_seconds=10)
    if found:
        pytest.fail("the test left behind:\n  " + "\n  ".join(found), pytrace=False)


def _force_remove(engine: Engine, containers: list[str]) -> None:
    if containers:
        engine("rm", "-f", *containers)
