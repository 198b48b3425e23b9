"""What the library's caller may limit, and what is left of a program that overruns it: nothing."""

import asyncio
import pathlib
import pickle
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

import ketch
import ketch.aio
from ketch import Engine as Library
from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    ProgramFailedError,
    ProgramOutputError,
    ProgramTimeoutError,
    UnavailableError,
)
from tests.support.commands import Engine as Command

pytestmark = pytest.mark.in_process

STUBBORN = ["sh", "-c", "trap '' TERM INT; echo begun; sleep 1000"]


@pytest.fixture
def library(ketch: Command) -> "ketch.Engine":
    options = list(ketch.prefix)
    root, state = (options[options.index(name) + 1] for name in ("--root", "--state"))
    return Library(root, state)


def test_a_run_out_of_time_is_ended(library: "ketch.Engine") -> None:
    begun = time.monotonic()
    with pytest.raises(ProgramTimeoutError, match=r"had not ended after 0.5 s") as raised:
        library.containers.run("busybox", STUBBORN, name="late", timeout=0.5)
    assert time.monotonic() - begun < 30
    assert (raised.value.stdout, raised.value.exit_status) == (b"begun\n", 137)
    assert isinstance(raised.value, TimeoutError)
    with pytest.raises(NotFoundError):
        library.containers.get("late")


@pytest.mark.parametrize("command", ["yes", "sh -c 'yes >&2'", "sh -c 'kill -STOP 1; sleep 9'"])
def test_whoever_writes_all_the_time_or_stops_itself_is_ended_too(
    library: "ketch.Engine", command: str
) -> None:
    with pytest.raises(ProgramTimeoutError):
        library.containers.run("busybox", command, init=True, rm=True, timeout=0.5)


def test_more_output_than_wanted_ends_a_program(library: "ketch.Engine") -> None:
    with pytest.raises(ProgramOutputError, match="more than 1000 bytes") as raised:
        library.containers.run("busybox", "yes", name="loud", max_output=1000)
    assert raised.value.stdout == b"y\n" * 500
    with pytest.raises(NotFoundError):
        library.containers.get("loud")
    exactly = ["head", "-c", "1000", "/dev/zero"]
    assert len(library.containers.run("busybox", exactly, rm=True, max_output=1000)) == 1000


def test_an_exec_out_of_time_is_ended_and_its_container_goes_on(library: "ketch.Engine") -> None:
    with library.containers.run("busybox", "sleep 1000", detach=True) as container:
        with pytest.raises(ProgramTimeoutError) as raised:
            container.exec_run(STUBBORN, timeout=0.5)
        assert raised.value.stdout == b"begun\n"
        with pytest.raises(ProgramOutputError):
            container.exec_run("yes", max_output=10)
        assert container.exec_run("echo fine", timeout=60, max_output=5).stdout == b"fine\n"
        titles, rows = container.top()
        assert [row[titles.index("CMD")] for row in rows] == ["sleep 1000"]


def test_an_exec_can_be_killed(library: "ketch.Engine") -> None:
    with library.containers.run("busybox", "sleep 1000", detach=True) as container:
        with container.exec(["sh", "-c", "trap 'exit 7' USR1; echo ready; while :; do sleep 0.1;"
                             "done"]) as session:  # fmt: skip
            assert next(iter(session)) == ("stdout", b"ready\n")
            with pytest.raises(InvalidArgumentError):
                session.kill("NOPE")
            session.kill("USR1")
            assert session.wait() == 7
        with container.exec("sleep 1000") as session:
            session.kill()
            assert session.wait() == 137


def test_waiting_out_of_time_ends_the_container(library: "ketch.Engine") -> None:
    with library.containers.run("busybox", STUBBORN, detach=True) as container:
        with pytest.raises(ProgramTimeoutError):
            container.wait(timeout=0.3)
        container.reload()
        assert (container.status, container.exit_status) == ("exited", 137)
        assert container.wait(timeout=5) == 137
        container.start()
        container.kill()
    for wrong in (-1, "1", True):
        with pytest.raises(InvalidArgumentError, match="timeout="):
            library.containers.run("busybox", "true", timeout=wrong)  # type: ignore[arg-type]


def test_for_asyncio_too(library: "ketch.Engine") -> None:
    settings = library._places.settings

    async def late() -> None:
        async with ketch.aio.Engine(settings.root, settings.state) as engine:
            with pytest.raises(ProgramTimeoutError):
                await engine.containers.run("busybox", STUBBORN, rm=True, timeout=0.3)
            container = await engine.containers.run("busybox", "sleep 1000", detach=True)
            async with container:
                with pytest.raises(ProgramTimeoutError):
                    await container.wait(timeout=0.3)

    asyncio.run(late())


def test_a_failure_repeats_the_programs_last_words(library: "ketch.Engine") -> None:
    with pytest.raises(ProgramFailedError, match=r"status 3: no \\x1b\[31msuch thing$"):
        library.containers.run(
            "busybox",
            ["sh", "-c", "echo first >&2; printf 'no \\033[31msuch thing\\n' >&2; exit 3"],
            rm=True,
        )


def test_a_started_container_can_be_bound_to_its_program(
    library: "ketch.Engine", ketch: Command
) -> None:
    settings = library._places.settings
    program = f"""
import ketch, os, signal
engine = ketch.Engine({settings.root!r}, {settings.state!r})
container = engine.containers.create("busybox", "sleep 1000", name="bound")
container.start(lifetime="process")
assert container.status == "running"
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    deadline = time.monotonic() + 30
    while library.containers.list(all=True, filters={"name": "bound"}):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_health_is_waited_for(library: "ketch.Engine") -> None:
    with library.containers.run(
        "busybox", ["sh", "-c", "sleep 1; touch /well; sleep 1000"], detach=True,
        health_cmd="test -e /well || { echo not yet; false; }", health_interval="200ms",
    ) as container:  # fmt: skip
        before = container.health
        container.wait_healthy(timeout=30)
        assert (before, container.health) == ("starting", "healthy")
    with library.containers.run(
        "busybox", "sleep 1000", detach=True, health_cmd="echo no; false", health_interval="100ms",
        health_retries=1,
    ) as container:  # fmt: skip
        with pytest.raises(UnavailableError, match="after 1 s"):
            container.wait_healthy(timeout=1)
        assert container.status == "running"
    with library.containers.run("busybox", "sleep 1000", detach=True) as container:
        assert container.health == ""
        with pytest.raises(ConflictError, match="no health check"):
            container.wait_healthy()


def test_where_it_is_reached(library: "ketch.Engine") -> None:
    with library.containers.run(
        "busybox", "httpd -f -p 80", detach=True, publish={"127.0.0.1:0": 80}
    ) as container:
        assert container.ip in container.exec_run("ip address show eth0").stdout.decode()
        assert container.port(80) == container.port("80/tcp") > 0
        with pytest.raises(NotFoundError, match="no published port 81/tcp"):
            container.port(81)
    with library.containers.run("busybox", "sleep 9", detach=True, network="none") as container:
        assert container.ip == ""


def test_what_people_pass(library: "ketch.Engine", tmp_path: pathlib.Path) -> None:
    image = library.images.get("busybox")
    assert library.containers.run(image, "echo hi", rm=True) == b"hi\n"
    (tmp_path / "file").write_text("kept")
    with library.containers.run(image, ["sh", "-c", "echo said; sleep 1000"], detach=True) as made:
        made.copy_to(tmp_path / "file", pathlib.PurePosixPath("/file"))
        made.copy_from(pathlib.PurePosixPath("/file"), tmp_path / "back")
        assert (tmp_path / "back").read_text() == "kept"
        next(made.follow_logs())
        assert made.logs(since=timedelta(minutes=5)) == b"said\n"
        assert made.logs(since=datetime.now(UTC) + timedelta(minutes=5)) == b""
        assert made.logs(until=datetime(2001, 1, 1)) == b""
        happened = library.events(since=timedelta(minutes=5), until=datetime.now(UTC))
        assert any(event["id"] == made.id for event in happened if "id" in event)
    with pytest.raises(InvalidArgumentError, match="since=5"):
        list(library.events(since=5))  # type: ignore[arg-type]


def test_an_engine_crosses_over_to_another_process(library: "ketch.Engine") -> None:
    there = pickle.loads(pickle.dumps(library))
    assert there.images.get("busybox") == library.images.get("busybox")


def test_what_is_raised_crosses_over_as_well(library: "ketch.Engine") -> None:
    for ask in (
        lambda: library.containers.get("nobody"),
        lambda: library.containers.run("busybox", ["sh", "-c", "echo said; exit 3"], rm=True),
        lambda: library.containers.run("busybox", memory="much"),
    ):
        with pytest.raises(ketch.errors.KetchError) as caught:
            ask()
        there = pickle.loads(pickle.dumps(caught.value))
        assert (type(there), str(there), vars(there)) == (
            type(caught.value), str(caught.value), vars(caught.value),
        )  # fmt: skip


def test_what_there_is_can_be_seen() -> None:
    names = {"Engine", "Container", "Image", "Network", "Volume", "Session", "Result", "aio"}
    assert names <= set(dir(ketch))
    for name in names - {"aio"}:
        assert getattr(ketch, name).__name__ == name


def test_what_goes_on_by_itself_has_its_time_as_well(library: "ketch.Engine") -> None:
    with library.containers.run("busybox", ["sleep", "60"], detach=True, timeout=0.5) as container:
        assert (container.attrs["HostConfig"]["Timeout"], container.wait(timeout=20)) == (1, 137)
