"""docker-py's keywords mean what they mean to docker-py, which is asked; all others are refused."""

from typing import Any

import docker.models.containers  # type: ignore[import-untyped]
import docker.types  # type: ignore[import-untyped]
import pytest
from docker.models.containers import (
    RUN_CREATE_KWARGS,
    RUN_HOST_CONFIG_KWARGS,
)

from ketch.errors import InvalidArgumentError
from ketch.library.options import make_request

_MOUNT = docker.types.Mount("/data", "name", type="volume", read_only=True, no_copy=True)
_CHECK = {"test": "true", "interval": 10**9, "timeout": 10**9, "retries": 2, "start_period": 10**9}

# Each is docker-py's own form; several values of one name are several tests.
SAMPLES: list[tuple[str, Any]] = [
    ("auto_remove", True), ("blkio_weight", 300),
    ("blkio_weight_device", [{"Path": "/dev/null", "Weight": 300}]),
    ("cap_add", ["NET_ADMIN"]), ("cap_drop", ["CHOWN"]), ("cgroup_parent", "/up"),
    ("cgroupns", "host"), ("cpu_period", 100000), ("cpu_quota", 5000), ("cpu_shares", 9),
    ("cpuset_cpus", "0"), ("cpuset_mems", "0"), ("device_cgroup_rules", ["c 10:* rwm"]),
    ("device_read_bps", [{"Path": "/dev/null", "Rate": 1000}]),
    ("device_read_iops", [{"Path": "/dev/null", "Rate": 1000}]),
    ("device_write_bps", [{"Path": "/dev/null", "Rate": 1000}]),
    ("device_write_iops", [{"Path": "/dev/null", "Rate": 1000}]),
    ("device_requests", [docker.types.DeviceRequest(count=-1, capabilities=[["gpu"]])]),
    ("device_requests", [{"driver": "cdi", "device_ids": ["a.com/b=c"]}]),
    ("devices", ["/dev/null:/dev/nn:rw", "/dev/zero"]),
    ("devices", [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nn",
                  "CgroupPermissions": "r"}]),
    ("dns", ["1.1.1.1"]), ("dns_opt", ["ndots:1"]), ("dns_search", ["a.com"]),
    ("domainname", "a.com"), ("entrypoint", "sh -c 'a b'"), ("entrypoint", ["sh", "-c"]),
    ("entrypoint", [""]), ("entrypoint", []),
    ("environment", {"A": "b", "EMPTY": "", "HOME": None, "N": 1, "TRUE": True}),
    ("environment", ["A=b", "HOME"]), ("extra_hosts", {"name": "1.2.3.4"}),
    ("group_add", ["wheel", 5]), ("healthcheck", _CHECK), ("healthcheck", {"test": ["NONE"]}),
    ("healthcheck", docker.types.Healthcheck(**_CHECK)), ("hostname", "name"), ("init", True),
    ("ipc_mode", "host"), ("kernel_memory", "32m"), ("labels", {"a": "b", "c": ""}),
    ("labels", ["a", "c"]), ("links", {"one": "two", "three": None}), ("links", [("one", "two")]),
    ("log_config", docker.types.LogConfig(type="json-file", config={"max-size": "1m"})),
    ("log_config", {"type": "local", "config": {"max-file": "2"}}),
    ("mac_address", "92:d0:c6:0a:29:33"), ("mem_limit", 64 << 20), ("mem_limit", "64m"),
    ("mem_reservation", "32m"), ("mem_swappiness", 0), ("memswap_limit", -1),
    ("memswap_limit", "128m"), ("mounts", [_MOUNT]), ("nano_cpus", 1_500_000_000), ("nano_cpus", 7),
    ("network", "net"), ("network_disabled", True), ("network_mode", "none"),
    ("oom_kill_disable", True), ("oom_score_adj", 5), ("pid_mode", "host"), ("pids_limit", 7),
    ("ports", {80: 8080}), ("ports", {"80/udp": None, "81": "8081"}),
    ("ports", {"80/tcp": ("127.0.0.1", 8080), 81: [8081, ("::1", 8082)]}),
    ("ports", {80: ("127.0.0.1",)}), ("ports", {80: {"HostPort": 8080, "HostIp": "127.0.0.1"}}),
    ("ports", {80: "8000-8010"}),
    ("privileged", True), ("publish_all_ports", True), ("read_only", True),
    ("restart_policy", {"Name": "on-failure", "MaximumRetryCount": 5}),
    ("restart_policy", {"Name": "always"}), ("runtime", "ketch"),
    ("security_opt", ["no-new-privileges"]), ("shm_size", "1g"), ("shm_size", 1 << 20),
    ("stdin_open", True), ("stop_signal", "INT"), ("storage_opt", {"size": "1g"}),
    ("sysctls", {"net.core.somaxconn": 9}), ("tmpfs", {"/work": "size=16m", "/plain": ""}),
    ("tmpfs", ["/work:size=16m", "/plain"]), ("tty", True),
    ("ulimits", [docker.types.Ulimit(name="nofile", soft=5, hard=9)]),
    ("ulimits", [{"name": "nproc", "soft": 5, "hard": 5}]), ("user", 1000), ("user", "a:b"),
    ("userns_mode", "host"), ("uts_mode", "host"), ("volume_driver", "local"),
    ("volumes", {"/here": {"bind": "/there", "mode": "ro"}, "name": {"bind": "/data"}}),
    ("volumes", {"/here": {"bind": "/there", "ro": True, "propagation": "rslave"}}),
    ("volumes", ["/here:/there:ro", "name:/data"]),
    ("volumes_from", ["one", "two:ro"]), ("volumes_from", "one,two"), ("working_dir", "/work"),
]  # fmt: skip

# Windows', LXC's, the client's own, or docker-py's way to say what it is itself.
UNKNOWN = {
    "cpu_count", "cpu_percent", "init_path", "lxc_conf", "use_config_proxy", "version", "stdout",
    "stderr", "stream",
}  # fmt: skip


def _asked_of_docker(keyword: str, value: Any) -> dict[str, Any]:
    """What docker-py sends to its server."""
    api = docker.APIClient("unix:///nowhere", version="1.43")
    sent: dict[str, Any] = {}
    api.create_container_from_config = lambda config, *_: sent.update(config)
    made = docker.models.containers._create_container_args(
        {"image": "image", "command": None, "version": "1.43", keyword: value}
    )
    api.create_container(**made)
    host = sent.pop("HostConfig")
    networks = sent.pop("NetworkingConfig") or {}
    return {"Config": sent, "HostConfig": host, "NetworkingConfig": networks}


def _told(document: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """What a document says beyond another, in one form: nothing is nothing, numbers are numbers."""
    return {
        f"{section}.{key}": _plain(key, value)
        for section in ("Config", "HostConfig", "NetworkingConfig")
        for key, value in (document.get(section) or {}).items()
        if value != (base.get(section) or {}).get(key)
    }


def _plain(key: str, value: Any) -> Any:
    if key == "Binds":  # `:rw` is what no mode means
        return [text.removesuffix(":rw") for text in value]
    if key == "DeviceRequests":
        return [{name: item for name, item in one.items() if item} for one in value]
    if key in {"Healthcheck", "RestartPolicy"}:
        return {name: item for name, item in value.items() if item}
    if key in {"Env", "VolumesFrom"}:
        return sorted(value)
    return value


@pytest.mark.parametrize(("keyword", "value"), SAMPLES)
def test_it_means_what_docker_py_means(keyword: str, value: Any) -> None:
    docker_base, base = _asked_of_docker("name", "x"), make_request("image", None, {})[0]
    wanted = _told(_asked_of_docker(keyword, value), docker_base)
    found = _told(dict(make_request("image", None, {keyword: value})[0]), dict(base))
    wanted.pop("Config.Volumes", None)  # of what is bound, which dockerd lists by itself
    if keyword == "network":  # docker-py names it twice
        wanted.pop("NetworkingConfig.EndpointsConfig", None)
    if keyword == "mac_address":  # the newer place for it
        assert found.pop("NetworkingConfig.EndpointsConfig")
        wanted.pop("Config.MacAddress")
    if keyword == "oom_kill_disable":
        wanted["HostConfig.OomKillDisable"] = True
    assert found == wanted


def test_every_keyword_of_docker_py_is_taken_or_unknown() -> None:
    keywords = {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, "ports", "volumes", "network"}
    keywords -= {"image", "command", "detach", "name", "platform", "isolation", "stop_timeout"}
    keywords -= {"cpu_rt_period", "cpu_rt_runtime", "networking_config"}
    assert keywords - {name for name, _ in SAMPLES} <= UNKNOWN
    for keyword in UNKNOWN:
        with pytest.raises(InvalidArgumentError, match=f"there is no option {keyword}"):
            make_request("image", None, {keyword: 1})


def test_networks_with_what_is_asked_of_them() -> None:
    endpoint = docker.types.EndpointConfig("1.43", aliases=["other"], ipv4_address="10.0.0.9")
    request, _ = make_request(
        "image", None, {"network": "net", "networking_config": {"net": endpoint}}
    )
    assert request["HostConfig"]["NetworkMode"] == "net"
    assert request["NetworkingConfig"]["EndpointsConfig"] == {
        "net": {"Aliases": ["other"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}
    }


def test_a_command_is_split_as_docker_py_splits_it() -> None:
    def command(given: Any) -> list[str]:
        return make_request("image", given, {})[0]["Config"].get("Cmd", [])

    assert command("sh -c 'echo hi there'") == ["sh", "-c", "echo hi there"]
    assert command(["echo hi"]) == ["echo hi"]
    assert command(None) == command("") == []
    with pytest.raises(InvalidArgumentError, match="no closing quotation"):
        command("echo 'hi")


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"device": {"/dev/null": "/dev/nn"}},
         {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nn",
                       "CgroupPermissions": "rwm"}]}),
        ({"devices": {"/dev/null": "/dev/nn:r"}},
         {"Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nn",
                       "CgroupPermissions": "r"}]}),
        ({"device_read_bps": {"/dev/null": "1m"}},
         {"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 1 << 20}]}),
        ({"link": {"one": "two"}}, {"Links": ["one:two"]}),
        ({"ulimit": {"nofile": "5:9"}}, {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 9}]}),
        ({"volume": {"/here": {"bind": "/there", "mode": "ro"}}}, None),
        ({"publish": {"127.0.0.1:8080": 80}},
         {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}),
        ({"volumes_from": {"one": "ro"}}, None),
    ],
)  # fmt: skip
def test_a_mapping_says_the_obvious_or_is_refused(
    options: dict[str, Any], fields: dict[str, Any] | None
) -> None:
    if fields is None:
        with pytest.raises(InvalidArgumentError):
            make_request("image", None, options)
        return
    host: Any = make_request("image", None, options)[0]["HostConfig"]
    assert {name: host[name] for name in fields} == fields


@pytest.mark.parametrize(
    "options",
    [{"ports": {"127.0.0.1:8080": 80}}, {"ports": ["8080:80"]}, {"ports": {80: 70000}},
     {"ports": {80: object}}, {"ports": {80: ("no address", 1)}}, {"volumes": {"/a": {}}},
     {"volumes": {"/a": {"bind": "/b", "mod": "ro"}}},
     {"volumes": {"/a": {"bind": "/b", "mode": "rw", "ro": True}}},
     {"healthcheck": {"test": "x", "retry": 1}},
     {"healthcheck": {"test": "x", "interval": "1s"}}, {"mounts": ["type=bind"]},
     {"mounts": {"Target": "/a"}}, {"cap_add": {"NET_ADMIN": True}}, {"dns": {"a": "b"}},
     {"network": {"a": {}}}, {"ulimits": [{"Nam": "x"}]}, {"environment": {"A": ["b"]}},
     {"restart_policy": {"name": "no", "times": 2}}, {"nano_cpus": "1"}, {"tmpfs": 5},
     {"mem_limit": "1m", "memory": "2m"}, {"log_config": "local"}, {"links": 5}],
    ids=str,
)  # fmt: skip
def test_what_is_neither_is_an_error_that_names_the_keyword(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        make_request("image", None, options)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=ascii)
@pytest.mark.parametrize("keyword", ["user", "volume", "health_cmd", "add_host", "hostname"])
def test_no_text_holds_what_bytes_cannot(keyword: str, text: str) -> None:
    given = {"add_host": f"{text}:1.2.3.4", "volume": f"/{text}:/x"}.get(keyword, text)
    with pytest.raises(InvalidArgumentError, match=r"NUL|no bytes stand for"):
        make_request("image", None, {keyword: given})
    with pytest.raises(InvalidArgumentError, match=r"NUL|no bytes stand for"):
        make_request("image", None, {"labels": {text: "x"}})


def test_one_thing_may_be_said_twice_alike() -> None:
    request, _ = make_request("image", None, {"remove": True, "auto_remove": True})
    assert request["HostConfig"]["AutoRemove"] is True
