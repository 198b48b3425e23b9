"""The same requests to ``ketch serve`` and to dockerd are answered in the same form."""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from tests.support import alike, openapi, serving
from tests.support.commands import Engine

# As the oldest of both knows it, so that both answer in the same version.
VERSION = "/v1.45"
RUNNING = {
    "Image": "busybox",
    "Cmd": ["sleep", "100"],
    "Labels": {"a": "b"},
    "Healthcheck": {"Test": ["CMD", "true"]},
    "HostConfig": {
        "Binds": ["alike:/data"],
        "Memory": 64 << 20,
        "NetworkMode": "alike",
        "RestartPolicy": {"Name": "always"},
    },
    "NetworkingConfig": {"EndpointsConfig": {"alike": {"Aliases": ["other"]}}},
}
Steps = list[tuple[str, str, dict[str, Any] | None]]
STEPS: Steps = [
    ("POST", "/volumes/create", {"Name": "alike", "Labels": {"a": "b"}}),
    ("GET", "/volumes/alike", None),
    ("GET", "/volumes", None),
    ("POST", "/networks/create", {"Name": "alike", "CheckDuplicate": True}),
    ("POST", "/networks/create", {"Name": "alike", "CheckDuplicate": True}),
    ("GET", "/networks", None),
    ("POST", "/containers/create?name=alike", RUNNING),
    ("POST", "/containers/create?name=alike", RUNNING),
    ("POST", "/containers/create", {"Env": []}),
    ("GET", "/containers/alike/json", None),
    ("POST", "/containers/alike/start", None),
    ("POST", "/containers/alike/start", None),
    ("GET", "/containers/alike/json?size=1", None),
    ("GET", "/containers/json?size=1", None),
    ("GET", "/networks/alike", None),
    ("DELETE", "/networks/alike", None),
    ("DELETE", "/volumes/alike", None),
    ("DELETE", "/containers/alike", None),
    ("GET", "/containers/alike/top", None),
    ("GET", "/containers/alike/top?ps_args=aux", None),
    ("GET", "/containers/alike/stats?stream=0&one-shot=1", None),
    ("HEAD", "/containers/alike/archive?path=/etc/passwd", None),
    ("GET", "/containers/alike/archive?path=/nothing", None),
    ("POST", "/containers/alike/exec", {"Cmd": ["true"], "AttachStdout": True}),
    ("POST", "/containers/alike/exec", {}),
    ("POST", "/containers/alike/update", {"Memory": 96 << 20, "MemorySwap": -1}),
    ("POST", "/containers/alike/update", {"Memory": 1}),
    ("POST", "/containers/alike/resize?h=10&w=10", None),
    ("POST", "/containers/alike/rename?name=alike", None),
    ("POST", "/containers/alike/rename?name=alike-2", None),
    ("POST", "/containers/alike-2/rename?name=alike", None),
    ("POST", "/containers/alike/pause", None),
    ("POST", "/containers/alike/pause", None),
    ("POST", "/containers/alike/exec", {"Cmd": ["true"]}),
    ("POST", "/containers/alike/unpause", None),
    ("POST", "/containers/alike/kill?signal=NONE", None),
    ("POST", "/containers/alike/kill?signal=WINCH", None),
    ("POST", "/networks/bridge/connect", {"Container": "alike"}),
    ("POST", "/networks/bridge/disconnect", {"Container": "alike"}),
    ("POST", "/networks/bridge/connect", {"Container": "nobody"}),
    ("POST", "/containers/alike/restart?t=0", None),
    ("POST", "/containers/alike/stop?t=0", None),
    ("POST", "/containers/alike/stop?t=0", None),
    ("GET", "/containers/alike/json", None),
    ("GET", "/containers/json?all=1", None),
    ("GET", "/containers/alike/stats?stream=0", None),
    ("POST", "/containers/alike/kill", None),
    ("POST", "/containers/alike/pause", None),
    ("GET", "/containers/alike/top", None),
    ("POST", "/containers/alike/exec", {"Cmd": ["true"]}),
    ("POST", "/commit?container=alike&repo=alike&tag=1", {}),
    ("POST", "/commit?container=nobody", {}),
    ("GET", "/images/alike:1/json", None),
    ("GET", "/images/alike:1/history", None),
    ("GET", "/images/json", None),
    ("POST", "/images/alike:1/tag?repo=alike&tag=2", None),
    ("POST", "/images/nothing/tag?repo=alike", None),
    ("GET", "/system/df", None),
    ("DELETE", "/containers/alike?v=1", None),
    ("DELETE", "/images/alike:2", None),
    ("DELETE", "/images/alike:1", None),
    ("DELETE", "/images/alike:1", None),
    ("DELETE", "/networks/alike", None),
    ("DELETE", "/volumes/alike", None),
    ("POST", "/containers/prune", None),
    ("POST", "/images/prune", None),
    ("POST", "/networks/prune", None),
    ("POST", "/volumes/prune", None),
    ("GET", "/info", None),
    ("GET", "/version", None),
    ("GET", "/plugins", None),
    ("GET", "/events?since=1&until=2", None),
]
# Places, as `alike` writes them, that differ, and why.
KNOWN = {
    r"\.(DNSNames|GwPriority|EnableIPv4|CDISpecDirs)": "newer than this dockerd",
    r"\.KernelMemory|\.BridgeNfIp|\.Expected|\.AllowNondistributable": "older than ketch",
    r"RepoDigests: \[\]|BuildCache: \[\]|Mirrors: None": "as dockerd has had it since version 25",
    r"\.(Container|ContainerConfig): missing": "of an image's making only its history is kept",
    r"\.(MergedDir|WorkDir): missing": "a root filesystem is mounted for its container alone",
    # As the docker command asks for it, which tells dockerd of empty lists.
    r"(HostConfig\.\w+|IPAM\.Options): (\[\]|\{\}), there None": "empty either way",
    r"OomKillDisable: None": "null where nobody asked, which means the same",
    r"memory_stats\.stats\.": "all that the kernel tells",
    r"blkio_stats\.\w+: (\[\]|\[.*\], there \[\])": "who came first read it from the disk",
    r"\.Runtimes\.|\.BuildTime": "ketch has one runtime, and is not built",
    r"one-shot=1: \.(id|name): .* missing": "dockerd 26 alone leaves them out",
}


@pytest.fixture
def connections(
    served_engine: Engine, docker_engine: Engine, ketch: Engine
) -> Iterator[list[serving.Connection]]:
    """Return a connection to ketch's server and one to dockerd."""
    engines = (served_engine, docker_engine)
    paths = [pathlib.Path(one.prefix[2].removeprefix("unix://")) for one in engines]
    ketch.ok("builder", "prune", "--all", "--force")  # what other tests have built
    yield [serving.Connection(path) for path in paths]
    for engine in engines:
        engine("rm", "-f", "-v", "alike")
        engine("network", "rm", "alike")
        engine("volume", "rm", "alike")
        engine("rmi", "alike:1", "alike:2")


@pytest.mark.root_engine("a limit of memory is asked for")
def test_answers_are_in_the_form_of_dockerds(connections: list[serving.Connection]) -> None:
    description = openapi.Description()
    wrong = []
    for method, target, document in STEPS:
        body = None if document is None else json.dumps(document).encode()
        answers = []
        for connection in connections:
            connection.request(method, VERSION + target, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            answers.append((answer.status, answer.getheader("Content-Type"),
                            json.loads(data) if data else None))  # fmt: skip
        (status, kind, ours), (their_status, their_kind, theirs) = answers
        name = f"{method} {target}"
        if status != their_status:
            wrong.append(f"{name}: status {status}, there {their_status}: {ours}, there {theirs}")
        if kind != their_kind:
            wrong.append(f"{name}: {kind}, there {their_kind}")
        wrong += [f"{name}: {found}" for found in alike.differences(ours, theirs)]
        if ours is not None:
            try:
                description.check_request(method, target, status, ours)
            except jsonschema.ValidationError as error:
                wrong.append(f"{name}: {error.json_path}: {error.message}")
    found = [one for one in wrong if not any(re.search(place, one) for place in KNOWN)]
    assert not found, "\n".join(found)
