"""What can be seen of containers: logs, events, lists, figures; on ketch and on docker alike."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine


@pytest.fixture
def sleeper(engine: Engine) -> Iterator[str]:
    """Return the name of a running container with a label, a volume and a published port."""
    engine.ok("run", "-d", "--name", "seen", "--label", "tier=front", "-v", "seen-data:/data",
              "-p", "127.0.0.1:18080:80", "--expose", "81", "busybox", "sleep", "1000")  # fmt: skip
    yield "seen"
    engine("rm", "-f", "seen")
    engine("volume", "rm", "seen-data")


# Logs


SCRIPT = (
    "echo one; sleep 0.1; echo two >&2; printf 'three\\377'; "
    "head -c 20000 /dev/zero | tr '\\0' x; echo"
)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_line_that_never_ended_is_shown_as_it_is(engine: Engine, driver: str) -> None:
    script = "printf err >&2; printf 'whole\\nabc'"
    engine("run", "--name", "begun", "--log-driver", driver, "busybox", "sh", "-c", script)
    result = engine("logs", "begun")
    assert (result.out, result.err) == ("whole\nabc", "err")
    engine.ok("rm", "begun")


@pytest.mark.user
@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_logs(engine: Engine, driver: str) -> None:
    engine("run", "--name", "said", "--log-driver", driver, "busybox", "sh", "-c", SCRIPT)
    try:
        whole = engine("logs", "said")
        assert whole.err == "two\n"
        # Docker's json-file driver does not keep bytes that are no text, nor its local one the end
        # of a line that was cut.
        out = re.sub("[\udc80-\udcff]|\ufffd", "?", whole.out)
        assert out.removesuffix("\n") == "one\nthree?" + "x" * 20000
        tail = engine("logs", "--tail", "1", "said").out
        assert set(tail) <= {"x", "\n"}
        assert len(tail) < 20000, "a piece of a line that was cut is an entry"
        stamped = engine("logs", "-t", "said")
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z one\n", stamped.out)
        assert len(re.findall(r"\d{9}Z ", stamped.out)) == 3
        moment = stamped.out.split()[0]
        assert engine("logs", "--until", moment, "said").out == "one\n"
        assert engine("logs", "--since", "1h", "--until", "1m", "said").out == ""
    finally:
        engine("rm", "-f", "said")


def test_what_a_log_tells_besides(engine: Engine) -> None:
    engine.ok("run", "--name", "told", "--label", "a=b c", "-e", "X=1", "--log-opt", "labels=a",
              "--log-opt", "env=X", "--log-opt", "tag={{.Name}}/{{.ImageName}}",
              "busybox", "echo", "hi")  # fmt: skip
    try:
        assert engine.ok("logs", "--details", "told") == "X=1,a=b+c,tag=told%2Fbusybox hi"
        config = json.loads(engine.ok("inspect", "-f", "{{json .HostConfig.LogConfig}}", "told"))
        assert config["Type"] == "json-file"
        path = engine.ok("inspect", "-f", "{{.LogPath}}", "told")
        with open(path, encoding="utf-8") as file:
            attributes = json.loads(file.readline())["attrs"]
        assert attributes == {"X": "1", "a": "b c", "tag": "told/busybox"}
    finally:
        engine("rm", "-f", "told")


def test_no_log(engine: Engine) -> None:
    try:
        assert engine.ok("run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "x")
        refused = engine("logs", "mute")
        assert refused.status == 1
        assert "configured logging driver does not support reading" in refused.err
    finally:
        engine("rm", "-f", "mute")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--log-opt", "nope=1"], "unknown log opt 'nope' for json-file log driver"),
        (["--log-opt", "max-file=0"],
         "failed to initialize logging driver: max-file cannot be less than 1"),
        (["--log-driver", "syslog", "--log-opt", "syslog-address=tcp://127.0.0.1:1"],
         "failed to initialize logging driver: dial tcp 127.0.0.1:1: connect: connection refused"),
        (["--log-driver", "none", "--log-opt", "a=b"], "invalid logging opts for driver none"),
    ],
)  # fmt: skip
def test_wrong_options(engine: Engine, options: list[str], message: str) -> None:
    refused = engine("run", "--name", "wrong", *options, "busybox", "true")
    engine("rm", "-f", "wrong")
    assert refused.status == 125
    assert message in refused.err


@pytest.mark.ketch_only("docker tells of lines twice, and misses others")
def test_following_through_rotations(engine: Engine) -> None:
    """Nothing is lost or told twice, whatever the files do; and it ends with the container."""
    count = 20_000
    # With a rest here and there, or a busy machine's reader would fall behind all that is kept.
    line = "echo line $i; i=$((i+1)); [ $((i % 2000)) != 0 ] || sleep 0.3"
    script = f"sleep 0.5; i=0; while [ $i -lt {count} ]; do {line}; done"
    engine.ok("run", "-d", "--name", "long", "--log-opt", "max-size=200k", "--log-opt",
              "max-file=3", "busybox", "sh", "-c", script)  # fmt: skip
    try:
        followed = engine.ok("logs", "-f", "long").splitlines()
        assert followed == [f"line {number}" for number in range(count)]
        kept = engine.ok("logs", "long").splitlines()
        assert kept == followed[-len(kept) :], "what is left is the end"
        assert 4_000 < len(kept) < 16_000
        directory = os.path.dirname(engine.ok("inspect", "-f", "{{.LogPath}}", "long"))
        files = [name for name in os.listdir(directory) if "-json.log" in name]
        assert len(files) == 3
    finally:
        engine("rm", "-f", "long")


@pytest.mark.ketch_only("docker ends with the first start")
def test_following_across_restarts(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox",
              "sh", "-c", "sleep 0.3; echo here; exit 1")  # fmt: skip
    try:
        assert engine.ok("logs", "-f", "again").splitlines() == ["here"] * 3
    finally:
        engine("rm", "-f", "again")


# Events


def test_events(engine: Engine) -> None:
    begin = time.time()
    engine("run", "--name", "brief", "--label", "a=b", "busybox", "false")
    engine.ok("rename", "brief", "short")
    engine.ok("rm", "short")
    listed = ("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}")
    found = [json.loads(line) for line in engine.ok(
        *listed, "--format", "json", "--filter", "type=container").splitlines()]  # fmt: skip
    actions = [event["Action"] for event in found]
    assert actions == ["create", "attach", "start", "die", "rename", "destroy"]
    by_action = {event["Action"]: event for event in found}
    told = by_action["die"]["Actor"]["Attributes"]
    assert {"image": "busybox", "name": "brief", "exitCode": "1", "a": "b"}.items() <= told.items()
    assert by_action["rename"]["Actor"]["Attributes"]["oldName"] == "/brief"
    assert by_action["start"]["status"] == "start"
    assert by_action["start"]["from"] == "busybox"
    assert [e["timeNano"] for e in found] == sorted(e["timeNano"] for e in found)
    networks = engine.ok(*listed, "--filter", "type=network", "--format", "{{.Action}}")
    assert networks.splitlines() == ["connect", "disconnect"]
    line = engine.ok(*listed, "--filter", "event=die")
    assert re.fullmatch(
        r"\S+T\S+ container die [0-9a-f]{64} \(a=b, .*exitCode=1, image=busybox, name=brief\)", line
    )
    assert engine.ok(*listed, "--filter", "container=nobody") == ""


def test_events_of_who_attaches(engine: Engine) -> None:
    begin = time.time()
    engine.ok("create", "--name", "quiet", "busybox", "true")
    engine.ok("start", "quiet")
    engine.ok("wait", "quiet")
    engine.ok("start", "-a", "quiet")
    engine.ok("rm", "quiet")
    listed = ("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}")
    actions = engine.ok(*listed, "--filter", "type=container", "--format", "{{.Action}}").split()
    assert actions == ["create", "start", "die", "attach", "start", "die", "destroy"]


def test_an_exec_that_ends_after_a_rename(engine: Engine) -> None:
    begin = time.time()
    engine.ok("run", "-d", "--name", "before", "busybox", "sleep", "60")
    with engine.start("exec", "-i", "before", "sh", "-c", "echo up; cat") as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"up\n"
        engine.ok("rename", "before", "after")
        session.communicate(b"")
    engine.ok("rm", "-f", "after")
    listed = ("events", "--since", f"{begin:.9f}", "--until", f"{time.time():.9f}")
    name = engine.ok(
        *listed, "--filter", "event=exec_die", "--format", "{{.Actor.Attributes.name}}"
    )
    assert name == "after"


def test_events_live(engine: Engine) -> None:
    with engine.start("events", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}",
                      stdin=subprocess.DEVNULL) as listener:  # fmt: skip
        try:
            time.sleep(0.5)
            for name in ("first", "second"):
                engine.ok("run", "--rm", "--name", name, "busybox", "true")
                assert listener.stdout is not None
                assert listener.stdout.readline() == f"{name}\n".encode()
        finally:
            listener.send_signal(signal.SIGKILL)


# Lists


def test_lists(engine: Engine, sleeper: str) -> None:
    engine("run", "--name", "ended", "busybox", "sh", "-c", "exit 3")
    try:
        for arguments, expected in {
            ("-f", "name=see"): "seen",
            ("-f", "label=tier"): "seen",
            ("-f", "label=tier=back"): "",
            ("-f", "volume=seen-data"): "seen",
            ("-f", "volume=/data"): "seen",
            ("-f", "publish=18080"): "seen",
            ("-f", "publish=80"): "",
            ("-f", "expose=80/tcp"): "seen",
            ("-f", "expose=79-82"): "seen",
            ("-f", "network=bridge"): "seen",
            ("-f", "network=host"): "",
            ("-f", "ancestor=busybox"): "seen",
            ("-f", "health=none"): "seen",
            ("-f", "health=healthy"): "",
            ("-f", "is-task=true"): "",
            ("-f", "status=exited"): "ended",
            ("-a", "-f", "exited=3"): "ended",
            ("-a", "-f", "exited=0"): "",
            ("-a", "-f", "since=seen"): "ended",
            ("-a", "-f", "before=ended"): "seen",
            ("-l",): "ended",
            ("-n", "1"): "ended",
            ("-a", "-f", "status=exited", "-f", "status=running"): "ended\nseen",
        }.items():
            found = engine.ok("ps", "--format", "{{.Names}}", *arguments)
            assert found == expected, arguments
        shown = engine.ok("ps", "--no-trunc", "--format", "{{.Ports}}|{{.Mounts}}|{{.LocalVolumes}}"
                          "|{{.State}}|{{.Networks}}|{{.Labels}}|{{.Label \"tier\"}}")  # fmt: skip
        assert shown == (
            "81/tcp, 127.0.0.1:18080->80/tcp|seen-data|1|running|bridge|tier=front|front"
        )
        head, line = engine.ok("ps", "-s").splitlines()
        assert head.split()[-1] == "SIZE"
        assert re.search(r"seen +0B \(virtual 1\.\d+MB\)$", line)
        assert engine.ok("port", sleeper) == "80/tcp -> 127.0.0.1:18080"
        assert engine.ok("port", sleeper, "80/tcp") == "127.0.0.1:18080"
        refused = engine("port", sleeper, "81")
        assert (refused.status, "No public port '81' published for seen" in refused.err) == (
            1,
            True,
        )
    finally:
        engine("rm", "-f", "ended")


@pytest.mark.user
def test_inspect(engine: Engine, sleeper: str) -> None:
    template = "{{.Name}}"
    assert engine.ok("inspect", "-f", template, sleeper, "bridge", "seen-data") == (
        "/seen\nbridge\nseen-data"
    )
    assert engine.ok("inspect", "-f", "{{.Architecture}}", "busybox") in {"amd64", "arm64"}
    sizes = engine.ok("inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}", sleeper).split()
    assert (int(sizes[0]), int(sizes[1]) > 10**6) == (0, True)
    missing = engine("inspect", sleeper, "nobody", "-f", template)
    assert (missing.status, missing.out) == (1, "/seen\n")
    assert "No such object: nobody" in missing.err
    assert "No such container: bridge" in engine("inspect", "--type", "container", "bridge").err
    assert "no such volume" in engine("inspect", "--type", "volume", "bridge").err
    wrong = engine("inspect", "--type", "foo", "x")
    assert 'unknown type: "foo": must be one of "config", "container"' in wrong.err


# Figures


def test_stats(engine: Engine, sleeper: str) -> None:
    head, line = engine.ok("stats", "--no-stream", sleeper).splitlines()
    assert re.split(r"  +", head) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O",
        "PIDS",
    ]  # fmt: skip
    assert re.fullmatch(
        r"[0-9a-f]{12}   seen +\d+\.\d\d% +[\d.]+[KM]iB / [\d.]+GiB +\d\.\d\d% +"
        r"[\d.]+k?B / [\d.]+k?B +[\d.]+[kM]?B / [\d.]+[kM]?B +1",
        line,
    )
    found = json.loads(engine.ok("stats", "--no-stream", "--format", "json", sleeper))
    assert sorted(found) == ["BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage",
                             "Name", "NetIO", "PIDs"]  # fmt: skip
    assert "No such container: nobody" in engine("stats", "--no-stream", "nobody").err


@pytest.mark.ketch_only("docker counts at its own end of a link")
def test_stats_of_a_link_with_a_name_that_is_no_ascii(ketch: Engine) -> None:
    script = "ip link set eth0 down; ip link set eth0 name $(printf '\\303\\274'); exec sleep 60"
    ketch.ok("run", "-d", "--name", "odd", "--cap-add", "NET_ADMIN", "busybox", "sh", "-c", script)
    deadline = time.monotonic() + 5
    while "eth0" in ketch.ok("exec", "odd", "cat", "/proc/net/dev"):
        assert time.monotonic() < deadline
    assert ketch.ok("stats", "--no-stream", "--format", "{{.Name}}", "odd") == "odd"
    ketch.ok("rm", "-f", "odd")


@pytest.mark.user
def test_top(engine: Engine, sleeper: str) -> None:
    head, line = engine.ok("top", sleeper).splitlines()
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert head.startswith("UID" + " " * 17 + "PID")
    assert line.split()[0] == "root"
    assert line.endswith("sleep 1000")
    pid = engine.ok("inspect", "-f", "{{.State.Pid}}", sleeper)
    assert engine.ok("top", sleeper, "-o", "pid,comm").split() == ["PID", "COMMAND", pid, "sleep"]
    assert "Couldn't find PID field in ps output" in engine("top", sleeper, "-o", "comm").err


def test_rename(engine: Engine, sleeper: str) -> None:
    engine.ok("rename", sleeper, "other")
    try:
        assert engine.ok("ps", "--format", "{{.Names}}") == "other"
        for new, message in {
            "other": "Renaming a container with the same name as its current name",
            "a b": "Error when allocating new name: Invalid container name (",
            "": "Neither old nor new names may be empty",
        }.items():
            refused = engine("rename", "other", new)
            assert refused.status == 1
            assert message in refused.err
    finally:
        engine.ok("rename", "other", sleeper)


# Room


def test_disk_usage_and_prune(engine: Engine, sleeper: str) -> None:
    engine.ok("run", "--name", "big", "busybox", "dd", "if=/dev/zero", "of=/f", "bs=1000",
              "count=5000")  # fmt: skip
    usage = {
        line.split()[0]: re.split(r"  +", line)[1:]
        for line in engine.ok("system", "df").splitlines()
    }
    assert usage["TYPE"] == ["TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert usage["Containers"] == ["2", "1", "5MB", "5MB (100%)"]
    assert usage["Local"][:2] == ["1", "1"]
    verbose = engine.ok("system", "df", "-v")
    assert re.search(r'^\w{12}   busybox   "sleep 1000" +1 +0B', verbose, re.MULTILINE)
    assert re.search(r"^seen-data +1 +0B$", verbose, re.MULTILINE)
    declined = engine("system", "prune", stdin="n\n")
    assert declined.out.startswith(
        "WARNING! This will remove:\n  - all stopped containers\n"
        "  - all networks not used by at least one container\n"
    )
    assert engine.ok("container", "prune", "-f", "--filter", "label=nothing") == (
        "Total reclaimed space: 0B"
    )
    pruned = engine.ok("container", "prune", "-f")
    assert re.fullmatch(r"Deleted Containers:\n\w{64}\n\nTotal reclaimed space: 5MB", pruned)
    assert engine.ok("ps", "-a", "--format", "{{.Names}}") == "seen"


def test_what_the_engine_tells_of_itself(engine: Engine) -> None:
    assert engine.ok("info", "-f", "{{.Driver}} {{.OSType}} {{.NCPU}}") == (
        f"overlay2 linux {os.cpu_count()}"
    )
    assert {"Server:", " Containers: 0", " Storage Driver: overlay2", " OSType: linux"} <= set(
        engine.ok("info").splitlines()
    )
    version = json.loads(engine.ok("version", "--format", "json"))
    assert version["Server"]["Os"] == version["Client"]["Os"] == "linux"
    assert engine.ok("version").startswith("Client:\n Version:")


def test_a_template_finds_nothing_in_a_field_that_json_leaves_out(
    engine: Engine, sleeper: str
) -> None:
    shown = "{{if .State.Health}}x{{else}}none{{end}} {{.State.Health}} {{json .State.Health}}"
    assert engine.ok("inspect", "-f", shown, sleeper) == "none <nil> null"
    failed = engine("inspect", "-f", "{{.State.Health.Status}}", sleeper)
    assert 'map has no entry for key "Health"' in failed.err
    assert (failed.status, engine("inspect", "-f", "{{", sleeper).status) == (1, 64)


def test_a_format_beside_quiet_is_ignored_aloud(engine: Engine, sleeper: str) -> None:
    found = engine("ps", "-q", "--format", "{{.Names}}", "--filter", f"name={sleeper}")
    assert found.status == 0
    assert found.out == engine("ps", "-q", "--filter", f"name={sleeper}").out
    assert "Ignoring custom format, because both --format and --quiet are set" in found.err


def test_templates_find_nothing_in_fields_that_are_left_out(engine: Engine) -> None:
    name = engine.ok("create", "busybox", "true")
    engine.ok("volume", "create", "bare")
    engine.ok("network", "create", "bare")
    try:
        for kind, subject, fields, expected in (
            ("container", name, "HostConfig.Mounts HostConfig.Annotations HostConfig.Sysctls "
             "HostConfig.StorageOpt HostConfig.Tmpfs Config.StopSignal Config.StopTimeout "
             "Config.Shell Config.NetworkDisabled Config.ExposedPorts Config.Healthcheck SizeRw "
             "State.Health ExecIDs Config.Volumes NetworkSettings.SecondaryIPAddresses",
             "[]|map[]|map[]|map[]|map[]||<nil>|[]|false|map[]|<nil>|<nil>|<nil>|[]|map[]|[]"),
            ("volume", "bare", "Status UsageData Labels Options", "map[]|<nil>|map[]|map[]"),
            ("network", "bare", "Peers Services IPAM.Options", "[]|map[]|map[]"),
            ("network", "bridge", "IPAM.Options", "map[]"),
        ):  # fmt: skip
            template = "|".join(f"{{{{.{field}}}}}" for field in fields.split())
            assert engine.ok(kind, "inspect", "-f", template, subject) == expected
        fields = "{{json .HostConfig.Mounts}} {{json .SizeRw}} {{json .Config.Volumes}}"
        assert engine.ok("inspect", "-f", fields, name) == "null null null"
        subnets = "{{range .IPAM.Config}}{{.IPRange}}|{{.AuxAddress}}|{{json .}}{{end}}"
        told = engine.ok("network", "inspect", "-f", subnets, "bare")
        assert told.startswith('|map[]|{"Subnet":"')
        assert len(told.split(",")) == 2
        refused = engine("inspect", "-f", "{{.HostConfig.Nothing}}", name)
        assert refused.status == 1
    finally:
        engine.ok("rm", name)
        engine.ok("volume", "rm", "bare")
        engine.ok("network", "rm", "bare")
