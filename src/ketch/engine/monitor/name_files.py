"""The files that say what a container and others are called: hosts, hostname, resolv.conf."""

import os

from ketch.engine.configuration import bundle
from ketch.engine.monitor import telling
from ketch.engine.networks import resolution
from ketch.network import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.networks import wiring
    from ketch.engine.user_namespaces import UserNamespace
    from ketch.spec.container import Request
    from ketch.spec.told import Say


def write(
    directory: str,
    request: "Request",
    wires: "wiring.Wiring",
    apart: "UserNamespace | None",
    say: "Say | None",
) -> bundle.Files:
    """Write what becomes the container's /etc/hosts, /etc/hostname and /etc/resolv.conf.

    Args:
        directory: the container's.
        request: what was asked for.
        wires: what it has of networks.
        apart: its user namespace, None where its ids are the host's.
        say: takes what is told of the step.
    """
    config, resources = request["Config"], request["HostConfig"]
    extra, gateways = resources.get("ExtraHosts", ()), wires.gateways
    if resources["NetworkMode"] == "host":
        hosts = names.host_hosts(resolution.read("/etc/hosts"), extra, gateways)
    else:
        domain = config.get("Domainname", "")
        hosts = names.hosts(wires.addresses, config["Hostname"], domain, extra, gateways)
        hosts += "".join(link.hosts for link in wires.links)
    files = bundle.Files(f"{directory}/hosts", f"{directory}/hostname", f"{directory}/resolv.conf")
    written = (
        (files.hosts, hosts),
        (files.hostname, names.hostname(config["Hostname"])),
        (files.resolv_conf, resolution.resolv_conf(resources, wires.servers, named=wires.named)),
    )
    if say:
        say(telling.of_files(written))
    for path, text in written:
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if apart is not None and apart.mapping is None:
            os.chown(path, apart.uids.first_outside(), apart.gids.first_outside())
    return files
