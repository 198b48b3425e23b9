"""Images beside what is none, and entries of an index that nobody would write."""

import gzip
import json
from typing import Any

from ketch.spec import digest
from ketch.spec import image as documents
from tests.support.archives import archive, member

HERE = documents.host_platform()
_OTHER = "sha256:" + "1" * 64

ODD: dict[str, Any] = {
    "empty platform": {"platform": {}},
    "null platform": {"platform": None},
    "platform of nulls": {"platform": {"os": None, "architecture": None}},
    "no architecture": {"platform": {"os": "linux"}},
    "unknown architecture": {"platform": {"os": "linux", "architecture": "cray"}},
    "architecture that is no text": {"platform": {"os": "linux", "architecture": 5}},
    "platform that is no object": {"platform": "linux/amd64"},
    "no digest": {"digest": None},
    "malformed digest": {"digest": "sha256:xyz"},
    "negative size": {"size": -1},
    "size that is no number": {"size": "12"},
    "type that is no text": {"mediaType": 1},
    "annotations that are no text": {"annotations": {"a": 1}},
}

ARTIFACTS = {
    "chart": "a Helm chart", "signature": "a cosign signature", "attestation": "an attestation",
    "artifact": "a bill of materials",
}  # fmt: skip


class Content:
    """Images and what stands beside them, to be put into a registry and into an archive."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest.of(content)] = content
        return {"mediaType": media_type, "digest": digest.of(content), "size": len(content)}

    def document(self, kind: str, **document: Any) -> dict[str, Any]:
        content = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
        self.manifests[digest.of(content)] = (kind, content)
        return self.blob(content, kind)

    def image(self, text: bytes, architecture: str = "", system: str = "linux") -> dict[str, Any]:
        layer = archive(member(b"file", data=text))
        config = {
            "architecture": architecture or HERE["architecture"], "os": system, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest.of(layer)]},
        }  # fmt: skip
        return self.document(
            documents.OCI_MANIFEST,
            config=self.blob(json.dumps(config).encode(), documents.OCI_CONFIG),
            layers=[self.blob(gzip.compress(layer, mtime=0), documents.OCI_LAYER + "+gzip")],
        )

    def chart(self) -> dict[str, Any]:
        return self.document(
            documents.OCI_MANIFEST,
            config=self.blob(b'{"name":"chart"}', "application/vnd.cncf.helm.config.v1+json"),
            layers=[self.blob(b"tgz", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
        )

    def signature(self) -> dict[str, Any]:
        config = {"architecture": "", "os": "", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [_OTHER]}}  # fmt: skip
        return self.document(
            documents.OCI_MANIFEST,
            config=self.blob(json.dumps(config).encode(), documents.OCI_CONFIG),
            layers=[self.blob(b"{}", "application/vnd.dev.cosign.simplesigning.v1+json")],
        )

    def attestation(self) -> dict[str, Any]:
        config = {"architecture": "unknown", "os": "unknown", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [_OTHER]}}  # fmt: skip
        return self.document(
            documents.OCI_MANIFEST,
            config=self.blob(json.dumps(config).encode(), documents.OCI_CONFIG),
            layers=[self.blob(b"{}", "application/vnd.in-toto+json")],
        )

    def artifact(self) -> dict[str, Any]:
        return self.document(
            documents.OCI_MANIFEST,
            artifactType="application/spdx+json",
            config=self.blob(b"{}", "application/vnd.oci.empty.v1+json"),
            layers=[self.blob(b"{}", "application/spdx+json")],
        )

    def archive(self, entries: list[dict[str, Any]], **more: bytes) -> bytes:
        index = {"schemaVersion": 2, "manifests": entries}
        members = {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/{name.replace(':', '/')}": content for name, content in self.blobs.items()},
            **{name.replace("_", "."): content for name, content in more.items()},
        }
        return archive(*[member(name.encode(), data=data) for name, data in members.items()])
