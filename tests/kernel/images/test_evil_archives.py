"""Archives that lie in any way: ``load`` and ``import`` take them whole or not at all."""

import gzip
import io
import json
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.engine.images import archive as image_archive
from ketch.engine.images import ingest
from ketch.images import tar
from ketch.spec import image as documents
from tests.support.archives import archive, member, record
from tests.support.evil import VALUES, Victim, examples, replaced
from tests.support.registry import sha256

pytestmark = pytest.mark.root

BASE = archive(member(b"bin", tar.DIRECTORY, mode=0o755), member(b"bin/sh", data=b"#!" * 400))
TOP = archive(member(b"etc/passwd", data=b"root:x:0:0::/:\n"), member(b"bin/.wh.sh"))


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    victim = Victim(tmp_path_factory.mktemp("archives"))
    yield victim
    victim.check()


# load

DEEP = b"d/" * 10_000
NAMES = [b"index.json", b"manifest.json", b"oci-layout", b"config.json", b"0/layer.tar", b"../x",
         b"/etc/passwd", b"", b".", b"a\nb", b"x" * 300, b"\xff", b"blobs", DEEP,
         b"blobs/sha256/" + b"0" * 64]  # fmt: skip


def described(blobs: dict[str, bytes], content: bytes, media_type: str) -> dict[str, Any]:
    blobs[sha256(content)] = content
    return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}


def configured(changes: list[Any]) -> bytes:
    config: Any = {
        "architecture": documents.host_platform()["architecture"], "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["A=b"]}, "created": "2024-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": [sha256(BASE), sha256(TOP)]},
    }  # fmt: skip
    for change in changes:
        config = replaced(config, *change)
    return json.dumps(config).encode()


def layout(changes: dict[str, list[Any]]) -> dict[bytes, bytes]:
    """Return the members of an OCI layout whose digests are right, whatever its documents say."""
    blobs: dict[str, bytes] = {}

    def changed(name: str, document: Any) -> bytes:
        for change in changes.get(name, ()):
            document = replaced(document, *change)
        return json.dumps(document).encode()

    config = described(blobs, configured(changes.get("config", [])), documents.OCI_CONFIG)
    layers = [
        described(blobs, BASE, documents.OCI_LAYER),
        described(blobs, gzip.compress(TOP, mtime=0), f"{documents.OCI_LAYER}+gzip"),
    ]
    manifest = changed("manifest", {"schemaVersion": 2, "config": config, "layers": layers})
    one = described(blobs, manifest, documents.OCI_MANIFEST)
    inner = changed("inner", {"schemaVersion": 2, "manifests": [
        {**one, "platform": documents.host_platform()}]})  # fmt: skip
    entries = [
        {**one, "annotations": {"org.opencontainers.image.ref.name": "app:1"}},
        {**described(blobs, inner, documents.OCI_INDEX),
         "annotations": {"io.containerd.image.name": "docker.io/library/app:2"}},
    ]  # fmt: skip
    index = changed("index", {"schemaVersion": 2, "manifests": entries})
    return {
        b"oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        b"index.json": index,
        **{f"blobs/{name.replace(':', '/')}".encode(): data for name, data in blobs.items()},
    }


def docker(changes: dict[str, list[Any]]) -> dict[bytes, bytes]:
    """Return the members of an archive in Docker's layout."""
    listed: Any = [{"Config": "config.json", "RepoTags": ["app:1", "x/app:2"],
                    "Layers": ["0/layer.tar", "1/layer.tar"]}]  # fmt: skip
    for change in changes.get("index", ()):
        listed = replaced(listed, *change)
    return {
        b"config.json": configured(changes.get("config", [])),
        b"0/layer.tar": BASE,
        b"1/layer.tar": gzip.compress(TOP, mtime=0),
        b"manifest.json": json.dumps(listed).encode(),
    }


PLACES = st.tuples(st.integers(0, 30), st.sampled_from([*VALUES, *map(bytes.decode, NAMES[:9])]))
CHANGES = st.dictionaries(
    st.sampled_from(["config", "manifest", "inner", "index"]), st.lists(PLACES, max_size=2),
    max_size=2,
)  # fmt: skip
# What becomes of one member of the archive.
TWISTS = st.tuples(
    st.integers(0, 9),
    st.one_of(
        st.tuples(st.just("drop"), st.none()),
        st.tuples(st.just("name"), st.sampled_from(NAMES)),
        st.tuples(st.just("twice"), st.sampled_from([b"", b"{}", BASE, b"x" * 700])),
        st.tuples(st.just("kind"), st.sampled_from([*"123456", "g", "S", "V", "\0"])),
        st.tuples(st.just("link"), st.sampled_from(NAMES)),
        st.tuples(st.just("size"), st.sampled_from([0, 1, 511, 1 << 20, 8**11 - 1])),
        st.tuples(st.just("pax"), st.sampled_from([
            {b"size": b"1"}, {b"size": b"9" * 18}, {b"path": b"a\0b"}, {b"path": DEEP},
            {b"GNU.sparse.major": b"1"}, {b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"9"},
            {b"linkpath": b"x"}, {b"path": b""}])),
        st.tuples(st.just("content"), st.sampled_from([b"", b"null", b"[]", b"{", b"\xff", BASE,
                                                       gzip.compress(b"x"), b"[" * 5000])),
    ),
)  # fmt: skip


def written(members: dict[bytes, bytes], twists: list[Any]) -> bytes:
    listed: list[dict[str, Any]] = [{"name": n, "data": d} for n, d in members.items()]
    for number, (what, value) in twists:
        one = listed[number % len(listed)]
        if what == "drop":
            one["drop"] = True
        elif what == "twice":
            listed.append({"name": one["name"], "data": value})
        elif what == "content":
            one["data"] = value
        elif what == "link":
            one |= {"kind": "2" if number % 2 else "1", "link": value, "data": b""}
        elif what == "pax":
            one["pax"] = value
        else:
            one[what] = value
    return archive(*[member(**one) for one in listed if not one.get("drop")])


def damaged(content: bytes, flips: list[int], cut: int, packed: str) -> bytes:
    whole = bytearray(content)
    for flip in flips:
        whole[flip % len(whole)] ^= 0x10
    if cut:
        whole = whole[: -cut % len(whole)]
    if packed:
        packing = gzip.compress(bytes(whole), mtime=0)
        return {"gzip": packing, "and more": packing + b"more", "twice": packing * 2}[packed]
    return bytes(whole)


@examples(150)
@given(
    form=st.sampled_from([layout, docker]),
    changes=CHANGES,
    twists=st.lists(TWISTS, max_size=2),
    flips=st.lists(st.integers(0, 1 << 20), max_size=1),
    cut=st.sampled_from([0, 0, 0, 0, 1, 600, 1200, 5000]),
    packed=st.sampled_from(["", "", "", "gzip", "and more", "twice"]),
)
def test_loading(
    victim: Victim, form: Any, changes: dict[str, list[Any]], twists: list[Any],
    flips: list[int], cut: int, packed: str,
) -> None:  # fmt: skip
    content = damaged(written(form(changes), twists), flips, cut, packed)
    with tempfile.TemporaryFile() as file, victim.named_errors():
        file.write(content)
        file.seek(0)
        with victim.engine.images.opened_archive(file.fileno()) as source:
            image_archive.load(victim.engine.images, source, progress=victim.told)
    victim.check()


# import

HEADS: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    name=st.sampled_from([
        b"a", b"a/b", b"a/b/c", b"l", b"l/x", b"..", b"../x", b"/a", b"a/../../x", b".", b"",
        b"./a", b"x" * 255, b"x" * 256, b"a/" * 2040 + b"f", b"a/" * 2100 + b"f", DEEP, b"a\nb",
        b"\xff", b"\x1b[2J", b".wh.a", b".wh.", b".wh..", b".wh...", b".wh..wh..opq",
        b"a/.wh..wh..opq", b"a/.wh.b", b"l/.wh.x", b".wh..wh.plnk/1.2", b".wh.x" * 60, b"a/",
        b"dev/null"]),
    kind=st.sampled_from([*"00001234567", "5", "g", "x", "L", "K", "S", "V", "\0", "\xff"]),
    data=st.sampled_from([b"", b"x", b"y" * 600, record(b"path", b"b"), record(b"size", b"1"),
                          b"99 x=y\n", b"long/" * 900, b"n\0m"]),
    link=st.sampled_from([b"", b"a", b"l", b"a/b", b"/", b"..", b"../..", b"/etc/passwd", b"a\0",
                          b"x" * 5000, b"nonsuch", b"\x1b[2J"]),
    mode=st.sampled_from([0, 0o644, 0o7777]),
    uid=st.sampled_from([0, 1000, 0o7777777]),
    device=st.sampled_from([(0, 0), (1, 3), (8, 0), (4095, 1048575), (9999, 9)]),
    pax=st.dictionaries(
        st.sampled_from([
            b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime", b"atime", b"x", b"hdrcharset",
            b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.name", b"GNU.sparse.realsize",
            b"GNU.sparse.size", b"GNU.sparse.map", b"GNU.sparse.numblocks", b"GNU.sparse.offset",
            b"GNU.sparse.numbytes", b"SCHILY.xattr.security.capability", b"SCHILY.xattr.user.x",
            b"SCHILY.xattr.trusted.overlay.opaque", b"SCHILY.xattr.trusted.overlay.redirect",
            b"SCHILY.xattr.user.overlay.whiteout", b"SCHILY.xattr.security.selinux",
            b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.xattr.",
            b"SCHILY.xattr." + b"k" * 300,
        ]),
        st.sampled_from([
            b"", b"0", b"1", b"-1", b"7", b"1.5", b"9" * 18, b"9" * 40, b"4294967295", b"a", b"a/b",
            b"0,1", b"0,0", b"1,1,0,1", b"0,9" + b"9" * 17, b"x" * 70_000, b"\xff", b"a\0b",
            b"4611686018427387903", b"1e9", b" 1", b"../x", b"\1\0\0\2" + b"\xff" * 16,
        ]),
        max_size=2,
    ),
)  # fmt: skip
# A number of a header: octal digits, or in base 256, negative or beyond all reason.
NUMBERS = st.tuples(
    st.integers(0, 5),
    st.sampled_from([(100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8), (483, 12)]),
    st.sampled_from([b"\xff" * 12, b"\x80" + b"\0" * 11, b"\x80" + b"\xff" * 11, b"-1", b"9", b"",
                     b" 7 ", b"777777777777", b"\x80\0\0\0\0\0\0\1\0\0\0\0", b"\xc0" + b"\0" * 11]),
)  # fmt: skip


def with_number(one: bytes, place: tuple[int, int], text: bytes) -> bytes:
    """Return a member with another number in its last header, and the checksum that it needs."""
    start = max((at for at in range(0, len(one), 512) if one[at + 257 : at + 262] == b"ustar"),
                default=0)  # fmt: skip
    begin, length = place
    header = bytearray(one[start : start + 512])
    header[begin : begin + length] = text[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return one[:start] + bytes(header) + one[start + 512 :]


@examples(200)
@given(
    heads=st.lists(HEADS, min_size=1, max_size=6),
    numbers=st.lists(NUMBERS, max_size=1),
    cut=st.sampled_from([0, 0, 0, 1, 700, 1500]),
)
def test_importing(victim: Victim, heads: list[Any], numbers: list[Any], cut: int) -> None:
    members = [member(**head) for head in heads]
    for number, place, text in numbers:
        chosen = number % len(members)
        members[chosen] = with_number(members[chosen], place, text)
    content = archive(*members)
    content = content[: len(content) - cut]
    with victim.named_errors():
        ingest.import_image(victim.engine.images, io.BytesIO(content))
    victim.check()
