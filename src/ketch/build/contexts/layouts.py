"""An image of an OCI image layout, in place of a name (``oci-layout://``)."""

import os
from typing import TYPE_CHECKING

from ketch.engine.images import candidates
from ketch.errors import KetchError, NotFoundError
from ketch.images.archive import DirectorySource
from ketch.images.registry.progress import Progress
from ketch.spec import digest as digests
from ketch.spec import image as documents

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.build.request import LayoutInput
    from ketch.engine.images.images import Images
    from ketch.engine.images.layer import Layer
    from ketch.spec.image import ImageConfig


class LayoutImage:
    """An image of a layout. Its documents were verified when it was found, its layers are when
    they are stored.

    Args:
        given: the layout, and which image of it.
        platform: ``os/architecture[/variant]`` that is wanted.

    Raises:
        NotFoundError: there is no such layout or image.
        InvalidArgumentError: it is malformed.
        DigestMismatchError: something has another digest than it was promised to have.
        UnsupportedError: it is no container image.

    Attributes:
        digest: of its manifest.
        config_digest: of its configuration.
    """

    def __init__(self, given: "LayoutInput", platform: str) -> None:
        if not os.path.isdir(given.path):
            raise NotFoundError(
                f"oci-layout {given.path!r} could not be resolved: no such directory"
            )
        self._source = DirectorySource(given.path)
        wanted = documents.parse_platform(platform)
        try:
            found = candidates.find(self._source, given.reference, wanted)
        except KetchError as error:
            shown = f"{given.path}:{given.reference}" if given.reference else given.path
            message = f"oci-layout {shown!r} could not be resolved: {error.message}"
            raise type(error)(message, error.hint) from error
        self.digest, self._candidate = found
        self.config_digest = digests.of(self._candidate.config)

    @property
    def document(self) -> "ImageConfig":
        """Its configuration."""
        return self._candidate.document

    def add_layers(
        self, images: "Images", tell: "Callable[[str, int, int], object]"
    ) -> "list[Layer]":
        """Store its layers where they are not yet, within ``Images.adding``.

        Args:
            images: where.
            tell: is told of each layer how far it is.

        Returns:
            The layers, the lowest first.

        Raises:
            DigestMismatchError: one is not what it was promised to be.
            NotFoundError: one is missing.
            InvalidArgumentError: one is malformed.
            UnavailableError: the disk is full or failing.
        """
        progress = _Told(tell)
        return self._candidate.add_layers(images, self._source, progress, images.pairs())


class _Told(Progress):
    def __init__(self, tell: "Callable[[str, int, int], object]") -> None:
        self._tell = tell

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """Tell how far a layer is."""
        self._tell(f"{action.lower()} {identifier}", current_bytes, total_bytes)
