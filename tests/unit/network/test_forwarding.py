"""What becomes of questions that were passed on, when who asked has gone."""

import asyncio
import os
import socket

import dnslib
import pytest

from ketch.network import dns, forwarding
from ketch.network.forwarding import Forward, Forwarder


def opened() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_who_has_gone_is_told_nothing_and_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)
            monkeypatch.setattr(forwarding, "UPSTREAM_PORT", server.getsockname()[1])
            forwarder = Forwarder(loop, -1)
            before = opened()
            answered = asyncio.Event()
            for asker in ("gone", "there", "gone"):

                def done(answer: bytes, asker: str = asker) -> None:
                    told.append(asker)
                    answered.set()

                query = dns.Query(dnslib.DNSRecord.question("name.test").pack())
                assert forwarder.ask(Forward(asker, query, ["127.0.0.1"], None, done))
            questions = [server.recvfrom(512) for _ in range(3)]
            assert opened() == before + 3
            forwarder.forget("gone")
            assert opened() == before + 1
            for question, peer in questions:
                server.sendto(dnslib.DNSRecord.parse(question).reply().pack(), peer)
            await asyncio.wait_for(answered.wait(), 10)
            await asyncio.sleep(0.05)  # what else has come is read by now
            assert opened() == before

    asyncio.run(ask())
    assert told == ["there"]


def test_who_has_gone_takes_nobodys_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            monkeypatch.setattr(forwarding, "UPSTREAM_PORT", server.getsockname()[1])
            monkeypatch.setattr(forwarding, "OPEN_MAX", 2)
            monkeypatch.setattr(forwarding, "WAITING_MAX", 1)
            forwarder = Forwarder(loop, -1)
            query = dns.Query(dnslib.DNSRecord.question("name.test").pack())

            def asked() -> bool:
                return forwarder.ask(Forward("one", query, ["127.0.0.1"], None, lambda _: None))

            for _ in range(2):
                assert [asked() for _ in range(4)] == [True, True, True, False]
                forwarder.forget("one")

    asyncio.run(ask())
