"""Who is called what, and what a name server answers: RFC 1035, without a socket in sight.

A container may be told of what is on its own networks and of nothing else. What no container there
is called is somebody else's to answer: the host's servers, or those that ``--dns`` named.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from ketch.network import dns_message as message

Address = IPv4Address | IPv6Address

# An answer may change with the next command, so nobody is to keep it.
TTL_SECONDS = 0

_DATAGRAM_BYTES = 512  # without EDNS: RFC 1035, 2.3.4
_DATAGRAM_BYTES_MAX = 4096
_HEADER_BYTES = 12
_FAILURES = {message.SERVFAIL, message.NOTIMP, message.REFUSED}


class Endpoint:
    """A container's place in a network, as others there may find it.

    Args:
        container_id: whose.
        network: the network's name, unique in the engine.
        names: what it is called there: name, aliases, short id, host name; the first one is told
            to who asks for an address's name.
        addresses: its addresses there.
        links: other containers' ids by the names under which this one alone knows them.
        leads_out: whether the network leads to others.
    """

    __slots__ = ("addresses", "container_id", "leads_out", "links", "names", "network")

    def __init__(
        self,
        container_id: str,
        network: str,
        names: "Sequence[str]",
        addresses: "Iterable[Address]",
        *,
        links: "Mapping[str, str] | None" = None,
        leads_out: bool = True,
    ) -> None:
        self.container_id = container_id
        self.network = network
        self.names = [_folded(name) for name in names]
        self.addresses = tuple(addresses)
        self.links = {_folded(name): other for name, other in (links or {}).items()}
        self.leads_out = leads_out


class Directory:
    """All endpoints of an engine at one moment, and who may know of whom.

    What a question costs does not depend on how many there are.

    Args:
        endpoints: a container's in the order in which its networks are asked.
    """

    __slots__ = ("_addressed", "_called", "_of_container")

    def __init__(self, endpoints: "Iterable[Endpoint]") -> None:
        self._of_container: dict[str, list[Endpoint]] = {}
        self._called: dict[tuple[str, str], list[Endpoint]] = {}
        self._addressed: dict[tuple[str, Address], Endpoint] = {}
        for endpoint in endpoints:
            self._of_container.setdefault(endpoint.container_id, []).append(endpoint)
            for name in dict.fromkeys(endpoint.names):
                self._called.setdefault((endpoint.network, name), []).append(endpoint)
            for address in endpoint.addresses if endpoint.names else ():
                self._addressed.setdefault((endpoint.network, address), endpoint)

    def addresses(self, asker: str, name: str) -> "list[Address] | None":
        """Addresses behind a name, as one container may know it.

        Args:
            asker: the container's id.
            name: a container's name, alias, short id or link's name, or one of the first three and
                the network's name behind it: ``web.backend``. Case does not matter.

        Returns:
            None where no container on the asker's networks is called so.
        """
        name = _folded(name)
        for endpoint in self._of_container.get(asker, ()):
            network = endpoint.network
            linked = endpoint.links.get(name)
            if linked is not None:
                found = [
                    one for one in self._of_container.get(linked, ()) if one.network == network
                ]
            else:
                bare = name.removesuffix(f".{_folded(network)}")
                names = dict.fromkeys((name, bare))
                found = [one for called in names for one in self._called.get((network, called), ())]
            if found:
                return list(dict.fromkeys(address for one in found for address in one.addresses))
        return None

    def name(self, asker: str, address: Address) -> str | None:
        """What a container on one of the asker's networks is called, with the network's name."""
        for endpoint in self._of_container.get(asker, ()):
            found = self._addressed.get((endpoint.network, address))
            if found is not None:
                return f"{found.names[0]}.{endpoint.network}"
        return None

    def leads_out(self, asker: str) -> bool:
        """Whether the asker may reach, and so ask, anyone beyond its networks."""
        return any(endpoint.leads_out for endpoint in self._of_container.get(asker, ()))


class Query:
    """A question that can be answered or passed on.

    Args:
        data: the message as it came.

    Raises:
        ValueError: it is no message that anybody should answer.
    """

    __slots__ = ("_asked", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._asked = message.Question(data)

    @property
    def question(self) -> bytes:
        """The question section, which an answer must repeat."""
        return self._asked.section

    def refused(self) -> bytes | None:
        """The answer to what no server here does: other operations, several questions."""
        if self._asked.operation:
            return self._reply(message.NOTIMP)
        if self._asked.count != 1:
            return self._reply(message.FORMERR)
        return None

    def failed(self) -> bytes:
        """The answer where nobody gave one."""
        return self._reply(message.SERVFAIL)

    def answer(self, directory: Directory, asker: str) -> bytes | None:
        """What the directory says, of any length.

        Args:
            directory: who is called what.
            asker: the container that asks.

        Returns:
            None where the question is not about a container on the asker's networks.
        """
        asked = self._asked
        if asked.kind != message.IN or any(b"." in label for label in asked.labels):
            return None
        name = b".".join(asked.labels).decode("utf-8", "surrogateescape")
        if asked.type == message.PTR:
            address = _reversed(name)
            target = directory.name(asker, address) if address else None
            called = message.encoded(target) if target else None
            return self._with([called]) if called else None
        found = directory.addresses(asker, name)
        if found is None:
            return None
        version = {message.A: 4, message.AAAA: 6}.get(asked.type)
        addresses = [address.packed for address in found if address.version == version]
        random.shuffle(addresses)  # several containers with one alias share the load
        return self._with(addresses)

    def datagram(self, answer: bytes) -> bytes:
        """An answer cut to what fits into the asker's datagrams: RFC 1035 4.2.1, RFC 6891 6.2.3."""
        limit = _DATAGRAM_BYTES
        if self._asked.extended is not None:
            limit = max(limit, min(self._asked.extended, _DATAGRAM_BYTES_MAX))
        return answer if len(answer) <= limit else self._reply(truncated=True)

    def _reply(
        self, status: int = message.NOERROR, records: "Sequence[bytes]" = (), *,
        truncated: bool = False,
    ) -> bytes:  # fmt: skip
        return message.reply(
            self._asked, status, records, own_size=_DATAGRAM_BYTES_MAX, truncated=truncated
        )

    def _with(self, data: "Sequence[bytes]") -> bytes:
        """An answer with this data; none of it means that the name has nothing of this type."""
        return self._reply(
            records=[message.record(self._asked.type, entry, TTL_SECONDS) for entry in data]
        )


def matches(query: Query, sent_id: bytes, answer: bytes) -> bool:
    """Whether a message answers a query that was passed on.

    Args:
        query: what was asked.
        sent_id: the two bytes under which it was passed on.
        answer: what came back.
    """
    question = query.question
    return (
        len(answer) >= _HEADER_BYTES
        and answer[:2] == sent_id
        and bool(answer[2] & 0x80)
        and answer[_HEADER_BYTES : _HEADER_BYTES + len(question)].lower() == question.lower()
    )


def is_failure(answer: bytes) -> bool:
    """Whether another server may do better: SERVFAIL, NOTIMP or REFUSED."""
    return answer[3] & 0x0F in _FAILURES


def _folded(name: str) -> str:
    return name.rstrip(".").lower()


def _reversed(name: str) -> Address | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for: RFC 1035 3.5, 3596 2.5."""
    labels = name.lower().split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and len(labels) == 6:
            return ip_address(".".join(reversed(labels[:-2])))
        if labels[-2:] == ["ip6", "arpa"] and len(labels) == 34:
            digits = "".join(reversed(labels[:-2]))
            return ip_address(":".join(digits[n : n + 4] for n in range(0, 32, 4)))
    except ValueError:
        pass
    return None
