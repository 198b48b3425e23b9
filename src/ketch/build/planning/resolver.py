"""What the planner asks of the world: which image a name stands for."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ketch.dataclass import dataclass

if TYPE_CHECKING:
    from ketch.spec.image import ImageConfig


@dataclass(frozen=True)
class ResolvedImage:
    """What a name stands for on one platform.

    Attributes:
        reference: the name in normal form.
        digest: of the manifest (or the index that led there), empty where the store alone knows.
        config_digest: of its configuration.
        config: that document.
    """

    reference: str
    digest: str
    config_digest: str
    config: "ImageConfig"


class Resolver(Protocol):
    """Knows images: of the store, of registries, of layouts."""

    def expect(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Is told which images will be asked for, so that all can be looked up at once.

        Args:
            wanted: names and platforms, as ``resolve`` will be given them.
        """

    def resolve(self, reference: str, platform: str, layout: str = "") -> ResolvedImage:
        """Returns the image that a name stands for.

        Args:
            reference: a name in normal form, with a tag or a digest. With a layout: which of its
                images, empty for the only one.
            platform: ``os/architecture[/variant]``.
            layout: the name in ``Request.contexts`` of the OCI layout that it is in, empty for
                none.

        Raises:
            KetchError: there is no such image, or it cannot be asked for.
        """
