"""``ketch system reset``: nothing of an engine is left, and nothing of anybody else's is taken."""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import pytest

from ketch.build import graph
from ketch.build.request import Request
from ketch.build.steps import Steps
from ketch.engine.engine import Engine as Library
from ketch.engine.networks.default import default_bridge
from ketch.engine.settings import Settings
from ketch.errors import UnavailableError
from tests.support import images, leftovers, peers, serving
from tests.support.commands import Engine

Make = Callable[..., Engine]


@pytest.fixture
def make(ketch: Engine, run_name: str) -> Iterator[Make]:
    """Return what makes engines, all in one directory, where the run's leftovers are looked for."""
    with tempfile.TemporaryDirectory(prefix=f"{run_name}-", ignore_cleanup_errors=True) as top:

        def engine(root: str = "root", state: str = "state") -> Engine:
            prefix = [ketch.prefix[0], "--root", f"{top}/{root}", "--state", f"{top}/{state}"]
            new = Engine("ketch", prefix)
            if not os.path.exists(f"{top}/{root}/ketch.db"):
                new.ok("import", str(images.busybox_archive()), "busybox")
            return new

        yield engine
        for root in pathlib.Path(top).iterdir():
            if (root / "ketch.db").exists():
                engine(root.name)("system", "reset", "--force")
        leftovers.stop_zygotes(run_name)


def root_of(engine: Engine) -> pathlib.Path:
    return pathlib.Path(engine.prefix[2])


def state_of(engine: Engine) -> pathlib.Path:
    return pathlib.Path(engine.prefix[4])


def left(engine: Engine, *names: str) -> list[str]:
    """Name what is left of an engine, and of its network, mounts and processes."""
    places = [str(place) for place in (root_of(engine), state_of(engine)) if place.exists()]
    bridges = [default_bridge(str(root_of(engine))), *names]
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    found = places + [one for one in bridges if os.path.exists(f"/sys/class/net/{one}")]
    found += [f"rule {one}" for one in bridges if one in rules.stdout]
    mounts = pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    found += [f"mount {root_of(engine)}"] if str(root_of(engine)) in mounts else []
    deadline = time.monotonic() + 5  # whose container failed to start ends in a moment
    while (running := processes(engine)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found + [
        f"process {pid}: {pathlib.Path('/proc', str(pid), 'comm').read_text()}" for pid in running
    ]


def processes(engine: Engine) -> list[int]:
    """Return the pids of processes that name an engine's directories."""
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            command = pathlib.Path("/proc", entry, "cmdline").read_bytes()
            if entry.isdigit() and str(root_of(engine).parent).encode() in command:
                found.append(int(entry))
    return found


def cgroups_of(engine: Engine, container: str) -> list[pathlib.Path]:
    """Return the directories of a running container's cgroup, in each hierarchy that has it."""
    pid = engine.ok("inspect", "-f", "{{.State.Pid}}", container)
    lines = pathlib.Path("/proc", pid, "cgroup").read_text(encoding="ascii").splitlines()
    paths = {line.split(":", 2)[2] for line in lines} - {"/"}
    tops = [pathlib.Path("/sys/fs/cgroup"), *pathlib.Path("/sys/fs/cgroup").iterdir()]
    found = [top / path[1:] for top in tops for path in paths]
    return [place for place in found if container in str(place) and place.exists()]


def test_nothing_is_left(make: Make) -> None:
    engine = make()
    network = engine.ok("network", "create", "own")
    engine.ok("run", "-d", "--restart", "always", "--network", "own", "-p", "127.0.0.1::80", "-v",
              "kept:/data", "--health-cmd", "true", "busybox", "sleep", "100")  # fmt: skip
    engine.ok("run", "-d", "busybox", "sh", "-c", "trap '' TERM; sleep 100")
    engine.ok("create", "busybox", "true")
    engine.ok("tag", "busybox", "another")
    engine.ok("rmi", "another")  # looks for garbage
    cgroups = [
        place for name in engine.ok("ps", "-q").split() for place in cgroups_of(engine, name)
    ]
    assert cgroups or engine.ok("info", "-f", "{{.CgroupVersion}} {{.PidsLimit}}") == "1 false"
    # As the page says that one types along with.
    page = images.CHECKOUT.joinpath("docs/nginx.md").read_text(encoding="utf-8")
    command = re.findall(r"^# ketch (system reset.*)$", page, re.MULTILINE)
    assert engine.ok(*command[0].split()) == ""
    assert left(engine, f"ketch{network[:10]}") == []
    assert not [place for place in cgroups if place.exists()]
    refused = engine("system", "reset", "--force")
    assert refused.status == 1
    assert "is not the root of an engine" in refused.err
    # And it can be begun anew.
    again = make()
    assert again.ok("run", "--rm", "busybox", "echo", "here") == "here"
    assert again.ok("volume", "ls", "-q") == ""


@pytest.mark.root_engine("the engine in this process is root's")
def test_what_builds_have_goes_as_well(make: Make, tmp_path: pathlib.Path) -> None:
    engine = make()
    library = Library(Settings(str(root_of(engine)), str(state_of(engine))))
    image = library.images.resolve("busybox", "")
    library.images.snapshotter.prepare(str(tmp_path), image.chain_ids, bare=True)
    cache = graph.Mount(graph.MountKind.CACHE, "/cache", id="kept")
    words = ("sh", "-c", "echo; sleep 100")
    base = graph.Scratch(name="base")
    step = graph.Run(name="RUN", base=base, arguments=words, mounts=(cache,))
    with Steps(library, Request(contexts={})) as steps:

        def reset(*_: object) -> None:
            engine.ok("system", "reset", "--force")

        with pytest.raises(UnavailableError):
            steps.run(step, str(tmp_path), reset)
    library.store.close()
    assert left(engine) == []


@pytest.mark.root_engine("an ordinary user's packet filter ends with the network it is in")
@pytest.mark.parametrize("operators", ["", "add rule inet ketch user-forward counter"])
def test_the_last_engine_leaves_the_packet_filter(
    ketch: Engine, tmp_path: pathlib.Path, run_name: str, operators: str
) -> None:
    """On a host of its own; an operator's rules keep their table."""
    try:
        with peers.namespaces(tmp_path) as inside:
            words = ["--root", str(tmp_path / "root"), "--state", str(tmp_path / "state")]
            engine = Engine("ketch", [*inside, ketch.prefix[0], *words])
            engine.ok("import", str(images.busybox_archive()), "busybox")
            engine.ok("run", "--rm", "-p", "80", "busybox", "true")

            def nft(*words: str) -> str:
                done = subprocess.run([*inside, "nft", *words], check=True, capture_output=True)
                return done.stdout.decode()

            assert "ketch" in nft("list", "ruleset")
            if operators:
                nft(operators)
            engine.ok("system", "reset", "--force")
            assert ("ketch" in nft("list", "ruleset")) is bool(operators)
            assert not (tmp_path / "root").exists()
            assert not (tmp_path / "state").exists()
    finally:
        leftovers.stop_zygotes(run_name)


def test_it_asks_first(make: Make) -> None:
    engine = make()
    engine.ok("run", "-d", "--network", "none", "--name", "here", "busybox", "sleep", "100")
    for answer in (b"n\n", b"", b"yes please\n"):
        asked = engine("system", "reset", stdin=answer)
        assert asked.status == 0
        assert "all volumes, with all data in them" in asked.out
        assert "Are you sure you want to continue? [y/N]" in asked.out
        assert engine.ok("exec", "here", "echo", "lives") == "lives"
    engine.ok("system", "reset", stdin=b"y\n")
    assert left(engine) == []


def test_what_is_not_the_engines_stays(make: Make, tmp_path: pathlib.Path) -> None:
    engine = make()
    program = engine.prefix[0]
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    refused = Engine("ketch", [program, "--root", str(tmp_path)])("system", "reset", "--force")
    assert (refused.status, treasure.read_text()) == (1, "mine")
    inside = [root_of(engine) / "notes", root_of(engine) / "config.json"]
    for path in inside:
        path.write_text("{}")
    done = engine("system", "reset", "--force")
    assert done.status == 0
    assert sorted(root_of(engine).iterdir()) == sorted(inside)
    assert all(str(path) in done.err for path in inside)


@pytest.mark.root_engine("what a user mounts is in its namespaces, and ends with them")
def test_what_is_mounted_inside_stays(make: Make, tmp_path: pathlib.Path) -> None:
    engine = make()
    (tmp_path / "precious").write_text("mine")
    place = root_of(engine) / "volumes" / "bound" / "_data"
    engine.ok("volume", "create", "bound")
    subprocess.run(["mount", "--bind", str(tmp_path), str(place)], check=True)
    try:
        refused = engine("system", "reset", "--force")
        assert (refused.status, f"{place} is a mount point" in refused.err) == (1, True)
        assert (tmp_path / "precious").read_text() == "mine"
        assert "busybox" in engine.ok("images")
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_programs_that_use_the_engine(make: Make, tmp_path: pathlib.Path) -> None:
    engine = make()
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served([*engine.prefix], socket, log) as server:
        ask = serving.Connection(socket).ask
        assert ask("GET", "/containers/json")[0] == 200
        body = b'{"Image": "busybox", "Cmd": ["true"]}'
        refused = engine("system", "reset")
        assert refused.status == 1
        assert "(ketch)" in refused.err
        engine.ok("system", "reset", "--force")
        # It may have ended already; else it says why it makes nothing, and ends.
        with contextlib.suppress(OSError):
            status, answer = serving.Connection(socket).ask(
                "POST", "/containers/create", body, Content_Type="application/json"
            )
            assert (status, b"taken away" in answer) == (503, True), answer
        assert server.wait(10) == 0
        assert "taken away" in log.read_text(encoding="utf-8")
        assert not root_of(engine).exists()


def test_a_server_that_nobody_has_asked_anything(make: Make, tmp_path: pathlib.Path) -> None:
    """It has not opened the database yet, and so is not known to use it."""
    engine = make()
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served([*engine.prefix], socket, log) as server:
        engine("system", "reset", "--force")
        with contextlib.suppress(OSError):
            assert serving.Connection(socket).ask("GET", "/containers/json")[0] == 503
        assert server.wait(10) == 0
        assert not root_of(engine).exists()


def test_a_server_whose_root_somebody_removes(make: Make, tmp_path: pathlib.Path) -> None:
    """And puts another in its place: what a client then asks for is not made in that."""
    engine = make()
    socket, log = tmp_path / "api.sock", tmp_path / "serve.log"
    with serving.served([*engine.prefix], socket, log) as server:
        assert serving.Connection(socket).ask("GET", "/containers/json")[0] == 200
        root_of(engine).rename(tmp_path / "moved")
        make()
        assert server.wait(10) == 0
        assert "taken away" in log.read_text(encoding="utf-8")
    shutil.rmtree(root_of(engine))
    (tmp_path / "moved").rename(root_of(engine))


@pytest.mark.root_engine("a user's states are user namespaces, which do not see into each other")
def test_a_root_that_two_states_share(make: Make) -> None:
    engine, other = make(), make(state="another")
    other.ok("run", "-d", "busybox", "sleep", "100")
    engine.ok("run", "-d", "busybox", "sleep", "100")
    engine.ok("system", "reset", "--force")
    assert left(engine) == left(other) == []


def test_a_state_that_two_roots_share(make: Make) -> None:
    engine, other = make(), make(root="another")
    other.ok("run", "-d", "--network", "none", "--name", "here", "busybox", "sleep", "100")
    engine.ok("system", "reset", "--force")
    assert not root_of(engine).exists()
    assert other.ok("exec", "here", "echo", "lives") == "lives"
    assert other.ok("run", "--rm", "--network", "none", "busybox", "echo", "too") == "too"


def test_others_who_go_on_starting_containers(make: Make) -> None:
    """Each of them is told what is the matter, and whatever they have made can be taken away."""
    engine = make()
    command = [*engine.prefix, "run", "--rm", "busybox", "true"]
    with contextlib.ExitStack() as held:
        others = []
        for _ in range(3):
            words = ["sh", "-c", 'while "$@"; do :; done', "sh", *command]
            program = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            held.callback(program.communicate)
            held.callback(program.kill)
            others.append(program)
        time.sleep(0.5)
        engine("system", "reset", "--force", timeout=60)
        for program in others:
            said, _ = program.communicate(timeout=60)
            assert b"Traceback" not in said, said
    if (root_of(engine) / "ketch.db").exists():
        engine.ok("system", "reset", "--force")
    assert left(engine) == []
