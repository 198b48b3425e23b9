"""``--explain`` of the commands that act on what is there: what they did, with its values.

What is told is held against what the kernel, the disk and ketch's own lists show, and the commands
that it writes are run, and have to come to the same.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Engine, finish
from tests.support.told import run_script, steps, values_of

pytestmark = pytest.mark.root_engine("scripts do the same by hand, on the host")

LIVES = "trap 'echo got' USR1; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"


def eventually(condition: "Callable[[], object]", what: str, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture
def living(ketch: Engine) -> "Iterator[str]":
    """A container that runs, says when it is told USR1, and ends with 5 on TERM."""
    container = ketch.ok("run", "-d", "busybox", "sh", "-c", LIVES)
    eventually(lambda: "ready" in ketch("logs", container).out, "it does not begin")
    yield container
    ketch("rm", "-f", container)


def pid_of(ketch: Engine, container: str) -> str:
    return ketch.ok("inspect", "-f", "{{.State.Pid}}", container)


def directory_of(ketch: Engine, container: str) -> Path:
    return Path(ketch.prefix[ketch.prefix.index("--root") + 1], "containers", container)


# create


def test_create_tells_of_record_layer_and_volumes(ketch: Engine, run_name: str) -> None:
    done = ketch("create", "--explain=json", "--name", run_name, "-v", f"{run_name}:/v",
                 "-v", "/etc", "busybox", "echo", "hi")  # fmt: skip
    container = done.out.strip()
    try:
        shown = json.loads(ketch.ok("inspect", container))[0]
        record = values_of(done.err, "record the container")
        assert record == {"id": [container], "name": [run_name], "image": [shown["Image"]],
                          "program": ["echo hi"]}  # fmt: skip
        layer = values_of(done.err, "make the layer that the container writes to")
        driver = shown["GraphDriver"]["Data"]
        assert layer["upperdir"] == [driver["UpperDir"]]
        assert layer["workdir"] == [driver["WorkDir"]]
        assert set(driver["LowerDir"].split(":")) <= {*layer["layer"], f"{driver['LowerDir']}"}
        made = [values["mountpoint"][0] for words, values in steps(done.err)
                if words.startswith("make the directory of volume")]  # fmt: skip
        assert sorted(made) == sorted(mount["Source"] for mount in shown["Mounts"])
        filled = [values for words, values in steps(done.err) if words.startswith("fill volume")]
        assert [one["from"] for one in filled] == [["/etc of the image"]], "busybox has no /v"
        again = ketch("create", "--explain=json", "-v", f"{run_name}:/v", "busybox", "true")
        assert "record the volume" not in again.err, "it was there"
        ketch.ok("rm", again.out.strip())
    finally:
        ketch("rm", "-v", container)
        ketch("volume", "rm", "-f", run_name)


def test_create_by_hand_makes_the_same_layer(ketch: Engine) -> None:
    done = ketch("create", "--explain=commands", "busybox", "true")
    container = done.out.strip()
    directory = directory_of(ketch, container)
    made = {name: os.lstat(directory / name) for name in ("upper", "work")}
    for name in made:
        os.rmdir(directory / name)
    assert run_script(done.err).returncode == 0
    for name, status in made.items():
        again = os.lstat(directory / name)
        if name == "upper":
            assert (again.st_mode, again.st_uid, again.st_gid) == (
                status.st_mode, status.st_uid, status.st_gid,
            )  # fmt: skip
    assert ketch("start", "-a", container).status == 0
    ketch.ok("rm", container)


# pause, kill, stop


def test_pause_tells_the_freezers_file_and_works_by_hand(ketch: Engine, living: str) -> None:
    done = ketch("pause", "--explain=json", living)
    ((path, value), (name, pids)) = values_of(done.err, "hold all processes").items()
    assert Path(path).name in {"freezer.state", "cgroup.freeze"}
    assert living in path
    assert Path(path).read_text().strip() == value[0]
    assert name == "processes"
    assert pid_of(ketch, living) in pids[0].split()
    thawing = ketch("unpause", "--explain=commands", living).err
    pausing = ketch("pause", "--explain=commands", living).err
    ketch.ok("unpause", living)

    def status() -> str:
        return ketch.ok("inspect", "-f", "{{.State.Status}}", living)

    assert run_script(pausing).returncode == 0
    assert status() == "paused"
    assert run_script(thawing).returncode == 0
    assert status() == "running"


def test_kill_tells_signal_and_process_and_works_by_hand(ketch: Engine, living: str) -> None:
    done = ketch("kill", "--explain=json", "-s", "USR1", living)
    sent = values_of(done.err, "send SIGUSR1 to the container's first process")
    assert sent["process"] == [pid_of(ketch, living)]
    assert sent["signal"] == [str(int(signal.SIGUSR1))]
    assert "has ended" not in done.err
    eventually(lambda: ketch("logs", living).out.count("got") == 1, "it got no signal")
    script = ketch("kill", "--explain=commands", "-s", "USR1", living).err
    eventually(lambda: ketch("logs", living).out.count("got") == 2, "it got no second signal")
    assert run_script(script).returncode == 0
    eventually(lambda: ketch("logs", living).out.count("got") == 3, "not by hand")


@pytest.mark.parametrize("words", [["stop"], ["kill"], ["rm", "-f"], ["restart"]])
def test_who_ends_a_container_hears_what_its_end_comes_to(
    ketch: Engine, living: str, words: list[str]
) -> None:
    pid = pid_of(ketch, living)
    namespace = os.readlink(f"/proc/{pid}/ns/net")
    address = ketch.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", living)
    done = ketch(words[0], "--explain=json", *words[1:], living)
    assert done.status == 0
    told = steps(done.err)
    by_force = words[0] in {"kill", "rm"}
    name, status = ("SIGKILL", 137) if by_force else ("SIGTERM", 5)
    assert values_of(done.err, f"send {name}")["process"] == [pid]
    ended = values_of(done.err, f"the program has ended with status {status};")
    assert ended["held-until-now"] == [namespace]
    assert f"remove the control group /ketch/{living}" in [said for said, _ in told]
    assert values_of(done.err, "take eth0 off network bridge")["given-back"] == [address]
    gone = [one for said, values in told if said.startswith("change sets and maps")
            for one in values.get("delete", ())]  # fmt: skip
    assert any(one.startswith("bridge ketch own4") and address in one for one in gone)
    assert values_of(done.err, "record the end")["status"] == [str(status)]
    removed = [said for said, _ in told if said.startswith("remove the container")]
    assert removed == ([f"remove the container and {directory_of(ketch, living)}"]
                       if words[0] == "rm" else [])  # fmt: skip
    started = [said for said, _ in told if said == "become /bin/sh"]
    assert len(started) == (words[0] == "restart")
    if words[0] == "stop":
        assert ketch.ok("logs", living) == "ready", "what it says is none of the steps"


def test_a_program_that_does_not_end_is_killed_and_that_is_told(ketch: Engine) -> None:
    container = ketch.ok("run", "-d", "busybox", "sh", "-c", "trap '' TERM; echo ready; sleep 100")
    eventually(lambda: "ready" in ketch("logs", container).out, "it does not begin")
    done = ketch("stop", "-t", "1", "--explain", container)
    sent = re.findall(r"^send (SIG\w+)", done.err, re.MULTILINE)
    assert sent == ["SIGTERM", "SIGKILL"]
    assert "wait for the program's end, 1 seconds at most" in done.err
    assert ketch("stop", "--explain", container).err == "", "there was nothing to do"
    assert "# Nothing was done." in ketch("stop", "--explain=commands", container).err
    ketch.ok("rm", container)


def test_stop_by_hand_ends_a_program_as_stop_does(ketch: Engine, living: str) -> None:
    script = ketch("stop", "--explain=commands", living).err
    before = ketch.ok("inspect", "-f", "{{.State.ExitCode}}", living)
    former = re.search(r"kill -s TERM (\d+)", script)
    assert former is not None
    ketch.ok("start", living)
    eventually(lambda: ketch("logs", living).out.count("ready") == 2, "it does not begin again")
    signalling = "\n".join(line for line in script.splitlines() if former[1] in line)
    assert run_script(signalling.replace(former[1], pid_of(ketch, living))).returncode == 0
    assert ketch.ok("wait", living) == before == "5"


def test_a_killed_monitor_is_nobody_to_hear_from(ketch: Engine, living: str) -> None:
    monitor = re.search(r"PPid:\s*(\d+)", Path(f"/proc/{pid_of(ketch, living)}/status").read_text())
    assert monitor is not None
    os.kill(int(monitor[1]), signal.SIGKILL)
    done = ketch("rm", "-f", "--explain", living)
    assert done.status == 0
    assert f"remove the container and {directory_of(ketch, living)}" in done.err
    assert "take eth0 off network bridge" in done.err, (
        "whoever comes next gives it back, and says so"
    )


def test_many_ports_are_told_of_one_by_one_at_the_end_as_well(ketch: Engine) -> None:
    """All that 900 of them come to is more than one message to the monitor takes."""
    done = ketch(
        "run", "--rm", "--explain", "-p", "127.0.0.1:23000-23899:80-979", "busybox", "echo", "hi"
    )
    assert (done.status, done.out) == (0, "hi\n"), done.err[-2000:]
    assert done.err.count(" no longer · nft(8)") == 900
    assert "record the end" in done.err


# rm


def test_rm_tells_what_goes_and_by_hand_it_goes_as_well(ketch: Engine, run_name: str) -> None:
    words = ("create", "--name", run_name, "-v", "/data", "busybox", "true")
    container = ketch.ok(*words)
    directory = directory_of(ketch, container)
    source = ketch.ok("inspect", "-f", "{{(index .Mounts 0).Source}}", container)
    done = ketch("rm", "-v", "--explain=json", container)
    removed = values_of(done.err, f"remove the container and {directory}")
    assert removed["name"] == [run_name]
    assert removed["writable-layer"] == [f"{directory}/upper"]
    (volume,) = [values for said, values in steps(done.err) if said.startswith("remove volume")]
    assert volume["data"] == [source]
    container = ketch.ok(*words)
    left = sorted(os.listdir(directory.parent))
    script = ketch("rm", "-v", "--explain=commands", container).err
    gone = sorted(os.listdir(directory.parent))
    made = [line.split()[-1] for line in script.splitlines() if line.startswith("rm -r ")]
    for path in made:
        os.makedirs(f"{path}/rootfs")
    assert sorted(os.listdir(directory.parent)) == left
    assert run_script(script).returncode == 0
    assert sorted(os.listdir(directory.parent)) == gone
    assert not [path for path in made if Path(path).exists()]


def test_update_tells_the_files_that_it_writes_and_works_by_hand(
    ketch: Engine, living: str
) -> None:
    first = ketch("update", "--pids-limit", "77", "--explain=commands", living).err
    done = ketch("update", "--pids-limit", "88", "--explain=json", living)
    ((path, value),) = values_of(done.err, "limits of the control group").items()
    assert path.endswith("/pids.max")
    assert living in path
    assert value == ["88"]
    assert values_of(done.err, "record the event update")["PidsLimit"] == ["88"]
    assert Path(path).read_text() == "88\n"
    assert run_script(first).returncode == 0
    assert Path(path).read_text() == "77\n"


# networks


def test_network_create_tells_what_kernel_and_record_have(ketch: Engine, run_name: str) -> None:
    done = ketch("network", "create", "--explain=json", "--subnet", "10.231.7.0/24",
                 "--ip-range", "10.231.7.128/25", run_name)  # fmt: skip
    identifier = done.out.strip()
    try:
        record = values_of(done.err, f"record the network {run_name}")
        assert record["id"] == [identifier]
        assert record["subnet"] == ["10.231.7.0/24"]
        shown = json.loads(ketch.ok("network", "inspect", run_name))[0]["IPAM"]["Config"][0]
        assert record["gateway"] == [shown["Gateway"]]
        assert record["containers"] == ["10.231.7.128/25"]
        (link,) = record["link"]
        bridge = values_of(done.err, f"make the bridge {link}")
        (seen,) = json.loads(_ip(ketch, "-j", "-d", "address", "show", link))
        assert bridge["mac"] == [seen["address"]]
        assert bridge["mtu"] == [str(seen["mtu"])]
        assert bridge["alias"] == [seen["ifalias"]]
        (address,) = [one for one in seen["addr_info"] if one["family"] == "inet"]
        assert bridge["address"] == [f"{address['local']}/{address['prefixlen']}"]
        added = values_of(done.err, "change sets and maps of the packet filter")["add"]
        assert f'inet ketch bridges {{ "{link}" }}' in added
        table = _nft(ketch, "list", "set", "inet", "ketch", "bridges")
        assert f'"{link}"' in table
        assert values_of(done.err, f"lead out of {link}")["masquerade"]
        chosen = ketch("network", "create", "--explain", f"{run_name}-2").err
        assert re.search(r"subnet = \S+ \(chosen from the address pools\)", chosen)
    finally:
        ketch("network", "rm", run_name, f"{run_name}-2")


def test_network_rm_tells_what_goes(ketch: Engine, run_name: str) -> None:
    ketch.ok("network", "create", "--subnet", "10.231.8.0/24", run_name)
    link = _bridge_of(ketch, run_name)
    done = ketch("network", "rm", "--explain=json", run_name)
    assert values_of(done.err, "remove the record of network")["given-back"] == ["10.231.8.0/24"]
    assert f"delete the bridge {link}" in [said for said, _ in steps(done.err)]
    gone = values_of(done.err, "change sets and maps of the packet filter")["delete"]
    assert f'inet ketch bridges {{ "{link}" }}' in gone
    assert f'"{link}"' not in _nft(ketch, "list", "set", "inet", "ketch", "bridges")
    internal = ketch("network", "create", "--internal", "--explain", run_name)
    assert "lead out of" not in internal.err
    ketch.ok("network", "rm", run_name)


def test_a_network_by_hand_is_like_ketchs(ketch: Engine, run_name: str) -> None:
    """The script of create, run where no bridge is; that of rm takes it away again."""
    script = ketch("network", "create", "--explain=commands", "--subnet", "10.231.9.0/24",
                   "--opt", "com.docker.network.driver.mtu=1400", run_name).err  # fmt: skip
    link = _bridge_of(ketch, run_name)
    look = f"ip -j address show {link}"
    own = _facts(_ip(ketch, "-j", "address", "show", link))
    end = ketch("network", "rm", "--explain=commands", run_name).err
    apart = subprocess.run(
        ["unshare", "--net", "sh", "-euc", f"({script}\n) >&2; {look}; nft list ruleset;"
         f" ({end}\n) >&2; ip link show {link} >&2 || echo gone"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    shown, rules = apart.stdout.split("\n", 1)
    assert _facts(shown) == own
    assert f'ip saddr 10.231.9.0/24 oifname != "{link}" masquerade' in rules
    assert rules.endswith("gone\n")


def test_connecting_tells_lease_link_filter_and_names(
    ketch: Engine, living: str, run_name: str
) -> None:
    ketch.ok("network", "create", run_name)
    try:
        done = ketch("network", "connect", "--explain=json", "--alias", "other", run_name, living)
        inside = json.loads(ketch.ok("inspect", living))[0]["NetworkSettings"]["Networks"][run_name]
        address = inside["IPAddress"]
        joined = values_of(done.err, "record that the container is on network")
        assert joined["lease"] == [f"{address}/{inside['IPPrefixLen']}"]
        assert "other" in joined["names"][0].split()
        link = values_of(done.err, "link eth1 to bridge")
        assert link["mac"] == [inside["MacAddress"]]
        assert ketch.ok("exec", living, "cat", "/sys/class/net/eth1/address") == link["mac"][0]
        port = link["outside"][0].split(",")[0]
        _ip(ketch, "link", "show", port)
        added = values_of(done.err, "change sets and maps of the packet filter")["add"]
        assert f'bridge ketch own4 {{ "{port}" . {address} }}' in added
        former = ketch.ok("inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", living)
        assert not any(one.startswith("bridge ketch taken4") and former in one for one in added), (
            "what was there is not told"
        )
        hosts = values_of(done.err, "change the container's /etc/hosts")["add"]
        assert [line.split()[0] for line in hosts] == [address]
        assert hosts[0].split()[1] in ketch.ok("exec", living, "cat", "/etc/hosts")
        end = ketch("network", "disconnect", "--explain=json", run_name, living)
        assert values_of(end.err, "delete link eth1") == {}
        left = values_of(end.err, "record that the container is on network")
        assert left["given-back"] == [address]
        gone = values_of(end.err, "change sets and maps of the packet filter")["delete"]
        assert f'bridge ketch own4 {{ "{port}" . {address} }}' in gone
        assert values_of(end.err, "change the container's /etc/hosts")["remove"] == [address]
    finally:
        ketch("network", "disconnect", "-f", run_name, living)
        ketch.ok("network", "rm", run_name)


def test_connecting_by_hand_gives_the_same_link(ketch: Engine, living: str, run_name: str) -> None:
    look = ("sh", "-c", "cat /etc/hosts; ip -4 address show eth1 | grep inet; ip route; "
            "cat /sys/class/net/eth1/address")  # fmt: skip
    ketch.ok("network", "create", run_name)
    try:
        script = ketch("network", "connect", "--explain=commands", run_name, living).err
        own = ketch.ok("exec", living, *look)
        end = ketch("network", "disconnect", "--explain=commands", run_name, living).err
        without = ketch.ok("exec", living, "cat", "/etc/hosts")
        apart = ["unshare", "--mount", "sh", "-euc"]
        done = subprocess.run([*apart, f"mount -t tmpfs tmpfs /run; {script}"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ketch.ok("exec", living, *look) == own
        done = subprocess.run([*apart, f"mount -t tmpfs tmpfs /run; {end}"],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert ketch("exec", living, "cat", "/sys/class/net/eth1/address").status != 0
        assert ketch.ok("exec", living, "cat", "/etc/hosts") == without
    finally:
        ketch.ok("network", "rm", run_name)


def test_who_does_not_run_is_connected_on_record_alone(ketch: Engine, run_name: str) -> None:
    container = ketch.ok("create", "busybox", "true")
    ketch.ok("network", "create", run_name)
    try:
        done = ketch("network", "connect", "--explain=json", run_name, container)
        ((said, values),) = steps(done.err)
        assert said.endswith("from its next start on")
        assert "lease" not in values
        script = ketch("network", "disconnect", "--explain=commands", run_name, container).err
        assert "There are no commands with which a person does this" in script
        assert run_script(script).returncode == 0
    finally:
        ketch.ok("rm", container)
        ketch.ok("network", "rm", run_name)


# volumes


def test_volumes_are_told_of_and_made_by_hand(ketch: Engine, run_name: str) -> None:
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=3m", "--label", "a=b")
    done = ketch("volume", "create", "--explain=json", *options, run_name)
    place = ketch.ok("volume", "inspect", "-f", "{{.Mountpoint}}", run_name)
    record = values_of(done.err, "record the volume")
    assert record["option.o"] == ["size=3m"]
    assert record["label.a"] == ["b"]
    made = values_of(done.err, "make the directory of volume")
    assert made == {"mountpoint": [place],
                    "mounted-while-used": [f"mount -t tmpfs -o size=3m tmpfs {place}"]}  # fmt: skip
    assert ketch("volume", "create", "--explain", run_name).err == "", "it is there"
    used = ketch("run", "--rm", "--explain=json", "-v", f"{run_name}:/v", "busybox", "df", "/v")
    assert "3072" in used.out
    assert values_of(used.err, f"mount volume {run_name} on {place}")["option.type"] == ["tmpfs"]
    assert f"unmount volume {run_name} from {place}" in [said for said, _ in steps(used.err)]
    removed = ketch("volume", "rm", "--explain=json", run_name)
    assert values_of(removed.err, f"remove volume {run_name}")["data"] == [place]
    script = ketch("volume", "create", "--explain=commands", run_name).err
    end = ketch("volume", "rm", "--explain=commands", run_name).err
    assert not Path(place).exists()
    assert run_script(script).returncode == 0
    assert (Path(place).is_dir(), Path(place).stat().st_mode & 0o777) == (True, 0o755)
    assert run_script(end).returncode == 0
    assert not Path(place).parent.exists()


# All of them


def test_on_a_terminal_they_have_topics_and_times(ketch: Engine, run_name: str) -> None:
    terminal = ketch.terminal("volume", "create", "--explain", run_name)
    terminal.expect("record")
    terminal.expect(r" \d+\.\d\d ms.*record the volume")
    terminal.expect(f"name = {run_name}")
    terminal.expect("files")
    terminal.expect("make the directory of volume")
    assert finish(terminal) == 0
    ketch.ok("volume", "rm", run_name)


@pytest.mark.parametrize("form", ["json", "commands", "text"])
def test_who_does_not_listen_keeps_nothing_from_being_done(
    ketch: Engine, run_name: str, form: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [*ketch.prefix, "network", "create", f"--explain={form}", run_name]
    try:
        done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=writer, check=False)
        assert done.returncode == 0
        _ip(ketch, "link", "show", _bridge_of(ketch, run_name))
    finally:
        os.close(writer)
        ketch.ok("network", "rm", run_name)


def _ip(ketch: Engine, *words: str) -> str:
    return subprocess.run([*ketch.host, "ip", *words], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip


def _nft(ketch: Engine, *words: str) -> str:
    return subprocess.run([*ketch.host, "nft", *words], capture_output=True, text=True,
                          check=True).stdout  # fmt: skip


def _bridge_of(ketch: Engine, network: str) -> str:
    return f"ketch{ketch.ok('network', 'inspect', '-f', '{{.Id}}', network)[:10]}"


def _facts(shown: str) -> "dict[str, object]":
    """What counts of a bridge: name, mtu, hardware address, addresses, and that it is up."""
    (link,) = json.loads(shown)
    addresses = [
        (one["local"], one["prefixlen"]) for one in link["addr_info"] if one["family"] == "inet"
    ]
    return {
        "name": link["ifname"], "mtu": link["mtu"], "mac": link["address"],
        "addresses": addresses, "up": "UP" in link["flags"],
    }  # fmt: skip
