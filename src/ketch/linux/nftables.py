"""Packet filtering: nft(8) writes rules; a netlink socket reads, and changes what is in sets.

Rules are compiled by nft, whose language is the stable interface. Whether they are there is asked
of the kernel itself (linux/netfilter/nf_tables.h), because starting nft costs 5 ms and more. Sets'
elements are numbers in a form that has not changed since Linux 3.13, and come and go the same way.
"""

import errno
import os
import select
import struct

from ketch.errors import PermissionDeniedError, SyscallError, UnavailableError, UnsupportedError
from ketch.linux import netlink, signals
from ketch.linux.netlink import Message, Request, nested, text
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NETLINK_NETFILTER = 12

# linux/netfilter.h: protocol families, under the names that nft gives them.
_FAMILIES = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}

NF_DROP = 0

NFT_MSG_GETCHAIN = 0x0A04
NFT_MSG_GETRULE = 0x0A07
NFT_MSG_NEWSETELEM = 0x0A0C
NFT_MSG_GETSETELEM = 0x0A0D
NFT_MSG_DELSETELEM = 0x0A0E

NFTA_CHAIN_TABLE = 1
NFTA_CHAIN_NAME = 3
NFTA_CHAIN_POLICY = 5
NFTA_RULE_TABLE = 1
NFTA_RULE_CHAIN = 2
NFTA_RULE_HANDLE = 3
NFTA_RULE_USERDATA = 7
NFTA_SET_ELEM_LIST_TABLE = 1
NFTA_SET_ELEM_LIST_SET = 2
NFTA_SET_ELEM_LIST_ELEMENTS = 3
NFTA_LIST_ELEM = 1
NFTA_SET_ELEM_KEY = 1
NFTA_SET_ELEM_DATA = 2
NFTA_SET_ELEM_USERDATA = 6
NFTA_DATA_VALUE = 1

_HEADER = struct.Struct("!BBH")  # nfgenmsg: family, version, resource

_QUERIES = 64

# linux/netfilter/nfnetlink.h: what begins and ends a transaction, and the subsystem it is for.
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_SUBSYSTEM = 10
# What it takes with a hundred thousand rules of others, many times over.
_NFT_SECONDS = 60
_ELEMENTS_MAX = 256  # in one message: attributes have 16 bits of length

# linux/if.h: IFNAMSIZ, the width of a set's interface name.
_IFNAME_BYTES = 16

# A service's PATH often lacks the sbin directories, where nft lives.
_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin", "/bin", "/usr/local/bin")


class Transaction:
    """A script that nft is carrying out, whole or not at all, while its caller does other work.

    Args:
        script: nft's language; see nft(8), option ``-f``.
        purpose: what it is for, for errors.

    Raises:
        UnavailableError: nft is not installed.
    """

    __slots__ = ("_errors", "_pid", "_purpose", "_result")

    def __init__(self, script: str, purpose: str) -> None:
        self._purpose = purpose
        self._pid, self._result, self._errors = _start(script, "-f", "/dev/stdin")

    def wait(self) -> None:
        """Wait until the kernel has the new rules.

        Raises:
            PermissionDeniedError: the caller may not change this namespace's rules.
            UnavailableError: nft refused the script or the kernel its rules, which are then as
                they were before.
        """
        _finish(self._pid, self._result, self._errors, self._purpose)


def check(script: str) -> bool:
    """Whether nft and the kernel understand a script, which is not carried out (``nft -c``)."""
    try:
        _finish(*_start(script, "-c", "-f", "/dev/stdin"), "check")
    except UnavailableError:
        return False
    return True


def listing(*what: str) -> "list[dict[str, Any]]":
    """What ``nft -j list WHAT...`` lists, such as ``listing("table", "inet", "ketch")``.

    Source: libnftables-json(5). For inspection and tests.
    """
    import json  # noqa: PLC0415  no start lists rules

    purpose = " ".join(("list", *what))
    pid, result, errors = _start("", "-j", "list", *what)
    found: list[dict[str, Any]] = json.loads(_finish(pid, result, errors, purpose))["nftables"]
    return found


def ifname(name: str) -> bytes:
    """An interface name as a set's key has it."""
    return name.encode().ljust(_IFNAME_BYTES, b"\0")


class Element:
    """An element of a set or map.

    Args:
        name: the set's or map's.
        key: as the kernel stores it.
        data: what the key leads to in a map, as the kernel stores it; empty in a set.
        comment: for whoever lists it, at most 127 bytes.
        family: of the set's table: ``inet``, ``bridge``, ``ip`` or ``ip6``.
        words: the key as nft reads it, for an element that nft is to add.
        leads: the data as nft reads it.
    """

    __slots__ = ("comment", "data", "family", "key", "leads", "name", "words")

    def __init__(
        self,
        name: str,
        key: bytes,
        data: bytes = b"",
        comment: str = "",
        *,
        family: str = "inet",
        words: str = "",
        leads: str = "",
    ) -> None:
        self.name = name
        self.key = key
        self.data = data
        self.comment = comment
        self.family = family
        self.words = words
        self.leads = leads

    @property
    def place(self) -> tuple[str, str, bytes]:
        """Where it is: the table's family, the set's name and the key."""
        return self.family, self.name, self.key

    def spoken(self, table: str) -> str:
        """Set and element as nft reads them behind ``add element``."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        leads = f" : {self.leads}" if self.leads else ""
        return f"{self.family} {table} {self.name} {{ {self.words}{comment}{leads} }}"

    def encode(self) -> bytes:
        """As an attribute of a message."""
        value = nested(NFTA_SET_ELEM_KEY, netlink.attribute(NFTA_DATA_VALUE, self.key))
        if self.data:
            value += nested(NFTA_SET_ELEM_DATA, netlink.attribute(NFTA_DATA_VALUE, self.data))
        if self.comment:
            text_bytes = self.comment.encode() + b"\0"
            # libnftnl/udata.h: type 0, length, value.
            userdata = bytes([0, len(text_bytes)]) + text_bytes
            value += netlink.attribute(NFTA_SET_ELEM_USERDATA, userdata)
        return nested(NFTA_LIST_ELEM, value)


def padded(part: bytes) -> bytes:
    """One part of a concatenated key: the kernel fills each up to four bytes."""
    return part + bytes(-len(part) % 4)


class Socket(netlink.Socket):
    """Reads the rules of the network namespace in which it is made.

    Raises:
        UnsupportedError: the kernel has no nftables.
    """

    __slots__ = ()

    def __init__(self) -> None:
        try:
            super().__init__(NETLINK_NETFILTER)
        except OSError as error:
            if error.errno != errno.EPROTONOSUPPORT:
                raise
            raise _unsupported() from error

    def present(
        self, family: str, table: str, elements: "Sequence[tuple[str, bytes]]"
    ) -> list[bool]:
        """Whether elements are in sets; not when set or table is missing either.

        Args:
            family: ``inet``, ``ip`` or ``ip6``.
            table: the table's name.
            elements: names of sets of the table and keys as the kernel stores them.
        """
        requests = [
            _request(
                "NFT_MSG_GETSETELEM",
                NFT_MSG_GETSETELEM,
                family,
                text(NFTA_SET_ELEM_LIST_TABLE, table)
                + text(NFTA_SET_ELEM_LIST_SET, name)
                + nested(
                    NFTA_SET_ELEM_LIST_ELEMENTS,
                    nested(
                        NFTA_LIST_ELEM,
                        nested(NFTA_SET_ELEM_KEY, netlink.attribute(NFTA_DATA_VALUE, key)),
                    ),
                ),
                f"look into set {table} {name}",
            )
            for name, key in elements
        ]
        # Answers wait in the socket's receive buffer, so not too many at once.
        return [
            answer is not None
            for start in range(0, len(requests), _QUERIES)
            for answer in self._ask(*requests[start : start + _QUERIES])
        ]

    def there(self, table: str, elements: "Sequence[Element]") -> list[bool]:
        """Whether elements are in the sets of tables of one name, as ``present``."""
        answers: dict[tuple[str, str, bytes], bool] = {}
        for family in dict.fromkeys(element.family for element in elements):
            own = [element for element in elements if element.family == family]
            keys = [(element.name, element.key) for element in own]
            places = [element.place for element in own]
            answers.update(zip(places, self.present(family, table, keys), strict=True))
        return [answers[element.place] for element in elements]

    def change(
        self,
        table: str,
        *,
        add: "Sequence[Element]" = (),
        delete: "Sequence[Element]" = (),
    ) -> None:
        """Change elements of sets in tables of one name in one transaction, deletions first.

        Raises:
            SyscallError: ENOENT, an element to be deleted is not there, or no such set; EEXIST, an
                element to be added is there and leads elsewhere; EPERM. Nothing has changed then.
        """
        requests = [
            *self._elements("NFT_MSG_DELSETELEM", NFT_MSG_DELSETELEM, 0, table, delete),
            *self._elements(
                "NFT_MSG_NEWSETELEM", NFT_MSG_NEWSETELEM, netlink.NLM_F_CREATE, table, add
            ),
        ]
        if requests:
            header = _HEADER.pack(0, 0, _SUBSYSTEM)
            self.enclosed(
                Request("NFNL_MSG_BATCH_BEGIN", _BATCH_BEGIN, 0, header, "begin a transaction"),
                requests,
                Request("NFNL_MSG_BATCH_END", _BATCH_END, 0, header, "end a transaction"),
            )

    @staticmethod
    def _elements(
        name: str, kind: int, flags: int, table: str, elements: "Sequence[Element]"
    ) -> "list[Request]":
        by_set: dict[tuple[str, str], list[Element]] = {}
        for element in elements:
            by_set.setdefault((element.family, element.name), []).append(element)
        return [
            Request(
                name,
                kind,
                flags,
                _HEADER.pack(_FAMILIES[family], 0, 0)
                + text(NFTA_SET_ELEM_LIST_TABLE, table)
                + text(NFTA_SET_ELEM_LIST_SET, set_name)
                + nested(
                    NFTA_SET_ELEM_LIST_ELEMENTS,
                    *(element.encode() for element in members[start : start + _ELEMENTS_MAX]),
                ),
                f"elements of {table} {set_name}",
            )
            for (family, set_name), members in by_set.items()
            for start in range(0, len(members), _ELEMENTS_MAX)
        ]

    def policy(self, family: str, table: str, chain: str) -> int | None:
        """What happens at the end of a base chain: NF_DROP or NF_ACCEPT; None without the chain."""
        answer = self._ask(
            _request(
                "NFT_MSG_GETCHAIN",
                NFT_MSG_GETCHAIN,
                family,
                text(NFTA_CHAIN_TABLE, table) + text(NFTA_CHAIN_NAME, chain),
                f"look up chain {table} {chain}",
            )
        )[0]
        if answer is None:
            return None
        value = dict(netlink.attributes(answer.payload, _HEADER.size)).get(NFTA_CHAIN_POLICY)
        return None if value is None else int.from_bytes(value, "big")

    def comments(self, family: str, table: str, chain: str) -> list[bytes]:
        """The comments of a chain's rules, in their order, as userdata that contains them."""
        return [userdata for _, userdata in self.rules(family, table, chain)]

    def rules(self, family: str, table: str, chain: str) -> list[tuple[int, bytes]]:
        """A chain's rules, in their order: each one's handle and userdata."""
        request = _request(
            "NFT_MSG_GETRULE",
            NFT_MSG_GETRULE,
            family,
            text(NFTA_RULE_TABLE, table) + text(NFTA_RULE_CHAIN, chain),
            f"list rules of {table} {chain}",
        )
        found = []
        for message in self.dump(request):
            values = dict(netlink.attributes(message.payload, _HEADER.size))
            handle = int.from_bytes(values.get(NFTA_RULE_HANDLE, b""), "big")
            found.append((handle, values.get(NFTA_RULE_USERDATA, b"")))
        return found

    def _ask(self, *requests: Request) -> list[Message | None]:
        try:
            return self.query(*requests)
        except SyscallError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
                raise
            raise _unsupported() from error


def _request(name: str, kind: int, family: str, payload: bytes, detail: str) -> Request:
    header = _HEADER.pack(_FAMILIES[family], 0, 0)
    return Request(name, kind, 0, header + payload, detail, accept=(errno.ENOENT,))


def _unsupported() -> UnsupportedError:
    return UnsupportedError(
        "this kernel has no nftables",
        "build it with CONFIG_NF_TABLES, or start containers with --network host or none",
    )


def _start(script: str, *arguments: str) -> tuple[int, int, int]:
    """Start nft on files in memory; return its pid and descriptors of its output and errors."""
    for directory in _DIRECTORIES:
        program = f"{directory}/nft"
        if os.access(program, os.X_OK):
            break
    else:
        raise UnavailableError(
            "the program nft, which writes packet filter rules, is not installed",
            "apt-get install nftables",
        )
    opened: list[int] = []
    try:
        opened.extend(os.memfd_create(f"nft-{name}") for name in ("script", "result", "errors"))
        os.write(opened[0], script.encode())
        os.lseek(opened[0], 0, os.SEEK_SET)
        pid = os.posix_spawn(
            program,
            [program, *arguments],
            {"LC_ALL": "C", "PATH": ":".join(_DIRECTORIES)},
            file_actions=[(os.POSIX_SPAWN_DUP2, opened[at], at) for at in range(3)],
            setsigmask=(),
            setsigdef=range(1, 32),
        )
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    os.close(opened[0])
    return pid, opened[1], opened[2]


def _finish(pid: int, result: int, errors: int, purpose: str) -> bytes:
    """Wait for nft, close its files and return its output."""
    with owned(result), owned(errors):
        status = _status(pid, purpose)
        output = _content(result)
        words = _content(errors).decode(errors="replace").strip()
    if not status:
        return output
    if "Operation not permitted" in words:
        raise PermissionDeniedError(f"packet filter: {purpose}: not permitted", "run as root")
    if status < 0:
        words = f"nft was killed by signal {-status}"
    raise UnavailableError(
        f"packet filter: {purpose}: {words or f'nft ended with status {status}'}",
        "look at `nft list ruleset`",
    )


def _status(pid: int, purpose: str) -> int:
    """Wait for nft's end; returns its status, negative for a signal."""
    with owned(os.pidfd_open(pid)) as pidfd:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_NFT_SECONDS * 1000):
            os.kill(pid, signals.SIGKILL)
            poll.poll(1000)
            os.waitpid(pid, os.WNOHANG)
            raise UnavailableError(
                f"packet filter: {purpose}: nft has not ended within {_NFT_SECONDS} seconds, and"
                " was killed",
                "nft list ruleset, by hand, says whether the kernel answers",
            )
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
