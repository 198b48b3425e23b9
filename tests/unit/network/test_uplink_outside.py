"""What a user's engine and the process outside say to each other, and what of it they refuse."""

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ketch.errors import UnavailableError, UnsupportedError
from ketch.linux import process
from ketch.network.uplink import outside
from ketch.network.uplink.outside import NoWayOutError, Outside, RefusedError
from tests.support.descriptors import open_now

ANY = ip_address("0.0.0.0")


class Pair:
    """Who asks, and a test in the place of who answers."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.far.settimeout(10)
        self.asking = Outside(near)

    def answer(self, *words: str, descriptor: int | None = None) -> None:
        outside.answer(self.far, words, descriptor)

    def is_held(self) -> bool:
        return self.asking.connection is not None

    def heard(self) -> tuple[str, list[str], int | None]:
        return outside.receive(self.far)


@pytest.fixture
def pair() -> Iterator[Pair]:
    found = Pair()
    yield found
    found.asking.close()
    found.far.close()


def closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


def test_a_way_out_is_asked_for_and_awaited_once(pair: Pair) -> None:
    assert not pair.is_held()
    pair.answer("hello")
    assert pair.asking.is_served()
    pair.asking.ask_way()
    assert pair.is_held()  # held from now on
    assert pair.heard() == ("way", [], None)
    pair.answer("ok", "192.0.2.1", "2001:db8::1")
    pair.asking.await_way()
    pair.asking.await_way()
    assert pair.asking.own_addresses() == ["192.0.2.1", "2001:db8::1"]


def test_why_there_is_none_is_told_each_time(pair: Pair) -> None:
    pair.asking.ask_way()
    pair.answer("none", "no program", "install one")
    assert pair.asking.own_addresses() == []
    for _ in range(2):
        with pytest.raises(NoWayOutError, match="no program") as caught:
            pair.asking.await_way()
        assert caught.value.hint == "install one"


def test_a_port_is_given_refused_or_not_spoken(pair: Pair) -> None:
    given = os.open(os.devnull, os.O_RDONLY)
    pair.answer("ok", descriptor=given)
    assert closed(given)  # it is the other side's alone
    found = pair.asking.bind("tcp", ANY, 80)
    assert found is not None
    assert not os.get_inheritable(found)
    os.close(found)
    assert pair.heard() == ("bind", ["tcp", "0.0.0.0", "80"], None)
    pair.answer("none")
    assert pair.asking.bind("udp", ANY, 80) is None
    pair.answer("refused", str(errno.EACCES), "below 1024")
    with pytest.raises(RefusedError, match="Permission denied") as caught:
        pair.asking.bind("tcp", ANY, 80)
    assert (caught.value.errno, caught.value.hint) == (errno.EACCES, "below 1024")
    assert not pair.is_held()


def test_what_cannot_be_passed_on_is_not_asked_for(pair: Pair) -> None:
    with pytest.raises(UnsupportedError, match="not of sctp"):
        pair.asking.bind("sctp", ANY, 80)
    pair.far.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.heard()


def test_nobody_to_ask(pair: Pair) -> None:
    pair.far.close()
    assert not pair.asking.is_served()
    for ask in (pair.asking.versions, lambda: pair.asking.bind("tcp", ANY, 1), pair.asking.ask_way):
        with pytest.raises(UnavailableError, match="does not answer"):
            ask()


@pytest.mark.parametrize("word", ["hell", "hello ", "", "ok"])
def test_who_says_something_else_is_about_to_end(pair: Pair, word: str) -> None:
    pair.answer(word)
    assert not pair.asking.is_served()


def test_what_is_no_words_leaves_nothing_open(pair: Pair) -> None:
    asked = pair.asking._connection
    before = len(open_now())
    with open(os.devnull, "rb") as file:
        for data in (b"bind\0\xff", b"\x80"):
            asked.sendmsg([data], process.rights(file.fileno()))
            with pytest.raises(ValueError, match="ascii"):
                pair.heard()
        asked.sendmsg([b"publish\0tcp"], process.rights(file.fileno()))
        verb, words, descriptor = pair.heard()
        assert (verb, words) == ("publish", ["tcp"])
        assert descriptor is not None
        os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before
    asked.close()
    with pytest.raises(ConnectionResetError):
        pair.heard()


def test_a_descriptor_goes_even_where_nobody_listens(pair: Pair) -> None:
    pair.asking.close()
    given = os.open(os.devnull, os.O_RDONLY)
    with pytest.raises(OSError, match="Broken pipe"):
        pair.answer("ok", descriptor=given)
    assert closed(given)


def test_leading_out_is_held_and_told_in_two_lists(pair: Pair) -> None:
    with open(os.devnull, "rb") as file:
        pair.answer("ok", "192.0.0.3", "", "192.0.2.1", "2001:db8::1")
        found = pair.asking.lead("{}", file.fileno())
        assert found == (["192.0.0.3"], ["192.0.2.1", "2001:db8::1"])
        assert pair.is_held()
        pair.answer("none", "it does not start", "look there")
        with pytest.raises(UnavailableError, match="it does not start"):
            pair.asking.lead("{}", file.fileno())
        with pytest.raises(UnavailableError, match="too many"):
            pair.asking.lead("x" * (outside.MESSAGE_BYTES_MAX // 2 + 1), file.fileno())
