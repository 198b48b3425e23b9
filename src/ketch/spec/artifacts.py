"""What registries and layouts keep beside container images, in the form of an image manifest.

A chart, a signature or an attestation is a manifest whose configuration, or whose layers, are of a
type of its own: OCI image specification 1.1, "Guidelines for Artifact Usage".
"""

from ketch.errors import UnsupportedError
from ketch.spec.image import DOCKER_CONFIG, OCI_CONFIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.image import Manifest

_KINDS = (
    ("application/vnd.cncf.helm.", "a Helm chart"),
    ("application/vnd.dev.cosign.", "a cosign signature"),
    ("application/vnd.dev.sigstore.", "a sigstore signature"),
    ("application/vnd.cncf.notary.", "a Notation signature"),
    ("application/vnd.in-toto", "an attestation"),
    ("application/vnd.docker.plugin.", "a Docker plugin"),
    ("application/vnd.cyclonedx", "a bill of materials"),
    ("application/spdx", "a bill of materials"),
    ("application/vnd.wasm.", "a WebAssembly module"),
    ("application/vnd.oci.empty.", "an artifact without a configuration"),
)
_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")


def check(manifest: "Manifest", digest: str) -> None:
    """Refuse what is no container image, by what it is.

    Args:
        manifest: its manifest.
        digest: the manifest's.

    Raises:
        UnsupportedError: it is an artifact.
    """
    config_type = manifest["config"]["mediaType"]
    own = manifest.get("artifactType")
    types = [own if isinstance(own, str) else "", config_type]
    types += [layer["mediaType"] for layer in manifest["layers"]]
    if config_type in {OCI_CONFIG, DOCKER_CONFIG}:
        # The signatures and attestations of some tools have an image's configuration.
        if not types[2:] or any(kind.startswith(_LAYERS) for kind in types[2:]):
            return
        said = f"its layers are of the unsupported media type {ascii(types[2])[:200]}"
    else:
        said = f"its configuration is of the unsupported media type {ascii(config_type)[:200]}"
    known = [what for kind in types for start, what in _KINDS if kind.startswith(start)]
    raise UnsupportedError(
        f"manifest {digest} is {known[0] if known else 'an artifact'} and not of a container image:"
        f" {said}"
    )
