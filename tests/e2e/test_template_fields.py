"""Fields that Docker's documents may have, asked for by --format: none of them is an error."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.commands import Engine

pytestmark = pytest.mark.ketch_only("the specification of Docker's API is what it is held against")

_DEFINITIONS: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).parents[1] / "reference" / "engine_api.json").read_text()
)["definitions"]
# What may be no structure but a nil pointer, which has no fields in Docker's templates either.
_POINTERS = {
    "Cluster", "ClusterVolume", "Containerd", "Descriptor", "FirewallBackend", "Health",
    "Healthcheck", "ImageManifestDescriptor", "UsageData",
}  # fmt: skip


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        schema = _DEFINITIONS[schema["$ref"].rpartition("/")[2]]
    found = dict(schema.get("properties") or {})
    for part in schema.get("allOf", ()):
        found |= _properties(part)
    return found


def _fields(schema: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, field in _properties(schema).items():
        yield f"{before}.{name}"
        if name not in _POINTERS:
            yield from _fields(field, f"{before}.{name}")


@pytest.mark.parametrize(("definition", "command", "place"), [
    ("ImageInspect", ["image", "inspect", "busybox"], ""),
    ("ContainerInspectResponse", ["inspect", "fields"], ""),
    ("Network", ["network", "inspect", "bridge"], ""),
    ("Volume", ["volume", "inspect", "fields"], ""),
    ("SystemInfo", ["info"], ""),
    ("SystemVersion", ["version"], ".Server"),
], ids=lambda value: value if isinstance(value, str) and value[:1].isupper() else "")  # fmt: skip
def test_every_field_of_the_specification_can_be_asked_for(
    ketch: Engine, definition: str, command: list[str], place: str
) -> None:
    ketch.ok("create", "--name", "fields", "-v", "fields:/v", "busybox", "true")
    wanted = [f"{place}{field}" for field in _fields({"$ref": f"/{definition}"})]
    assert len(wanted) > 5
    ketch.ok(*command, "--format", " ".join(f"{{{{{field}}}}}" for field in wanted))
    ketch.ok("rm", "fields")
    ketch.ok("volume", "rm", "fields")


def test_fields_that_earlier_versions_had_are_empty(ketch: Engine) -> None:
    asked = "{{.Variant}}|{{.Container}}|{{.ContainerConfig}}|{{.VirtualSize}}"
    assert ketch.ok("image", "inspect", "-f", asked, "busybox") == "||<nil>|0"
    assert ketch.ok("info", "-f", "{{.DefaultAddressPools}}") == "[]"
    assert ketch.ok("version", "-f", "{{.Server.Experimental}}") == "false"
    assert ketch("image", "inspect", "-f", "{{.Nothing}}", "busybox").status == 1


@pytest.mark.parametrize(("command", "wanted"), [
    (["version"], "Client.APIVersion Server.APIVersion Server.MinAPIVersion"),
    (["info"], "CPUCfsPeriod CPUCfsQuota HTTPProxy HTTPSProxy ClientErrors ServerErrors UserName"
               " SystemStatus ContainerdCommit.Expected RuncCommit.Expected InitCommit.Expected"
               " RegistryConfig.AllowNondistributableArtifactsCIDRs ClientInfo.Platform"
               " ClientInfo.APIVersion ClientInfo.Os ClientInfo.GoVersion"),
    (["inspect", "fields"],
     "ID HostConfig.CPUCount HostConfig.CPUPercent HostConfig.CPUShares HostConfig.CPUPeriod"
     " HostConfig.CPUQuota HostConfig.CPURealtimePeriod HostConfig.CPURealtimeRuntime"
     " HostConfig.NanoCPUs HostConfig.DNS HostConfig.DNSOptions HostConfig.DNSSearch"),
    (["image", "inspect", "busybox"], "ID"),
    (["network", "inspect", "bridge"], "ID"),
], ids=lambda value: "-".join(value) if isinstance(value, list) else "")  # fmt: skip
def test_fields_are_called_as_docker_s_structures_have_them(
    ketch: Engine, command: list[str], wanted: str
) -> None:
    """Its templates are of Go's names, which its documents spell otherwise now and then."""
    ketch.ok("create", "--name", "fields", "busybox", "true")
    template = " ".join(f"{{{{.{field}}}}}" for field in wanted.split())
    shown = ketch.ok(*command, "--format", template)
    ketch.ok("rm", "fields")
    if command == ["version"]:
        wire = "{{.Client.ApiVersion}} {{.Server.ApiVersion}} {{.Server.MinAPIVersion}}"
        assert shown == ketch.ok("version", "-f", wire)


def test_keys_that_a_user_has_chosen_have_one_name(ketch: Engine) -> None:
    ketch.ok("create", "--name", "fields", "--label", "Id=one", "busybox", "true")
    shown = ketch.ok("inspect", "-f", "{{.Config.Labels.ID}} {{.Config.Labels.Id}}", "fields")
    assert shown == "<no value> one"
    ketch.ok("rm", "fields")
