"""Secrets that a sandbox uses without having them: what it has instead, and whom that is for."""

import base64
import binascii
import datetime
import re
import secrets as randomness
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypedDict

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.sandbox.egress import policy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from cryptography.x509 import KeyUsage

    from ketch.sandbox.egress.http_requests import Field
    from ketch.sandbox.egress.policy import Rule

DIRECTORY = "/run/ketch-egress"
"""Where a sandbox finds whom to believe."""

BUNDLE = f"{DIRECTORY}/ca-certificates.crt"
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
)  # fmt: skip
"""Where distributions have the certificates of authorities."""

VARIABLES = (
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE",
)  # fmt: skip

_PORT = "443"  # in plain HTTP everybody on the way would read it
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VALUE_MAX = 16 << 10
_LIFE = datetime.timedelta(days=3650)  # the authority's key is gone as soon as it has signed
_UNTOUCHED = {b"host", b"content-length", b"transfer-encoding", b"connection", b"te"}


class Secret:
    """A value that programs use and do not have.

    They find a placeholder in its place; the relay puts the value in where that stands in a header
    field of a request to one of the hosts, within TLS. It is in no record, no file, no argument of
    a process and no log, and cannot be pickled.

    Args:
        name: the variable in which programs find the placeholder.
        value: what it stands for.
        hosts: rules, as those of ``Sandbox.create``'s ``egress``, with names; without a port, 443
            is meant. They are allowed as well.

    Raises:
        InvalidArgumentError: one of them cannot be.
    """

    __slots__ = ("_value", "hosts", "name", "placeholder")

    def __init__(self, name: str, value: str, *, hosts: "Iterable[str]") -> None:
        if not _NAME.fullmatch(name):
            raise InvalidArgumentError(f"secret {name!r}: no name of a variable")
        # A line's end would begin another field.
        if not value or len(value) > _VALUE_MAX or not (value.isascii() and value.isprintable()):
            raise InvalidArgumentError(f"secret {name}: not a line of ASCII")
        if isinstance(hosts, str):
            raise InvalidArgumentError(f"secret {name}: hosts in a list are wanted")
        self.name = name
        self._value = value
        self.hosts = tuple(_host(name, one) for one in hosts)
        if not self.hosts:
            raise InvalidArgumentError(f"secret {name}: hosts are wanted")
        self.placeholder = f"ketch-secret-{randomness.token_hex(16)}"

    def __repr__(self) -> str:
        """What it is for, and not what it is."""
        return f"<Secret {self.name} for {', '.join(self.hosts)}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be written down."""
        raise TypeError(f"{self!r} cannot be pickled, since its value would be there to read")


class Handed(TypedDict):
    """A secret as the relay is handed it.

    Attributes:
        placeholder: what stands for it.
        value: what it is.
        hosts: rules that say whom it is for.
    """

    placeholder: str
    value: str
    hosts: list[str]


class Certified(TypedDict):
    """What the relay shows as one of the hosts.

    Attributes:
        hosts: rules that say which names it is for.
        chain: the certificate, in PEM.
        key: its key, likewise.
    """

    hosts: list[str]
    chain: str
    key: str


def handed(secrets: "Iterable[Secret]") -> list[Handed]:
    """Returns secrets as the relay is handed them."""
    return [
        Handed(placeholder=one.placeholder, value=one._value, hosts=list(one.hosts))
        for one in secrets
    ]


class Vault(NamedTuple):
    """What the relay puts in.

    Attributes:
        placeholder: in the place of which.
        value: what.
        rules: for whom.
    """

    placeholder: bytes
    value: bytes
    rules: "list[Rule]"

    @classmethod
    def of(cls, told: Handed) -> "Vault":
        """Returns one that was handed over."""
        rules = [policy.parse(one) for one in told["hosts"]]
        return cls(told["placeholder"].encode(), told["value"].encode(), rules)

    def is_for(self, name: str, port: int) -> bool:
        """Whether a host may be told."""
        return any(rule.names(name) and rule.opens(port) for rule in self.rules)


def put_in(fields: "list[Field]", vaults: "Iterable[Vault]") -> "list[Field]":
    """Returns a request's fields with values in the place of placeholders.

    Also in what ``Authorization: Basic`` has in base64 (RFC 7617).
    """
    found = list(fields)
    for vault in vaults:
        found = [
            (name, value if name.lower() in _UNTOUCHED else _with(value, vault))
            for name, value in found
        ]
    return found


def _with(value: bytes, vault: Vault) -> bytes:
    scheme, space, rest = value.partition(b" ")
    if space and scheme.lower() == b"basic":
        try:
            plain = base64.b64decode(rest, validate=True)
        except binascii.Error:
            return value
        if vault.placeholder in plain:
            return scheme + b" " + base64.b64encode(plain.replace(vault.placeholder, vault.value))
    return value.replace(vault.placeholder, vault.value)


def authority(hosts: "Iterable[str]") -> tuple[str, list[Certified]]:
    """Make an authority for some hosts and no others, and have it certify these; its key is lost.

    Args:
        hosts: the rules that say which.

    Returns:
        Its certificate in PEM, and what it has certified.

    Raises:
        UnavailableError: the package cryptography is not installed.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - an extra
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415
    except ImportError as error:
        raise UnavailableError(
            "secrets need the package cryptography", "pip install 'ketch[secrets]'"
        ) from error
    by_name: dict[str, list[str]] = {}
    for host in hosts:
        by_name.setdefault(policy.parse(host).name, []).append(host)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ketch, for one sandbox")])
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    permitted = [x509.DNSName(name.removeprefix(".")) for name in by_name]

    def begun(subject: x509.Name, owner: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(
            issuer, subject, owner, x509.random_serial_number(),
            now - datetime.timedelta(days=1), now + _LIFE,
        )  # fmt: skip

    root = (
        begun(issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(x509, signs_others=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    certified = []
    for name, rules in by_name.items():
        own = ec.generate_private_key(ec.SECP256R1())
        made = (
            begun(x509.Name([]), own.public_key())
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName(f"*{name}" if name.startswith(".") else name)]
                ),
                critical=True,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(x509, signs_others=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        written = own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )  # fmt: skip
        chain = made.public_bytes(serialization.Encoding.PEM)
        certified.append(Certified(hosts=rules, chain=chain.decode(), key=written.decode()))
    return root.public_bytes(serialization.Encoding.PEM).decode(), certified


def _usage(x509: "ModuleType", *, signs_others: bool) -> "KeyUsage":
    usage: KeyUsage = x509.KeyUsage(
        digital_signature=not signs_others, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs_others,
        crl_sign=signs_others, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return usage


def _host(secret: str, text: str) -> str:
    """A rule that says whom a secret is for, with its port."""
    rule = policy.parse(text)
    if not rule.name:
        raise InvalidArgumentError(f"secret {secret}: {text!r}: a host's name is wanted")
    if rule.ports == policy.WEB:
        text = f"{text}:{_PORT}" if text.count(":") < 2 or text.endswith("]") else text
        before, at, network = text.partition("@")
        if at and network.count(":") > 1 and not network.startswith("["):
            text = f"{before}@[{network}]:{_PORT}"
        rule = policy.parse(text)
    if rule.ports is None:
        raise InvalidArgumentError(f"secret {secret}: {text!r}: one port is wanted")
    return rule.text
