"""Networks as API clients ask for them: what they are called by, and who is connected."""

import json
import pathlib
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from tests.support import serving
from tests.support.commands import Engine


class Api:
    """An engine and its API."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._socket = pathlib.Path(engine.prefix[2].removeprefix("unix://"))

    def __call__(self, method: str, target: str, **document: Any) -> tuple[int, Any]:
        """Return an answer's status, and what it says."""
        connection = serving.Connection(self._socket)
        body = json.dumps(document).encode() if document else None
        status, answer = connection.ask(method, target, body, Content_Type="application/json")
        return status, json.loads(answer) if answer.strip() else None


@pytest.fixture(params=["served", "docker"])
def api(request: pytest.FixtureRequest) -> Api:
    """Return ketch's API, then dockerd's."""
    return Api(request.getfixturevalue(f"{request.param}_engine"))


@pytest.fixture
def network(api: Api) -> Iterator[str]:
    """Return the identifier of a network ``mixed`` with addresses of its own."""
    found = api.engine.ok("network", "create", "--subnet", "10.213.9.0/24", "mixed")
    yield found
    api.engine.ok("network", "rm", "mixed")


def test_settings_count_by_whatever_name_a_network_is_called(api: Api, network: str) -> None:
    called = ("mixed", network, network[:12])
    for number, (mode, key) in enumerate(product(called, called)):
        settings = {
            "Aliases": ["other"],
            "IPAMConfig": {"IPv4Address": f"10.213.9.{number + 10}"},
            "MacAddress": f"02:00:00:00:00:{number:02x}",
        }
        status, made = api(
            "POST", "/containers/create", Image="busybox", Cmd=["sleep", "60"],
            HostConfig={"NetworkMode": mode},
            NetworkingConfig={"EndpointsConfig": {key: settings}},
        )  # fmt: skip
        assert status == 201, made
        try:
            assert api("POST", f"/containers/{made['Id']}/start")[0] == 204
            _, shown = api("GET", f"/containers/{made['Id']}/json")
            # At times dockerd writes out the start of an identifier.
            assert shown["HostConfig"]["NetworkMode"] in {mode, network}
            found = shown["NetworkSettings"]["Networks"]["mixed"]
            assert found["IPAddress"] == f"10.213.9.{number + 10}", (mode, key)
            assert "other" in found["Aliases"]
            assert found["MacAddress"] == settings["MacAddress"]
        finally:
            api("DELETE", f"/containers/{made['Id']}?force=1")


def test_what_contradicts_itself_by_two_names_is_refused(
    ketch: Engine, served_engine: Engine
) -> None:
    api = Api(served_engine)
    network = ketch.ok("network", "create", "mixed")
    try:
        asked = {name: {"MacAddress": f"02:00:00:00:00:0{number}"}
                 for number, name in enumerate(("mixed", network))}  # fmt: skip
        status, answer = api(
            "POST", "/containers/create", Image="busybox", Cmd=["true"],
            HostConfig={"NetworkMode": "mixed"}, NetworkingConfig={"EndpointsConfig": asked},
        )  # fmt: skip
        assert status == 400
        assert "MacAddress is given twice" in answer["message"]
    finally:
        ketch.ok("network", "rm", "mixed")


def test_a_network_that_is_listed_is_the_only_one(api: Api, network: str) -> None:
    """Clients that give no mode, and those that give the default one, want no way out besides."""
    for mode in ({}, {"NetworkMode": "bridge"}):
        status, made = api(
            "POST", "/containers/create", Image="busybox", Cmd=["sleep", "60"], HostConfig=mode,
            NetworkingConfig={"EndpointsConfig": {network: {"MacAddress": "02-00-00-00-00-01"}}},
        )  # fmt: skip
        assert status == 201, made
        try:
            assert api("POST", f"/containers/{made['Id']}/start")[0] == 204
            _, shown = api("GET", f"/containers/{made['Id']}/json")
            (found,) = shown["NetworkSettings"]["Networks"].values()
            assert found["NetworkID"] == network
            assert found["MacAddress"] == "02:00:00:00:00:01"
        finally:
            api.engine.ok("rm", "-f", made["Id"])


def test_connecting_once_more(api: Api, network: str) -> None:
    container = api.engine.ok("create", "busybox", "sleep", "60")
    try:
        asked = {"Aliases": ["other"], "MacAddress": "02:00:00:00:01:01"}
        for _ in range(2):
            answer = api("POST", f"/networks/{network}/connect", Container=container,
                         EndpointConfig=asked)  # fmt: skip
            assert answer == (200, None)
        _, shown = api("GET", f"/containers/{container}/json")
        assert shown["NetworkSettings"]["Networks"]["mixed"]["MacAddress"] == "02:00:00:00:01:01"
        api.engine.ok("start", container)
        status, answer = api("POST", f"/networks/{network}/connect", Container=container)
        assert status == 403
        assert "already exists in network mixed" in answer["message"]
    finally:
        api.engine.ok("rm", "-f", container)


def test_names_that_are_hardly_names(api: Api) -> None:
    for name in ("sp ace", "-x", "a/b", "ü€"):
        status, made = api("POST", "/networks/create", Name=name)
        assert status == 201, made
        status, listed = api("GET", "/networks/")
        assert status == 200
        assert name in [one["Name"] for one in listed]
        out = api.engine.ok("run", "--rm", "--network", name, "busybox", "hostname", "-i")
        assert out.count(".") == 3
        assert api("DELETE", f"/networks/{made['Id']}")[0] == 204
    assert api("POST", "/networks/create", Name="  ")[0] in {400, 500}


def test_containers_that_are_not_there_are_refused_at_once(api: Api) -> None:
    for asked in ({"IpcMode": "container:gone"}, {"PidMode": "container:gone"},
                  {"Links": ["gone:db"]}, {"VolumesFrom": ["gone"]}):  # fmt: skip
        status, answer = api(
            "POST", "/containers/create", Image="busybox", Cmd=["true"], HostConfig=asked
        )
        assert (status, "No such container: gone" in answer["message"]) == (400, True)


def test_links_in_paths_and_lists(api: Api) -> None:
    db = api.engine.ok("run", "-d", "--name", "l1", "busybox", "sleep", "60")
    try:
        asked = {"Links": ["/l1:/any/al"]}  # as inspect shows it, and recreation sends it
        status, _ = api("POST", "/containers/create?name=l2", Image="busybox", Cmd=["sleep", "60"],
                        HostConfig=asked)  # fmt: skip
        assert status == 201
        _, listed = api("GET", "/containers/json")
        assert [one["Names"] for one in listed if one["Id"] == db] == [["/l1", "/l2/al"]]
        _, shown = api("GET", "/containers/l2/json")
        assert shown["HostConfig"]["Links"] == ["/l1:/l2/al"]
        for path in ("/containers/l2/al/json", "/containers/l2%2Fal/json"):
            assert api("GET", path)[1]["Id"] == db
        assert api("GET", "/containers/l2/al/top")[0] == 200
        assert api("POST", "/containers/l2/al/stop?t=0")[0] == 204
        assert api("GET", "/containers/l2/no/json")[0] == 404
        assert api("DELETE", "/containers/l2/al?link=1") == (204, None)
        assert api("GET", "/containers/l2/al/json")[0] == 404
    finally:
        api.engine.ok("rm", "-f", "l1", "l2")


def test_networks_that_exclude_each_other(api: Api, network: str) -> None:
    """Refused as what was asked for wrongly, not as a conflict that may pass."""
    made = {
        mode: api.engine.ok("run", "-d", "--network", mode, "busybox", "sleep", "60")
        for mode in ("host", "none", "bridge")
    }
    made["shared"] = api.engine.ok(
        "run", "-d", "--network", f"container:{made['bridge']}", "busybox", "sleep", "60"
    )
    shared = "container sharing network namespace with another container or host cannot be"
    try:
        for mode, name, words in (
            ("shared", "mixed", shared),
            ("shared", "host", shared),
            ("none", "mixed", "with one of the networks in private (none) mode"),
            ("bridge", "host", "container cannot be disconnected from host network or connected"),
            ("bridge", "none", "with one of the networks in private (none) mode"),
        ):
            status, answer = api("POST", f"/networks/{name}/connect", Container=made[mode])
            assert (status, words in answer["message"]) == (400, True), (mode, name, answer)
        status, answer = api("POST", "/networks/host/disconnect", Container=made["host"])
        assert (status, "disconnected from host network" in answer["message"]) == (400, True)
        status, answer = api("POST", "/networks/mixed/disconnect", Container=made["bridge"])
        assert status in {404, 500}  # what is not there is not the server's failure
        assert "is not connected to" in answer["message"]
        assert "network mixed" in answer["message"]
    finally:
        api.engine.ok("rm", "-f", *reversed(made.values()))


def test_links_that_are_none(api: Api, network: str) -> None:
    """dockerd gives its own failure for some, and finds others out when the container starts."""
    db = api.engine.ok("create", "--name", "l1", "busybox", "true")
    try:
        for text in ("", "l1::x", "l1:a:b", ":x"):
            status, answer = api("POST", "/containers/create", Image="busybox", Cmd=["true"],
                                 HostConfig={"Links": [text]})  # fmt: skip
            assert status in {400, 500}, (text, answer)
            if api.engine.name == "served":
                assert status == 400
                status, answer = api(
                    "POST", f"/networks/{network}/connect", Container=db,
                    EndpointConfig={"Links": [text]},
                )  # fmt: skip
                assert status == 400, (text, answer)
    finally:
        api.engine.ok("rm", "-f", db)
