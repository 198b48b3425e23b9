"""What is taken for systemd, and what that changes of a configuration."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from ketch.engine.configuration import configuration
from ketch.engine.host import Host
from ketch.errors import InvalidArgumentError
from ketch.spec.container import Config, HostConfig

if TYPE_CHECKING:
    from ketch.spec.image import ContainerConfig

HOST = Host(bounds_own_cgroup=True)


def complete(
    *arguments: str, host: Host = HOST, image: object = None, **resources: object
) -> tuple[Config, HostConfig, list[str]]:
    whole, warnings = configuration.complete(
        {"Config": {"Cmd": [*arguments]}, "HostConfig": cast("HostConfig", resources)},
        cast("ContainerConfig", image or {}), "a" * 64, host,
    )  # fmt: skip
    return whole["Config"], whole["HostConfig"], warnings


@pytest.mark.parametrize(
    ("mode", "arguments", "found"),
    [
        ("", ["/sbin/init"], True),
        ("auto", ["/usr/sbin/init", "--log-level=debug"], True),
        ("true", ["/usr/local/sbin/init"], True),
        ("", ["/usr/lib/systemd/systemd"], True),
        ("", ["systemd"], True),
        ("", ["/bin/sh", "-c", "/sbin/init"], True),
        ("", ["/bin/sh", "/sbin/init"], False),
        ("", ["init"], False),
        ("", ["/init"], False),
        ("", ["/bin/systemd-run"], False),
        ("", ["sleep", "/sbin/init"], False),
        ("false", ["/sbin/init"], False),
        ("always", ["sleep"], True),
    ],
)
def test_whether_it_is(mode: str, arguments: list[str], found: bool) -> None:
    config, resources, warnings = complete(*arguments, Systemd=mode)
    assert config.get("SystemdMode", False) is found
    assert config.get("StopSignal") == ("SIGRTMIN+3" if found else None)
    assert resources["CgroupnsMode"] == "private"
    assert not warnings


@pytest.mark.parametrize("taken", [{"Init": True}, {"PidMode": "host"}])
def test_it_has_to_be_pid_1(taken: dict[str, Any]) -> None:
    assert "SystemdMode" not in complete("/sbin/init", **taken)[0]
    with pytest.raises(InvalidArgumentError, match="conflicting options: Systemd and "):
        complete("/sbin/init", Systemd="always", **taken)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="invalid systemd mode: yes"):
        complete("/sbin/init", Systemd="yes")


def test_the_signal_of_an_image_stays() -> None:
    config, _, _ = complete("/sbin/init", image={"StopSignal": "SIGPWR"})
    assert config["StopSignal"] == "SIGPWR"


def test_what_was_found_of_another_container_is_no_request() -> None:
    whole, _ = configuration.complete(
        {"Config": {"Cmd": ["true"], "SystemdMode": True}, "HostConfig": {}}, {}, "a" * 64, HOST
    )
    assert "SystemdMode" not in whole["Config"]


def test_a_privileged_one_on_v1_has_a_namespace_of_control_groups() -> None:
    host = Host(unified_cgroups=False, bounds_own_cgroup=True)
    assert complete("sleep", host=host, Privileged=True)[1]["CgroupnsMode"] == "host"
    assert complete("/sbin/init", host=host, Privileged=True)[1]["CgroupnsMode"] == "private"


def test_an_image_alone_lifts_no_limits() -> None:
    host = Host(bounds_own_cgroup=False)
    config, _, warnings = complete("/sbin/init", host=host)
    assert "SystemdMode" not in config
    assert "cgroup2 is mounted without nsdelegate" in warnings[0]
    assert complete("/sbin/init", host=host, Systemd="always")[0]["SystemdMode"]
