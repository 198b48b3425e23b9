"""Containers in each other's namespaces."""

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


def test_a_link_is_taken_back(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "store", "busybox", "sleep", "60")
    engine.ok(
        "create", "--name", "shop", "--link", "store:db", "busybox", "grep", "db", "/etc/hosts"
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
