"""``ketch ns``: what it says of a container is what the kernel says."""

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.support.commands import Engine

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def web(ketch: Engine) -> Iterator[str]:
    yield ketch.ok("run", "-d", "--name", "web", "-h", "boat", "-m", "64m", "--pids-limit", "50",
                   "-p", "127.0.0.1:18471:80", "busybox", "httpd", "-f")  # fmt: skip
    ketch("rm", "-f", "web")


def document(ketch: Engine, *names: str) -> Any:
    return json.loads(ketch.ok("ns", "--format", "json", *names))


def test_what_it_names_is_there(ketch: Engine, web: str) -> None:
    ketch.ok("exec", "web", "sh", "-c", "echo written > /file")
    (found,) = document(ketch, "web")
    pid = found["pid"]
    assert (found["id"], found["pids"]) == (web, [pid, 1])
    for one in found["namespaces"]:
        assert os.stat(one["path"]).st_ino == one["inode"]
    whose = {one["kind"]: one["whose"] for one in found["namespaces"]}
    assert whose.pop("time") == whose.pop("user") == "the host's"
    assert set(whose.values()) == {"its own"}

    upper = pathlib.Path(found["root"]["upper"], "file")
    assert upper.read_text(encoding="ascii") == "written\n"
    assert any(pathlib.Path(lower, "bin/busybox").exists() for lower in found["root"]["lower"])

    for path in found["cgroup"]["paths"].values():
        assert str(pid) in pathlib.Path(path, "cgroup.procs").read_text(encoding="ascii").split()
    assert found["cgroup"]["memory"]["limit"] == 64 << 20
    assert found["cgroup"]["pids"]["limit"] == 50

    (link,) = found["links"]
    master = pathlib.Path("/sys/class/net", link["peer"], "master")
    assert master.resolve().name == link["bridge"]
    assert link["addresses"][0] in ketch.ok("exec", "web", "ip", "address", "show", "eth0")


def test_the_line_to_look_for_oneself_leads_inside(ketch: Engine, web: str) -> None:
    (found,) = document(ketch, web)
    words = [*found["enter"].split(), "hostname"]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "boat\n"


def test_the_way_of_a_packet_is_what_the_filter_has(ketch: Engine, web: str) -> None:
    (found,) = document(ketch, web)
    (port,) = found["ports"]
    assert (port["protocol"], port["host"]) == ("tcp", "127.0.0.1:18471")
    first = port["way"][0]
    name = first.partition("map inet ketch ")[2].partition(" ")[0]
    listed = subprocess.run(["nft", "list", "map", "inet", "ketch", name], check=True,
                            capture_output=True, text=True).stdout  # fmt: skip
    key, _, value = first.partition("{ ")[2].partition(" }")[0].partition(" : ")
    assert any(key in line and value in line for line in listed.replace(",", "\n").splitlines())


def test_privileges_in_words(ketch: Engine) -> None:
    ketch.ok("run", "-d", "--name", "bare", "--network", "none", "--cap-drop", "all", "--cap-add",
             "chown", "--security-opt", "seccomp=unconfined", "--security-opt",
             "no-new-privileges", "busybox", "sleep", "100")  # fmt: skip
    try:
        (found,) = document(ketch, "bare")
        assert found["capabilities"]["effective"] == ["CAP_CHOWN"]
        assert (found["seccomp"], found["no_new_privileges"]) == ({"mode": "none"}, True)
        told = ketch.ok("ns", "bare")
        assert "capabilities: chown\n" in told
        assert "no system call filter" in told
        assert "setuid" not in told
    finally:
        ketch.ok("rm", "-f", "bare")


def test_company_is_named(ketch: Engine, web: str) -> None:
    ketch.ok("run", "-d", "--name", "side", "--network", "container:web", "--pid", "host",
             "busybox", "sleep", "100")  # fmt: skip
    try:
        both = {one["name"]: one for one in document(ketch)}
        assert set(both) >= {"web", "side"}
        spaces = {one["kind"]: one for one in both["side"]["namespaces"]}
        assert (spaces["net"]["whose"], spaces["net"]["with"]) == ("shared", ["web"])
        assert spaces["pid"]["whose"] == "the host's"
        assert "shared with side" in ketch.ok("ns", "web")
        assert both["side"]["links"] == []
        assert "the links and ports of web: one namespace" in ketch.ok("ns", "side")
        assert "the links and ports of web: one namespace" in ketch.ok("ns", "--svg", "side")
    finally:
        ketch.ok("rm", "-f", "side")


@pytest.mark.parametrize(("network", "said"), [
    ("host", "the host's links, addresses and ports"), ("none", "loopback alone"),
])  # fmt: skip
def test_who_has_no_link_is_told_why(ketch: Engine, network: str, said: str) -> None:
    ketch.ok("run", "-d", "--name", "bare", "--network", network, "--read-only", "busybox",
             "sleep", "100")  # fmt: skip
    try:
        ketch.ok("pause", "bare")
        (found,) = document(ketch, "bare")
        assert (found["links"], found["status"]) == ([], "paused")
        told, drawn = ketch.ok("ns", "bare"), ketch.ok("ns", "--svg", "bare")
        words = "\n".join(ElementTree.fromstring(drawn).itertext())
        for text in (told, words):
            assert said in text
            assert "/ is read-only" in text
            assert "paused" in text
        assert "/proc/keys: hidden behind /dev/null" in told
    finally:
        ketch.ok("rm", "-f", "bare")


def test_ids_of_its_own(ketch: Engine) -> None:
    ketch.ok("run", "-d", "--name", "apart", "--network", "none", "--userns", "auto:size=5000",
             "busybox", "sleep", "100")  # fmt: skip
    try:
        (found,) = document(ketch, "apart")
        ((inside, outside, count),) = found["uid_map"]
        assert (inside, count) == (0, 5000)
        assert f"ids 0 to 4999 are {outside} to {outside + 4999} of the host" in ketch.ok(
            "ns", "apart"
        )
    finally:
        ketch.ok("rm", "-f", "apart")


def test_what_does_not_run_is_told(ketch: Engine) -> None:
    ketch.ok("create", "--name", "still", "busybox", "true")
    try:
        result = ketch("ns", "still", "nobody")
        assert (result.status, result.out) == (1, "")
        assert "container still is not running" in result.err
        assert "ketch start it" in result.err
        assert "No such container: nobody" in result.err
        assert document(ketch) == []
    finally:
        ketch.ok("rm", "still")


def test_a_drawing_says_what_is_there(ketch: Engine, web: str) -> None:
    (found,) = document(ketch, "web")
    drawn = ketch.ok("ns", "--svg", "web")
    words = [one.text for one in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert f"container web ({web[:12]})" in words
    assert f"process {found['pid']} of the host" in words
    for one in found["namespaces"]:
        assert f"{one['kind']} namespace" in words
        assert f"{one['inode']}: {one['whose']}" in words
    (link,) = found["links"]
    assert {link["interface"], link["peer"], link["bridge"]} <= {*words}
    assert "127.0.0.1:18471/tcp" in words
    assert f"to {found['ports'][0]['container']}" in words
    assert words.count("/ lower: only read") == len(found["root"]["lower"])
    assert any(word.startswith("memory: ") and word.endswith(" of 64MiB") for word in words if word)
    for wrong in (["ns", "--svg"], ["ns", "--svg", "web", "web"], ["ns", "--svg", "--format=json"]):
        refused = ketch(*wrong)
        assert refused.status == 1
        assert "--svg draws one container" in refused.err
    assert "No such container" in ketch("ns", "--svg", "nobody").err
