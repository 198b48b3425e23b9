"""The name server of a sandbox with rules: each name that may be reached seems to be at an address.

Nobody else is asked, so what a sandbox asks tells nobody anything. The addresses are of ``VIRTUAL``
and mean something to the relay alone, which knows by them which name a connection is for.
"""

import threading
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from ketch.network import dns_message
from ketch.sandbox.egress import policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.sandbox.egress.record import Record

NAMES_MAX = 4096
TTL_SECONDS = 60
_FIRST = 2  # of the network's addresses
_NAME_ERROR = 3
_OWN_SIZE = 1232


class Names:
    """Which name is behind which address, for as long as the sandbox lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[str, IPv4Address] = {}
        self._names: dict[IPv4Address, str] = {}

    def address(self, name: str) -> IPv4Address | None:
        """Returns a name's address; None where there are too many names already."""
        with self._lock:
            found = self._addresses.get(name)
            if found is None and len(self._addresses) < NAMES_MAX:
                found = policy.VIRTUAL[_FIRST + len(self._addresses)]
                self._addresses[name] = found
                self._names[found] = name
            return found

    def name(self, address: policy.Address) -> str | None:
        """Returns which name is behind an address."""
        with self._lock:
            return self._names.get(address) if isinstance(address, IPv4Address) else None


def answer(
    data: bytes, names: Names, knows: "Callable[[str], bool]", record: "Record"
) -> bytes | None:
    """Answer a question; None for what is no message that anybody should answer.

    Args:
        data: the message.
        names: the names that have addresses.
        knows: whether a name may be looked up.
        record: where it stands what was refused.
    """
    try:
        asked = dns_message.Question(data)
    except ValueError:
        return None
    if asked.operation or asked.count != 1:
        status = dns_message.NOTIMP if asked.operation else dns_message.FORMERR
        return dns_message.reply(asked, status, own_size=_OWN_SIZE)
    text = b".".join(asked.labels).decode("latin-1")
    name = policy.normal(text) if text.isascii() else None
    if name is None or asked.kind != dns_message.IN or not knows(name):
        record.refuse("lookup", text, "", "no rule names it")
        return dns_message.reply(asked, _NAME_ERROR, own_size=_OWN_SIZE)
    records = []
    if asked.type == dns_message.A:
        address = names.address(name)
        if address is None:
            record.refuse("lookup", text, "", "too many names")
            return dns_message.reply(asked, dns_message.REFUSED, own_size=_OWN_SIZE)
        records = [dns_message.record(dns_message.A, address.packed, TTL_SECONDS)]
    return dns_message.reply(asked, records=records, own_size=_OWN_SIZE)
