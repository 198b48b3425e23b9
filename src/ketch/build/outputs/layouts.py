"""A result as an archive or directory that other tools load: ``type=oci`` and ``type=docker``.

Docker's form is an OCI image layout with ``manifest.json`` beside it, as ``ketch save`` writes it.
"""

from typing import TYPE_CHECKING, Any

from ketch.engine.images import saving
from ketch.engine.images.layout import blob_path
from ketch.errors import InvalidArgumentError
from ketch.images.archive import DirectorySink, TarSink
from ketch.spec import image as documents
from ketch.spec import reference as references

if TYPE_CHECKING:
    from ketch.build.outputs.manifests import Written
    from ketch.build.outputs.result import Outcome
    from ketch.build.request import Output
    from ketch.engine.images.images import Images
    from ketch.engine.images.saving import Sink


def write(images: "Images", outcome: "Outcome", written: "Written", output: "Output") -> None:
    """Write an archive, or fill a directory.

    Args:
        images: where the blobs are.
        outcome: what was built.
        written: its documents.
        output: what is wanted.

    Raises:
        InvalidArgumentError: Docker's form cannot hold it.
        UnavailableError: it cannot be written.
    """
    docker = output.type == "docker"
    if docker and len(outcome.images) > 1:
        raise InvalidArgumentError(
            "docker exporter does not currently support exporting manifest lists",
            "build for one platform, or take type=oci",
        )
    sink: Sink
    if output.directory:
        sink = DirectorySink(output.directory)
    else:
        assert output.stream is not None
        sink = TarSink(output.stream.write)
    for blob in written.blobs:
        saving.add_blob(images, sink, blob["digest"])
    names = [references.parse(name).tagged() for name in outcome.names]
    entries = [saving.named(written.root, name) for name in names] or [written.root]
    listed: list[dict[str, Any]] | None = None
    if docker:
        manifest = documents.parse_manifest(images.content.read(written.manifests[0]["digest"]))
        listed = [{
            "Config": blob_path(written.configurations[0]),
            "RepoTags": [name.familiar for name in names] or None,
            "Layers": [blob_path(layer["digest"]) for layer in manifest["layers"]],
        }]  # fmt: skip
    saving.finish(sink, entries, listed)
