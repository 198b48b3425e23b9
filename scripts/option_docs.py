"""Write docs/options.md from the options table; a test compares the two."""

import pathlib
import sys

from ketch.spec.options import CREATE_OPTIONS, OPTIONS, Option

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "options.md"

_HEAD = """# Options of `ketch run` and `ketch create`

Made from the table in `src/ketch/spec/options.py` by `scripts/option_docs.py`; change that, not
this. Where an option sets a field of the Docker Engine API, the field is named. What this machine's
kernel or file system lacks is refused by name when the container is made or started.

| option | value | default | API field | what it does |
| --- | --- | --- | --- | --- |
"""

# Options that several fields are made from, or that need more than their own value.
_FIELDS = {
    "attach": "Config.Attach*", "device": "HostConfig.Devices, DeviceRequests",
    "env": "Config.Env", "env-file": "Config.Env", "expose": "Config.ExposedPorts",
    "gpus": "HostConfig.DeviceRequests", "ip": "EndpointSettings.IPAMConfig.IPv4Address",
    "ip6": "EndpointSettings.IPAMConfig.IPv6Address", "label": "Config.Labels",
    "label-file": "Config.Labels", "link-local-ip": "EndpointSettings.IPAMConfig.LinkLocalIPs",
    "log-driver": "HostConfig.LogConfig.Type", "log-opt": "HostConfig.LogConfig.Config",
    "mac-address": "EndpointSettings.MacAddress", "mount": "HostConfig.Mounts",
    "network": "HostConfig.NetworkMode, NetworkingConfig",
    "network-alias": "EndpointSettings.Aliases", "no-healthcheck": "Config.Healthcheck",
    "platform": "(query) platform", "publish": "HostConfig.PortBindings",
    "security-opt": "HostConfig.SecurityOpt, MaskedPaths, ReadonlyPaths",
    "volume": "HostConfig.Binds, Config.Volumes", "name": "(query) name",
    "use-api-socket": "HostConfig.Mounts",
}  # fmt: skip


def page() -> str:
    """Return the whole page."""
    return _HEAD + "".join(_row(option) for option in OPTIONS)


def _row(option: Option) -> str:
    names = [f"`--{option.name}`", *(f"`--{alias}`" for alias in option.aliases)]
    if option.shorthand:
        names.insert(0, f"`-{option.shorthand}`")
    field = option.field or _FIELDS.get(option.name, "")
    if option.name.startswith("health-") and not field:
        field = "Config.Healthcheck"
    default = option.default or ""
    only = "" if option in CREATE_OPTIONS else " (`run` alone)"
    cells = (
        ", ".join(names),
        option.metavar + (", repeatable" if option.kind == "list" else ""),
        f"`{str(default).lower()}`" if default else "",
        f"`{field}`" if field else "",
        option.help.replace("|", "\\|") + only,
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
