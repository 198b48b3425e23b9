"""Answers are of the form that the API's description gives them, and of dockerd's."""

import json
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import images, openapi, serving
from tests.support.commands import Engine

Ask = Callable[..., tuple[int, bytes]]


@pytest.fixture(scope="module")
def description() -> openapi.Description:
    return openapi.Description()


@pytest.fixture
def running(ketch: Engine) -> Iterator[str]:
    identifier = ketch.ok("run", "-d", "--name", "api-there", "-p", "127.0.0.1::80", "-v",
                          "api-answers:/data", "busybox", "sleep", "100")  # fmt: skip
    yield identifier
    ketch.ok("rm", "-f", "-v", identifier)
    ketch.ok("volume", "rm", "api-answers")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/containers/json", "/containers/json?all=1&size=1"),
        ("/containers/{id}/json", "/containers/api-there/json?size=1"),
        ("/containers/{id}/top", "/containers/api-there/top"),
        ("/containers/{id}/stats", "/containers/api-there/stats?stream=0&one-shot=1"),
        ("/containers/{id}/changes", "/containers/api-there/changes"),
        ("/images/json", "/images/json"),
        ("/images/{name}/json", "/images/busybox/json"),
        ("/images/{name}/history", "/images/busybox/history"),
        ("/networks", "/networks"),
        ("/networks/{id}", "/networks/bridge"),
        ("/volumes", "/volumes"),
        ("/volumes/{name}", "/volumes/api-answers"),
        ("/info", "/info"),
        ("/version", "/version"),
        ("/system/df", "/system/df"),
    ],
)
def test_answers_fit_the_description(
    description: openapi.Description, running: str, ask: Ask, path: str, target: str
) -> None:
    status, body = ask("GET", target)
    assert status == 200, body
    description.check("get", path, status, json.loads(body))


def test_an_exec_session(description: openapi.Description, running: str, ask: Ask) -> None:
    config = json.dumps({"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True}).encode()
    status, body = ask("POST", "/containers/api-there/exec", config)
    assert status == 201
    session = json.loads(body)["Id"]
    status, body = ask("GET", f"/exec/{session}/json")
    description.check("get", "/exec/{id}/json", status, json.loads(body))
    assert ask("POST", f"/exec/{session}/start", b'{"Detach":true}')[0] == 200
    deadline = time.monotonic() + 10
    while (found := json.loads(ask("GET", f"/exec/{session}/json")[1]))["Running"] or (
        found["ExitCode"] is None
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert found["ExitCode"] == 3
    assert ask("POST", f"/exec/{session}/start", b"{}")[0] == 409
    assert ask("POST", "/exec/nothing/start", b"{}")[0] == 404


# What both must answer alike: method, target, body, status, words of the message.
ALIKE: list[tuple[str, str, dict[str, Any] | None, int, str]] = [
    ("GET", "/containers/nobody/json", None, 404, "No such container: nobody"),
    ("POST", "/containers/nobody/start", None, 404, "No such container: nobody"),
    ("POST", "/containers/nobody/wait", None, 404, "No such container: nobody"),
    ("DELETE", "/containers/nobody", None, 404, "No such container: nobody"),
    ("POST", "/containers/create", {}, 400, "config cannot be empty in order to create a"),
    ("POST", "/containers/create", {"Image": "no-such"}, 404, "No such image: no-such:latest"),
    ("POST", "/containers/create?name=x", {"Image": "busybox", "Cmd": ["x"]}, 400, "[a-zA-Z0-9]"),
    ("GET", "/images/no-such/json", None, 404, "No such image: no-such:latest"),
    ("GET", "/networks/no-such", None, 404, "network no-such not found"),
    ("GET", "/volumes/no-such", None, 404, "get no-such: no such volume"),
    ("DELETE", "/volumes/no-such", None, 404, "get no-such: no such volume"),
    ("POST", "/exec/no-such/start", {}, 404, "No such exec instance: no-such"),
    ("GET", "/swarm", None, 503, "This node is not a swarm manager."),
    ("GET", "/services", None, 503, "This node is not a swarm manager."),
    ("POST", "/swarm/leave", None, 503, "This node is not part of a swarm"),
    ("GET", "/no-such", None, 404, "page not found"),
    ("GET", "/v1.99/info", None, 400, "is too new. Maximum supported API version is"),
]


@pytest.mark.parametrize("who", ["served", "docker"])
def test_refusals_as_dockerd_words_them(request: pytest.FixtureRequest, who: str) -> None:
    engine: Engine = request.getfixturevalue(f"{who}_engine")
    connection = serving.Connection(pathlib.Path(engine.prefix[2].removeprefix("unix://")))
    wrong = []
    for method, target, document, status, words in ALIKE:
        body = None if document is None else json.dumps(document).encode()
        found, answer = connection.ask(method, target, body, Content_Type="application/json")
        if found != status or words not in json.loads(answer)["message"]:
            wrong.append((method, target, found, answer))
    assert not wrong


def test_an_exec_keeps_its_pid_after_its_end(running: str, ask: Ask) -> None:
    body = json.dumps({"Cmd": ["sh", "-c", "exit 3"]}).encode()
    _, answer = ask("POST", f"/containers/{running}/exec", body, Content_Type="application/json")
    name = json.loads(answer)["Id"]
    assert json.loads(ask("GET", f"/exec/{name}/json")[1])["Pid"] == 0
    ask("POST", f"/exec/{name}/start", b'{"Detach":true}', Content_Type="application/json")
    deadline = time.monotonic() + 15
    while (found := json.loads(ask("GET", f"/exec/{name}/json")[1]))["ExitCode"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (found["ExitCode"], found["Running"]) == (3, False)
    assert found["Pid"] > 0


def test_what_is_hidden_is_told_before_the_first_start(ketch: Engine) -> None:
    shown = "{{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}}"
    told = {}
    for name, options in (
        ("usual", []), ("all", ["--privileged"]),
        ("open", ["--security-opt", "systempaths=unconfined"]),
    ):  # fmt: skip
        ketch.ok("create", "--name", name, *options, "busybox", "true")
        before = ketch.ok("inspect", "--format", shown, name)
        ketch.ok("start", "-a", name)
        assert ketch.ok("inspect", "--format", shown, name) == before
        told[name] = before
        ketch.ok("rm", name)
    assert told["usual"].startswith('["/proc/asound",')
    assert (told["all"], told["open"]) == ("null null", "[] []")


def test_info_knows_how_layers_are_stacked_and_whether_swap_is_limited(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    root = str(tmp_path / "root")
    copies = Engine("ketch", [ketch.prefix[0], "--root", root, "--state", f"{tmp_path}/state",
                              "--storage-driver", "vfs"])  # fmt: skip
    copies.ok("import", str(images.busybox_archive()), "busybox")
    again = Engine("ketch", [ketch.prefix[0], "--root", root, "--state", f"{tmp_path}/state"])
    told = json.loads(again.ok("info", "--format", "{{json .}}"))
    assert (told["Driver"], told["DriverStatus"]) == ("vfs", [])
    told = json.loads(ketch.ok("info", "--format", "{{json .}}"))
    assert told["Driver"] == json.loads(
        ketch.ok("image", "inspect", "--format", "{{json .GraphDriver.Name}}", "busybox")
    )
    assert ["Supports d_type", "true"] in told["DriverStatus"]
    v1 = pathlib.Path("/sys/fs/cgroup/memory")
    if v1.is_dir():
        there = (v1 / "memory.memsw.limit_in_bytes").exists()
    else:
        there = any(pathlib.Path("/sys/fs/cgroup").glob("*/memory.swap.max"))
    # Where a user has no control groups, nothing is limited.
    assert told["SwapLimit"] is (there and told["CgroupDriver"] != "none")


def test_what_an_image_does_not_say_is_empty_to_a_template(engine: Engine) -> None:
    form = (
        "[{{.Variant}}] [{{.Config.User}}] {{.Config.Env}} {{len .Config.Cmd}} {{.Config.Labels}}"
    )
    found = engine.ok("image", "inspect", "--format", form, "busybox")
    assert found.replace("map[]", "{}") in {"[] [] [] 0 {}", "[] [] [] 1 {}"}, found
    wrong = engine("image", "inspect", "--format", "{{.Config.Nothing}}", "busybox")
    assert wrong.status == 1
