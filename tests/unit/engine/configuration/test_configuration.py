from typing import TYPE_CHECKING, cast

import pytest

from ketch.engine.configuration import configuration
from ketch.engine.configuration.security import security_options
from ketch.engine.host import Host
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec import capabilities
from ketch.spec.container import Config, HostConfig, Request

if TYPE_CHECKING:
    from ketch.spec.image import ContainerConfig

ID = "0123456789ab" + "f" * 52
HOST = Host(cpus="0-1", capabilities=(1 << len(capabilities.NAMES)) - 1, hostname="box")


def complete(
    config: object = None, resources: object = None, image: object = None, host: Host = HOST
) -> Request:
    request: Request = {
        "Config": cast("Config", config or {"Cmd": ["true"]}),
        "HostConfig": cast("HostConfig", resources or {}),
    }
    return configuration.complete(request, cast("ContainerConfig", image or {}), ID, host)[0]


def refusal(config: object = None, resources: object = None) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        complete(config, resources)
    return caught.value.message


@pytest.mark.parametrize(
    ("config", "image", "arguments"),
    [
        ({}, {"Cmd": ["a"]}, ["a"]),
        ({"Cmd": ["b"]}, {"Cmd": ["a"]}, ["b"]),
        ({"Cmd": ["b"]}, {"Entrypoint": ["e", "-x"], "Cmd": ["a"]}, ["e", "-x", "b"]),
        ({}, {"Entrypoint": ["e"], "Cmd": ["a"]}, ["e", "a"]),
        ({"Entrypoint": ["f"]}, {"Entrypoint": ["e"], "Cmd": ["a"]}, ["f"]),
        ({"Entrypoint": [""], "Cmd": ["b"]}, {"Entrypoint": ["e"], "Cmd": ["a"]}, ["b"]),
    ],
)
def test_what_is_run(config: object, image: object, arguments: list[str]) -> None:
    merged = complete({"Image": "x", **cast("Config", config)}, None, image)
    assert configuration.arguments(merged["Config"]) == arguments


@pytest.mark.parametrize("image", [{}, {"Entrypoint": ["e"], "Cmd": ["a"]}])
def test_a_container_needs_a_command(image: object) -> None:
    with pytest.raises(InvalidArgumentError, match="no command specified"):
        complete({"Entrypoint": [""]}, None, image)


def test_the_image_fills_in_what_was_not_given() -> None:
    image = {
        "User": "app", "WorkingDir": "/srv", "StopSignal": "SIGQUIT", "Env": ["A=image", "B=image"],
        "Labels": {"a": "image", "b": "image"}, "Volumes": {"/data": {}}, "Cmd": ["run"],
    }  # fmt: skip
    given = {"Env": ["A=own", "C=own"], "Labels": {"a": "own"}, "WorkingDir": "/w"}
    config = complete(given, None, image)["Config"]
    assert config["User"] == "app"
    assert config["WorkingDir"] == "/w"
    assert config["StopSignal"] == "SIGQUIT"
    assert config["Env"] == ["A=own", "C=own", "B=image"]
    assert config["Labels"] == {"a": "own", "b": "image"}
    assert config["Volumes"] == {"/data": {}}


def test_defaults() -> None:
    made = complete({"Cmd": ["true"]}, {"Memory": 64 << 20, "CapAdd": ["net_admin", "CAP_BPF"]})
    assert made["Config"]["Hostname"] == "0123456789ab"
    assert made["HostConfig"] == {
        "Memory": 64 << 20,
        "MemorySwap": 128 << 20,
        "CapAdd": ["net_admin", "CAP_BPF"],
        "ShmSize": 64 << 20,
        "LogConfig": {"Type": "json-file", "Config": {}},
        "IpcMode": "private",
        "NetworkMode": "bridge",
        "CgroupnsMode": "private",
    }


def test_the_request_is_left_as_it_was() -> None:
    request: Request = {"Config": {"Cmd": ["x"]}, "HostConfig": {}}
    configuration.complete(request, {"Env": ["A=1"]}, ID, HOST)
    assert request == {"Config": {"Cmd": ["x"]}, "HostConfig": {}}


def test_the_hosts_name_where_the_host_is_shared() -> None:
    assert complete(None, {"NetworkMode": "host"})["Config"]["Hostname"] == "box"
    assert complete(None, {"UTSMode": "host"})["Config"]["Hostname"] == "box"
    named = complete({"Cmd": ["x"], "Hostname": "h"}, {"NetworkMode": "host"})
    assert named["Config"]["Hostname"] == "h"


def test_a_privileged_container_sees_the_hosts_cgroups_on_v1_only() -> None:
    v1 = Host(capabilities=HOST.capabilities, unified_cgroups=False)
    assert complete(None, {"Privileged": True}, None, v1)["HostConfig"]["CgroupnsMode"] == "host"
    assert complete(None, {"Privileged": True})["HostConfig"]["CgroupnsMode"] == "private"
    assert complete(None, {}, None, v1)["HostConfig"]["CgroupnsMode"] == "private"


MIB = 1 << 20


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"Memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        (
            {"MemorySwap": 50 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"Memory": 50 * MIB, "MemorySwap": 40 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"Memory": 50 * MIB, "MemoryReservation": 60 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        ({"MemoryReservation": 6144}, "Minimum memory reservation allowed is 6MB"),
        (
            {"NanoCpus": 99 * 10**9},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"NanoCpus": -1},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"NanoCpus": 10**9, "CpuPeriod": 1000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"NanoCpus": 10**9, "CpuQuota": 1000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"CpuPeriod": 100},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"CpuQuota": 100}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"CpuShares": -1}, "shares: invalid argument"),
        ({"CpuShares": 1}, "the minimum allowed cpu-shares is 2"),
        ({"CpuShares": 262145}, "the maximum allowed cpu-shares is 262144"),
        ({"CpusetCpus": "9"}, "Requested CPUs are not available - requested 9, available: 0-1"),
        ({"CpusetCpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        (
            {"CpusetMems": "9"},
            "Requested memory nodes are not available - requested 9, available: 0",
        ),
        ({"OomScoreAdj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"CapAdd": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"IpcMode": "foo"}, "invalid IPC mode: foo"),
        ({"SecurityOpt": ["foo=bar"]}, 'invalid --security-opt 2: "foo=bar"'),
        (
            {"SecurityOpt": ["no-new-privileges=x"]},
            'invalid --security-opt 2: "no-new-privileges=x"',
        ),
        ({"Sysctls": {"kernel.core_pattern": "x"}}, "sysctl 'kernel.core_pattern=' is not allowed"),
        (
            {"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"},
            'sysctl "net.ipv4.ip_forward" not allowed in host network namespace',
        ),
        (
            {"Sysctls": {"kernel.sem": "1"}, "IpcMode": "host"},
            'sysctl "kernel.sem" not allowed in host ipc namespace',
        ),
        ({"ExtraHosts": ["foo"]}, 'bad format for add-host: "foo"'),
        ({"DeviceCgroupRules": ["x"]}, "invalid device cgroup format 'x'"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        (
            {"BlkioWeightDevice": [{"Path": "/dev/x", "Weight": 2000}]},
            "Range of blkio weight is from 10 to 1000",
        ),
        (
            {"CpuRealtimePeriod": 5, "CpuRealtimeRuntime": 9},
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        ({"PidMode": "foo"}, "invalid PID mode: foo"),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"UTSMode": "container:x"}, "invalid UTS mode: container:x"),
        ({"UsernsMode": "x"}, "invalid user namespace mode: x"),
        ({"CgroupnsMode": "x"}, "invalid cgroup namespace mode: x"),
        ({"Isolation": "hyperv"}, "invalid isolation 'hyperv' on linux"),
        (
            {"IOMaximumIOps": 1},
            "Invalid QoS settings: linux does not support configuration of maximum IOPs",
        ),
        ({"StorageOpt": {"foo": "1"}}, "Unknown option foo"),
        ({"StorageOpt": {"size": "1x"}}, "invalid suffix: 'x'"),
        (
            {"AutoRemove": True, "RestartPolicy": {"Name": "always"}},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"RestartPolicy": {"Name": "foo"}},
            "invalid restart policy: unknown policy 'foo'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            {"RestartPolicy": {"Name": "always", "MaximumRetryCount": -1}},
            "invalid restart policy: maximum retry count can only be used with 'on-failure' "
            "and cannot be negative",
        ),
        (
            {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}},
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        (
            {"Annotations": {"": "x"}},
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (
            {"NetworkMode": "container:x", "Links": ["a"]},
            "conflicting options: container type network can't be used with links. "
            "This would result in undefined behavior",
        ),
        (
            {"NetworkMode": "container"},
            "Invalid network mode: invalid container format container:<name|id>",
        ),
        (
            {"PortBindings": {"80/foo": [{"HostIp": "", "HostPort": ""}]}},
            "invalid proto: foo",
        ),
        (
            {"PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "x"}]}},
            'invalid port specification: "x"',
        ),
        ({"Binds": ["/b:/c", "/d:/c"]}, "Duplicate mount point: /c"),
    ],
)
def test_refusals_have_dockers_words(resources: object, message: str) -> None:
    assert refusal(None, resources) == message


def test_what_is_wrong_with_the_container_itself() -> None:
    assert refusal({"Cmd": ["x"], "WorkingDir": "foo"}) == (
        "the working directory 'foo' is invalid, it needs to be an absolute path"
    )
    assert "signal: FOO" in refusal({"Cmd": ["x"], "StopSignal": "FOO"})
    assert refusal({"Cmd": ["x"], "Hostname": "h"}, {"UTSMode": "host"}) == (
        "conflicting options: hostname and the UTS mode"
    )


def test_security_options() -> None:
    assert not security_options({}).no_new_privileges
    for given in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"):
        assert security_options({"SecurityOpt": [given]}).no_new_privileges
    assert security_options({"SecurityOpt": ["seccomp=unconfined"]}).seccomp == "unconfined"
    found = security_options({"SecurityOpt": ['seccomp={"a": "b=c"}', "apparmor:strict"]})
    assert found.seccomp == '{"a": "b=c"}'
    assert found.apparmor == "strict"
    found = security_options({"SecurityOpt": ["label:type:foo_t", "writable-cgroups=true"]})
    assert found.labels == {"type": "foo_t"}
    assert found.writable_cgroups


def test_a_warning_about_the_oom_killer() -> None:
    request: Request = {"Config": {"Cmd": ["x"]}, "HostConfig": {"OomKillDisable": True}}
    assert len(configuration.complete(request, {}, ID, HOST)[1]) == 1
    request["HostConfig"]["Memory"] = 64 << 20
    assert configuration.complete(request, {}, ID, HOST)[1] == []


def test_health_checks_are_completed_by_the_image() -> None:
    image = {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5 * 10**9, "Retries": 2}}
    own = {"Cmd": ["y"], "Healthcheck": {"Interval": 10**9}}
    assert complete(own, None, image)["Config"]["Healthcheck"] == {
        "Test": ["CMD", "x"], "Interval": 10**9, "Retries": 2,
    }  # fmt: skip
    assert complete({"Cmd": ["y"]}, None, image)["Config"]["Healthcheck"] == image["Healthcheck"]
    message = "Interval in Healthcheck cannot be less than 1ms"
    assert refusal({"Cmd": ["y"], "Healthcheck": {"Interval": 1000}}) == message


def test_what_api_clients_send_for_nothing() -> None:
    empty = {"MemorySwappiness": -1, "PidsLimit": 0, "OomKillDisable": False}
    assert not complete(None, empty)["HostConfig"].keys() & empty.keys()


def test_endpoints_of_older_api_clients() -> None:
    request: Request = {
        "Config": {"Cmd": ["x"], "MacAddress": "92:d0:c6:0a:29:33"},
        "HostConfig": {"NetworkMode": "default"},
        "NetworkingConfig": {"EndpointsConfig": {"default": {"Aliases": ["a"]}}},
    }
    made = configuration.complete(request, {}, ID, HOST)[0]
    assert made["HostConfig"]["NetworkMode"] == "bridge"
    assert made["NetworkingConfig"] == {
        "EndpointsConfig": {"bridge": {"Aliases": ["a"], "MacAddress": "92:d0:c6:0a:29:33"}}
    }
    assert "MacAddress" not in made["Config"]
    assert request["Config"]["MacAddress"]


def test_security_modules_that_this_machine_lacks() -> None:
    for option in ("apparmor=strict", "label=type:x_t"):
        with pytest.raises(UnsupportedError, match="not active on this machine"):
            complete(None, {"SecurityOpt": [option]})
    complete(None, {"SecurityOpt": ["apparmor=unconfined", "label=disable"]})


def test_warnings() -> None:
    request: Request = {
        "Config": {"Cmd": ["x"]},
        "HostConfig": {
            "KernelMemory": 5, "NetworkMode": "host", "PortBindings": {"80/tcp": []},
        },
    }  # fmt: skip
    made, warnings = configuration.complete(request, {}, ID, HOST)
    assert warnings == [
        "Linux has had no kernel memory limit since 5.16: --kernel-memory is discarded.",
        "Published ports are discarded when using host network mode",
    ]
    assert "KernelMemory" not in made["HostConfig"]
