"""The store as an OCI image layout: ``index.json``, which tells other tools what there is.

Source: OCI image specification, image-layout.md and annotations.md.
"""

import contextlib
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
    manifests = []
    for row in rows:
        digest: str = row["manifest_digest"]
        if digest not in content:
            continue
        media_type = documents.OCI_MANIFEST
        with contextlib.suppress(KetchError):  # who reads it will find it damaged
            manifest = documents.parse_manifest(content.read(digest))
            media_type = manifest.get("mediaType", media_type)
        entry = documents.descriptor(media_type, digest, content.size_bytes(digest))
        if row["reference"]:
            name = references.parse(row["reference"])
            entry["annotations"] = {REFERENCE_ANNOTATION: name.familiar, NAME_ANNOTATION: str(name)}
        manifests.append(entry)
    found: documents.Index = {
        "schemaVersion": 2,
        "mediaType": documents.OCI_INDEX,
        "manifests": manifests,
    }
    return documents.encode(found)
