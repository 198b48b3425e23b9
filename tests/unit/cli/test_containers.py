"""ps, inspect, logs, rm, stop, kill and wait on containers that nothing runs in."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ketch.cli import containers as commands
from ketch.cli.flags import UsageError
from ketch.cli.inspect import inspect
from ketch.cli.logs import logs
from ketch.cli.ps import ps
from ketch.engine.containers.containers import Containers
from ketch.engine.logs.json_file import Writer
from ketch.engine.networks.endpoints import Endpoints
from ketch.engine.records.store import Store
from ketch.engine.settings import Settings
from ketch.errors import InvalidArgumentError, NotFoundError
from ketch.spec.log_drivers import Rotation

WHERE = "ketch ps -a lists containers, and ketch images images"
IDS = {"web": "a" * 64, "db": "ab" + "c" * 62, "done": "d" * 64}


class Engine:
    def __init__(self, directory: Path) -> None:
        self.settings = Settings(str(directory / "root"), str(directory / "state"))
        store = Store(self.settings.root)
        self.containers = Containers(self.settings, store)
        self.endpoints = Endpoints(self.settings, store)

    def create(self, name: str, *command: str, **config: Any) -> str:
        path, *arguments = command or ("sleep", "1000")
        record = {
            "Path": path,
            "Args": arguments,
            "Config": {"Labels": {}, **config},
            "HostConfig": {"NetworkMode": "none"},
        }
        made = self.containers.create_record(
            IDS.get(name, os.urandom(32).hex()),
            name=name,
            image_id="sha256:" + "1" * 64,
            image_reference="busybox",
            record=record,
        )
        self.endpoints.declare(made.id, made.record)
        return self.containers.mark_created(made.id).id

    def start(self, name: str) -> None:
        """Record this very process as what runs, and as its own monitor."""
        with open("/proc/self/stat", encoding="ascii") as file:
            start_time = int(file.read().rpartition(")")[2].split()[19])
        started_ns = time.time_ns()
        self.containers.claim(name)
        self.containers.mark_started(IDS[name], os.getpid(), start_time, started_ns)

    def exit(self, name: str, status: int) -> None:
        self.containers.mark_exited(
            IDS[name], status, oom_killed=status == 137, finished_ns=time.time_ns()
        )


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = Engine(tmp_path)
    made.create("done", "false")
    made.create("db", "sh", "-c", "sleep 1000; echo more", Labels={"tier": "1", "a": "b"})
    made.create("web")
    for name in ("web", "done"):
        made.start(name)
    made.exit("done", 3)
    return made


Command = Callable[[Settings, list[str]], int]


@pytest.fixture
def run(
    engine: Engine, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, str, str]]:
    def run_one(command: Command, *arguments: str) -> tuple[int, str, str]:
        status = command(engine.settings, list(arguments))
        captured = capfdbinary.readouterr()
        return status, captured.out.decode(), captured.err.decode()

    return run_one


Run = Callable[..., tuple[int, str, str]]

NOW = "Less than a second ago"


def test_ps_shows_what_runs(run: Run) -> None:
    status, out, _ = run(ps)
    assert status == 0
    assert out.splitlines() == [
        "CONTAINER ID   IMAGE          COMMAND        CREATED                  STATUS"
        "                  PORTS     NAMES",
        f'aaaaaaaaaaaa   111111111111   "sleep 1000"   {NOW}   Up Less than a second'
        "             web",
    ]


def test_ps_shows_all_newest_first(run: Run) -> None:
    _, out, _ = run(ps, "-a")
    assert [line.split()[-1] for line in out.splitlines()] == ["NAMES", "web", "db", "done"]
    lines = out.splitlines()
    assert '"sh -c \'sleep 1000; …"' in lines[2]
    assert " Created " in lines[2]
    assert f" Exited (3) {NOW} " in lines[3]


def test_ps_whole(run: Run) -> None:
    _, out, _ = run(ps, "-a", "--no-trunc")
    assert IDS["db"] in out
    assert "\"sh -c 'sleep 1000; echo more'\"" in out
    assert "sha256:" + "1" * 64 in out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["-q"], "web"), (["-aq"], "web db done"), (["-ql"], "web"), (["-q", "-n", "2"], "web db"),
        (["-qaf", "name=b"], "web db"), (["-qaf", "name=^d"], "db done"),
        (["-qaf", "id=^ab"], "db"), (["-qf", "status=exited"], "done"),
        (["-qf", "status=exited", "-f", "status=created"], "db done"),
        (["-qaf", "exited=3"], "done"), (["-qaf", "exited=0"], ""),
        (["-qaf", "label=tier"], "db"), (["-qaf", "label=tier=2"], ""),
        (["-qaf", "before=db"], "done"), (["-qaf", "since=db"], "web"),
        (["-qaf", "network=none"], "web db done"), (["-qaf", "network=bridge"], ""),
        (["-qaf", "ancestor=busybox"], ""),
    ],
)  # fmt: skip
def test_ps_chooses(run: Run, arguments: list[str], names: str) -> None:
    status, out, _ = run(ps, *arguments)
    assert status == 0
    assert out.split() == [IDS[name][:12] for name in names.split()]


def test_ps_formats(run: Run) -> None:
    assert run(ps, "-a", "--format", "{{.Names}}: {{.State}}")[1] == (
        "web: running\ndb: created\ndone: exited\n"
    )
    assert run(ps, "-af", "name=db", "--format", r'table {{.Names}}\t{{.Label "tier"}}')[1] == (
        "NAMES     tier\ndb        1\n"
    )
    shown = json.loads(run(ps, "-af", "name=db", "--format", "json")[1])
    assert shown["Command"] == '"sh -c \'sleep 1000; …"'
    assert shown["Labels"] == "a=b,tier=1"
    assert run(ps, "--format", "table")[1] == run(ps)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "{{"], "template parsing error: template: :1: unclosed action"),
        (["--format", "{{.Nope}}"], 'template parsing error: template: :1:2: executing "" at '
         "<.Nope>: can't evaluate field Nope in type *formatter.ContainerContext"),
        (["-f", "nope=1"], "invalid filter 'nope'"),
        (["-f", "status=foo"], "invalid filter 'status=foo'"),
        (["-f", "before=nope"], "No such container: nope"),
    ],
)  # fmt: skip
def test_ps_refuses(engine: Engine, arguments: list[str], message: str) -> None:
    with pytest.raises((InvalidArgumentError, NotFoundError)) as caught:
        ps(engine.settings, arguments)
    assert caught.value.message == message


def test_ps_on_an_engine_that_was_never_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ps(Settings(str(tmp_path / "r"), str(tmp_path / "s")), []) == 0
    assert capsys.readouterr().out == (
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    )


def test_commands_go_on_after_a_failure(run: Run) -> None:
    assert run(commands.rm, "nope", "done", "web", "db") == (
        1,
        "done\ndb\n",
        f"ketch: No such container: nope ({WHERE})\n"
        'ketch: cannot remove container "/web": container is running: '
        "stop the container before removing or force remove\n",
    )
    assert run(ps, "-aq")[1].split() == [IDS["web"][:12]]


def test_removing_what_is_not_there_by_force_is_no_failure(run: Run) -> None:
    assert run(commands.rm, "-f", "nope") == (0, "", "ketch: No such container: nope\n")


def test_stop_leaves_what_does_not_run_alone(run: Run) -> None:
    assert run(commands.stop, "done", "nope") == (
        1,
        "done\n",
        f"ketch: No such container: nope ({WHERE})\n",
    )


def test_kill_refuses_what_does_not_run(run: Run) -> None:
    status, out, err = run(commands.kill, "done", "db")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"ketch: cannot kill container: {name}: container {IDS[name]} is not running"
        " (there is nothing to send a signal to; ketch start starts it)"
        for name in ("done", "db")
    ]


def test_wait_tells_what_is_known(run: Run) -> None:
    assert run(commands.wait, "done", "db") == (0, "3\n0\n", "")


@pytest.mark.parametrize("command", [commands.rm, commands.stop, commands.kill, commands.wait])
def test_a_container_must_be_named(engine: Engine, command: Command) -> None:
    with pytest.raises(UsageError, match="requires at least 1 argument"):
        command(engine.settings, [])


def test_inspect(run: Run) -> None:
    status, out, err = run(inspect, "done", "nope")
    assert (status, err) == (1, "ketch: No such object: nope\n")
    (document,) = json.loads(out)
    assert document["Id"] == IDS["done"]
    assert document["Name"] == "/done"
    assert document["State"]["ExitCode"] == 3
    assert document["State"]["Status"] == "exited"
    assert document["State"]["FinishedAt"] > document["State"]["StartedAt"] > document["Created"]
    assert document["HostConfig"]["NetworkMode"] == "none"
    assert document["NetworkSettings"]["Networks"].keys() == {"none"}


def test_inspect_formats(run: Run) -> None:
    template = "{{.Name}} {{.State.Running}} {{.Config.Labels}}"
    assert run(inspect, "-f", template, "web", "db")[1] == (
        "/web true map[]\n/db false map[a:b tier:1]\n"
    )
    assert json.loads(run(inspect, "--format", "json", "db")[1])[0]["Name"] == "/db"


def test_inspect_says_whether_memory_ran_out(engine: Engine, run: Run) -> None:
    engine.exit("web", 137)
    assert run(inspect, "-f", "{{.State.OOMKilled}} {{.State.Pid}}", "web")[1] == "true 0\n"


def test_inspect_refuses_a_wrong_template(engine: Engine) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        inspect(engine.settings, ["-f", "{{.State.Nope}}", "web"])
    assert caught.value.message == (
        'template parsing error: template: :1:8: executing "" at <.State.Nope>: '
        'map has no entry for key "Nope"'
    )


@pytest.fixture
def log(engine: Engine) -> Writer:
    directory = engine.settings.container_directory(IDS["web"])
    return Writer(f"{directory}/{IDS['web']}-json.log", Rotation())


BASE_NS = 1_136_214_245_000_000_000


def test_logs(engine: Engine, log: Writer, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    log.write("stdout", b"one\ntwo\xff\n", BASE_NS)
    log.write("stderr", b"three\n", BASE_NS + 5)
    log.write("stdout", b"x" * 20_000 + b"\n", BASE_NS + 6)
    log.close(BASE_NS)

    def shown(*arguments: str) -> tuple[bytes, bytes]:
        assert logs(engine.settings, [*arguments, "web"]) == 0
        captured = capfdbinary.readouterr()
        return captured.out, captured.err

    long = b"x" * 20_000 + b"\n"
    assert shown() == (b"one\ntwo\xff\n" + long, b"three\n")
    assert shown("--details", "-n", "1") == (b" " + long[16384:], b"")
    assert shown("-n", "3") == (long, b"three\n")
    assert shown("--tail", "x", "--since", "2006-01-02T15:04:05.000000006Z") == (long, b"")
    assert shown("--until", "2006-01-02T15:04:05Z") == (b"one\ntwo\xff\n", b"")
    stamp = b"2006-01-02T15:04:05.00000000%dZ "
    assert shown("-t") == (
        stamp % 0
        + b"one\n"
        + stamp % 0
        + b"two\xff\n"
        + stamp % 6
        + long[:16384]
        + stamp % 6
        + long[16384:],
        stamp % 5 + b"three\n",
    )


def test_logs_follow_ends_with_the_container(run: Run, engine: Engine) -> None:
    assert run(logs, "-f", "done") == (0, "", "")


def test_logs_refuse_a_wrong_moment(engine: Engine) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        logs(engine.settings, ["--since", "abc", "web"])
    assert caught.value.message == (
        'invalid value for "since": failed to parse value as time or duration: "abc"'
    )
