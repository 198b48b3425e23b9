"""What a sandbox with rules for its network reaches: what they name, and nothing else."""

import base64
import contextlib
import functools
import http.server
import json
import os
import pathlib
import pickle
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import dnslib
import pytest

import ketch
from ketch import Sandbox, Secret
from ketch.engine.requests import launch
from ketch.errors import ConflictError, InvalidArgumentError, NotFoundError
from tests.support import egress_tricks, egress_ways
from tests.support.egress_ways import IN
from tests.support.outside import Outside, certificate, outside

OUT = egress_ways.OUT | egress_tricks.TRICKS
# The tricks' words first: what plays the attempts stands at the end.
GUEST = egress_ways.GUEST.replace("def attempt(", f"{egress_tricks.GUEST}\ndef attempt(")
FAULTS = (
    "NameError", "TypeError", "SyntaxError", "AttributeError", "error:", "ValueError",
    "OverflowError", "IndexError", "KeyError", "AssertionError",
)  # fmt: skip
NOWHERE = (
    "private", "metadata", "lan", "zero", "mapped", "nat64", "6to4", "alias", "loop", "lies",
    "huge", "metadata6", "carrier", "compatible", "teredo", "link", "many", "own",
)  # fmt: skip
PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
pytestmark = [
    pytest.mark.in_process,
    pytest.mark.skipif(
        not pathlib.Path("/usr/bin/python3").exists(), reason="this machine has no /usr/bin/python3"
    ),
]


class Place(NamedTuple):
    """Where everything is."""

    world: Outside
    sandbox: Sandbox
    words: dict[str, Any]


def _own_address() -> str:
    shown = json.loads(
        subprocess.run(["ip", "-j", "-4", "addr"], capture_output=True, check=True).stdout
    )
    found = [one["local"] for link in shown for one in link["addr_info"] if link["ifname"] != "lo"]
    return next((one for one in found if not one.endswith(".255")), "")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside() as made:

        def address(text: str) -> list[dnslib.RD]:
            return [dnslib.A(text)]

        six = f"{int.from_bytes(socket.inet_aton(made.canary), 'big'):08x}"
        turns = iter([made.server])
        made.zone |= {
            (f"{name}.example", "A"): address(made.server)
            for name in (
                "good",
                "shared",
                "raw",
                "first",
                "evil",
                "a.b.wild",
                "a.wild",
                "retry",
            )
        }
        made.zone |= {
            ("private.example", "A"): address(made.canary),
            ("metadata.example", "A"): address("169.254.169.254"),
            ("lan.example", "A"): address("10.255.255.1"),
            ("zero.example", "A"): address("0.0.0.0"),
            ("mapped.example", "AAAA"): [dnslib.AAAA(f"::ffff:{six[:4]}:{six[4:]}")],
            ("nat64.example", "AAAA"): [dnslib.AAAA(f"64:ff9b::{six[:4]}:{six[4:]}")],
            ("6to4.example", "AAAA"): [dnslib.AAAA(f"2002:{six[:4]}:{six[4:]}::1")],
            ("alias.example", "A"): [
                dnslib.RR("alias.example", 5, rdata=dnslib.CNAME("deep.lan")),
                dnslib.RR("deep.lan", 1, rdata=dnslib.A(made.canary)),
            ],
            ("loop.example", "A"): [dnslib.CNAME("loop.example")],
            ("lies.example", "A"): [dnslib.RR("good.example", 1, rdata=dnslib.A(made.server))],
            ("rebind.example", "A"): lambda: address(next(turns, made.canary)),
            ("mixed.example", "A"): [dnslib.A(made.canary), dnslib.A(made.server)],
            ("huge.example", "A"): [dnslib.A(made.canary)] * 3000,
            ("metadata6.example", "AAAA"): [dnslib.AAAA("fd20:ce::254")],
            ("carrier.example", "A"): address("100.64.0.1"),
            ("compatible.example", "AAAA"): [dnslib.AAAA(f"::{six[:4]}:{six[4:]}")],
            ("teredo.example", "AAAA"): [dnslib.AAAA(f"2001:0:{six[:4]}:{six[4:]}::1")],
            ("link.example", "AAAA"): [dnslib.AAAA("fe80::1")],
            ("many.example", "A"): address("224.0.0.251"),
            ("own.example", "A"): address(_own_address() or made.canary),
            # The first is refused by the kernel at once, since nobody is there.
            ("second.example", "A"): [dnslib.A(made.names), dnslib.A(made.canary)],
        }  # fmt: skip
        context = certificate(tmp_path_factory.mktemp("authority"), "good.example")
        made.listen(made.server, 80, b"SERVED")
        made.listen(made.server, 443, b"SERVED", tls=context)
        retrying = certificate(tmp_path_factory.mktemp("retrying"), "retry.example")
        retrying.set_ecdh_curve("secp521r1")  # of which no client sends a share at first
        made.retry = made.listen(made.server, 0, b"SERVED", tls=retrying)
        for port in (80, 443):
            made.listen(made.canary, port, b"CANARY")
        yield made


@pytest.fixture(scope="module")
def place(library: ketch.Engine, world: Outside) -> Iterator[Place]:
    own = _own_address()
    if not own:
        pytest.skip("this machine has no address but loopback's")
    at = world.server
    raw, first = world.listen(at, 0, b"SERVED"), world.listen(at, 0, first=b"SERVED")
    literal, port = world.listen(own, 0, b"SERVED"), world.listen(own, 0, b"CANARY")
    number = int.from_bytes(socket.inet_aton(own), "big")
    words = {
        "server": at, "canary": world.canary, "own": own, "raw": raw, "first": first,
        "retry": world.retry, "abstract": world.abstract,
        "mixed": f"{hex(number >> 24)}.0{number >> 16 & 255:o}.{number & 65535}",
        "literal": literal, "port": port, "datagrams": world.listen_datagrams(own, 0),
        "decimal": number, "hexadecimal": hex(number),
        "octal": ".".join(f"0{int(part):o}" for part in own.split(".")),
        "neighbour": socket.inet_ntoa((number ^ 1).to_bytes(4, "big")),
    }  # fmt: skip
    rules = [
        f"good.example@{at}", f"*.wild.example@{at}:80", f"raw.example@{at}:{raw}",
        f"first.example@{at}:{first}", f"{own}:{literal}", f"rebind.example@{at}",
        f"mixed.example@{at}", f"retry.example@{at}:{world.retry}",
        f"second.example@{world.names}",
        *(f"{name}.example" for name in NOWHERE),
    ]  # fmt: skip
    with Sandbox.create(
        "busybox", engine=library, mounts=PROGRAMS, timeout=None, egress=rules, dns=[world.names]
    ) as sandbox:
        yield Place(world, sandbox, words)


def _play(place: Place, attempts: dict[str, str]) -> dict[str, list[str]]:
    """Have the guest try all of them at once."""
    codes = {}
    for number, (name, code) in enumerate(attempts.items()):
        codes[name] = code.replace("MARK", f"mark{number}x")
        for word, value in place.words.items():
            codes[name] = codes[name].replace("{" + word + "}", str(value))
    told = place.sandbox.run(["python3", "-c", GUEST], stdin=json.dumps(codes).encode(), timeout=90)
    assert told.status == 0, told
    found: dict[str, list[str]] = json.loads(told.stdout)
    return found


@pytest.fixture(scope="module")
def played(place: Place) -> dict[str, list[str]]:
    return _play(place, {name: way.code for name, way in OUT.items()})


@pytest.mark.parametrize("name", OUT)
def test_no_way_leads_out(place: Place, played: dict[str, list[str]], name: str) -> None:
    told, way = played[name][1], OUT[name]
    mark = f"mark{list(OUT).index(name)}x"
    assert "CANARY" not in told, (name, told)
    assert not told.startswith(FAULTS), told
    assert not [one for one in place.world.heard if mark.encode() in one], (name, told)
    assert not [one for one in place.world.asked if "mark" in one]
    if way.reason:
        reasons = [
            one.reason
            for one in place.sandbox.connections()
            if one.verdict == "refused" or way.reason == "no such name"
        ]
        assert any(way.reason in one for one in reasons), (name, told, sorted(set(reasons)))


def test_there_are_ways_enough() -> None:
    assert len({way.code for way in OUT.values()}) >= 200


def test_what_is_named_is_reached(place: Place) -> None:
    told = _play(place, IN)
    assert {name: answer for name, (_, answer) in told.items() if "SERVED" not in answer} == {}
    assert not {"evil.example", "shared.example"} & set(place.world.asked)


def _get(place: Place, name: str, port: int = 80) -> str:
    return _play(place, {"it": f"get('{name}:{port}', '/fine', at='{name}', port={port})"})["it"][1]


def test_rules_change_while_it_runs(place: Place) -> None:
    sandbox, raw = place.sandbox, place.words["raw"]
    rule = f"shared.example@{place.world.server}:{raw}"
    assert "gaierror" in _get(place, "shared.example", raw)
    sandbox.allow(rule)
    assert "SERVED" in _get(place, "shared.example", raw)
    waiting = f"say('shared.example', {raw}, b'\\0', b'\\0', wait=40, pause=20)"
    sandbox.files.write("/tmp/asked", json.dumps({"it": waiting}))
    with sandbox.start(["sh", "-c", 'exec python3 -c "$0" < /tmp/asked', GUEST]):
        _await(lambda: any(one.is_open for one in sandbox.connections()))
        begun = time.monotonic()
        sandbox.deny(rule)
        _await(lambda: not any(one.is_open for one in sandbox.connections()))
        assert time.monotonic() - begun < 15
    ended = [one for one in sandbox.connections() if one.name == "shared.example"][-1]
    assert (ended.verdict, ended.reason, ended.sent) == ("refused", "its rule was taken away", 1)
    assert "gaierror" in _get(place, "shared.example", raw)
    with pytest.raises(NotFoundError, match="shared"):
        sandbox.deny(rule)
    with pytest.raises(InvalidArgumentError, match="no port"):
        sandbox.allow("shared.example:x")


def test_what_is_on_record_is_what_was_done(place: Place) -> None:
    assert "SERVED" in _get(place, "good.example")
    (*_, last) = [one for one in place.sandbox.connections() if one.name == "good.example"]
    assert (last.kind, last.verdict, last.address) == ("tcp", "allowed", f"{place.world.server}:80")
    assert (last.sent, last.received, last.is_open) == (45, 44, False)
    assert 0 <= time.time() - last.time < 60


def test_others_find_it_and_are_made_like_it(
    library: ketch.Engine, place: Place, world: Outside
) -> None:
    found = Sandbox.connect(place.sandbox.name, engine=library)
    assert len(found.connections()) == len(place.sandbox.connections()) > 0
    (copy,) = place.sandbox.fork()
    with copy:
        assert copy.connections() == []
        other = Place(world, copy, place.words)
        assert "SERVED" in _get(other, "good.example")
        assert "gaierror" in _get(other, "evil.example")
    with Sandbox.create("busybox", engine=library, mounts=PROGRAMS) as none:
        with pytest.raises(ConflictError, match="no relay"):
            none.connections()
        said = none.run(
            ["python3", "-c", "import socket; socket.create_connection(('8.8.8.8', 1))"]
        )
        assert b"Network is unreachable" in said.stderr


def test_a_relay_that_was_killed_lets_nothing_through(
    library: ketch.Engine, world: Outside
) -> None:
    """And one whose sandbox has ended ends."""
    rules = (f"good.example@{world.server}",)
    with Sandbox.create(
        "busybox", engine=library, mounts=PROGRAMS, egress=rules, dns=[world.names], ports=[8000]
    ) as sandbox:
        place = Place(world, sandbox, {})
        assert "SERVED" in _get(place, "good.example")
        relay = _relay_of(sandbox)
        os.kill(relay, signal.SIGKILL)
        _await(lambda: not _lives(relay))
        told = _play(place, {"name": "lookup('good.example')", "address": "say('198.18.0.2', 80)"})
        assert {kind for kind, _ in told.values()} == {"failed"}
        with pytest.raises(ConflictError, match="no relay"):
            sandbox.connections()
    with Sandbox.create("busybox", engine=library, egress=rules) as sandbox:
        relay = _relay_of(sandbox)
    _await(lambda: not _lives(relay))


def test_its_own_ports_are_reached_and_lead_nowhere(library: ketch.Engine, world: Outside) -> None:
    """Neither to this machine nor to another sandbox, which is on the same network."""
    create: dict[str, Any] = {
        "mounts": PROGRAMS,
        "egress": (f"good.example@{world.server}",),
        "ports": [8000],
    }
    with (
        Sandbox.create("busybox", engine=library, dns=[world.names], **create) as sandbox,
        Sandbox.create("busybox", engine=library, **create) as other,
        sandbox.start(["python3", "-m", "http.server", "8000"]),
        other.start(["python3", "-m", "http.server", "8000"]),
    ):
        place = Place(world, sandbox, {})
        for one in (sandbox, other):
            _await(functools.partial(_answers, one.url(8000)))
        assert "SERVED" in _get(place, "good.example")
        host, neighbour = (
            one.url(8000)[len("http://") : -len(":8000")] for one in (sandbox, other)
        )
        gateway = host.rpartition(".")[0] + ".1"
        told = _play(
            place,
            {"gateway": f"say('{gateway}', 80, wait=1)", "public": "say('93.184.215.14', 80)",
             "neighbour": f"get('{neighbour}', '/', port=8000)"},
        )  # fmt: skip
        assert {kind for kind, _ in told.values()} == {"failed"}, told


def test_who_takes_all_connections_harms_itself_alone(place: Place) -> None:
    flood = (
        "[[socket.create_connection(('good.example', 80)) for _ in range(300)], time.sleep(1)] and"
        " 'done'"
    )
    datagrams = (
        "[(made := socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),"
        " [made.sendto(b'x' * 999, ('8.8.8.8', 9)) for _ in range(3000)]] and 'done'"
    )
    told = _play(place, {"flood": flood, "datagrams": datagrams})
    assert told["flood"] == ["said", "done"]
    assert "too many connections at once" in {one.reason for one in place.sandbox.connections()}
    _await(lambda: not any(one.is_open for one in place.sandbox.connections()))
    assert "SERVED" in _get(place, "good.example")


def _await(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
        return True
    return False


def _relay_of(sandbox: Sandbox) -> int:
    """The process that listens on the sandbox's socket."""
    settings = sandbox._container._places.settings
    with contextlib.closing(launch.reach_monitor(settings, sandbox.id, "egress")) as reached:
        credentials = reached.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iii", credentials)[0])


def _lives(pid: int) -> bool:
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# Whom it asks, and with what.
_ASKS = r"""
import base64, json, os, ssl, sys, urllib.request
host, port, other, plain = sys.argv[1:]
key = os.environ["API_KEY"]
def ask(url, headers, method="GET"):
    try:
        asked = urllib.request.Request(url, headers=headers, method=method)
        with urllib.request.urlopen(asked, timeout=8) as told:
            return told.read().decode()
    except Exception as error:
        return repr(error)
basic = base64.b64encode(f"user:{key}".encode()).decode()
print(json.dumps({
    "key": key,
    "right": ask(f"https://{host}:{port}/right", {"Authorization": f"Bearer {key}"}),
    "basic": ask(f"https://{host}:{port}/basic", {"Authorization": f"Basic {basic}"}),
    "path": ask(f"https://{host}:{port}/{key}", {}),
    "other": ask(f"https://{other}:{port}/other", {"Authorization": f"Bearer {key}"}),
    "plain": ask(f"http://{host}:{plain}/plain", {"Authorization": f"Bearer {key}"}),
    "host": ask(f"https://{host}:{port}/host", {"Host": "evil.example", "X": key}),
    "trace": ask(f"https://{host}:{port}/trace", {"X": key}, "TRACE"),
    "files": [open("/proc/self/environ").read(), open(os.environ["SSL_CERT_FILE"]).read()],
}))
"""


def test_a_secret_is_used_and_not_had(
    library: ketch.Engine, world: Outside, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the hosts that it is for, within TLS; nobody else hears it, and nothing has it."""
    pytest.importorskip("cryptography")
    value = "value-that-nobody-may-see"
    context = certificate(tmp_path, "api.example", "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    at = world.server
    port, plain = world.listen(at, 0, b"SERVED", tls=context), world.listen(at, 0, b"SERVED")
    world.zone |= {(f"{name}.example", "A"): [dnslib.A(at)] for name in ("api", "other")}
    secret = Secret("API_KEY", value, hosts=[f"api.example@{at}:{port}"])
    assert value not in repr(secret)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)
    with Sandbox.create(
        "busybox", engine=library, mounts=PROGRAMS, dns=[world.names], secrets=[secret],
        egress=[f"other.example@{at}:{port}", f"api.example@{at}:{plain}"],
    ) as sandbox:  # fmt: skip
        sandbox.files.write("/tmp/ca.pem", (tmp_path / "ca.pem").read_bytes())
        arguments = ["api.example", str(port), "other.example", str(plain)]
        for one in (sandbox, *sandbox.fork()):
            with one if one is not sandbox else contextlib.nullcontext():
                told = one.run(["python3", "-c", _ASKS, *arguments], timeout=80)
                assert told.status == 0, told
                answers = json.loads(told.stdout)
                assert answers["key"] == secret.placeholder
                assert [answers[name] for name in ("right", "basic", "path", "plain")] == [
                    "SERVED"
                ] * 4
                assert "CERTIFICATE_VERIFY_FAILED" in answers["other"]  # its own, untouched
                assert "403" in answers["host"]
                assert "403" in answers["trace"]
                assert value not in told.stdout.decode()
                heard = b"".join(world.heard)
                world.heard.clear()
                (right, basic, path, last) = (
                    heard[heard.index(b"GET /" + name) :].partition(b"\r\n\r\n")[0]
                    for name in (b"right", b"basic", b"ketch-secret", b"plain")
                )
                assert f"Authorization: Bearer {value}".encode() in right
                assert base64.b64encode(f"user:{value}".encode()) in basic
                assert value.encode() not in path + last
                assert b"/host" not in heard
                assert b"/trace" not in heard
        curl = sandbox.run(
            [
                "curl",
                "-sS",
                "-H",
                f"X-Key: {secret.placeholder}",
                f"https://api.example:{port}/curl",
            ]
        )
        assert curl.stdout == b"SERVED", curl
        assert value.encode() in b"".join(world.heard)
        untouched = sandbox.run(
            ["curl", "-sS", "--cacert", "/tmp/ca.pem", "-H", f"X-Key: {secret.placeholder}",
             f"https://other.example:{port}/untouched"]
        )  # fmt: skip
        assert untouched.stdout == b"SERVED", untouched
        assert b"".join(world.heard).count(value.encode()) == 1
        _nowhere(sandbox, value)


# The placeholder where no value belongs, or in pieces; and where somebody else is sent to.
_ODD = r"""
import base64, json, os, socket, ssl, sys, time, urllib.parse, urllib.request
host, port, other = sys.argv[1:]
key = os.environ["API_KEY"]
def raw(*pieces):
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection((host, int(port)), timeout=8) as plain:
        with context.wrap_socket(plain, server_hostname=host) as made:
            for piece in pieces:
                made.sendall(piece.encode())
                time.sleep(.2)
            return [made.selected_alpn_protocol(), made.recv(9999).decode()]
head = f"GET /NAME HTTP/1.1\r\nHost: {host}\r\n"
def get(name, *fields):
    return raw(head.replace("NAME", name) + "".join(f"{one}\r\n" for one in fields) + "\r\n")
post = head.replace("GET", "POST")
def redirected():
    try:
        with urllib.request.urlopen(urllib.request.Request(
            f"https://{host}:{port}/moved", headers={"X-Key": key}), timeout=8) as told:
            return told.read().decode()
    except Exception as error:
        return repr(error)
print(json.dumps({
    "split": raw(head.replace("NAME", "split") + "X-Key: " + key[:20], key[20:] + "\r\n\r\n"),
    "percent": get("percent", "X-Key: " + key.replace("-", "%2d")),
    "base64": get("base64", "X-Key: " + base64.b64encode(key.encode()).decode()),
    "name": get("name", f"{key}: x"),
    "capitals": get("capitals", f"X-Key: {key.upper()}"),
    "length": get("length", f"Content-Length: {key}"),
    "chunks": raw(post.replace("NAME", "chunks") + "Transfer-Encoding: chunked\r\n\r\n"
                  + f"{len(key):x}\r\n{key}\r\n0\r\n\r\n"),
    "extension": raw(post.replace("NAME", "extension") + "Transfer-Encoding: chunked\r\n\r\n"
                     + f"1;x={key}\r\ny\r\n0\r\n\r\n"),
    "folded": raw(head.replace("NAME", "folded") + f"X-Key: y\r\n {key}\r\n\r\n"),
    "http/2": raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + key),
    "expected": raw(post.replace("NAME", "expected") + "Expect: 100-continue\r\n"
                    + f"Content-Length: {len(key)}\r\n\r\n", key),
    "upgrade": get("upgrade", "Connection: Upgrade", "Upgrade: websocket", f"X-Key: {key}"),
    "redirected": redirected(),
}))
"""


def test_a_secret_s_value_stands_in_fields_alone(
    library: ketch.Engine, world: Outside, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is made of the placeholder, and wherever its host sends the program."""
    pytest.importorskip("cryptography")
    value, at = "value-that-nobody-may-see", world.server
    context = certificate(tmp_path, "odd.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    other = world.listen(at, 0, b"SERVED")
    answer = (
        f"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example:{other}/sent\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()
    port = world.listen(at, 0, first=answer, tls=context)
    world.zone |= {(f"{name}.example", "A"): [dnslib.A(at)] for name in ("odd", "elsewhere")}
    world.heard.clear()
    with Sandbox.create(
        "busybox", engine=library, mounts=PROGRAMS, dns=[world.names],
        secrets=[Secret("API_KEY", value, hosts=[f"odd.example@{at}:{port}"])],
        egress=[f"elsewhere.example@{at}:{other}"],
    ) as sandbox:  # fmt: skip
        told = sandbox.run(
            ["python3", "-c", _ODD, "odd.example", str(port), str(other)], timeout=80
        )
    assert told.status == 0, told
    answers = json.loads(told.stdout)
    heard = b"".join(world.heard)
    assert value not in told.stdout.decode()
    assert answers["redirected"] == "SERVED"
    assert {one[0] for one in answers.values() if isinstance(one, list)} == {"http/1.1"}
    with_value = {
        one.partition(b" HTTP/")[0].rpartition(b"/")[2]
        for one in heard.split(b"\r\n\r\n")
        if value.encode() in one
    }
    assert with_value == {b"split", b"moved"}
    for name in (b"percent", b"base64", b"capitals", b"chunks", b"extension", b"expected", b"sent"):
        assert b"/" + name in heard, name
    for name in (b"folded", b"upgrade", b"PRI", b"length"):
        assert b"/" + name not in heard, name
    sent = heard[heard.index(b"/sent") :]
    assert b"ketch-secret-" in sent.partition(b"\r\n\r\n")[0]


def test_secrets_that_cannot_be_are_refused() -> None:
    for name, value, hosts, why in (
        ("A B", "x", ["a.example"], "variable"),
        ("A", "x\r\nHost: evil", ["a.example"], "line"),
        ("A", "", ["a.example"], "line"),
        ("A", "x", [], "hosts"),
        ("A", "x", ["10.0.0.1"], "name"),
        ("A", "x", ["a.example:*"], "port"),
    ):
        with pytest.raises(InvalidArgumentError, match=why):
            Secret(name, value, hosts=hosts)
    assert Secret("A", "x", hosts=["a.example", "b.example@10.0.0.1", "c.example@::1"]).hosts == (
        "a.example:443", "b.example@10.0.0.1:443", "c.example@[::1]:443",
    )  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="egress=None"):
        Sandbox.create("busybox", egress=None, secrets=[Secret("A", "x", hosts=["a.example"])])


def _nowhere(sandbox: Sandbox, value: str) -> None:
    """Nothing of a sandbox that anybody could look at has a value."""
    engine = sandbox._container._places.engine
    assert value not in json.dumps(sandbox._container.attrs)
    assert value not in str(sandbox.connections())
    # Not by this process: who closes a file of the database's gives up its locks on it.
    searched = subprocess.run(
        ["grep", "-rlaF", "-D", "skip", "-f", "-", engine.settings.root, engine.settings.state],
        input=value, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (searched.returncode, searched.stdout) in {(1, ""), (2, "")}, searched
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        if int(place.name) != os.getpid():
            for name in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    assert value.encode() not in (place / name).read_bytes(), place


def test_real_programs_work_by_rules_for_their_servers_alone(
    library: ketch.Engine, world: Outside, tmp_path: pathlib.Path
) -> None:
    """Installing a package, cloning a repository, curl: and pip's own habits lead nowhere else."""
    if not pathlib.Path("/usr/lib/python3/dist-packages/pip").exists():
        pytest.skip("this machine's Python has no pip")
    index = tmp_path / "simple" / "greeting"
    index.mkdir(parents=True)
    with zipfile.ZipFile(index / "greeting-1.0-py3-none-any.whl", "w") as wheel:
        about = "greeting-1.0.dist-info"
        wheel.writestr("greeting.py", "WORD = 'hello'\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nTag: py3-none-any\n"
            "Root-Is-Purelib: true\n",
        )  # fmt: skip
        wheel.writestr(f"{about}/RECORD", f"greeting.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n")
    repository = tmp_path / "repository"
    identity = ("-c", "user.name=x", "-c", "user.email=x@example")
    for words in (
        ("init", "-q", str(repository)),
        ("-C", str(repository), *identity, "commit", "-q", "--allow-empty", "-m", "first"),
        ("-C", str(repository), "update-server-info"),
    ):
        subprocess.run(["git", *words], check=True)
    serve = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer((world.server, 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        names = ("packages", "git")
        world.zone |= {(f"{name}.example", "A"): [dnslib.A(world.server)] for name in names}
        with Sandbox.create(
            "busybox", engine=library, mounts=PROGRAMS, dns=[world.names], env={"HOME": "/tmp"},
            egress=[f"{name}.example@{world.server}:{port}" for name in names],
        ) as sandbox:  # fmt: skip
            url = f"http://packages.example:{port}"
            installed = sandbox.run(
                f"python3 -m pip install -q --target /tmp/site --index-url {url}/simple"
                " --trusted-host packages.example greeting"
                " && PYTHONPATH=/tmp/site python3 -c 'import greeting; print(greeting.WORD)'",
                timeout=100,
            )
            assert installed.text == "hello\n", installed
            cloned = sandbox.run(
                f"git clone -q http://git.example:{port}/repository/.git copy"
                " && git -C copy log --format=%s", timeout=60,
            )  # fmt: skip
            assert cloned.text == "first\n", cloned
            assert "greeting" in sandbox.run(["curl", "-sS", f"{url}/simple/"]).text
            assert {one.name for one in sandbox.connections() if one.verdict == "allowed"} == {
                "packages.example", "git.example",
            }  # fmt: skip
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
