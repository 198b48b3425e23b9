# ruff: noqa: E501 - tables
"""What the relay reads of a hostile program, or server: names, whole or in pieces, or a refusal."""

import functools
import itertools
import pathlib
import ssl
import struct
import unicodedata

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.network import dns_message
from ketch.sandbox.egress import names, policy, resolving
from ketch.sandbox.egress.client_hello import BYTES_MAX, ClientHello, wants_another
from ketch.sandbox.egress.http_requests import Field, Request, Requests, looks_like
from ketch.sandbox.egress.record import KEPT_MAX, Record, printable
from tests.support.outside import certificate


@functools.cache
def hello(name: str | None) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    made = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        made.do_handshake()
    return said.read()


def crafted(*extensions: tuple[int, bytes]) -> bytes:
    inner = b"".join(struct.pack("!HH", kind, len(data)) + data for kind, data in extensions)
    body = (
        b"\3\3"
        + bytes(32)
        + b"\0"
        + b"\0\2\x13\1"
        + b"\1\0"
        + struct.pack("!H", len(inner))
        + inner
    )
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + struct.pack("!H", len(message)) + message


def server_name(name: bytes, kind: int = 0) -> tuple[int, bytes]:
    one = struct.pack("!BH", kind, len(name)) + name
    return 0, struct.pack("!H", len(one)) + one


def read(*pieces: bytes) -> ClientHello:
    made = ClientHello()
    for piece in pieces:
        if not made.done:
            made.feed(piece)
    return made


@given(st.data(), st.sampled_from(["a.example", "xn--bcher-kva.example", "x" * 60 + ".y.example"]))
@settings(max_examples=50)
def test_a_hello_is_read_in_whatever_pieces_and_records(data: st.DataObject, name: str) -> None:
    said = hello(name)
    message = said[5:]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(message) - 1), max_size=8)))
    ends = [0, *cuts, len(message)]
    records = b"".join(
        b"\x16\3\1" + struct.pack("!H", end - begin) + message[begin:end]
        for begin, end in itertools.pairwise(ends)
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(records) - 1), max_size=20)))
    ends = [0, *cuts, len(records)]
    made = read(*(records[begin:end] for begin, end in itertools.pairwise(ends)))
    assert made.done
    assert made.name == name


@given(st.binary(max_size=400))
def test_whatever_is_said_ends_in_a_name_or_a_refusal(said: bytes) -> None:
    for data in (said, b"\x16\3\1" + struct.pack("!H", len(said)) + said):
        made = ClientHello()
        try:
            made.feed(data)
        except ValueError:
            continue
        assert made.done or len(made._records) <= len(data)


@given(st.integers(0, 300), st.binary(min_size=1, max_size=3))
def test_a_changed_hello_is_read_or_refused(place: int, change: bytes) -> None:
    said = bytearray(hello("a.example"))
    said[place : place + len(change)] = change
    try:
        made = read(bytes(said))
    except ValueError:
        return
    assert made.name is None or isinstance(made.name, str)


def test_names_that_are_hidden_or_doubled_are_refused() -> None:
    assert read(hello(None)).name is None
    assert read(crafted(server_name(b"a.example"))).name == "a.example"
    for said, why in {
        crafted(server_name(b"outer.example"), (0xFE0D, b"\0\0\1\0\1\0\0\0\0\0\0")): "encrypted",
        crafted(server_name(b"a.example"), server_name(b"b.example")): "twice",
        crafted((0, struct.pack("!H", 8) + b"\0\0\1a\0\0\1b")): "more",
        crafted(server_name(b"a.example", kind=1)): "another kind",
        crafted(server_name("ä.example".encode())): "is none",
        crafted((0, b"\0\x30\0\0\3a.b")): "cut off",
        b"\x17\3\1\0\1\0": "no ClientHello",
        b"\x16\3\1\0\4\2\0\0\0": "no ClientHello",
        b"\x16\3\1\0\0": "no ClientHello",
        b"\x80\x2e\1\3\1": "no ClientHello",
        b"GET / HTTP/1.1\r\n": "no ClientHello",
        b"\x16\3\1\0\4\1\xff\xff\xff": "longer",
    }.items():
        with pytest.raises(ValueError, match=why):
            read(said)
    with pytest.raises(ValueError, match="longer"):
        read(
            *[b"\x16\3\1\x40\0" + b"\1\0\xff\xf0" + bytes((1 << 14) - 4)] * (BYTES_MAX // 16000 + 1)
        )


def checked(request: Request) -> list[Field]:
    if request.host != "a.example":
        raise ValueError(f"another host: {request.host}")
    return request.fields


bodies = st.one_of(
    st.just((b"", b"")),
    st.binary(max_size=50).map(lambda data: (b"Content-Length: %d\r\n" % len(data), data)),
    st.lists(st.binary(min_size=1, max_size=20), max_size=4).map(
        lambda pieces: (
            b"Transfer-Encoding: chunked\r\n",
            b"".join(b"%x;a=b\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n",
        )
    ),
)


@given(st.lists(bodies, min_size=1, max_size=4), st.data())
def test_requests_come_out_as_they_went_in(
    parts: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    said = b"".join(
        b"POST /%d HTTP/1.1\r\nHost: a.example\r\n%s\r\n%s" % (number, head, body)
        for number, (head, body) in enumerate(parts)
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, len(said) - 1), max_size=12)))
    ends = [0, *cuts, len(said)]
    seen: list[bytes] = []

    def note(request: Request) -> list[Field]:
        seen.append(request.target)
        return request.fields

    requests = Requests(note)
    passed = b"".join(requests.feed(said[begin:end]) for begin, end in itertools.pairwise(ends))
    assert passed == said
    assert seen == [b"/%d" % number for number in range(len(parts))]
    # The next byte begins a request.
    following = b"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"
    assert requests.feed(following) == following
    assert seen[-1] == b"/next"


@given(bodies, st.data())
def test_no_later_request_asks_another_host(part: tuple[bytes, bytes], data: st.DataObject) -> None:
    first = b"POST / HTTP/1.1\r\nHost: a.example\r\n%s\r\n%s" % part
    second = b"GET /stolen HTTP/1.1\r\nHost: b.example\r\n\r\n"
    cut = data.draw(st.integers(1, len(first + second) - 1))
    requests, passed = Requests(checked), b""
    with pytest.raises(ValueError, match=r"another host: b\.example"):  # noqa: PT012
        for piece in ((first + second)[:cut], (first + second)[cut:]):
            passed += requests.feed(piece)
    assert b"stolen" not in passed


@given(st.binary(max_size=200))
def test_whatever_is_asked_is_a_request_of_the_host_or_refused(said: bytes) -> None:
    try:
        passed = Requests(checked).feed(said)
    except ValueError:
        return
    assert not passed


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a.example\n\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: b.example\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX\0: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nX: a\rb\r\n\r\n",
        b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET http://a.example@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET //b.example/ HTTP/1.1 x\r\nHost: a.example\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a.example\r\n\r\n",
        b"GET / HTTP/0.9\r\nHost: a.example\r\n\r\n",
        b"GET /\r\nHost: a.example\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        b"connect a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.example:x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"\x16\3\1\2\0\1",
        b"GET / HTTP/1.1\r\nHost: a.example\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        b"GET /" + b"x" * 70000,
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        Requests(lambda request: request.fields).feed(said)


@pytest.mark.parametrize(
    "chunk",
    [b"x\r\n", b"-1\r\n", b"\r\n", b"1\nx", b"f" * 16 + b"\r\n", b"1" * 300, b"2\r\nabcd\r\n"],
)
def test_a_chunk_that_is_none_is_refused(chunk: bytes) -> None:
    requests = Requests(checked)
    requests.feed(b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        requests.feed(chunk + b"\r\nGET / HTTP/1.1\r\n")


def test_a_trailer_is_refused() -> None:
    requests = Requests(checked)
    requests.feed(b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    with pytest.raises(ValueError, match="behind a body"):
        requests.feed(b"Host: b.example\r\n\r\n")


def test_what_looks_like_a_request() -> None:
    assert looks_like(b"GE") is None
    assert looks_like(b"\r\nget /") is True
    assert looks_like(b"PRI * HTTP/2.0") is True
    assert looks_like(b"EHLO x\r\n") is False
    assert looks_like(b"\0\1") is False
    assert looks_like(b"PROP") is looks_like(b"PROPFIND / HT") is looks_like(b"\r\n" * 99) is None
    for line in (
        b"PROPFIND / HTTP/1.1\r\n",
        b" x\t/\thttp/1.1\n",
        b"GET\x0c/",
        b"X \0 HTTP/1.0\r\n",
        b"PLAY x RTSP/1.0\n",
        b"SOURCE x ICE/1.0\n",
        b"PROPFIND /x\r\n",
        b"REPORT * \n",
        b"REPORT http://a.example\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 80\r\n",
        b"A" * 99 + b" / HTTP/1.1\r\n",
    ):
        assert looks_like(line) is looks_like(b"\r\n" * 40 + line) is True
    assert looks_like(b"*1\r\n$4\r\nPING\r\n") is looks_like(b"USER x\r\n") is False
    proxied = b"\r\n\r\n\0\r\nQUIT\n"
    assert looks_like(proxied) is True
    assert looks_like(proxied[:7]) is looks_like(b"a" * 65) is None


def _answer(context: ssl.SSLContext, said: bytes) -> bytes:
    """What OpenSSL answers."""
    come, go = ssl.MemoryBIO(), ssl.MemoryBIO()
    come.write(said)
    with pytest.raises(ssl.SSLError):
        context.wrap_bio(come, go, server_side=True).do_handshake()
    return go.read()


def test_a_server_that_wants_another_hello_is_told_from_others(tmp_path: pathlib.Path) -> None:
    for curve, wants in (("secp521r1", True), ("prime256v1", False)):
        context = certificate(tmp_path, "a.example")
        context.set_ecdh_curve(curve)
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        said = _answer(context, hello("a.example"))
        if curve == "prime256v1" and wants_another(said):
            continue  # a client that has no share of this one either
        assert wants_another(said) is wants
        assert wants_another(b"\x15\3\1\0\2\1\x70" + said) is wants
        known = [wants_another(said[:count]) for count in range(len(said))]
        assert {*known} == {None, wants}
        assert known == sorted(known, key=lambda one: one is not None)
        pieces = b"".join(b"\x16\3\3\0\1" + said[5 + at : 6 + at] for at in range(60))
        assert wants_another(pieces) is wants
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert wants_another(_answer(context, hello("a.example"))) is False
    assert wants_another(b"HTTP/1.1 400 Bad Request\r\n\r\n") is False
    assert wants_another(b"\x15\3\1\0\2\2\x28") is wants_another(b"") is None


def test_the_hello_that_is_said_again_may_come_behind_early_data() -> None:
    again = ClientHello(again=True)
    again.feed(b"\x14\3\3\0\1\1" + b"\x17\3\3\0\3xyz" + hello("a.example"))
    assert (again.done, again.name) == (True, "a.example")
    for said in (b"\x15\3\1\0\2\2\x28", b"\x16\3\1\0\1\1\x17\3\3\0\1x"):
        with pytest.raises(ValueError, match="no ClientHello"):
            ClientHello(again=True).feed(said)


def question(name: str, kind: str = "A") -> bytes:
    return bytes(dnslib.DNSRecord.question(name, kind).pack())


def test_a_name_has_one_address_and_there_are_so_many() -> None:
    known, record = names.Names(), Record()
    for written in ("a.example", "A.Example"):
        told = names.answer(question(written), known, lambda name: name == "a.example", record)
        assert told is not None
        (answer,) = dnslib.DNSRecord.parse(told).rr
        assert str(answer.rdata) == "198.18.0.2"
    assert known.name(policy.VIRTUAL[2]) == "a.example"
    told = names.answer(question("a.example", "AAAA"), known, lambda _: True, record)
    assert told is not None
    assert (told[3] & 15, dnslib.DNSRecord.parse(told).rr) == (0, [])
    told = names.answer(question("b.example"), known, lambda _: False, record)
    assert told is not None
    assert told[3] & 15 == 3
    (refused,) = record.seen()
    assert (refused.kind, refused.name, refused.verdict) == ("lookup", "b.example", "refused")
    addresses = {known.address(f"n{number}.example") for number in range(names.NAMES_MAX + 9)}
    assert None in addresses
    assert len(addresses) == names.NAMES_MAX
    assert all(one in policy.VIRTUAL for one in addresses if one)


@given(st.binary(max_size=120))
def test_whatever_is_asked_is_answered_or_not(data: bytes) -> None:
    names.answer(data, names.Names(), lambda _: True, Record())


@given(st.binary(max_size=200), st.binary(max_size=4))
def test_whatever_a_server_answers_is_addresses_or_an_error(tail: bytes, counts: bytes) -> None:
    asked = question("a.example")
    told = asked[:2] + b"\x81\x80\0\1" + counts.ljust(6, b"\1") + asked[12:] + tail
    try:
        addresses, seconds = resolving.parse(told, "a.example", dns_message.A)
    except ValueError:
        return
    assert len(addresses) <= resolving.ADDRESSES_MAX
    assert seconds >= 0


def test_an_answer_is_about_what_was_asked() -> None:
    def parsed(*records: tuple[str, str, str]) -> list[str]:
        reply = dnslib.DNSRecord.question("a.example").reply()
        for owner, kind, data in records:
            reply.add_answer(*dnslib.RR.fromZone(f"{owner}. 60 {kind} {data}"))
        return [
            str(one) for one in resolving.parse(bytes(reply.pack()), "a.example", dns_message.A)[0]
        ]

    assert parsed(("a.example", "A", "1.2.3.4")) == ["1.2.3.4"]
    assert parsed(("A.Example", "A", "1.2.3.4")) == ["1.2.3.4"]
    assert parsed(("b.example", "A", "1.2.3.4")) == []
    assert parsed(("a.example", "CNAME", "c.d."), ("c.d", "A", "1.2.3.4")) == ["1.2.3.4"]
    assert parsed(("c.d", "A", "1.2.3.4"), ("a.example", "CNAME", "c.d.")) == ["1.2.3.4"]
    assert parsed(("a.example", "CNAME", "a.example.")) == []
    assert parsed(*[("a.example", "A", "1.2.3.4")] * 200) == ["1.2.3.4"] * resolving.ADDRESSES_MAX
    loop = question("a.example")[:7] + b"\1" + question("a.example")[8:] + b"\xc0\x1f"
    with pytest.raises(ValueError, match="leads nowhere"):
        resolving.parse(loop, "a.example", dns_message.A)


@given(st.text())
def test_what_a_guest_says_is_shown_harmlessly(text: str) -> None:
    shown = printable(text)
    assert all(one.isprintable() or unicodedata.category(one) == "Zs" for one in shown)
    assert len(shown) < 4000


def test_so_much_is_on_record_and_no_more() -> None:
    record = Record()
    record.refuse("tcp", "a.example", "", "")
    for number in range(KEPT_MAX + 5):
        record.refuse("udp", "", str(number), "")
    assert len(record.seen()) == KEPT_MAX + 1
    assert record.seen()[0].name == "a.example"
    assert record.seen()[-1].address == str(KEPT_MAX + 4)
