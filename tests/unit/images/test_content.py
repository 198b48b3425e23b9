import os
import pathlib

import pytest

from ketch.errors import DigestMismatchError, InvalidArgumentError, NotFoundError, UnavailableError
from ketch.images.content import ContentStore
from ketch.spec import digest

MISSING = "sha256:" + "0" * 64


@pytest.fixture
def store(tmp_path: pathlib.Path) -> ContentStore:
    return ContentStore(str(tmp_path / "root"))


def files(store: ContentStore) -> set[str]:
    return {
        os.path.relpath(os.path.join(directory, name), store.root)
        for directory, _, names in os.walk(store.root)
        for name in names
    }


def test_a_blob_is_found_by_its_digest_in_the_oci_layout(store: ContentStore) -> None:
    name = store.write(b"content")
    assert name == digest.of(b"content")
    assert files(store) == {"oci-layout", f"blobs/sha256/{name[7:]}"}
    assert store.read(name) == b"content"
    assert store.size_bytes(name) == 7
    assert name in store
    assert list(store.digests()) == [name]


def test_writing_the_same_twice_keeps_one(store: ContentStore) -> None:
    assert store.write(b"content") == store.write(b"content")
    with store.writer() as writer:
        writer.write(b"con")
        writer.write(b"tent")
        assert writer.commit(digest.of(b"content")) == digest.of(b"content")
        assert writer.size_bytes == 7
    assert len(files(store)) == 2


def test_content_that_is_not_what_was_promised_is_not_stored(store: ContentStore) -> None:
    with store.writer() as writer:
        writer.write(b"something else")
        with pytest.raises(DigestMismatchError, match=MISSING):
            writer.commit(MISSING)
    assert files(store) == {"oci-layout"}


def test_a_blob_that_is_not_committed_leaves_nothing(store: ContentStore) -> None:
    with store.writer() as writer:
        writer.write(b"half")
        assert len(files(store)) == 2
    assert files(store) == {"oci-layout"}


def test_sha512_blobs_have_their_own_directory(store: ContentStore) -> None:
    with store.writer("sha512") as writer:
        writer.write(b"content")
        name = writer.commit()
    assert store.path(name) == f"{store.root}/blobs/sha512/{name[7:]}"
    assert store.read(name) == b"content"


def test_missing_blobs_are_said_to_be_missing(store: ContentStore) -> None:
    assert MISSING not in store
    assert list(store.digests()) == []
    for access in (store.read, store.open, store.size_bytes):
        with pytest.raises(NotFoundError, match=MISSING):
            access(MISSING)
    store.delete(MISSING)


def test_a_digest_cannot_name_a_file_elsewhere(store: ContentStore) -> None:
    for text in ("sha256:../../etc/passwd", "../x:" + "0" * 64, "/etc/passwd"):
        with pytest.raises(InvalidArgumentError):
            store.read(text)


def test_damage_on_the_disk_is_noticed(store: ContentStore) -> None:
    name = store.write(b"content")
    pathlib.Path(store.path(name)).write_bytes(b"CONTENT")
    with pytest.raises(DigestMismatchError):
        store.read(name)


def test_a_document_that_is_too_large_is_not_read(store: ContentStore) -> None:
    name = store.write(b"x" * 100)
    with pytest.raises(UnavailableError, match="100 bytes"):
        store.read(name, 99)


def test_deleted_and_unfinished_blobs_go(store: ContentStore) -> None:
    name = store.write(b"content")
    left = pathlib.Path(store.root, "ingest", "left by a killed writer")
    left.write_bytes(b"x")
    store.delete_unfinished()
    assert not left.exists()
    assert name in store
    store.delete(name)
    assert name not in store


def test_the_index_is_replaced_whole(store: ContentStore) -> None:
    store.write_index(b"{}")
    store.write_index(b"[]")
    assert pathlib.Path(store.root, "index.json").read_bytes() == b"[]"
    assert files(store) == {"oci-layout", "index.json"}
