"""What ``--explain`` tells of networks' records, and of the files that tell containers of them."""

from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.networks.members import Member
    from ketch.engine.networks.records import Network


def of_record(network: "Network") -> Told:
    """A new network's record: which addresses and which link are its own from now on."""
    values = [("id", network.id), ("driver", network.driver)]
    if network.bridge:
        values.append(("link", network.bridge))
    for one in network.subnets:
        chosen = " (chosen from the address pools)" if one.chosen else ""
        values.append(("subnet", f"{one.subnet}{chosen}"))
        if one.gateway:
            values.append(("gateway", str(one.gateway)))
        if one.ip_range:
            values.append(("containers", str(one.ip_range)))
        values += [(f"auxiliary.{name}", address) for name, address in one.auxiliary.items()]
    values += [(f"option.{name}", value) for name, value in sorted(network.options.items())]
    if network.internal:
        values.append(("internal", "it leads nowhere"))
    return Told("record", f"record the network {network.name}", values)


def of_removal(network: "Network") -> Told:
    """A network's record goes, and its addresses are for others."""
    values = [("id", network.id)]
    values += [("given-back", str(one.subnet)) for one in network.subnets]
    return Told("record", f"remove the record of network {network.name}", values)


def of_joining(member: "Member", network: "Network", *, running: bool) -> Told:
    """A container becomes a member of a network; one that runs gets addresses."""
    values = [("container", member.container_id), ("network", network.id)]
    values += [("lease", str(address)) for address in member.addresses]
    if member.names:
        values.append(("names", " ".join(member.names)))
    words = f"record that the container is on network {network.name}"
    return Told("record", words if running else f"{words} from its next start on", values)


def of_leaving(member: "Member") -> Told:
    """A container is no member of a network any more, and its addresses are for others."""
    values = [("container", member.container_id)]
    values += [("given-back", str(address.ip)) for address in member.addresses]
    words = f"record that the container is on network {member.network_name} no more"
    return Told("record", words, values)


def of_hosts(path: str, gone: "list[str]", added: str) -> Told:
    """A running container's /etc/hosts changes.

    Args:
        path: where it is on the host.
        gone: addresses whose lines go.
        added: lines that come.
    """
    values, by_hand = [], []
    for address in gone:
        values.append(("remove", address))
        pattern = quote(f"^{address.replace('.', '[.]')}[[:space:]]")
        by_hand.append(
            f"kept=$(grep -v {pattern} {quote(path)}); printf '%s\\n' \"$kept\" > {quote(path)}"
        )
    for line in added.splitlines():
        values.append(("add", line.replace("\t", " ")))
        by_hand.append(f"printf '%s\\n' {quote(line)} >> {quote(path)}")
    words = "change the container's /etc/hosts, in place · pwrite(2)"
    return Told("files", words, values, outside=by_hand)


def of_resolv_conf(path: str, text: str) -> Told:
    """A running container gets a name server with its first network."""
    by_hand = [f"printf '%s\\n' {quote(line)} >> {quote(path)}" for line in text.splitlines()]
    words = "name the engine's name server in the container's /etc/resolv.conf · write(2)"
    return Told("files", words, [("line", line) for line in text.splitlines()],
                outside=[f": > {quote(path)}", *by_hand])  # fmt: skip
