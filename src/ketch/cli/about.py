"""``ketch version`` and ``ketch info``."""

import sys

from ketch.cli.documents import formatted
from ketch.cli.flags import Command, parse
from ketch.cli.usual_flags import DOCUMENT_FORMAT
from ketch.engine.engine import Engine
from ketch.engine.home import offers
from ketch.engine.views import information
from ketch.spec.sizes import binary_size
from ketch.spec.template_functions import NilSlice, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings

VERSION = Command(
    "ketch version [OPTIONS]",
    "Show the version information",
    (DOCUMENT_FORMAT,),
    maximum_arguments=0,
)
# What Docker's client tells besides in a template of `info`, and nobody says here.
_UNSAID: "dict[str, Any]" = {"ClientErrors": NilSlice(), "ServerErrors": NilSlice(), "UserName": ""}
_CLIENT_UNSAID: "dict[str, Any]" = {"Platform": None, "APIVersion": "", "DefaultAPIVersion": ""}

INFO = Command(
    "ketch info [OPTIONS]",
    "Display system-wide information",
    (DOCUMENT_FORMAT,),
    maximum_arguments=0,
)


def version(_settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch version``."""
    parsed = parse(VERSION, arguments)
    server = information.version()
    python = sys.version.split()[0]
    spoken = {"ApiVersion": server["ApiVersion"], "DefaultAPIVersion": server["ApiVersion"]}
    client = {"Version": server["Version"], **spoken, **_client(server)}
    if parsed.text("format"):
        shown = Struct(client, optional={"Platform": None})
        formatted({"Client": shown, "Server": server}, parsed.text("format"), "versionInfo")
        return 0
    api = f"{server['ApiVersion']} (minimum version {server['MinAPIVersion']})"
    system = f"{client['Os']}/{client['Arch']}"
    blocks = [
        "Client:",
        _aligned(
            " ",
            {
                "Version": client["Version"],
                "API version": client["ApiVersion"],
                "Python version": python,
                "OS/Arch": system,
                "Context": client["Context"],
            },
        ),
        f"\nServer: {server['Platform']['Name']}\n Engine:",
        _aligned(
            "  ",
            {
                "Version": server["Version"],
                "API version": api,
                "Python version": python,
                "OS/Arch": system,
                "Kernel": server["KernelVersion"],
            },
        ),
    ]
    print("\n".join(blocks))
    return 0


def _client(server: Struct) -> "dict[str, Any]":
    """What the client says of itself: one program has both sides."""
    told = {name: server[name] for name in ("GitCommit", "GoVersion", "Os", "Arch")}
    return {**told, "BuildTime": "", "Context": "default"}


def _aligned(indent: str, fields: dict[str, str]) -> str:
    width = max(19 - len(indent), max(map(len, fields)) + 2)
    return "\n".join(f"{indent}{f'{name}:'.ljust(width)}{text}" for name, text in fields.items())


def info(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch info``."""
    parsed = parse(INFO, arguments)
    found = information.info(Engine(settings))
    about = {
        "Debug": False,
        "Version": found["ServerVersion"],
        **_client(information.version()),
        "Plugins": [],
        "Warnings": None,
    }
    if parsed.text("format"):
        client = Struct(about, optional=_CLIENT_UNSAID)
        shown = Struct({**found, "ClientInfo": client}, optional=found.optional | _UNSAID)
        formatted(shown, parsed.text("format"), "system.dockerInfo")
        return 0
    first = [f" Version:    {about['Version']}", " Context:    default", " Debug Mode: false"]
    offered = [
        f"  {offer.name}: {offer.state}{f', {offer.detail}' if offer.detail else ''}"
        for offer in offers.examine(settings)
    ]
    lines = ["Client:", *first, "", "Server:", *_lines(found), " Offered by this Machine:"]
    print("\n".join([*lines, *offered]), end="\n\n")
    for warning in found["Warnings"] or ():
        print(warning, file=sys.stderr)
    return 0


def _lines(found: "dict[str, Any]") -> list[str]:
    """What is known, as Docker lays it out."""
    lines = [
        f" Containers: {found['Containers']}",
        f"  Running: {found['ContainersRunning']}",
        f"  Paused: {found['ContainersPaused']}",
        f"  Stopped: {found['ContainersStopped']}",
        f" Images: {found['Images']}",
        f" Server Version: {found['ServerVersion']}",
        f" Storage Driver: {found['Driver']}",
        *(f"  {name}: {text}" for name, text in found["DriverStatus"]),
        f" Logging Driver: {found['LoggingDriver']}",
        f" Cgroup Driver: {found['CgroupDriver']}",
        f" Cgroup Version: {found['CgroupVersion']}",
        " Plugins:",
        *(f"  {kind}: {' '.join(found['Plugins'][kind])}" for kind in ("Volume", "Network", "Log")),
        f" Swarm: {found['Swarm']['LocalNodeState']}",
        f" Runtimes: {' '.join(sorted(found['Runtimes']))}",
        f" Default Runtime: {found['DefaultRuntime']}",
        f" Init Binary: {found['InitBinary']}",
        " Security Options:",
    ]
    for option in found["SecurityOptions"]:
        name, *rest = (part.partition("=")[2] for part in option.split(","))
        lines += [f"  {name}", *(f"   Profile: {text}" for text in rest)]
    lines += [
        f" Kernel Version: {found['KernelVersion']}",
        f" Operating System: {found['OperatingSystem']}",
        f" OSType: {found['OSType']}",
        f" Architecture: {found['Architecture']}",
        f" CPUs: {found['NCPU']}",
        f" Total Memory: {binary_size(found['MemTotal'])}",
        f" Name: {found['Name']}",
        f" ID: {found['ID']}",
        f" Docker Root Dir: {found['DockerRootDir']}",
        f" Debug Mode: {str(found['Debug']).lower()}",
    ]
    for name, field in (("HTTP", "HttpProxy"), ("HTTPS", "HttpsProxy"), ("No", "NoProxy")):
        if found[field]:
            lines.append(f" {name} Proxy: {found[field]}")
    lines += [
        f" Experimental: {str(found['ExperimentalBuild']).lower()}",
        " Insecure Registries:",
        *(f"  {network}" for network in found["RegistryConfig"]["InsecureRegistryCIDRs"]),
        f" Live Restore Enabled: {str(found['LiveRestoreEnabled']).lower()}",
    ]
    return lines
