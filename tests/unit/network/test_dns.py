"""What a name server says, and to whom."""

from ipaddress import IPv4Address, IPv6Address

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.network import dns, dns_message

WEB, DB, OTHER = "a" * 64, "b" * 64, "c" * 64


def directory() -> dns.Directory:
    """Return web on two networks, db on one of them, other on a third."""
    return dns.Directory(
        [
            dns.Endpoint(WEB, "front", ["web", "www", "a" * 12], [IPv4Address("10.0.0.2")]),
            dns.Endpoint(
                WEB, "back", ["web", "a" * 12],
                [IPv4Address("10.1.0.2"), IPv6Address("fd00::2")],
                links={"Database": DB},
            ),
            dns.Endpoint(DB, "back", ["db", "store"], [IPv4Address("10.1.0.3")], leads_out=False),
            dns.Endpoint(OTHER, "third", ["other", "store"], [IPv4Address("10.2.0.2")]),
        ]
    )  # fmt: skip


def ask(asker: str, name: str, kind: str = "A") -> dnslib.DNSRecord | None:
    """Return what a container is told, or None where others are to be asked."""
    answer = dns.Query(dnslib.DNSRecord.question(name, kind).pack()).answer(directory(), asker)
    return None if answer is None else dnslib.DNSRecord.parse(answer)


def told(asker: str, name: str, kind: str = "A") -> list[str] | None:
    """Return the data of the answers, sorted."""
    answer = ask(asker, name, kind)
    return None if answer is None else sorted(str(record.rdata) for record in answer.rr)


@pytest.mark.parametrize("name", ["db", "DB", "db.", "store", "db.back", "store.BACK", "database"])
def test_names_aliases_links_and_names_of_networks(name: str) -> None:
    assert told(WEB, name) == ["10.1.0.3"]


def test_a_link_is_known_to_its_owner_alone() -> None:
    assert told(DB, "database") is None


def test_a_link_tells_of_no_other_network() -> None:
    """Not even of one that both are on, but by another one's link: links are a network's own."""
    both = dns.Directory([
        dns.Endpoint(WEB, "back", ["web"], [IPv4Address("10.1.0.2")], links={"database": DB}),
        dns.Endpoint(DB, "back", ["db"], [IPv4Address("10.1.0.3")]),
        dns.Endpoint(DB, "secret", ["db"], [IPv4Address("10.9.0.3")]),
    ])  # fmt: skip
    assert both.addresses(WEB, "database") == [IPv4Address("10.1.0.3")]


@pytest.mark.parametrize("length", [64, 128, 192, 200])
def test_a_label_of_more_than_63_bytes_is_none(length: int) -> None:
    """The upper two bits say that a pointer follows, or something that is not defined."""
    header = dnslib.DNSRecord.question("db", "A").pack()[:12]
    data = header + bytes([length]) + b"a" * length + b"\0\0\1\0\1"
    with pytest.raises(ValueError, match="compressed"):
        dns.Query(data)
    assert dns.Query(data.replace(bytes([length]) + b"a" * length, b"\x3f" + b"a" * 63))


def test_questions_of_another_class_or_with_odd_labels_are_no_containers() -> None:
    question = dnslib.DNSRecord.question("db", "A").pack()
    assert dns.Query(question).answer(directory(), WEB) is not None
    chaos = question[:-1] + b"\3"  # version.bind and the like: RFC 4892
    assert dns.Query(chaos).answer(directory(), WEB) is None
    # One label "db.back", which is no name of two.
    one = question.replace(b"\2db\0", b"\7db.back\0")
    assert dns.Query(one).answer(directory(), WEB) is None


def test_a_container_finds_itself_on_its_first_network() -> None:
    assert told(WEB, "web") == ["10.0.0.2"]
    assert told(WEB, "web.back") == ["10.1.0.2"]


def test_networks_that_the_asker_is_not_on_are_nobody() -> None:
    assert told(DB, "www") is None
    assert told(DB, "other") is None
    assert told(DB, "web.front") is None
    assert told(DB, "2.0.0.10.in-addr.arpa", "PTR") is None
    assert told("d" * 64, "web") is None


def test_ipv6_and_its_absence() -> None:
    assert told(DB, "web", "AAAA") == ["fd00::2"]
    answer = ask(WEB, "db", "AAAA")
    assert answer is not None
    assert answer.header.rcode == dnslib.RCODE.NOERROR
    assert answer.rr == []


def test_other_types_of_a_containers_name_are_empty() -> None:
    assert told(WEB, "db", "MX") == []


def test_reverse() -> None:
    assert told(DB, "2.0.1.10.in-addr.arpa", "PTR") == ["web.back."]
    reversed_ = ".".join(reversed(IPv6Address("fd00::2").exploded.replace(":", "")))
    assert told(DB, f"{reversed_}.ip6.arpa", "PTR") == ["web.back."]
    assert told(DB, "2.0.1.in-addr.arpa", "PTR") is None
    assert told(DB, "x.0.1.10.in-addr.arpa", "PTR") is None


def test_who_may_ask_beyond() -> None:
    assert directory().leads_out(WEB)
    assert not directory().leads_out(DB)


def test_answers_are_not_to_be_kept() -> None:
    answer = ask(WEB, "db")
    assert answer is not None
    assert [record.ttl for record in answer.rr] == [0]
    assert answer.header.ra == 1


def many(count: int) -> tuple[dns.Directory, list[str]]:
    """Return containers that share an alias, and their addresses."""
    addresses = [IPv4Address(0x0A000002 + n) for n in range(count)]
    endpoints = [
        dns.Endpoint(f"{n:064x}", "net", ["all"], [address]) for n, address in enumerate(addresses)
    ]
    return dns.Directory(endpoints), [str(address) for address in addresses]


def test_all_containers_with_an_alias_answer_to_it() -> None:
    containers, addresses = many(3)
    query = dns.Query(dnslib.DNSRecord.question("all").pack())
    answer = dnslib.DNSRecord.parse(query.answer(containers, f"{0:064x}"))
    assert sorted(str(record.rdata) for record in answer.rr) == sorted(addresses)


@pytest.mark.parametrize(("size", "cut"), [(None, True), (512, True), (4096, False)])
def test_what_does_not_fit_into_a_datagram_is_cut(size: int | None, cut: bool) -> None:
    containers, _ = many(60)
    question = dnslib.DNSRecord.question("all")
    if size is not None:
        question.add_ar(dnslib.EDNS0(udp_len=size))
    query = dns.Query(question.pack())
    whole = query.answer(containers, f"{0:064x}")
    assert whole is not None
    answer = dnslib.DNSRecord.parse(query.datagram(whole))
    assert bool(answer.header.tc) is cut
    assert len(answer.rr) == (0 if cut else 60)
    assert any(extra.rtype == dnslib.QTYPE.OPT for extra in answer.ar) is (size is not None)


def test_operations_but_queries_are_refused() -> None:
    question = dnslib.DNSRecord.question("web")
    question.header.opcode = dnslib.OPCODE.UPDATE
    refused = dns.Query(question.pack()).refused()
    assert refused is not None
    assert dnslib.DNSRecord.parse(refused).header.rcode == dnslib.RCODE.NOTIMP


def test_several_questions_are_refused() -> None:
    question = dnslib.DNSRecord.question("web")
    question.add_question(dnslib.DNSQuestion("db"))
    refused = dns.Query(question.pack()).refused()
    assert refused is not None
    assert dnslib.DNSRecord.parse(refused).header.rcode == dnslib.RCODE.FORMERR


def test_an_answer_is_matched_by_number_and_question() -> None:
    query = dns.Query(dnslib.DNSRecord.question("web").pack())
    number = b"\x12\x34"
    right = number + dnslib.DNSRecord.parse(query.data).reply().pack()[2:]
    assert dns.matches(query, number, right)
    assert not dns.matches(query, b"\x12\x35", right)
    assert not dns.matches(query, number, number + query.data[2:])
    other = dnslib.DNSRecord.question("wed").reply().pack()
    assert not dns.matches(query, number, number + other[2:])
    assert not dns.matches(query, number, right[:11])


def test_more_containers_than_fit_into_any_message() -> None:
    containers, _ = many(5000)
    query = dns.Query(dnslib.DNSRecord.question("all").pack())
    answer = query.answer(containers, f"{0:064x}")
    assert answer is not None
    assert len(answer) < 65536
    assert len(dnslib.DNSRecord.parse(answer).rr) > 3000


LABELS = st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1,
                          max_size=63), max_size=6)  # fmt: skip


TYPES = st.sampled_from(["A", "AAAA", "PTR", "MX", "ANY"])


@given(LABELS, TYPES, st.none() | st.integers(0, 65535), st.booleans())
def test_questions_are_read_as_others_write_them(
    labels: list[str], kind: str, size: int | None, recursion: bool
) -> None:
    question = dnslib.DNSRecord.question(".".join(labels), kind)
    question.header.rd = recursion
    if size is not None:
        question.add_ar(dnslib.EDNS0(udp_len=size))
    try:
        data = question.pack()
    except dnslib.DNSError:
        return
    if sum(len(label) + 1 for label in labels) > 254:
        with pytest.raises(ValueError, match="longer name"):
            dns_message.Question(data)
        return
    read = dns_message.Question(data)
    assert [label.decode() for label in read.labels] == labels
    assert (read.type, read.kind, read.extended) == (question.q.qtype, 1, size)
    failed = dnslib.DNSRecord.parse(dns.Query(data).failed())
    assert (failed.header.id, failed.header.rd) == (question.header.id, recursion)
    assert failed.header.rcode == dnslib.RCODE.SERVFAIL
    assert str(failed.q.qname) == str(question.q.qname)
    assert len(failed.ar) == (size is not None)


@pytest.mark.parametrize(
    "name",
    [b"\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\x01a\xc0\x0c", b"\x3f" + b"a" * 63, b"\x40a\0",
     (b"\x3f" + b"a" * 63) * 4 + b"\0"],
)  # fmt: skip
def test_names_that_go_round_or_on_and_on_are_none(name: bytes) -> None:
    header = b"\0\1\1\0\0\1" + bytes(6)
    with pytest.raises(ValueError, match=r"name|cut off"):
        dns.Query(header + name + b"\0\1\0\1")


def test_longer_messages_than_anybody_needs_are_not_looked_at() -> None:
    question = dnslib.DNSRecord.question("web").pack()
    assert dns.Query(question + bytes(dns_message.BYTES_MAX - len(question))).refused() is None
    with pytest.raises(ValueError, match="4097 bytes"):
        dns.Query(question + bytes(dns_message.BYTES_MAX + 1 - len(question)))


@given(st.binary(max_size=600))
def test_nonsense_is_refused_by_name(data: bytes) -> None:
    try:
        query = dns.Query(data)
    except ValueError:
        return
    if query.refused() is None:
        query.datagram(query.answer(directory(), WEB) or query.failed())


@given(st.data())
def test_damaged_questions_are_survived(data: st.DataObject) -> None:
    whole = bytearray(dnslib.DNSRecord.question("db.back", "A").pack())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        query = dns.Query(bytes(whole))
    except ValueError:
        return
    if query.refused() is None:
        query.datagram(query.answer(directory(), WEB) or query.failed())
