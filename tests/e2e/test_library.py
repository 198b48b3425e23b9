"""``import ketch``: the engine in a Python program."""

import asyncio
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import ketch
import ketch.aio
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError, StartError
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

DOCS = pathlib.Path(__file__).parents[2] / "docs"


@pytest.fixture
def places(ketch: Command) -> tuple[str, str]:
    options = list(ketch.prefix)
    return options[options.index("--root") + 1], options[options.index("--state") + 1]


@pytest.fixture
def library(places: tuple[str, str]) -> "ketch.Engine":
    return ketch.Engine(*places)


@pytest.mark.parametrize(("page", "least"), [("library.md", 7), ("sandbox.md", 3)])
def test_the_page_tells_the_truth(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch, page: str, least: int
) -> None:
    if page == "sandbox.md" and not pathlib.Path("/usr/bin/python3").exists():
        pytest.skip("this machine has no /usr/bin/python3 to be seen in the sandbox")
    monkeypatch.setenv("KETCH_ROOT", places[0])
    monkeypatch.setenv("KETCH_STATE", places[1])
    examples = re.findall(
        r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(examples) >= least
    names: dict[str, object] = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"{page}, example {number + 1}", "exec"), names)


def test_errors_are_of_the_tree(library: "ketch.Engine") -> None:
    with pytest.raises(NotFoundError, match="No such container: nobody"):
        library.containers.get("nobody")
    with pytest.raises(NotFoundError, match="No such image"):
        library.containers.create("nothing:at-all", pull="never")
    with pytest.raises(InvalidArgumentError, match="there is no option colour"):
        library.containers.create("busybox", colour="red")  # type: ignore[call-arg]
    with pytest.raises(InvalidArgumentError, match="memory='much'"):
        library.containers.create("busybox", memory="much")
    with pytest.raises(InvalidArgumentError, match="tty='yes'"):
        library.containers.create("busybox", tty="yes")  # type: ignore[arg-type]
    with pytest.raises(StartError, match="nonsense") as raised:
        library.containers.run("busybox", ["nonsense"], rm=True)
    assert raised.value.exit_status == 127
    with library.containers.create("busybox", ["true"]) as container:
        with pytest.raises(ConflictError):
            container.kill()
        assert container.status == "created"


def test_what_the_command_line_sees(library: "ketch.Engine", ketch: Command) -> None:
    with library.containers.run(
        "busybox", ["sleep", "100"], detach=True, name="lib-seen", labels={"of": "library"}
    ) as container:
        assert ketch.ok("ps", "-q", "--no-trunc", "-f", "label=of=library") == container.id
        ketch.ok("rename", "lib-seen", "lib-other")
        container.reload()
        assert container.name == "lib-other"
        assert library.containers.list(filters={"label": "of=library"}) == [container]
    assert not library.containers.list(all=True, filters={"label": "of=library"})


_MUCH = bytes(range(256)) * (4 << 12)  # 4 MiB: more than pipes and sockets hold
_READERS = {
    "all of it": ("cat", len(_MUCH)),
    "none of it, and ends": ("true", 0),
    "none of it, and stays": ("sleep 0.3; echo over", 5),
    "a little": ("head -c 10", 10),
    "nothing, for its input is closed": ("exec 0<&-; sleep 0.3; echo over", 5),
    "all of it, after it has said as much": ("head -c 4000000 /dev/zero; wc -c", 4_000_008),
}


@pytest.mark.parametrize("reader", _READERS)
def test_input_streams_while_output_is_taken(library: "ketch.Engine", reader: str) -> None:
    script, output_bytes = _READERS[reader]
    command = ["sh", "-c", script]
    output = library.containers.run("busybox", command, stdin=_MUCH, rm=True)
    assert len(output) == output_bytes
    assert script != "cat" or output == _MUCH
    with library.containers.run("busybox", ["sleep", "1000"], detach=True) as container:
        result = container.exec_run(command, stdin=_MUCH)
        assert (result.exit_status, result.stdout) == (0, output)
        result = container.exec_run(["sh", "-c", f"({script}) >&2; exit 3"], stdin=_MUCH)
        assert (result.exit_status, result.stdout, result.stderr) == (3, b"", output)


def test_options_in_docker_pys_forms(library: "ketch.Engine", tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("here\n")
    script = (
        "stat -c %t,%T /dev/nn; df -k /work | tail -n 1 | awk '{print $2}'; cat /there/file;"
        " touch /there/new || echo read-only; echo ${HOME-unset} $DEBUG; ulimit -n"
    )
    with library.containers.create(
        "busybox", ["sh", "-c", script], devices=["/dev/null:/dev/nn"], tmpfs={"/work": "size=16m"},
        volumes={str(tmp_path): {"bind": "/there", "mode": "ro"}}, ports={80: ("127.0.0.1", None)},
        environment={"DEBUG": True}, ulimits=[{"name": "nofile", "soft": 99, "hard": 99}],
        entrypoint=[], working_dir="/tmp", mem_reservation="32m", nano_cpus=500_000_000,
    ) as container:  # fmt: skip
        host = container.attrs["HostConfig"]
        assert (host["NanoCpus"], host["MemoryReservation"]) == (500_000_000, 32 << 20)
        container.start()
        assert container.wait() == 0
        said = container.logs(stderr=False).decode().splitlines()
        assert said == ["1,3", "16384", "here", "read-only", "/root True", "99"]
        assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    with library.containers.run("busybox", "sh -c 'sleep 1000'", detach=True) as container:
        result = container.exec_run("echo 'two  words'", env="A=b")
        assert result.stdout == b"two  words\n"


def test_what_is_asked_of_programs_is_understood_or_refused(library: "ketch.Engine") -> None:
    with library.containers.run("busybox", ["sleep", "1000"], detach=True) as container:
        script = ["sh", "-c", "id -u; pwd"]
        place = pathlib.Path("/tmp")
        result = container.exec_run(script, user=33, workdir=place, env=None, stdin=None)
        assert result.stdout == b"33\n/tmp\n"
        assert container.exec_run(script, user=None, workdir=None).stdout == b"0\n/\n"
        assert container.exec_run(["echo", "\udcff"]).stdout == b"\xff\n"
        # What comes after a NUL is no field of a request.
        with pytest.raises(InvalidArgumentError, match="NUL"):
            container.exec_run(["cat", "/proc/self/status\0--privileged\0b1"])
        with pytest.raises(InvalidArgumentError, match="no bytes stand for"):
            container.exec_run(["echo", "\ud800"])
        with pytest.raises(InvalidArgumentError, match=r"user=1\.5: a text is wanted"):
            container.exec_run(script, user=1.5)  # type: ignore[arg-type]
        container.kill(signal.SIGKILL)
        assert container.wait() == 137
    for options, words in (
        ({"detach": True, "stdin": b"x"}, "detach=True"),
        ({"detach": True, "max_output": 5}, "detach=True"),
        ({"lifetime": "for ever"}, "'container' or 'process' is wanted"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            library.containers.run("busybox", ["true"], **options)
    assert library.containers.list(all=True) == []


def test_an_engine_serves_many_threads(library: "ketch.Engine") -> None:
    outputs: list[bytes] = []

    def work(number: int) -> None:
        outputs.append(library.containers.run("busybox", ["echo", str(number)], rm=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == [b"%d\n" % number for number in range(6)]


def test_a_container_bound_to_a_program_that_is_killed(
    library: "ketch.Engine", places: tuple[str, str]
) -> None:
    program = (
        "import ketch, sys, time\n"
        "engine = ketch.Engine(*sys.argv[1:])\n"
        "engine.containers.run('busybox', ['sleep', '1000'], detach=True, rm=True,"
        " name='lib-bound', lifetime='process')\n"
        "print('running', flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, *places], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"running\n"
    assert library.containers.get("lib-bound").status == "running"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 15
    while any(one.name == "lib-bound" for one in library.containers.list(all=True)):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)


def test_what_is_waited_for_ends_with_who_waits(
    library: "ketch.Engine", places: tuple[str, str]
) -> None:
    program = (
        "import ketch, sys\n"
        "engine = ketch.Engine(*sys.argv[1:])\n"
        "engine.containers.run('busybox', ['sleep', '1000'], rm=True, name='lib-awaited')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, *places])
    deadline = time.monotonic() + 15
    while not any(one.name == "lib-awaited" for one in library.containers.list()):
        assert time.monotonic() < deadline, "it does not run"
        time.sleep(0.02)
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    while any(one.name == "lib-awaited" for one in library.containers.list(all=True)):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.02)


def test_which_streams_are_returned(library: "ketch.Engine") -> None:
    script = "echo a; sleep 0.1; echo b >&2; sleep 0.1; echo c"
    expectations: list[tuple[dict[str, Any], bytes]] = [
        ({}, b"a\nc\n"), ({"stderr": True}, b"a\nb\nc\n"), ({"stdout": False}, b""),
        ({"stdout": False, "stderr": True}, b"b\n"),
    ]  # fmt: skip
    for streams, expected in expectations:
        told = library.containers.run("busybox", ["sh", "-c", script], rm=True, **streams)
        assert told == expected


def test_text_where_bytes_are_wanted_is_named(library: "ketch.Engine") -> None:
    odd: Any = "text"
    with pytest.raises(ketch.errors.InvalidArgumentError, match="stdin='text': bytes") as refused:
        library.containers.run("busybox", ["cat"], stdin=odd)
    assert refused.value.hint == "text becomes bytes by encoding it: stdin=text.encode()"
    assert library.containers.run("busybox", ["cat"], stdin=odd.encode(), rm=True) == b"text"
    with library.containers.create("busybox", ["cat"]) as container:
        with pytest.raises(ketch.errors.InvalidArgumentError, match="archive='text': a file"):
            container.put_archive("/", odd)
        with pytest.raises(ketch.errors.InvalidArgumentError, match="stdin='text': bytes"):
            container.exec_run(["cat"], stdin=odd)
    with pytest.raises(ketch.errors.InvalidArgumentError, match="source=5: a file"):
        library.images.load(5)  # type: ignore[arg-type]


def test_the_loop_is_never_blocked(places: tuple[str, str]) -> None:
    async def main() -> float:
        longest, last = 0.0, time.monotonic()

        async def watch() -> None:
            nonlocal longest, last
            while True:
                await asyncio.sleep(0.005)
                now = time.monotonic()
                longest, last = max(longest, now - last), now

        async with ketch.aio.Engine(*places) as engine:
            watching = asyncio.create_task(watch())
            outputs = await asyncio.gather(
                *(engine.containers.run("busybox", ["sh", "-c", "sleep 0.5; echo x"], rm=True)
                  for _ in range(4))
            )  # fmt: skip
            assert outputs == [b"x\n"] * 4
            container = await engine.containers.run("busybox", ["sleep", "100"], detach=True)
            async with container:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(container.wait(), 0.3)
                await container.kill()
            watching.cancel()
        return longest

    assert asyncio.run(main()) < 0.4
