"""The installed ketch, and beside it a private docker that the same tests must pass against."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator

import pytest
from _pytest.runner import runtestprotocol

import ketch as package
from ketch.engine.settings import is_ordinary
from ketch.errors import KetchError
from tests.support import images, leftovers, peers, serving, users
from tests.support.commands import Engine
from tests.support.users import NO_CGROUP, OrdinaryEngine, UsersEngine

_PEERS = {"docker", "podman", "runc", "crun"}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Play a test on a peer once more where it fails: that it is a fair one is all it shows.

    On a busy machine docker loses what programs say right before their end now and then; nobody
    mends that here. What ketch does is tried once.
    """
    made = getattr(item, "callspec", None)
    if not isinstance(item, pytest.Function) or made is None:
        return None
    if not _PEERS & {value for value in made.params.values() if isinstance(value, str)}:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if any(report.failed for report in reports):
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def scratch(run_name: str) -> Iterator[pathlib.Path]:
    """Return a directory for the engines of this run, removed with all they stored."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def root_engine(scratch: pathlib.Path, run_name: str) -> Iterator[Engine]:
    """Return root's ketch with a root and a state of its own and image ``busybox``."""
    engine = _installed(scratch, pathlib.Path(sys.executable).with_name("ketch"))
    if is_ordinary():
        yield from _from_inside(engine)
        return
    try:
        engine.ok("import", str(images.busybox_archive()), "busybox")
        link = bridge(engine)  # a first start makes it, and it stays
        yield engine
        _force_remove(engine, engine("ps", "-aq").out.split())
        leftovers.remove_network(link)
    finally:
        leftovers.stop_zygotes(run_name)


@pytest.fixture(scope="session")
def user_engine(run_name: str) -> Iterator[UsersEngine]:
    """Return the ketch of an ordinary user with subordinate ids, likewise."""
    yield from _of_a_user(run_name, subordinate_ids=True)


@pytest.fixture(scope="session")
def lone_engine(run_name: str) -> Iterator[UsersEngine]:
    """Return the ketch of an ordinary user who has no id but its own, likewise."""
    yield from _of_a_user(run_name, subordinate_ids=False)


@pytest.fixture(scope="session")
def ketch_engine(request: pytest.FixtureRequest) -> Engine:
    """Return the ketch of whom the run is for; a user's for tests marked so, too."""
    whose = getattr(request, "param", request.config.getoption("engine"))
    return _engine(request, whose)


def _from_inside(engine: Engine) -> Iterator[Engine]:
    """Return the engine of a user in whose namespaces this process is: tests/support/inside.py.

    The library's is the same user's, in namespaces that this process is in from now on.
    """
    engine = OrdinaryEngine(engine.name, engine.prefix)
    try:
        engine.ok("import", str(images.busybox_archive()), "busybox")
        package.Engine(*engine.prefix[2::2]).close()
        if engine.ok("info", "--format", "{{.CgroupDriver}}") == "none":
            for make in (package.Sandbox.create, package.Sandbox.host):
                assert make.__kwdefaults__ is not None
                # Such limits would be refused. That of processes holds without a cgroup, and
                # without it what is played here would fill the machine.
                make.__kwdefaults__.update(memory=None, cpus=None)
        yield engine
    finally:
        engine("system", "reset", "--force")


def _installed(directory: pathlib.Path, program: pathlib.Path) -> Engine:
    places = ["--root", f"{directory}/root", "--state", f"{directory}/state"]
    return Engine("ketch", [str(program), *places])


def _of_a_user(run_name: str, *, subordinate_ids: bool) -> Iterator[UsersEngine]:
    with users.made(run_name, subordinate_ids=subordinate_ids) as user:
        directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
        try:
            directory.chmod(0o755)
            user.program(directory / "ketch", str(pathlib.Path(sys.executable).with_name("ketch")))
            os.chown(directory, user.uid, user.uid)
            prefix = _installed(directory, directory / "ketch").prefix
            engine = UsersEngine("ketch", prefix, user=user)
            engine.ok("import", str(images.busybox_archive()), "busybox")
            yield engine
        finally:
            user.end()
            shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def _whose_files(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have what a test writes belong to whose engine it is for."""
    engine = _engine_of(request)
    with engine.user.owning() if isinstance(engine, UsersEngine) else contextlib.nullcontext():
        yield


@pytest.fixture
def tmp_path(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, run_name: str
) -> Iterator[pathlib.Path]:
    """Return a directory of whose the engine is; pytest's are closed to all but root."""
    engine = _engine_of(request)
    if not isinstance(engine, UsersEngine):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix=f"{run_name}-", ignore_cleanup_errors=True) as path:
        os.chown(path, engine.user.uid, engine.user.uid)
        os.chmod(path, 0o755)
        yield pathlib.Path(path)


def _engine_of(request: pytest.FixtureRequest) -> Engine | None:
    """Return the ketch that a test is played on, if it is played on one."""
    called = getattr(request.node, "callspec", None)
    name = called.params.get("engine") if called else None
    if name in {"ketch", "user"}:
        return _engine(request, name)
    if "ketch_engine" in request.fixturenames:
        return request.getfixturevalue("ketch_engine")  # type: ignore[no-any-return]
    return None


def _engine(request: pytest.FixtureRequest, name: str) -> Engine:
    return request.getfixturevalue(f"{name}_engine")  # type: ignore[no-any-return]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Leave out what needs a control group, where the library in this process has none to make.

    What would run without its limits might take all that the machine has.
    """
    with _limits_or_skip(request):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Likewise."""
    with _limits_or_skip(pyfuncitem._request):
        return (yield)


@contextlib.contextmanager
def _limits_or_skip(request: pytest.FixtureRequest) -> Iterator[None]:
    try:
        yield
    except KetchError as error:
        refused = NO_CGROUP.search(str(error)) if is_ordinary() else None
        if not refused:
            raise
        engine: Engine = request.getfixturevalue("root_engine")
        _force_remove(engine, engine.ok("ps", "-aq").split())
        pytest.skip(refused[0])


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


@pytest.fixture(scope="session")
def podman_engine(scratch: pathlib.Path) -> Iterator[Engine]:
    """Return podman, whose builds are buildah's, with image ``busybox``."""
    directory = scratch / "podman"
    directory.mkdir()
    try:
        with peers.podman(directory) as engine:
            yield engine
    except peers.PeerUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def ketch(ketch_engine: Engine, run_name: str) -> Iterator[Engine]:
    """Return ketch alone; the test must take away what it starts."""
    yield from _checked(ketch_engine, run_name)


@pytest.fixture(scope="module")
def library(ketch_engine: Engine) -> package.Engine:
    """Return the library's engine, which is the same as ketch's."""
    options = list(ketch_engine.prefix)
    root, state = (options[options.index(name) + 1] for name in ("--root", "--state"))
    return package.Engine(root, state)


@pytest.fixture(scope="session")
def served_engine(ketch_engine: Engine, scratch: pathlib.Path) -> Iterator[Engine]:
    """Return docker's command line, spoken to by ``ketch serve`` on the same engine as ketch."""
    if not shutil.which("docker"):
        pytest.skip("docker's command line is not installed")
    socket = pathlib.Path(ketch_engine.prefix[2]).with_name("api.sock")
    peers.give_plugins(scratch)
    with serving.served([*ketch_engine.prefix], socket, scratch / "serve.log") as _:
        yield Engine(
            "served",
            ["docker", "--host", f"unix://{socket}"],
            {"DOCKER_CONFIG": str(scratch), "DOCKER_CLI_HINTS": "false", "TMPDIR": str(scratch)},
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on ketch, on docker and, a chosen few, as a user and by docker's command line."""
    roots = metafunc.config.getoption("engine") == "root"
    marked = metafunc.definition.get_closest_marker
    if "engine" not in metafunc.fixturenames:
        if roots and marked("user") and "ketch_engine" in metafunc.fixturenames:
            metafunc.parametrize("ketch_engine", ["root", "user"], indirect=True, scope="session")
        return
    names = ["ketch", *(["docker"] if roots and shutil.which("dockerd") else [])]
    if roots and marked("user"):
        names.append("user")
    if (os.environ.get("KETCH_TEST_SERVED") or marked("served")) and shutil.which("docker"):
        names.append("served")
    metafunc.parametrize("engine", names, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot hold for whom the run is for."""
    marks = {"root": (), "user": ("root_engine",), "lone": ("root_engine", "many_ids")}
    whose = config.getoption("engine")
    for item in items:
        if pathlib.Path(__file__).parent not in item.path.parents:
            continue
        for name in marks[whose]:
            marker = item.get_closest_marker(name)
            if marker and marker.kwargs.get("of", "") in item.name:
                item.add_marker(pytest.mark.skip(reason=marker.args[0]))
        if whose != "root" and item.get_closest_marker("in_process"):
            why = "the library in this process is root's: tests/support/inside.py plays a user's"
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def engine(request: pytest.FixtureRequest, run_name: str) -> Iterator[Engine]:
    """Return ketch, then docker, which shows that what the test asks for is Docker's behaviour."""
    if request.param == "docker" and (marker := request.node.get_closest_marker("ketch_only")):
        pytest.skip(marker.args[0])
    yield from _checked(_engine(request, request.param), run_name)


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
    """Return the name of the default network's link in the engine's host."""
    default = engine.ok("run", "--rm", "busybox", "ip", "route", "show", "default")
    gateway = default.split()[2]
    command = [*engine.host, "ip", "-4", "-o", "address"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
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
