"""Who is called what, and what a name server answers: RFC 1035, without a socket in sight.

A container may be told of what is on its own networks and of nothing else. What no container there
is called is somebody else's to answer: the host's servers, or those that ``--dns`` named.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import dnslib

Address = IPv4Address | IPv6Address

# An answer may change with the next command, so nobody is to keep it.
TTL_SECONDS = 0

_DATAGRAM_BYTES = 512  # without EDNS: RFC 1035, 2.3.4
_DATAGRAM_BYTES_MAX = 4096
_OPT = 41
_HEADER_BYTES = 12


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

    Args:
        endpoints: a container's in the order in which its networks are asked.
    """

    __slots__ = ("_networks", "_of_container")

    def __init__(self, endpoints: "Iterable[Endpoint]") -> None:
        self._of_container: dict[str, list[Endpoint]] = {}
        self._networks: dict[str, list[Endpoint]] = {}
        for endpoint in endpoints:
            self._of_container.setdefault(endpoint.container_id, []).append(endpoint)
            self._networks.setdefault(endpoint.network, []).append(endpoint)

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
        own = self._of_container.get(asker, ())
        for endpoint in own:
            neighbours = self._networks[endpoint.network]
            linked = endpoint.links.get(name)
            if linked is not None:
                found = [other for other in neighbours if other.container_id == linked]
            else:
                bare = name.removesuffix(f".{_folded(endpoint.network)}")
                found = [
                    other for other in neighbours if name in other.names or bare in other.names
                ]
            if found:
                return [address for other in found for address in other.addresses]
        return None

    def name(self, asker: str, address: Address) -> str | None:
        """What a container on one of the asker's networks is called, with the network's name."""
        for endpoint in self._of_container.get(asker, ()):
            for other in self._networks[endpoint.network]:
                if address in other.addresses and other.names:
                    return f"{other.names[0]}.{endpoint.network}"
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

    __slots__ = ("_record", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            self._record = dnslib.DNSRecord.parse(data)
        except Exception as error:  # the library raises whatever comes first
            raise ValueError(f"not a DNS message: {error}") from error
        if self._record.header.qr:
            raise ValueError("an answer where a question was due")

    @property
    def question(self) -> bytes:
        """The question section, which an answer must repeat."""
        name = self._record.questions[0].qname
        end = _HEADER_BYTES + sum(len(label) + 1 for label in name.label) + 1 + 4
        return self.data[_HEADER_BYTES:end]

    def refused(self) -> bytes | None:
        """The answer to what no server here does: other operations, several questions."""
        if self._record.header.opcode != dnslib.OPCODE.QUERY:
            return self._empty("NOTIMP")
        if len(self._record.questions) != 1:
            return self._empty("FORMERR")
        return None

    def failed(self) -> bytes:
        """The answer where nobody gave one."""
        return self._empty("SERVFAIL")

    def answer(self, directory: Directory, asker: str) -> bytes | None:
        """What the directory says, of any length.

        Args:
            directory: who is called what.
            asker: the container that asks.

        Returns:
            None where the question is not about a container on the asker's networks.
        """
        question = self._record.questions[0]
        name = str(question.qname).rstrip(".")
        if question.qtype == dnslib.QTYPE.PTR:
            address = _reversed(name)
            target = directory.name(asker, address) if address else None
            return self._with([dnslib.PTR(target)]) if target else None
        if question.qclass != dnslib.CLASS.IN:
            return None
        found = directory.addresses(asker, name)
        if found is None:
            return None
        version = {dnslib.QTYPE.A: 4, dnslib.QTYPE.AAAA: 6}.get(question.qtype)
        addresses = [address for address in found if address.version == version]
        random.shuffle(addresses)  # several containers with one alias share the load
        kind = dnslib.A if version == 4 else dnslib.AAAA
        return self._with([kind(str(address)) for address in addresses])

    def datagram(self, answer: bytes) -> bytes:
        """An answer cut to what fits into the asker's datagrams: RFC 1035 4.2.1, RFC 6891 6.2.3."""
        limit = _DATAGRAM_BYTES
        extended = self._extended()
        if extended is not None:
            limit = max(limit, min(extended, _DATAGRAM_BYTES_MAX))
        if len(answer) <= limit:
            return answer
        short = self._reply()
        short.header.tc = 1
        return bytes(short.pack())

    def _extended(self) -> int | None:
        """How large the asker's datagrams may be, where it speaks EDNS."""
        sizes = [extra.rclass for extra in self._record.ar if extra.rtype == _OPT]
        return sizes[0] if sizes else None

    def _reply(self) -> dnslib.DNSRecord:
        reply = self._record.reply(ra=1, aa=0)
        if self._extended() is not None:
            reply.add_ar(dnslib.EDNS0(udp_len=_DATAGRAM_BYTES_MAX))
        return reply

    def _empty(self, status: str) -> bytes:
        reply = self._reply()
        reply.header.rcode = getattr(dnslib.RCODE, status)
        return bytes(reply.pack())

    def _with(self, data: "list[dnslib.RD]") -> bytes:
        """An answer with this data; none of it means that the name has nothing of this type."""
        reply = self._reply()
        question = self._record.questions[0]
        for entry in data:
            reply.add_answer(
                dnslib.RR(question.qname, question.qtype, ttl=TTL_SECONDS, rdata=entry)
            )
        return bytes(reply.pack())


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
    return answer[3] & 0x0F in {2, 4, 5}


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
