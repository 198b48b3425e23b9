"""What clients of older versions of the API mean, by moby's own router."""

import copy
from typing import Any

import pytest

from ketch.api import versions
from ketch.errors import InvalidArgumentError

NEWEST = (1, 50)


def made(
    version: tuple[int, int],
    resources: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    endpoints: dict[str, Any] | None = None,
    **others: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Return a request as it is understood in a version, and the warnings."""
    request: Any = {"Config": config or {}, "HostConfig": resources or {}, **others}
    if endpoints is not None:
        request["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    request = copy.deepcopy(request)
    warnings = versions.create(request, version, unified_cgroups=others.get("v2", True))
    return request, warnings


@pytest.mark.parametrize(
    ("last", "field", "given", "before", "since"),
    [
        ((1, 24), "AutoRemove", True, False, True),
        ((1, 39), "IpcMode", None, "shareable", None),
        ((1, 39), "IpcMode", "private", "private", "private"),
        ((1, 40), "CgroupnsMode", "private", "private", "private"),
        ((1, 41), "ConsoleSize", [1, 2], None, [1, 2]),
        ((1, 41), "KernelMemory", 5, 5, None),
        ((1, 42), "Annotations", {"a": "b"}, None, {"a": "b"}),
    ],
)
def test_fields(
    last: tuple[int, int], field: str, given: object, before: object, since: object
) -> None:
    resources = {} if given is None else {field: given}
    following = (last[0], last[1] + 1)
    assert made(last, resources)[0]["HostConfig"].get(field) == before
    assert made(following, resources)[0]["HostConfig"].get(field) == since
    if before == since:
        assert made(NEWEST, resources)[0]["HostConfig"].get(field) == since


def test_cgroups_of_v1_were_the_hosts() -> None:
    for v2, version, mode in ((False, (1, 40), "host"), (True, (1, 40), None),
                              (False, (1, 41), None)):  # fmt: skip
        assert made(version, v2=v2)[0]["HostConfig"].get("CgroupnsMode") == mode


def test_platform_and_start_interval() -> None:
    assert "Platform" not in made((1, 40), Platform="linux/arm")[0]
    assert made((1, 41), Platform="linux/arm")[0]["Platform"] == "linux/arm"
    check = {"Healthcheck": {"Test": ["CMD", "x"], "StartInterval": 5}}
    assert made((1, 43), config=check)[0]["Config"]["Healthcheck"] == {"Test": ["CMD", "x"]}
    assert made((1, 44), config=check)[0]["Config"] == check


def test_mounts() -> None:
    bind = {"Type": "bind", "BindOptions": {"NonRecursive": True, "CreateMountpoint": True},
            "VolumeOptions": {}, "TmpfsOptions": {}}  # fmt: skip
    old = made((1, 39), {"Mounts": [bind]})[0]["HostConfig"]["Mounts"]
    assert old == [{"Type": "bind", "BindOptions": {}}]
    assert made((1, 42), {"Mounts": [bind]})[0]["HostConfig"]["Mounts"] == [bind]
    for last, mount, words in (
        ((1, 43), {"Type": "bind", "BindOptions": {"ReadOnlyForceRecursive": True}}, "v1.44"),
        ((1, 44), {"Type": "volume", "VolumeOptions": {"Subpath": "x"}}, "v1.45"),
        ((1, 47), {"Type": "image"}, "v1.48"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"needs API {words} or newer"):
            made(last, {"Mounts": [mount]})
        made((last[0], last[1] + 1), {"Mounts": [mount]})
    assert (versions.binds_are_shallow((1, 43)), versions.binds_are_shallow((1, 44))) == (
        True,
        False,
    )


def test_a_driver_that_mounts_do_not_have() -> None:
    own = {"Type": "volume", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}
    for version, mount, warned in (
        (NEWEST, {"Type": "volume"}, True), (NEWEST, own, False), (NEWEST, {"Type": "bind"}, False),
        ((1, 47), {"Type": "volume"}, False),
    ):  # fmt: skip
        _, warnings = made(version, {"VolumeDriver": "local", "Mounts": [mount]})
        assert bool(warnings) is warned, (version, mount)


def test_endpoints() -> None:
    address = "02:00:00:00:00:01"
    two: dict[str, Any] = {"a": {}, "b": {}}
    with pytest.raises(InvalidArgumentError, match="multiple network endpoints: a, b"):
        made((1, 43), endpoints=two)
    assert made((1, 44), endpoints=two)[0]["NetworkingConfig"]["EndpointsConfig"] == two
    ranked = {"a": {"GwPriority": 1}}
    assert made((1, 47), endpoints=ranked)[0]["NetworkingConfig"]["EndpointsConfig"] == {"a": {}}
    assert made((1, 48), endpoints=ranked)[0]["NetworkingConfig"]["EndpointsConfig"] == ranked
    # An endpoint's own address is of 1.44; before, there was the container's alone.
    placed = {"a": {"MacAddress": "02:00:00:00:00:02"}}
    request, _ = made((1, 43), endpoints=placed)
    assert request["NetworkingConfig"]["EndpointsConfig"] == {"a": {}}
    request, _ = made((1, 43), config={"MacAddress": address}, endpoints=placed)
    assert request["NetworkingConfig"]["EndpointsConfig"] == {"a": {"MacAddress": address}}
    assert "MacAddress" not in request["Config"]
    request, warnings = made((1, 44), config={"MacAddress": address}, endpoints=placed)
    assert request["NetworkingConfig"]["EndpointsConfig"] == placed
    assert "is now deprecated" in warnings[0]
    with pytest.raises(InvalidArgumentError, match="mac-address and the network mode"):
        made((1, 43), {"NetworkMode": "host"}, {"MacAddress": address})
    assert made((1, 44), {"NetworkMode": "host"}, {"MacAddress": address})[0]["Config"] == {}


def test_what_is_told() -> None:
    image = {"Size": 5, "Config": {"User": "me"}, "RepoTags": [], "RepoDigests": []}
    assert versions.listed_image(image, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert versions.listed_image(image, (1, 43))["RepoTags"] == []
    assert versions.image(image, (1, 43))["VirtualSize"] == 5
    assert versions.image(image, (1, 44))["ContainerConfig"]["User"] == ""
    assert versions.image(image, (1, 49))["Config"]["Tty"] is False
    assert versions.image(image, NEWEST) == image
    container = {"Id": "0123456789abcdef", "Config": {"Hostname": "host"}, "NetworkSettings": {
        "Networks": {"bridge": {"Aliases": None}, "own": {"Aliases": ["x"]}}}}  # fmt: skip
    networks = versions.container(container, (1, 44))["NetworkSettings"]["Networks"]
    assert networks == {"bridge": {"Aliases": None},
                        "own": {"Aliases": ["x", "0123456789ab", "host"]}}  # fmt: skip
    assert versions.container(container, (1, 45)) == container
    about: Any = {"RegistryConfig": {}, "ContainerdCommit": {"ID": "a"}, "RuncCommit": {"ID": ""},
                  "InitCommit": {"ID": ""}}  # fmt: skip
    assert versions.info(about, NEWEST) == about
    old = versions.info(about, (1, 46))
    assert old["ContainerdCommit"] == {"ID": "a", "Expected": "a"}
    assert old["BridgeNfIptables"] is False
    assert old["RegistryConfig"]["AllowNondistributableArtifactsCIDRs"] is None
