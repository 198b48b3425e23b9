"""Where a secret is put in, and where it is not; whom a sandbox's authority certifies."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.sandbox.egress import secret

VALUE = "the-value"
HELD = secret.Secret("KEY", VALUE, hosts=["api.example", "*.wild.example:8443"])
(HANDED,) = secret.handed([HELD])
VAULT = secret.Vault.of(HANDED)
MARK = HELD.placeholder.encode()
names = st.sampled_from([b"Authorization", b"X-Key", b"Cookie", b"Host", b"Content-Length"])


def test_it_is_for_its_hosts_and_ports_alone() -> None:
    assert VAULT.is_for("api.example", 443)
    assert VAULT.is_for("a.wild.example", 8443)
    for name, port in (("api.example", 80), ("x.api.example", 443), ("wild.example", 8443),
                       ("a.wild.example", 443), ("", 443)):  # fmt: skip
        assert not VAULT.is_for(name, port)


@given(names, st.binary(max_size=20), st.binary(max_size=20))
def test_a_field_has_the_value_where_the_placeholder_was(
    name: bytes, before: bytes, after: bytes
) -> None:
    ((_, put),) = secret.put_in([(name, before + MARK + after)], [VAULT])
    if name in {b"Host", b"Content-Length"}:
        assert VALUE.encode() not in put or VALUE.encode() in before + after
    else:
        assert put.startswith(before + VALUE.encode())
    ((_, same),) = secret.put_in([(name, before + MARK[:-1])], [VAULT])
    assert same == before + MARK[:-1]
    ((_, other),) = secret.put_in([(name, before + MARK + after)], [])
    assert other == before + MARK + after


def test_a_password_has_it_too() -> None:
    said = b"Basic " + base64.b64encode(b"user:" + MARK)
    ((_, put),) = secret.put_in([(b"Authorization", said)], [VAULT])
    assert base64.b64decode(put.removeprefix(b"Basic ")) == b"user:" + VALUE.encode()
    for odd in (b"Basic !!", b"Basic", b"Basic " + base64.b64encode(b"user:other")):
        assert secret.put_in([(b"Authorization", odd)], [VAULT]) == [(b"Authorization", odd)]


def test_it_is_not_to_be_seen() -> None:
    assert VALUE not in f"{HELD!r} {HELD}"
    assert VALUE not in HELD.placeholder
    assert secret.Secret("KEY", VALUE, hosts=["a.example"]).placeholder != HELD.placeholder


def test_the_authority_is_for_its_hosts_alone() -> None:
    x509 = pytest.importorskip("cryptography.x509")
    root, certified = secret.authority(HELD.hosts)
    told = x509.load_pem_x509_certificate(root.encode()).extensions
    permitted = told.get_extension_for_class(x509.NameConstraints)
    assert permitted.critical
    assert {one.value for one in permitted.value.permitted_subtrees} == {
        "api.example", "wild.example",
    }  # fmt: skip
    assert told.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    shown = [x509.load_pem_x509_certificate(one["chain"].encode()) for one in certified]
    names = [
        one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for one in shown
    ]
    assert [name.get_values_for_type(x509.DNSName) for name in names] == [
        ["api.example"], ["*.wild.example"],
    ]  # fmt: skip
    issuer = x509.load_pem_x509_certificate(root.encode())
    for one in shown:
        one.verify_directly_issued_by(issuer)
