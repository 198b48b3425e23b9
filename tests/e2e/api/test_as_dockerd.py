"""The same oddities of requests, asked of ``ketch serve`` and of dockerd, mean the same."""

import concurrent.futures
import contextlib
import functools
import http
import http.server
import json
import pathlib
import socket as sockets
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import serving, users
from tests.support.archives import archive, member
from tests.support.commands import Engine


class Asked:
    """One of both engines, and what it answers."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.path = pathlib.Path(engine.prefix[2].removeprefix("unix://"))

    def __call__(
        self, method: str, target: str, document: object = None, **headers: str
    ) -> tuple[int, Any]:
        if document is None or isinstance(document, bytes):
            body = document
        else:
            body = json.dumps(document).encode()
        status, answer = serving.Connection(self.path).ask(method, target, body, **headers)
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE and (
            refused := users.NO_CGROUP.search(json.loads(answer)["message"])
        ):
            pytest.skip(refused[0])
        try:
            return status, json.loads(answer) if answer else None
        except ValueError:  # dockerd tells of some in plain text
            return status, {"message": answer.decode()}

    def made(self, name: str, document: object, version: str = "") -> str:
        """Make a container, in place of one of that name; return its identifier."""
        self("DELETE", f"/containers/{name}?force=1")
        status, answer = self("POST", f"{version}/containers/create?name={name}", document)
        assert status == 201, answer
        return str(answer["Id"])


@pytest.fixture(params=["served", "docker"])
def asked(request: pytest.FixtureRequest, ketch: Engine) -> Iterator[Asked]:
    engine: Engine = request.getfixturevalue(f"{request.param}_engine")
    found = Asked(engine)
    yield found
    for name in ("odd", "odder"):
        found("DELETE", f"/containers/{name}?force=1&v=1")
    engine("rmi", "-f", "odd")


SLEEP: dict[str, Any] = {"Image": "busybox", "Cmd": ["sleep", "100"], "StopSignal": "KILL"}


def test_names_in_any_case(asked: Asked) -> None:
    asked.made(
        "odd",
        b'{"image": "nothing", "IMAGE": "busybox", "cmd": ["sleep", "100"], "env": ["a=B"],'
        b' "LABELS": {"Case": "kept"}, "stop\xc5\xbfignal": "KILL",'
        b' "hostConfig": {"memory": 1, "Memory": 67108864, "restartPolicy": {"name": "no"}},'
        b' "HOSTCONFIG": {"cpushares": 512, "memorY": 134217728}}',
    )  # fmt: skip
    found = asked("GET", "/containers/odd/json")[1]
    config, resources = found["Config"], found["HostConfig"]
    assert (config["Image"], config["Cmd"]) == ("busybox", ["sleep", "100"])
    assert "a=B" in config["Env"]
    assert (config["Labels"], config["StopSignal"]) == ({"Case": "kept"}, "KILL")
    assert (resources["Memory"], resources["CpuShares"]) == (128 << 20, 512)
    assert asked("POST", "/containers/odd/start")[0] == 204
    status, answer = asked("POST", "/containers/odd/update", {"memory": 64 << 20, "memoryswap": -1})
    assert status == 200, answer
    assert asked("GET", "/containers/odd/json")[1]["HostConfig"]["Memory"] == 64 << 20
    status, session = asked("POST", "/containers/odd/exec", {"CMD": ["true"], "attachstdout": True})
    assert status == 201, session
    assert asked("POST", f"/exec/{session['Id']}/start", {"detach": True})[0] == 200
    status, answer = asked("POST", "/commit?container=odd&repo=odd", {"workingdir": "/x"})
    assert status == 201, answer
    assert asked("GET", "/images/odd/json")[1]["Config"]["WorkingDir"] == "/x"
    status, answer = asked("POST", "/volumes/create", {"name": "oddly", "labels": {"A": "b"}})
    assert (status, answer["Name"], answer["Labels"]) == (201, "oddly", {"A": "b"})
    asked("DELETE", "/volumes/oddly")
    status, answer = asked("POST", "/networks/create", {"name": "oddnet", "internal": True})
    assert status == 201, answer
    assert asked("GET", "/networks/oddnet")[1]["Internal"]
    change: dict[str, Any] = {"container": "odd", "endpointconfig": {"aliases": ["Other"]}}
    assert asked("POST", "/networks/oddnet/connect", change)[0] == 200
    networks = asked("GET", "/containers/odd/json")[1]["NetworkSettings"]["Networks"]
    assert "Other" in networks["oddnet"]["Aliases"]
    change = {"CONTAINER": "odd", "force": True}
    assert asked("POST", "/networks/oddnet/disconnect", change)[0] == 200
    asked("DELETE", "/networks/oddnet")


def test_a_body_that_a_page_can_send_is_none(asked: Asked) -> None:
    """A form or a text goes from a browser's page to any server, and nobody asks that."""
    document = json.dumps({**SLEEP, "HostConfig": {"Privileged": True}}).encode()
    for kind in (
        "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
        "application/jsonp", "text/json", ";",
    ):  # fmt: skip
        status, answer = asked("POST", "/containers/create?name=odd", document, Content_Type=kind)
        assert (status, "Content-Type" in answer["message"]) == (400, True), (kind, answer)
    assert asked("GET", "/containers/odd/json")[0] == 404
    kind = "Application/JSON; charset=utf-8"
    status, answer = asked("POST", "/containers/create?name=odd", document, Content_Type=kind)
    assert status == 201, answer


def test_what_inspect_shows_of_what_was_asked(asked: Asked) -> None:
    resources = {"CapAdd": ["NET_ADMIN", "sys_time"], "CapDrop": ["CAP_CHOWN"], "PidsLimit": -2}
    asked.made("odd", {**SLEEP, "HostConfig": resources})
    found = asked("GET", "/containers/odd/json")[1]["HostConfig"]
    assert (found["CapAdd"], found["CapDrop"]) == (["NET_ADMIN", "sys_time"], ["CAP_CHOWN"])
    assert found["PidsLimit"] is None
    asked("POST", "/containers/odd/start")
    asked("POST", "/containers/odd/update", {"PidsLimit": 50})
    assert asked("POST", "/v1.24/containers/odd/update", {"PidsLimit": 77})[0] == 200
    assert asked("GET", "/containers/odd/json")[1]["HostConfig"]["PidsLimit"] == 50
    assert asked("POST", "/containers/odd/update", {"PidsLimit": -2})[0] == 200
    assert asked("GET", "/containers/odd/json")[1]["HostConfig"]["PidsLimit"] == 0


def test_refusals(asked: Asked) -> None:
    asked.made("odd", SLEEP)
    asked("POST", "/containers/odd/start")
    mount = {"Type": "volume", "Source": "oddly", "Target": "/v",
             "VolumeOptions": {"DriverConfig": {"Name": "nodriver"}}}  # fmt: skip
    plugin = 'error looking up volume plugin nodriver: plugin "nodriver" not found'
    found = "was found but does not"
    body = b'{"Binds": []}'
    for method, target, document, status, words in (
        ("POST", "/containers/odd/kill?signal=SIG42", None, 400, "nvalid signal: SIG42"),
        ("POST", "/containers/odd/kill?signal=SIG9", None, 400, "nvalid signal: SIG9"),
        ("POST", "/containers/odd/kill?signal=RTMIN%2B0", None, 400, "nvalid signal: RTMIN+0"),
        ("GET", "/containers/odd/top?ps_args=--invalid", None, 500, "unknown gnu long option"),
        ("GET", "/containers/odd/top?ps_args=-o%20user", None, 500, "Couldn't find PID field"),
        ("POST", "/containers/create", {**SLEEP, "HostConfig": {"Mounts": [mount]}}, 404, plugin),
        ("POST", "/containers/create",
         {**SLEEP, "HostConfig": {"Binds": ["oddly:/v"], "VolumeDriver": "nodriver"}}, 404, plugin),
        ("POST", "/volumes/create", {"Name": "oddly", "Driver": "nodriver"}, 404, plugin),
        ("POST", "/containers/create?platform=foo/amd64", SLEEP, 404, found),
        ("POST", "/containers/create?platform=a/b/c/d", SLEEP, 400, "cannot parse platform"),
        ("POST", "/containers/create", {"HostConfig": {}}, 400, "onfig cannot be empty"),
        ("POST", "/containers/odd/start", body, 400, "non-empty request body"),
        ("GET", "/containers/json?filters=[1]", None, None, ""),
        ("GET", '/containers/json?filters={"status":{"running":1}}', None, None, ""),
        ("GET", '/containers/json?filters={"status":"running"}', None, None, ""),
    ):  # fmt: skip
        answer_status, answer = asked(method, target, document)
        if status is None:  # 500 there
            assert answer_status in {400, 500}, (target, answer)
        else:
            assert answer_status == status, (target, answer)
            assert words in answer["message"], (target, answer)
    assert asked("GET", "/containers/odd/json")[1]["State"]["Running"], "something was sent to it"
    assert asked("GET", "/volumes/oddly")[0] == 404


def test_filters(asked: Asked) -> None:
    asked.made("odd", SLEEP)
    asked("POST", "/containers/odd/start")

    def got(path: str, filters: str, method: str = "GET") -> Any:
        status, answer = asked(method, f"{path}?filters={urllib.parse.quote(filters)}")
        assert status == 200, (path, filters, answer)
        return answer

    for filters in ("null", "{}", '{"status":null}', '{"name":{"odd":true}}', '{"name":["odd"]}'):
        assert ["/odd"] in [one["Names"] for one in got("/containers/json", filters)], filters
    for path in ("/images/json", "/networks", "/volumes"):
        assert got(path, "null")
    for kind in ("containers", "networks", "images"):
        got(f"/{kind}/prune", '{"until":["2001-01-01"]}', "POST")
        got(f"/{kind}/prune", '{"until":["2001-01-01","2001-01-01"]}', "POST")
        twice = urllib.parse.quote('{"until":["1h","2h"]}')
        status, answer = asked("POST", f"/{kind}/prune?filters={twice}")
        assert (status in {400, 500}, "more than one until" in answer["message"]) == (True, True)
    # What docker's command line asks of all that ``system prune`` is about.
    got("/build/prune", '{"label":["odd"],"label!":["odder"]}', "POST")
    for values in ("[]", "{}", "null", '{"x":false}', '["x"]'):
        odd = urllib.parse.quote(f'{{"odd":{values}}}')
        for kind, list_ in (
            ("containers", "/containers/json"), ("networks", "/networks"),
            ("images", "/images/json"), ("volumes", "/volumes"),
        ):  # fmt: skip
            for method, path in (("POST", f"/{kind}/prune"), ("GET", list_)):
                status, answer = asked(method, f"{path}?filters={odd}")
                assert (status, answer["message"]) == (400, "invalid filter 'odd'"), (path, values)
    for pattern, fits in (("busybox", True), ("busy*", True), ("library/busybox", False)):
        found = got("/images/json", json.dumps({"reference": [pattern]}))
        assert bool(found) is fits, pattern


def test_a_start_that_fails_is_an_end_to_those_who_wait(asked: Asked) -> None:
    for removed, odd, code in (
        (True, {"Cmd": ["/nosuch"]}, 127), (False, {"Cmd": ["/nosuch"]}, 127),
        (False, {"Cmd": ["true"], "User": "nosuch"}, 128),
    ):  # fmt: skip
        name = asked.made("odd", {"Image": "busybox", **odd, "HostConfig": {"AutoRemove": removed}})
        with concurrent.futures.ThreadPoolExecutor() as threads:
            waits = [
                threads.submit(asked, "POST", f"/containers/{name}/wait?condition={condition}")
                for condition in ("removed", "next-exit")
            ]
            time.sleep(0.5)
            assert asked("POST", f"/containers/{name}/start")[0] in {400, 404, 500}
            if not removed:
                status, answer = asked("POST", f"/containers/{name}/wait")
                assert (status, answer["StatusCode"]) == (200, code)
                assert "nosuch" in answer["Error"]["Message"]
                asked("DELETE", f"/containers/{name}")
            for wait in waits:
                assert wait.result(20)[1]["StatusCode"] == code


def test_changes_of_a_commit_name_the_variables_of_the_container(asked: Asked) -> None:
    name = asked.made("odd", {**SLEEP, "Env": ["A=one"]})
    changes = ["ENV B=$A-two", "LABEL l=${A:-x}", "WORKDIR /x/$A", "ENV C='$A'", 'USER ""']
    query = "&".join(f"changes={urllib.parse.quote(change)}" for change in changes)
    status, made = asked("POST", f"/commit?container={name}&{query}", {})
    assert status == 201, made
    config = asked("GET", f"/images/{made['Id']}/json")[1]["Config"]
    assert {"B=one-two", "C=$A"} <= {*config["Env"]}
    assert (config["Labels"]["l"], config["WorkingDir"]) == ("one", "/x/one")
    asked("DELETE", f"/images/{made['Id']}")


def test_an_archive_whose_names_go_up_and_come_back(asked: Asked) -> None:
    name = asked.made("odd", SLEEP)
    for path, member_name, status in (
        ("/", b"../../up", 200), ("/tmp", b"../tmp/back", 200), ("/tmp", b"../../out", None),
        ("/tmp", b"../tmpo", None),
    ):  # fmt: skip
        content = archive(member(member_name, data=b"x"))
        found = asked("PUT", f"/containers/{name}/archive?path={path}", content)[0]
        assert found == status if status else found in {400, 500}, member_name
    for path, status in (("/up", 200), ("/tmp/back", 200), ("/out", 404), ("/tmpo", 404)):
        assert asked("HEAD", f"/containers/{name}/archive?path={path}")[0] == status, path


def test_credentials_that_are_none(asked: Asked) -> None:
    for text in ("empty", "bnVsbA==", "W10=", "e30=", "eyJ1c2VybmFtZSI6M30=", "\u00e9"):
        target = "/images/create?fromImage=127.0.0.1:1/x&tag=y"
        status, answer = asked("POST", target, X_Registry_Auth=text.encode().decode("latin-1"))
        assert (status, "X-Registry-Auth" in answer["message"]) in {(500, False), (503, False)}
        # Who builds goes on likewise, to a context that is nowhere.
        shown = {"X_Registry_Config": text.encode().decode("latin-1")}
        assert asked("POST", "/build?remote=http://127.0.0.1:1/x", **shown)[0] == 500


def test_older_versions(asked: Asked) -> None:
    asked.made("odd", {**SLEEP, "HostConfig": {"AutoRemove": True}}, "/v1.39")
    found = asked("GET", "/containers/odd/json")[1]["HostConfig"]
    assert (found["IpcMode"], found["AutoRemove"]) == ("shareable", True)
    nested = {"Type": "bind", "Source": "/dev", "Target": "/mnt", "ReadOnly": True}
    for resources in ({"Binds": ["/dev:/mnt:ro"]}, {"Mounts": [nested]}):
        asked.made("odd", {**SLEEP, "Cmd": ["cat", "/proc/self/mounts"], "HostConfig": resources},
                   "/v1.41")  # fmt: skip
        mounts = asked.engine.ok("start", "-a", "odd").splitlines()
        below = [line.split()[3] for line in mounts if " /mnt/" in line]
        assert below
        assert not any(options.startswith("ro,") for options in below), below
        assert next(line for line in mounts if " /mnt " in line).split()[3].startswith("ro,")
    asked.made("odd", {**SLEEP, "HostConfig": {"AutoRemove": True}}, "/v1.24")
    assert not asked("GET", "/containers/odd/json")[1]["HostConfig"]["AutoRemove"]
    wide: dict[str, Any] = {"NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "other": {}}}}
    status, answer = asked("POST", "/v1.41/containers/create", {**SLEEP, **wide})
    assert (status, "multiple network endpoints" in answer["message"].replace("cannot be connected "
            "to network endpoints", "multiple network endpoints")) == (400, True)  # fmt: skip
    image = asked("GET", "/v1.41/images/busybox/json")[1]
    assert image["ContainerConfig"]["Tty"] is False
    assert image["VirtualSize"] == image["Size"]


def test_newest_version(served_engine: Engine, ketch: Engine) -> None:
    """What dockerd 28 does, of which there is none here."""
    asked = Asked(served_engine)
    notes = {"a": "note"}
    asked.made("odd", {**SLEEP, "HostConfig": {"Annotations": notes, "Binds": ["/dev:/mnt:ro"]}})
    (new,) = asked("GET", "/v1.46/containers/json?all=1")[1]
    (old,) = asked("GET", "/v1.45/containers/json?all=1")[1]
    assert new["HostConfig"] == {"NetworkMode": "bridge", "Annotations": notes}
    assert old["HostConfig"] == {"NetworkMode": "bridge"}
    assert asked("GET", "/containers/odd/json")[1]["HostConfig"]["IpcMode"] == "private"
    for pattern, fits in (
        ("docker.io/library/busybox", True),
        ("docker.io/library/busybox:*", True),
        ("docker.io/busybox", False),
        ("docker.io/library/busy", False),
    ):
        filters = urllib.parse.quote(json.dumps({"reference": [pattern]}))
        assert bool(asked("GET", f"/images/json?filters={filters}")[1]) is fits, pattern
    two = urllib.parse.quote('{"until":["1h","2099-01-01"]}')
    assert asked("GET", f"/images/json?filters={two}") == (200, [])  # the earlier one counts
    two = urllib.parse.quote('{"until":["2098-01-01","2099-01-01"]}')
    assert asked("GET", f"/images/json?filters={two}")[1]
    status, answer = asked("POST", "/containers/odd/wait?condition=x")
    assert (status, answer["message"]) == (400, 'invalid condition: "x"')
    ketch.ok("rm", "-f", "odd")


def test_limits_of_block_devices_by_update(served_engine: Engine, ketch: Engine) -> None:
    asked = Asked(served_engine)
    asked.made("odd", SLEEP)
    try:
        asked("POST", "/containers/odd/start")
        nowhere = {"BlkioDeviceReadBps": [{"Path": "/nosuch", "Rate": 1 << 20}]}
        status, answer = asked("POST", "/containers/odd/update", nowhere)
        assert (status, "/nosuch" in answer["message"]) == (400, True), answer
        limit = [{"Path": "/dev/loop0", "Rate": 1 << 20}]
        if not pathlib.Path("/dev/loop0").is_block_device():
            pytest.skip("no block device to limit")
        status, answer = asked("POST", "/containers/odd/update", {"BlkioDeviceReadBps": limit})
        if status == 501:
            pytest.skip(f"this kernel has no such limit: {answer['message']}")
        assert (status, answer) == (200, {"Warnings": None})
        found = asked("GET", "/containers/odd/json")[1]
        assert found["HostConfig"]["BlkioDeviceReadBps"] == limit
        pid = found["State"]["Pid"]
        shown = [
            file.read_text(encoding="ascii")
            for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
            for mount, name in (("blkio", "blkio.throttle.read_bps_device"), ("", "io.max"))
            if (
                file := pathlib.Path("/sys/fs/cgroup", mount, line.split(":", 2)[2][1:], name)
            ).exists()
        ]
        assert any("7:0" in text and str(1 << 20) in text for text in shown), shown
    finally:
        ketch.ok("rm", "-f", "odd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"MemorySwappiness": -2}, "valid memory swappiness range is 0-100"),
        ({"IOMaximumBandwidth": 5}, "Invalid QoS settings"),
        ({"IOMaximumIOps": 5}, "Invalid QoS settings"),
    ],
)
def test_no_update(asked: Asked, changes: dict[str, int], words: str) -> None:
    asked.made("odd", SLEEP)
    status, answer = asked("POST", "/containers/odd/update", changes)
    assert (status, words in answer["message"]) == (400, True), answer
    assert asked("POST", "/containers/odd/update", {"MemorySwappiness": None})[0] == 200


def test_an_update_of_swappiness_is_on_record(served_engine: Engine, ketch: Engine) -> None:
    """And holds, where the kernel has it; dockerd forgets it."""
    asked = Asked(served_engine)
    asked.made("odd", SLEEP)
    try:
        status, answer = asked("POST", "/containers/odd/update", {"MemorySwappiness": 0})
        assert (status, answer) == (200, {"Warnings": None})
        resources = asked("GET", "/containers/odd/json")[1]["HostConfig"]
        assert resources["MemorySwappiness"] == 0
    finally:
        ketch.ok("rm", "-f", "odd")


def test_whether_a_network_is_used_is_asked_in_one_word(asked: Asked) -> None:
    def told(*values: str) -> tuple[int, Any]:
        filters = urllib.parse.quote(json.dumps({"dangling": values}))
        return asked("GET", f"/networks?filters={filters}")

    assert asked("POST", "/networks/create", {"Name": "oddnet"})[0] == 201
    try:
        for word, shown in (("true", {"oddnet"}), ("0", {"bridge"}), ("1", {"oddnet"})):
            status, found = told(word)
            names = {one["Name"] for one in found} & {"oddnet", "bridge"}
            assert (status, names) == (200, shown), word
        for words in (("true", "false"), ("1", "true"), ("x",)):
            assert told(*words)[0] == 400, words
    finally:
        asked("DELETE", "/networks/oddnet")


def test_a_hardware_address_is_shown_where_it_once_was(asked: Asked) -> None:
    address = "02:42:ac:11:00:77"
    assert asked("POST", "/networks/create", {"Name": "oddnet"})[0] == 201
    try:
        for version, mode in (("/v1.43", "bridge"), ("/v1.44", "oddnet")):
            document = {**SLEEP, "MacAddress": address, "HostConfig": {"NetworkMode": mode}}
            asked.made("odd", document, version)
            assert asked("GET", "/v1.43/containers/odd/json")[1]["Config"]["MacAddress"] == address
        # Of another network than the mode's, or of none, nothing is said.
        elsewhere = {"oddnet": {"MacAddress": address}, "bridge": {}}
        asked.made("odd", {**SLEEP, "NetworkingConfig": {"EndpointsConfig": elsewhere}}, "/v1.44")
        assert not asked("GET", "/v1.43/containers/odd/json")[1]["Config"].get("MacAddress")
    finally:
        asked("DELETE", "/containers/odd?force=1")
        asked("DELETE", "/networks/oddnet")


@pytest.mark.parametrize(
    ("resources", "status"),
    [
        ({"Links": ["nosuch:x"]}, 409),
        ({"VolumesFrom": ["nosuch"]}, 409),
        ({"Memory": 1}, 400),
    ],
)
def test_a_name_is_looked_at_before_what_it_is_for(
    asked: Asked, resources: dict[str, Any], status: int
) -> None:
    asked.made("odd", SLEEP)
    document = {**SLEEP, "HostConfig": resources}
    found, answer = asked("POST", "/containers/create?name=odd", document)
    assert (found, "Conflict" in answer["message"]) == (status, status == 409), answer
    found, answer = asked("POST", "/containers/create?name=odder", document)
    assert (found, "Conflict" in answer["message"]) == (found, False), answer
    assert found >= 400


def test_an_archive_that_is_not_where_it_is_said_to_be(
    served_engine: Engine, ketch: Engine, tmp_path: pathlib.Path
) -> None:
    """dockerd too gives the other server's 404 as its own."""
    (tmp_path / "here.tar").write_bytes(archive(member(b"x", data=b"x")))
    asked = Asked(served_engine)
    with _files(tmp_path) as address:
        status, answer = asked("POST", f"/images/create?fromSrc={address}/nowhere.tar&repo=odd")
        assert (status, "nowhere.tar" in answer["message"]) == (404, True), answer
        assert asked("GET", "/images/odd/json")[0] == 404
        status, answer = asked("POST", f"/images/create?fromSrc={address}/here.tar&repo=odd")
        assert status == 200, answer
        assert asked("GET", "/images/odd/json")[0] == 200
        ketch.ok("rmi", "odd")


@contextlib.contextmanager
def _files(directory: pathlib.Path) -> Iterator[str]:
    """Serve a directory's files by HTTP; give the server's address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_events_of_a_life(asked: Asked) -> None:
    name = asked.made("odd", SLEEP)
    for verb in ("start", "pause", "unpause", "stop?t=0", "start", "kill", "wait", "restart?t=0",
                 "rename?name=odder", "stop?t=0"):  # fmt: skip
        status, answer = asked("POST", f"/containers/{name}/{verb}")
        assert status in {200, 204}, (verb, answer)
    asked("DELETE", f"/containers/{name}")
    query = urllib.parse.urlencode({"since": 1, "until": f"{time.time():.3f}",
                                    "filters": json.dumps({"container": [name]})})  # fmt: skip
    connection = serving.Connection(asked.path)
    _, body = connection.ask("GET", f"/events?{query}")
    told = [json.loads(line) for line in body.splitlines()]
    actions = [one["Action"] for one in told if one["Type"] == "container"]
    assert {"kill", "die"} <= set(actions)
    assert [action for action in actions if action not in {"kill", "die"}] == [
        "create", "start", "pause", "unpause", "stop", "start", "start", "restart", "rename",
        "stop", "destroy",
    ]  # fmt: skip
    (unpaused,) = [one for one in told if one["Action"] == "unpause"]
    assert unpaused["Actor"]["ID"] == name
    assert unpaused["Actor"]["Attributes"]["name"] == "odd"


def test_conflicts(asked: Asked) -> None:
    asked.made("odd", {**SLEEP, "HostConfig": {"Binds": ["oddly:/v"]}})
    asked.made("odder", SLEEP)
    true = {"Cmd": ["true"]}

    def refused(method: str, target: str, document: object = None, status: int = 409) -> None:
        found, answer = asked(method, target, document)
        assert (found, bool(answer["message"])) == (status, True), (method, target, answer)

    refused("POST", "/containers/create?name=odd", SLEEP)
    refused("POST", "/containers/odder/rename?name=odd")
    refused("DELETE", "/volumes/oddly")
    refused("POST", "/containers/odd/exec", true)
    refused("POST", "/containers/odd/kill")
    refused("POST", "/containers/odd/pause")
    refused("GET", "/containers/odd/top")
    refused("POST", "/containers/odd/resize?h=1&w=1")
    asked("POST", "/containers/odd/start")
    refused("DELETE", "/containers/odd")
    refused("DELETE", "/images/busybox")
    _, session = asked("POST", "/containers/odd/exec", true)
    assert asked("POST", f"/exec/{session['Id']}/start", {"Detach": True})[0] == 200
    refused("POST", f"/exec/{session['Id']}/start", {"Detach": True})
    asked("POST", "/containers/odd/pause")
    refused("POST", "/containers/odd/pause")
    refused("POST", "/containers/odd/exec", true)
    refused("POST", "/containers/odd/attach?stream=1&stdout=1")
    asked("POST", "/containers/odd/unpause")
    asked("DELETE", "/containers/odd?force=1")
    asked("DELETE", "/volumes/oddly")


class Attached:
    """A client attached to a container with a terminal, by the raw protocol."""

    def __init__(self, path: pathlib.Path, query: str, exec_: str = "") -> None:
        self.socket = sockets.socket(sockets.AF_UNIX)
        self.socket.settimeout(15)
        self.socket.connect(str(path))
        target, body = f"/containers/odd/attach?stream=1&stdin=1&stdout=1&{query}", ""
        if exec_:
            target, body = f"/exec/{exec_}/start", '{"Tty": true}'
        self.socket.sendall(
            f"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        self.await_text(b"\r\n\r\n")

    def await_text(self, text: bytes) -> None:
        got = b""
        while text not in got:
            data = self.socket.recv(4096)
            assert data, got
            got += data

    def has_ended(self) -> bool:
        """Return whether the server ends the session, within a second."""
        self.socket.settimeout(1)
        try:
            while self.socket.recv(4096):
                pass
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(15)
        return True


def test_keys_that_detach(asked: Asked) -> None:
    script = "echo up; while read line; do echo got $line; done"
    document = {"Image": "busybox", "Cmd": ["sh", "-c", script], "Tty": True, "OpenStdin": True}
    asked.made("odd", document)
    asked("POST", "/containers/odd/start")
    for query, sent in (
        ("", b"\x10\x11"),  # ctrl-p,ctrl-q
        ("detachKeys=ctrl-a", b"\x01"),
        ("detachKeys=x,y,ctrl-b", b"xy\x02"),
    ):
        attached = Attached(asked.path, query)
        attached.socket.sendall(b"one\n")
        attached.await_text(b"got one")
        attached.socket.sendall(sent[:-1] + b"Z\n")  # not the whole sequence
        attached.await_text(b"Z")
        attached.socket.sendall(sent)
        assert attached.has_ended(), query
        attached.socket.close()
        assert asked("GET", "/containers/odd/json")[1]["State"]["Running"]
    attached = Attached(asked.path, "detachKeys=ctrl-a")
    attached.socket.sendall(b"\x10\x11two\n")  # the default means nothing any more
    attached.await_text(b"two")
    attached.socket.close()
    status, answer = asked("POST", "/containers/odd/attach?stream=1&detachKeys=nothing")
    assert (status, "detach keys" in answer["message"]) == (400, True)


def test_keys_that_detach_from_an_exec_are_those_that_it_was_made_with(asked: Asked) -> None:
    asked.made("odd", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
    asked("POST", "/containers/odd/start")
    script = "while read line; do echo got $line; done"
    for keys, sent in (("", b"\x10\x11"), ("ctrl-a,z", b"\x01z")):
        document = {"Cmd": ["sh", "-c", script], "AttachStdin": True, "AttachStdout": True,
                    "Tty": True, "DetachKeys": keys}  # fmt: skip
        status, made = asked("POST", "/containers/odd/exec", document)
        assert status == 201, made
        attached = Attached(asked.path, "", made["Id"])
        attached.socket.sendall(b"one\n")
        attached.await_text(b"got one")
        attached.socket.sendall(sent[:-1] + b"Z\n")  # not the whole sequence
        attached.await_text(b"Z")
        attached.socket.sendall(sent)
        assert attached.has_ended(), keys
        attached.socket.close()
    document = {"Cmd": ["true"], "Tty": True, "DetachKeys": "nothing"}
    status, _ = asked("POST", "/containers/odd/exec", document)
    assert status in {400, 500}  # dockerd takes it for a mistake of its own


def test_keys_that_detach_mean_nothing_without_a_terminal(asked: Asked) -> None:
    asked.made("odd", {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True})
    asked("POST", "/containers/odd/start")
    attached = Attached(asked.path, "detachKeys=ctrl-a")
    attached.socket.sendall(b"a\x01b\n")
    attached.await_text(b"a\x01b\n")
    attached.socket.close()
