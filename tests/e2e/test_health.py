"""Health checks: when they come, and how few of them an image alone can have."""

import json
import pathlib
import sqlite3
import time

import pytest

from tests.support import images
from tests.support.commands import Engine

LOG = "{{json .State.Health}}"


def checked(ketch: Engine, name: str, count: int, seconds: float = 30) -> list[dict[str, object]]:
    """A container's results, once there are so many."""
    deadline = time.monotonic() + seconds
    while True:
        log: list[dict[str, object]] = json.loads(ketch.ok("inspect", "-f", LOG, name))["Log"]
        if len(log) >= count:
            return log
        assert time.monotonic() < deadline, log
        time.sleep(0.1)


@pytest.mark.ketch_only("Docker's first check comes one start interval after the start")
def test_a_start_period_does_not_put_checks_off(ketch: Engine, run_name: str) -> None:
    """The start interval is five seconds unless told otherwise, longer than the period here."""
    ketch.ok("run", "-d", "--name", run_name, "--health-cmd", "false", "--health-interval", "1s",
             "--health-start-period", "1s", "--health-retries", "1", "busybox", "sleep",
             "1000")  # fmt: skip
    began = time.monotonic()
    while ketch.ok("inspect", "-f", "{{.State.Health.Status}}", run_name) != "unhealthy":
        assert time.monotonic() - began < 4.5
        time.sleep(0.1)
    ketch.ok("rm", "-f", run_name)


def test_checks_come_faster_until_the_start_period_ends(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--health-cmd", "false", "--health-interval", "500s",
             "--health-start-period", "500s", "--health-start-interval", "200ms",
             "--health-retries", "1", "busybox", "sleep", "1000")  # fmt: skip
    checked(ketch, run_name, 3)
    assert ketch.ok("inspect", "-f", "{{.State.Health.Status}}", run_name) == "starting"
    ketch.ok("rm", "-f", run_name)


def test_a_check_of_an_unknown_kind_is_none(
    ketch: Engine, served_engine: Engine, run_name: str
) -> None:
    from tests.support import serving

    connection = serving.Connection(pathlib.Path(served_engine.prefix[2].removeprefix("unix://")))
    document = {"Image": "busybox", "Cmd": ["true"], "Healthcheck": {"Test": ["true"]}}
    status, answer = connection.ask(
        "POST", f"/containers/create?name={run_name}", json.dumps(document).encode(),
        Content_Type="application/json",
    )  # fmt: skip
    assert status == 201, answer
    ketch.ok("start", run_name)
    assert ketch.ok("inspect", "-f", "{{.State.Health}}", run_name) == "<nil>"
    ketch.ok("rm", "-f", run_name)


@pytest.mark.ketch_only("Docker checks every millisecond")
def test_an_image_alone_cannot_have_many_checks(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    words = "#" * 100_000
    check = {"Test": ["CMD-SHELL", f"yes; {words}"], "Interval": 1_000_000, "Timeout": 10**9}
    archive = _image(tmp_path, {"Healthcheck": check, "Labels": {"long": "x" * 200_000, "a": "b"}})
    ketch.ok("load", "-i", str(archive))
    try:
        ketch.ok("run", "-d", "--name", run_name, "hostile:1", "sleep", "1000")
        first, second, *_ = checked(ketch, run_name, 2)
        assert str(second["Start"]) > str(first["End"])
        assert len(str(first["Output"])) < 5000
        shown = json.loads(ketch.ok("inspect", "-f", "{{json .Config.Healthcheck}}", run_name))
        assert shown["Interval"] == 10**9
        with sqlite3.connect(f"{ketch.prefix[2]}/ketch.db") as database:
            (sessions,) = database.execute("SELECT count(*) FROM exec").fetchone()
            (longest,) = database.execute(
                "SELECT max(length(action) + length(attributes)) FROM event"
            ).fetchone()
        database.close()
        assert sessions <= 1  # the one that runs
        assert longest < 20_000
        # What there is room for is told.
        told = ketch.ok("events", "--since", "5m", "--until", "0s", "--filter", "label=a=b",
                        "--format", "{{.Action}}")  # fmt: skip
        assert "start" in told.splitlines()
        ketch.ok("rm", "-f", run_name)
        # Who says it on the command line means it.
        ketch.ok("run", "-d", "--name", run_name, "--health-interval", "100ms", "hostile:1",
                 "sleep", "1000")  # fmt: skip
        shown = json.loads(ketch.ok("inspect", "-f", "{{json .Config.Healthcheck}}", run_name))
        assert shown["Interval"] == 10**8
    finally:
        ketch("rm", "-f", run_name)
        ketch("rmi", "-f", "hostile:1")


@pytest.mark.root_engine("an ordinary user has a control group only where one is delegated")
def test_what_checks_and_execs_take_is_charged_to_the_container(
    ketch: Engine, run_name: str
) -> None:
    """Processor, disk and memory: they are in all of its control groups from their first step on.

    A group that is not the container's would not be the root of what it sees.
    """
    usage = ("sh", "-c", "cd /sys/fs/cgroup; cat cpuacct/cpuacct.usage 2>/dev/null ||"
             " sed -n 's/usage_usec \\(.*\\)/\\1000/p' cpu.stat")  # fmt: skip
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; cat /proc/self/cgroup"
    ketch.ok("run", "-d", "--name", run_name, "--health-cmd", burn, "--health-interval", "1s",
             "--health-start-interval", "1s", "busybox", "sleep", "1000")  # fmt: skip
    try:
        (first, *_) = checked(ketch, run_name, 1, 60)
        seen = str(first["Output"]).split()
        assert seen
        assert all(line.endswith(":/") for line in seen), seen
        after_check = int(ketch.ok("exec", run_name, *usage))
        assert after_check > 50_000_000  # nanoseconds; the program itself sleeps
        seen = ketch.ok("exec", run_name, "sh", "-c", burn).split()
        assert all(line.endswith(":/") for line in seen), seen
        assert int(ketch.ok("exec", run_name, *usage)) > after_check + 50_000_000
    finally:
        ketch.ok("rm", "-f", run_name)


@pytest.mark.ketch_only("of ketch's own bounds")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"Healthcheck": {"Test": ["CMD-SHELL", "x" * (1 << 20)]}}, "Healthcheck"),
        ({"Env": ["A=" + "x" * (1 << 17)]}, "Env"),
        ({"User": "9" * (1 << 17)}, "User"),
        ({"WorkingDir": "/a" * (1 << 16)}, "WorkingDir"),
        ({"ExposedPorts": {"9" * (1 << 17): {}}}, "ExposedPorts"),
        ({"Volumes": {f"/{number}": {} for number in range(300)}}, "Volumes"),
        ({"Labels": {str(number): "x" * 1000 for number in range(2500)}}, "characters of text"),
    ],
    ids=["check", "variable", "user", "directory", "port", "volumes", "labels"],
)
def test_what_an_image_says_is_bounded(
    ketch: Engine, tmp_path: pathlib.Path, config: dict[str, object], words: str
) -> None:
    refused = ketch("load", "-i", str(_image(tmp_path, config)))
    assert refused.status == 1
    assert words in refused.err
    assert "hostile" not in ketch.ok("images")


@pytest.mark.ketch_only("docker's interval may be as long")
def test_an_interval_may_be_longer_than_a_poll(ketch: Engine, run_name: str) -> None:
    ketch.ok("run", "-d", "--name", run_name, "--health-cmd", "true", "--health-interval",
             "100000h", "busybox", "sleep", "1000")  # fmt: skip
    time.sleep(0.3)
    assert ketch.ok("inspect", "-f", "{{.State.Status}}", run_name) == "running"
    ketch.ok("rm", "-f", run_name)


def _image(directory: pathlib.Path, config: dict[str, object]) -> pathlib.Path:
    """An archive as ``docker save`` writes it, of busybox with a configuration of one's own."""
    import hashlib
    import io
    import tarfile

    layer = images.busybox_archive().read_bytes()
    digest = hashlib.sha256(layer).hexdigest()
    document = {
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }  # fmt: skip
    manifest = [{"Config": "config.json", "RepoTags": ["hostile:1"], "Layers": ["layer.tar"]}]
    path = directory / "hostile.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (
            ("config.json", json.dumps(document).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
            ("layer.tar", layer),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
