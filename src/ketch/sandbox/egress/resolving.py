"""Where names are, as the relay asks name servers: RFC 1035, by UDP, and TCP where that is cut off.

Servers may lie: an answer is bounded, belongs to its question, and says nothing but addresses.
Whether these may be reached is for others to judge, each time that one is about to be.
"""

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ketch.network import dns_message
from ketch.network.names import servers_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ketch.sandbox.egress.policy import Address

ADDRESSES_MAX = 16
_HERE = {"host.docker.internal", "host.containers.internal"}  # Docker's and podman's
_ANSWER_BYTES_MAX = 16 << 10
_RECORDS_MAX = 256
_ALIASES_MAX = 16
_POINTERS_MAX = 64
_TRY_SECONDS = 2.0
_TRIES = 2
_SERVERS_MAX = 3
_PORT = 53
_KEPT_MAX = 1024
_KEPT_SECONDS_MAX = 300
_KEPT_SECONDS_LEAST = 1  # many connections at once ask once
_CNAME = 5
_TRUNCATED, _ANSWER = 0x0200, 0x8000
_HEADER = struct.Struct("!2sHHHHH")
_RECORD = struct.Struct("!HHIH")
_BYTES = {dns_message.A: 4, dns_message.AAAA: 16}


class Resolver:
    """Asks, and keeps what it was told for as long as that is said to be true.

    Args:
        servers: tells which name servers there are, now.
    """

    def __init__(self, servers: "Callable[[], Sequence[str]]") -> None:
        self._servers = servers
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, list[Address]]] = {}

    def addresses(self, name: str) -> "list[Address]":
        """Returns where a name is, IPv4 first.

        Raises:
            OSError: nobody says.
        """
        if name in _HERE:
            return [ip_address("127.0.0.1")]
        now = time.monotonic()
        with self._lock:
            until, found = self._kept.get(name, (0.0, []))
        if until > now:
            return found
        found, seconds = [], _KEPT_SECONDS_MAX
        problem: OSError | None = None
        for kind in _BYTES:
            try:
                addresses, ttl = self._ask(name, kind)
            except OSError as error:
                problem = error
                continue
            found += addresses
            seconds = min(seconds, ttl)
        if problem is not None and not found:
            raise problem
        with self._lock:
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[name] = now + max(seconds, _KEPT_SECONDS_LEAST), found
        return found

    def _ask(self, name: str, kind: int) -> "tuple[list[Address], int]":
        problem: OSError = OSError("there is no name server")
        for _ in range(_TRIES):
            for server in self._servers()[:_SERVERS_MAX]:
                try:
                    return _answer(server, name, kind)
                except ValueError as error:
                    problem = OSError(f"name server {server}: {error}")
                except OSError as error:
                    problem = OSError(f"name server {server}: {error.strerror or 'is silent'}")
        raise problem


def _answer(server: str, name: str, kind: int) -> "tuple[list[Address], int]":
    encoded = dns_message.encoded(name)
    if encoded is None:
        raise ValueError("no name")
    number = os.urandom(2)
    question = encoded + struct.pack("!HH", kind, dns_message.IN)
    asked = _HEADER.pack(number, 0x0100, 1, 0, 0, 0) + question
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    until = time.monotonic() + _TRY_SECONDS
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((server, _PORT))
        asking.send(asked)
        while True:
            asking.settimeout(max(0.01, until - time.monotonic()))
            told = asking.recv(_ANSWER_BYTES_MAX)
            if _is_answer(told, number, question):
                break
            if time.monotonic() > until:
                raise ValueError("answers other questions")
    if _HEADER.unpack_from(told)[1] & _TRUNCATED:
        told = _by_stream(server, family, asked)
        if not _is_answer(told, number, question):
            raise ValueError("answers other questions")
    return parse(told, name, kind)


def _by_stream(server: str, family: int, asked: bytes) -> bytes:
    until = time.monotonic() + _TRY_SECONDS
    with socket.socket(family, socket.SOCK_STREAM) as asking:
        asking.settimeout(_TRY_SECONDS)
        asking.connect((server, _PORT))
        asking.sendall(len(asked).to_bytes(2, "big") + asked)
        told = bytearray()
        while len(told) < 2 or len(told) < 2 + min(
            int.from_bytes(told[:2], "big"), _ANSWER_BYTES_MAX
        ):
            asking.settimeout(max(0.01, until - time.monotonic()))
            piece = asking.recv(_ANSWER_BYTES_MAX)
            if not piece or time.monotonic() > until:
                raise ValueError("breaks off")
            told += piece
    return bytes(told[2:])


def _is_answer(told: bytes, number: bytes, question: bytes) -> bool:
    if len(told) < _HEADER.size + len(question) or told[:2] != number:
        return False
    _, flags, count, *_ = _HEADER.unpack_from(told)
    same = told[_HEADER.size : _HEADER.size + len(question)].lower() == question.lower()
    return bool(flags & _ANSWER) and count == 1 and same


def parse(told: bytes, name: str, kind: int) -> "tuple[list[Address], int]":
    """Read an answer that belongs to its question.

    Args:
        told: the message.
        name: what was asked about.
        kind: A or AAAA.

    Returns:
        The addresses, no more than ``ADDRESSES_MAX``, and for how many seconds they are true; none
        where there is no such name.

    Raises:
        ValueError: it is none that could be, or the server failed.
    """
    status = told[3] & 0xF
    if status not in {dns_message.NOERROR, 3}:
        raise ValueError(f"fails (RCODE {status})")
    try:
        _, _, questions, answers, *_ = _HEADER.unpack_from(told)
        at = _HEADER.size
        for _ in range(questions):
            _, at = _read_name(told, at)
            at += 4
        aliases: dict[bytes, tuple[bytes, int]] = {}
        found: dict[bytes, list[tuple[bytes, int]]] = {}
        for _ in range(min(answers, _RECORDS_MAX)):
            owner, at = _read_name(told, at)
            record, group, ttl, length = _RECORD.unpack_from(told, at)
            at += _RECORD.size
            if at + length > len(told):
                raise ValueError("an answer that is cut off")
            if group == dns_message.IN and record == kind and length == _BYTES[kind]:
                found.setdefault(owner, []).append((told[at : at + length], ttl))
            elif group == dns_message.IN and record == _CNAME:
                aliases.setdefault(owner, (_read_name(told, at)[0], ttl))
            at += length
    except (struct.error, IndexError) as error:
        raise ValueError("an answer that is cut off") from error
    owner, seconds = name.encode().lower(), _KEPT_SECONDS_MAX
    for _ in range(_ALIASES_MAX):
        if owner in found or owner not in aliases:
            break
        owner, ttl = aliases[owner]
        seconds = min(seconds, ttl)
    records = found.get(owner, [])[:ADDRESSES_MAX]
    seconds = min([seconds, *(ttl for _, ttl in records)]) if records else 0
    return [ip_address(data) for data, _ in records], seconds


def _read_name(told: bytes, at: int) -> tuple[bytes, int]:
    """A name, small, and where it ends; pointers lead backwards alone, so there is an end."""
    labels: list[bytes] = []
    end, before, size = -1, at, 0
    for _ in range(_POINTERS_MAX + 128):
        length = told[at]
        if length & 0xC0 == 0xC0:
            target = (length & 0x3F) << 8 | told[at + 1]
            if end < 0:
                end = at + 2
            if target >= before:
                raise ValueError("a name that leads nowhere")
            at = before = target
        elif length & 0xC0:
            raise ValueError("a name that leads nowhere")
        elif length == 0:
            return b".".join(labels), end if end >= 0 else at + 1
        else:
            label = told[at + 1 : at + 1 + length]
            size += len(label) + 1
            if len(label) != length or size > 255:
                raise ValueError("a name that is none")
            labels.append(label.lower())
            at += 1 + length
    raise ValueError("a name that has no end")


def host_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """The name servers that this machine asks."""
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return servers_in(file.read(1 << 16))
    return []
