"""What an OCI image layout holds, checked against the specification's own schemas."""

import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema

SCHEMAS = pathlib.Path(__file__).parents[1] / "reference/oci_image.json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"


def validate(name: str, document: object) -> None:
    """Check a document against a schema; raise ``jsonschema.ValidationError``.

    Args:
        name: the schema's file.
        document: what is to fit it.
    """
    _validators()[name].validate(document)


def check(layout: pathlib.Path) -> list[str]:
    """Check all that a layout's index leads to: schemas, digests, sizes, and the content's digests.

    Returns:
        The digests of its images' manifests.
    """
    validate("image-layout-schema.json", json.loads((layout / "oci-layout").read_bytes()))
    index = json.loads((layout / "index.json").read_bytes())
    return list(_check_index(layout, index))


def _check_index(layout: pathlib.Path, index: dict[str, Any]) -> Iterator[str]:
    validate("image-index-schema.json", index)
    for entry in index["manifests"]:
        document = json.loads(_blob(layout, entry))
        if entry["mediaType"] in {_INDEX, _DOCKER_INDEX}:
            yield from _check_index(layout, document)
            continue
        assert document["mediaType"] == entry["mediaType"]
        validate("image-manifest-schema.json", document)
        config = json.loads(_blob(layout, document["config"]))
        validate("config-schema.json", config)
        diff_ids = config["rootfs"]["diff_ids"]
        assert len(diff_ids) == len(document["layers"])
        steps = [step for step in config.get("history", ()) if not step.get("empty_layer")]
        assert len(steps) in {0, len(diff_ids)}
        for layer, diff_id in zip(document["layers"], diff_ids, strict=True):
            content = _blob(layout, layer)
            if not layer["mediaType"].endswith(("gzip", "zstd")):
                assert f"sha256:{hashlib.sha256(content).hexdigest()}" == diff_id
        yield entry["digest"]


def _blob(layout: pathlib.Path, descriptor: dict[str, Any]) -> bytes:
    algorithm, _, digits = str(descriptor["digest"]).partition(":")
    content = (layout / "blobs" / algorithm / digits).read_bytes()
    assert len(content) == descriptor["size"]
    assert hashlib.new(str(algorithm), content).hexdigest() == digits
    return content


def _validators() -> dict[str, jsonschema.Draft4Validator]:
    documents: dict[str, Any] = json.loads(SCHEMAS.read_bytes())
    registry: Any = referencing.Registry().with_resources(
        (name, referencing.jsonschema.DRAFT4.create_resource(document))
        for name, document in documents.items()
    )
    return {
        name: jsonschema.Draft4Validator(document, registry=registry)
        for name, document in documents.items()
    }
