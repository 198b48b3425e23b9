"""The store as an OCI image layout: ``index.json``, which tells other tools what there is.

Source: OCI image specification, image-layout.md and annotations.md.
"""

import contextlib
import json
import sqlite3

from ketch.errors import KetchError
from ketch.images.content import ContentStore
from ketch.spec import digest as digests
from ketch.spec import image as documents
from ketch.spec import reference as references

REFERENCE_ANNOTATION = "org.opencontainers.image.ref.name"
NAME_ANNOTATION = "io.containerd.image.name"


def blob_path(digest: str) -> str:
    """Returns where an OCI image layout has a blob."""
    algorithm, digits = digests.split(digest)
    return f"blobs/{algorithm}/{digits}"


def index(connection: sqlite3.Connection, content: ContentStore) -> bytes:
    """Returns ``index.json``: every image by each of its names, those without one as well.

    Args:
        connection: to the engine's database.
        content: the blobs.
    """
    rows = connection.execute(
        "SELECT manifest_digest, reference FROM image"
        " LEFT JOIN image_name ON image_id = id ORDER BY created_ns, id, reference"
    ).fetchall()
    told = _told(content)
    sizes: dict[str, int] = {}
    manifests: list[documents.Descriptor] = []
    for row in rows:
        digest: str = row["manifest_digest"]
        if digest not in sizes:
            sizes[digest] = content.size_bytes(digest) if digest in content else -1
        if sizes[digest] < 0:
            continue
        entry = told.get((digest, row["reference"] or ""))
        if entry is None or entry["size"] != sizes[digest]:
            entry = _entry(content, digest, sizes[digest], row["reference"])
        manifests.append(entry)
    found: documents.Index = {
        "schemaVersion": 2,
        "mediaType": documents.OCI_INDEX,
        "manifests": manifests,
    }
    return documents.encode(found)


def _entry(
    content: ContentStore, digest: str, size_bytes: int, reference: str | None
) -> "documents.Descriptor":
    media_type = documents.OCI_MANIFEST
    with contextlib.suppress(KetchError):  # who reads it will find it damaged
        manifest = documents.parse_manifest(content.read(digest))
        media_type = manifest.get("mediaType", media_type)
    entry = documents.descriptor(media_type, digest, size_bytes)
    if reference:
        name = references.parse(reference)
        entry["annotations"] = {REFERENCE_ANNOTATION: name.familiar, NAME_ANNOTATION: str(name)}
    return entry


def _told(content: ContentStore) -> "dict[tuple[str, str], documents.Descriptor]":
    """Returns what the list says so far, by digest and name.

    A manifest never changes, so that what was told of it holds: a change reads the manifests that
    are new, however many there are.
    """
    try:
        entries: list[documents.Descriptor] = json.loads(content.read_index())["manifests"]
        return {
            (entry["digest"], entry.get("annotations", {}).get(NAME_ANNOTATION, "")): entry
            for entry in entries
            if isinstance(entry["size"], int) and isinstance(entry["mediaType"], str)
        }
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}  # there is none yet, or somebody else wrote it: all is read again
