"""What a person at a terminal, or a script in a person's place, meets: sizes, signals, statuses."""

import pathlib
import signal

import pexpect
import pytest

from tests.support.commands import Engine, finish

SIZED = {"rows": 28, "columns": 97}
# Told by who watches the terminal before the program has looked: what it begins with is the size.
SIZE = ("busybox", "stty", "size")


def told(engine: Engine, *arguments: str) -> str:
    """What a command says on a terminal of its own size."""
    child = engine.terminal(*arguments, **SIZED)
    child.expect(pexpect.EOF)
    child.wait()
    return (child.before or "").strip()


def test_a_program_begins_on_a_terminal_of_the_callers_size(ketch: Engine, run_name: str) -> None:
    assert told(ketch, "run", "--rm", "-it", *SIZE) == "28 97"
    assert told(ketch, "run", "--rm", "-t", *SIZE) == "28 97"
    ketch.ok("create", "-it", "--name", run_name, *SIZE)
    assert told(ketch, "start", "-ai", run_name) == "28 97"
    ketch.ok("rm", run_name)
    child = ketch.terminal("run", "-dit", "--name", run_name, "busybox", "sh", **SIZED)
    assert finish(child) == 0
    size = ketch.ok("inspect", "-f", "{{.HostConfig.ConsoleSize}}", run_name)
    assert size == "[28 97]"
    assert told(ketch, "exec", "-it", run_name, "stty", "size") == "28 97"
    ketch.ok("rm", "-f", run_name)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "USR1"])
def test_run_t_passes_signals_on(engine: Engine, name: str) -> None:
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.1; done"
    child = engine.terminal("run", "--rm", "-t", "busybox", "sh", "-c", script)
    child.expect("ready")
    child.kill(signal.Signals[f"SIG{name}"])
    child.expect(f"got {name}")
    assert finish(child) == 5


@pytest.mark.ketch_only("where docker's command ends as well, its engine is another process")
def test_run_t_without_proxy_ends_alone(ketch: Engine, run_name: str) -> None:
    child = ketch.terminal("run", "-t", "--sig-proxy=false", "--name", run_name, "busybox", "sh",
                           "-c", "echo ready; sleep 100")  # fmt: skip
    child.expect("ready")
    child.kill(signal.SIGTERM)
    child.expect(pexpect.EOF)
    child.wait()
    assert ketch.ok("inspect", "-f", "{{.State.Running}}", run_name) == "true"
    ketch.ok("rm", "-f", run_name)


@pytest.mark.parametrize(
    ("program", "status"), [("no-such-program", 127), ("/etc", 126)], ids=["missing", "directory"]
)
def test_the_id_of_what_cannot_be_started_is_told(
    engine: Engine, tmp_path: pathlib.Path, program: str, status: int
) -> None:
    file = tmp_path / "id"
    done = engine("run", "-d", "--cidfile", str(file), "busybox", program)
    assert done.status == status
    assert done.out.strip() == file.read_text()
    assert engine.ok("inspect", "-f", "{{.State.Status}}", done.out.strip()) == "created"
    engine.ok("rm", done.out.strip())
    # Attached, there is no id among the program's output; nor where nothing was made.
    assert engine("run", "--rm", "busybox", program).out == ""
    refused = engine("run", "-d", "-w", "relative", "busybox", "true")
    assert (refused.status, refused.out) == (125, "")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("/tmp/x/../y", "/tmp/y"), ("/tmp/", "/tmp"), ("//a//b/./c/", "/a/b/c"), ("/..", "/")],
)
def test_working_directories_are_cleaned(
    engine: Engine, run_name: str, given: str, shown: str
) -> None:
    engine.ok("create", "--name", run_name, "-w", given, "busybox", "pwd")
    assert engine.ok("start", "-a", run_name) == shown
    assert engine.ok("inspect", "-f", "{{.Config.WorkingDir}}", run_name) == shown
    engine.ok("rm", run_name)
