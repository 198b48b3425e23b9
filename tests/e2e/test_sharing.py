"""Containers in each other's namespaces."""

import json
import os
import signal
import time

import pytest

from tests.support.commands import Engine


def run(engine: Engine, *words: str) -> str:
    return engine.ok("run", "--rm", *words)


@pytest.mark.vm
def test_a_container_in_the_namespaces_of_another(engine: Engine) -> None:
    script = "echo mine > /dev/shm/theirs; exec sleep 60"
    donor = engine.ok("run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sh", "-c",
                      script)  # fmt: skip
    try:
        everything = ["--network", "container:donor", "--ipc", "container:donor", "--pid",
                      f"container:{donor[:12]}"]  # fmt: skip
        look = "ps -o args; cat /dev/shm/theirs; echo seen > /dev/shm/ours; hostname; " \
            "for each in net ipc pid mnt; do readlink /proc/self/ns/$each; done"  # fmt: skip
        out = run(engine, *everything, "busybox", "sh", "-c", look).splitlines()
        assert "sleep 60" in out
        assert "mine" in out
        assert donor[:12] in out  # the host name of whose network it is
        own = engine.ok("exec", "donor", "sh", "-c", "cat /dev/shm/ours; for each in net ipc pid "
                        "mnt; do readlink /proc/self/ns/$each; done").splitlines()  # fmt: skip
        assert own[0] == "seen"
        assert out[-4:-1] == own[1:-1]
        assert out[-1] != own[-1]
        # They talk over the loopback interface, and have one /etc/hosts.
        engine.ok("exec", "-d", "donor", "nc", "-l", "-p", "77", "-e", "echo", "heard")
        ask = "until nc 127.0.0.1 77; do sleep 0.1; done; cat /etc/hosts"
        heard = run(
            engine, "--network", "container:donor", "busybox", "timeout", "20", "sh", "-c", ask
        )
        assert heard.splitlines()[0] == "heard"
        assert (
            heard.splitlines()[1:] == engine.ok("exec", "donor", "cat", "/etc/hosts").splitlines()
        )
        # What a container has from another it can pass on.
        engine.ok("run", "-d", "--name", "heir", "--network", "none", "--ipc", "container:donor",
                  "busybox", "sleep", "60")  # fmt: skip
        assert run(engine, "--network", "none", "--ipc", "container:heir", "busybox", "cat",
                   "/dev/shm/theirs") == "mine"  # fmt: skip
    finally:
        engine("rm", "-f", "heir", "donor")


def test_who_cannot_be_joined(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "60")
    stopped = engine.ok("create", "--name", "stopped", "busybox", "true")
    try:
        for words, reason in (
            (["--ipc", "container:alone"], "non-shareable IPC"),
            (["--network", "container:gone"], "No such container: gone"),
            (
                ["--network", "container:stopped"],
                f"cannot join network of a non running container: {stopped}",
            ),
            (["--pid", "container:stopped"], f"container {stopped} is not running"),
            (["--ipc", "container:stopped"], f"container {stopped} is not running"),
            (["--network", "container:alone", "-h", "x"], "hostname and the network mode"),
            (
                ["--network", "container:alone", "-p", "80"],
                "port publishing and the container type",
            ),
            (["--network", "container:alone", "--dns", "1.1.1.1"], "dns and the network mode"),
            (
                ["--network", "container:alone", "--ip", "172.17.0.9"],
                "user specified IP address is supported on user defined networks only",
            ),
        ):
            refused = engine("run", "--rm", *words, "busybox", "true")
            assert refused.status == 125, str(refused)
            assert reason in refused.err
        # Only a start needs the other one.
        engine.ok("create", "--name", "early", "--pid", "container:stopped", "busybox", "true")
        refused = engine("start", "early")
        assert refused.status == 1
        assert f"container {stopped} is not running" in refused.err
    finally:
        engine("rm", "-f", "alone", "stopped", "early")


@pytest.mark.served
def test_what_a_container_is_in_is_kept_by_id(engine: Engine) -> None:
    """Whoever shares another's namespaces is restarted when that one has another name by then."""
    donor = engine.ok("run", "-d", "--name", "m1", "--ipc", "shareable", "busybox", "sleep", "60")
    try:
        words = [f"--{kind}=container:m1" for kind in ("network", "ipc", "pid")]
        engine.ok("run", "-d", "--name", "m2", *words, "--volumes-from", "m1", "busybox",
                  "sleep", "60")  # fmt: skip
        shown = (
            "{{.HostConfig.NetworkMode}} {{.HostConfig.IpcMode}} {{.HostConfig.PidMode}} "
            "{{.Config.Hostname}}"
        )
        wanted = f"container:{donor} container:{donor} container:{donor} {donor[:12]}"
        assert engine.ok("inspect", "-f", shown, "m2") == wanted
        paths = "{{.HostsPath}} {{.HostnamePath}} {{.ResolvConfPath}}"
        assert engine.ok("inspect", "-f", paths, "m2") == engine.ok("inspect", "-f", paths, "m1")
        engine.ok("rename", "m1", "m3")
        engine.ok("restart", "-t", "0", "m2")
        look = ("sh", "-c", "for each in net pid ipc; do readlink /proc/self/ns/$each; done")
        assert engine.ok("exec", "m2", *look) == engine.ok("exec", "m3", *look)
    finally:
        engine("rm", "-f", "m2", "m1", "m3")


@pytest.mark.ketch_only("what docker says once the network's first container is gone is docker's")
def test_a_chain_of_containers_in_one_network(engine: Engine) -> None:
    first = engine.ok("run", "-d", "--name", "c1", "-h", "home", "busybox", "sleep", "60")
    try:
        engine.ok(
            "run", "-d", "--name", "c2", "--network", "container:c1", "busybox", "sleep", "60"
        )
        engine.ok("run", "-d", "--name", "c3", "--network", f"container:{first[:8]}", "--uts",
                  "host", "busybox", "sleep", "60")  # fmt: skip
        engine.ok("run", "-d", "--name", "c4", "--network", "container:c2", "--health-cmd",
                  'test "$HOSTNAME" = home', "--health-interval", "100ms", "busybox",
                  "sleep", "60")  # fmt: skip
        look = ("sh", "-c", "echo $HOSTNAME; cat /etc/hosts; readlink /proc/self/ns/net")
        seen = {engine.ok("exec", name, *look) for name in ("c1", "c2", "c4")}
        assert len(seen) == 1
        assert engine.ok("exec", "c3", "readlink", "/proc/self/ns/net") in seen.pop()
        deadline = time.monotonic() + 20
        health = ("inspect", "-f", "{{.State.Health.Status}}", "c4")
        while (state := engine.ok(*health)) != "healthy":
            assert state == "starting"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # Who is the source of it goes; the one between lives on, and can pass on its files no more.
        engine.ok("rm", "-f", "c1")
        assert engine.ok("exec", "c2", "hostname") == "home"
        refused = engine("run", "--rm", "--network", "container:c2", "busybox", "true")
        assert refused.status == 125
        assert "the container that it has its network from was removed" in refused.err
        assert engine.ok("inspect", "-f", "{{.Name}}", "c4") == "/c4"
    finally:
        engine("rm", "-f", "c1", "c2", "c3", "c4")


@pytest.mark.served
def test_unknown_containers_are_refused_at_once(engine: Engine) -> None:
    for words, reason in (
        (["--ipc", "container:gone"], "No such container: gone"),
        (["--pid", "container:gone"], "No such container: gone"),
        (["--volumes-from", "gone"], "No such container: gone"),
        (["--link", "gone:db"], "could not get container for gone: No such container: gone"),
    ):
        refused = engine("create", "--name", "early", *words, "busybox", "true")
        assert refused.status == 1, refused
        assert reason in refused.err
    # A network's owner may come later: that is looked at when it starts.
    engine.ok("create", "--name", "early", "--network", "container:gone", "busybox", "true")
    engine.ok("rm", "early")


@pytest.mark.ketch_only("what docker does with a hostile /dev/shm is docker's")
def test_nothing_of_the_host_is_reached_by_another_containers_dev_shm(engine: Engine) -> None:
    script = "umount /dev/shm && rmdir /dev/shm && ln -s /etc /dev/shm && exec sleep 60"
    engine.ok("run", "-d", "--name", "hostile", "--network", "none", "--ipc", "shareable",
              "--privileged", "busybox", "sh", "-c", script)  # fmt: skip
    try:
        engine.ok("exec", "hostile", "sh", "-c", "until test -h /dev/shm; do sleep 0.1; done")
        joined = ["--network", "none", "--ipc", "container:hostile"]
        refused = engine("run", "--rm", *joined, "busybox", "ls", "/dev/shm")
        assert refused.status == 125
        assert refused.out == ""
        assert engine.ok("run", "--rm", "--network", "none", "busybox", "echo", "fine") == "fine"
    finally:
        engine("rm", "-f", "hostile")


@pytest.mark.served
def test_a_link_to_a_container_in_anothers_network(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "n1", "busybox", "sleep", "60")
    engine.ok("run", "-d", "--name", "n2", "--network", "container:n1", "busybox", "sleep", "60")
    try:
        out = engine.ok("run", "--rm", "--link", "n2:db", "busybox", "cat", "/etc/hosts")
        address = engine.ok("exec", "n1", "hostname", "-i")
        assert any(line.startswith(f"{address}\tdb ") for line in out.splitlines())
        engine.ok("create", "--name", "n3", "--network", "host", "busybox", "true")
        refused = engine("run", "--rm", "--link", "n3:db", "busybox", "true")
        assert refused.status == 125
        assert "host type networking can't be used with links" in refused.err
    finally:
        engine("rm", "-f", "n1", "n2", "n3")


@pytest.mark.ketch_only("what docker does with such a ring is docker's")
def test_networks_that_are_each_others(engine: Engine) -> None:
    engine.ok("create", "--name", "r1", "--network", "container:r2", "busybox", "true")
    engine.ok("create", "--name", "r2", "--network", "container:r1", "busybox", "true")
    try:
        assert "but, in turns, its own" in engine("create", "--link", "r1:x", "busybox", "true").err
        assert "cannot join network of a non running container" in engine("start", "r1").err
        assert engine.ok("inspect", "-f", "{{.Name}}", "r1") == "/r1"
    finally:
        engine.ok("rm", "r1", "r2")


@pytest.mark.served
def test_links_follow_names_and_addresses(engine: Engine) -> None:
    db = engine.ok("run", "-d", "--name", "db1", "busybox", "sleep", "60")
    engine.ok("run", "-d", "--name", "app", "--link", "db1:mysql", "--link", "db1", "--add-host",
              "db1:192.0.2.7", "busybox", "sleep", "60")  # fmt: skip
    try:
        links = ("inspect", "-f", "{{json .HostConfig.Links}}")
        names = ("ps", "--filter", "id=" + db, "--format", "{{.Names}}")
        assert set(json.loads(engine.ok(*links, "app"))) == {"/db1:/app/mysql", "/db1:/app/db1"}
        assert engine.ok(*names) == "db1"
        assert engine.ok(*names, "--no-trunc") == "app/db1,app/mysql,db1"
        assert engine.ok("inspect", "-f", "{{.Id}}", "app/mysql") == db
        assert engine.ok("exec", "/app/mysql", "echo", "here") == "here"
        # Another address, since somebody else takes the one that was given back.
        engine.ok("stop", "-t", "0", "app/mysql")
        engine.ok("run", "-d", "--name", "taker", "busybox", "sleep", "60")
        engine.ok("start", "db1")
        assert engine.ok("exec", "db1", "hostname", "-i") == address_of(engine, "app", "mysql")
        engine.ok("rename", "db1", "db2")
        engine.ok("restart", "-t", "0", "app")
        assert set(json.loads(engine.ok(*links, "app"))) == {"/db2:/app/mysql", "/db2:/app/db1"}
        assert engine.ok("exec", "db2", "hostname", "-i") == address_of(engine, "app", "mysql")
        engine.ok("rename", "app", "shop")
        assert engine.ok("inspect", "-f", "{{.Name}}", "shop/mysql") == "/db2"
        assert "No such" in engine("inspect", "app/mysql").err
        # Taken back while it runs: what somebody else says of the name stays.
        assert engine.ok("rm", "--link", "shop/db1") == "shop/db1"
        hosts = engine.ok("exec", "shop", "cat", "/etc/hosts").splitlines()
        assert [line for line in hosts if line.split()[1:2] == ["db1"]] == ["192.0.2.7\tdb1"]
        assert address_of(engine, "shop", "mysql")
        engine.ok("rm", "--link", "/shop/mysql")
        assert "mysql" not in engine.ok("exec", "shop", "cat", "/etc/hosts")
        assert not json.loads(engine.ok(*links, "shop"))
        assert engine.ok(*names, "--no-trunc") == "db2"
    finally:
        engine("rm", "-f", "app", "shop", "db1", "db2", "taker")


@pytest.mark.ketch_only("docker's wait of a second and more for a restart is docker's")
def test_a_link_follows_a_restart_by_policy(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "db1", "--restart", "always", "busybox", "sleep", "60")
    engine.ok("run", "-d", "--name", "app", "--link", "db1:mysql", "busybox", "sleep", "60")
    try:
        before = address_of(engine, "app", "mysql")
        os.kill(int(engine.ok("inspect", "-f", "{{.State.Pid}}", "db1")), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while address_of(engine, "app", "mysql") == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert engine.ok("exec", "db1", "hostname", "-i") == address_of(engine, "app", "mysql")
    finally:
        engine("rm", "-f", "app", "db1")


def address_of(engine: Engine, container: str, alias: str) -> str:
    """Return what a container's /etc/hosts says of a link."""
    lines = engine.ok("exec", container, "cat", "/etc/hosts").splitlines()
    (address,) = [line.split()[0] for line in lines if line.split()[1:2] == [alias]]
    return address


def test_a_link_is_taken_back(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "store", "busybox", "sleep", "60")
    engine.ok(
        "create",
        "--name",
        "shop",
        "--link",
        "store:db",
        "busybox",
        "grep",
        "-w",
        "db",
        "/etc/hosts",
    )
    try:
        assert "db" in engine.ok("start", "-a", "shop")
        refused = engine("rm", "-l", "shop")
        assert refused.status == 1
        assert "cannot remove the default link name of the container" in refused.err
        unknown = engine("rm", "-l", "shop/nothing")
        assert (unknown.status, "No such container: shop/nothing" in unknown.err) == (1, True)
        assert engine.ok("rm", "--link", "shop/db") == "shop/db"
        assert engine("start", "-a", "shop").status == 1
        assert engine.ok("inspect", "-f", "{{.HostConfig.Links}}", "shop") == "[]"
    finally:
        engine.ok("rm", "-f", "shop", "store")
