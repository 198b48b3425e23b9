"""OCI layouts of a client's, by containerd's content service."""

import hashlib
import json
import pathlib
from typing import Any

import pytest

from ketch.api.buildkit import schema
from ketch.api.buildkit.grpc import Call
from ketch.build.progress import Progress
from ketch.build.request import LayoutInput, Request, Result
from ketch.engine.engine import Engine
from ketch.engine.processes import Patience
from ketch.errors import AlreadyExistsError, NotFoundError
from tests.unit.api.buildkit.buildx import files, session, words
from tests.unit.api.buildkit.test_entrance import build, run

CONTENT = "/containerd.services.content.v1.Content/"
WRITE, COMMIT = 1, 2


class Stores:
    """A client's stores, in memory."""

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.methods = {CONTENT + "Read": self.read, CONTENT + "Write": self.write}

    def add(self, store: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[store, digest] = content
        return {"digest": digest, "size": len(content)}

    async def read(self, call: Call) -> None:
        asked = await call.request(files.ReadContentRequest)
        content = self.blobs.get((call.value("buildkit-attachable-store-id"), asked.digest))
        if content is None:
            raise NotFoundError("content not found")
        for at in range(0, len(content), 1000):
            await call.send(files.ReadContentResponse(offset=at, data=content[at : at + 1000]))

    async def write(self, call: Call) -> None:
        store = call.value("buildkit-attachable-store-id")
        data = b""
        while messages := await call.receive():
            for message in messages:
                asked = schema.decode(files.WriteContentRequest, message)
                if (store, asked.expected) in self.blobs:
                    raise AlreadyExistsError("content exists")
                if asked.action == WRITE:
                    assert asked.offset == len(data)
                    data += asked.data
                else:
                    done = (asked.action, asked.offset, asked.total)
                    assert done == (COMMIT, len(data), len(data))
                    assert self.add(store, data)["digest"] == asked.expected
                await call.send(files.WriteContentResponse(action=asked.action, offset=len(data)))


def _image(stores: Stores, store: str, architecture: str) -> dict[str, Any]:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar",
             **stores.add(store, architecture.encode() * 1000)}  # fmt: skip
    config = {"mediaType": "application/vnd.oci.image.config.v1+json",
              **stores.add(store, json.dumps({"architecture": architecture}).encode())}  # fmt: skip
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer],
                "mediaType": "application/vnd.oci.image.manifest.v1+json"}  # fmt: skip
    return {"mediaType": manifest["mediaType"], **stores.add(store, json.dumps(manifest).encode()),
            "platform": {"os": "linux", "architecture": architecture}}  # fmt: skip


def test_a_layout_is_got_for_the_platform_that_is_wanted(tmp_path: pathlib.Path) -> None:
    stores = Stores()
    entries = [_image(stores, "oci:st", one) for one in ("s390x", "arm64")]
    index = {"schemaVersion": 2, "manifests": entries,
             "mediaType": "application/vnd.oci.image.index.v1+json"}  # fmt: skip
    digest = stores.add("oci:st", json.dumps(index).encode())["digest"]
    got: list[tuple[str, bytes, int]] = []

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        given = request.contexts["x"]
        assert isinstance(given, LayoutInput)
        layout = pathlib.Path(given.path)
        blobs = list((layout / "blobs" / "sha256").iterdir())
        got.append((given.reference, (layout / "index.json").read_bytes(), len(blobs)))
        return Result()

    async def test(socket: str) -> None:
        named = {"context:x": f"oci-layout://st:tag@{digest}", "platform": "linux/arm64"}
        async with session(socket, "s", stores.methods):
            await build(socket, attributes=named)
            # The index, and manifest, configuration and layer of the one that is wanted.
            assert [(one[0], one[2]) for one in got] == [(digest, 4)]
            assert json.loads(got[0][1])["manifests"][0]["digest"] == digest
            stores.blobs["oci:st", entries[1]["digest"]] += b" "
            for wrong in (digest, "sha256:" + "0" * 64, "sha256:../../x"):
                named["context:x"] = f"oci-layout://st:tag@{wrong}"
                with pytest.raises(BaseExceptionGroup, match="unhandled"):
                    await build(socket, wrong, attributes=named)
            assert len(got) == 1

    run(tmp_path, solve, test)


def test_a_layout_is_given_but_for_what_is_there(tmp_path: pathlib.Path) -> None:
    stores = Stores()
    there = stores.add("export", b"there")["digest"]

    def solve(_engine: Engine, request: Request, _progress: Progress, _: Patience) -> Result:
        blobs = pathlib.Path(request.outputs[0].directory) / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for content in (b"there", b"new" * 1_000_000, b""):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        return Result()

    async def test(socket: str) -> None:
        async with session(socket, "s", stores.methods):
            attributes = {"tar": "false", "dest": "x"}
            await build(socket, Exporters=[words.Exporter(Type="oci", Attrs=attributes)])

    run(tmp_path, solve, test)
    assert sorted(stores.blobs.values()) == [b"", b"new" * 1_000_000, b"there"]
    assert stores.blobs["export", there] == b"there"
