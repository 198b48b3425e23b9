"""Images and contexts that stages begin with.

Source: github.com/moby/buildkit, frontend/dockerui/namedcontext.go, and resolveBaseImage in
frontend/dockerfile/dockerfile2llb/convert.go.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ketch.build.graph import ContextSource, ImageSource, Scratch, Vertex
from ketch.build.planning import platforms
from ketch.build.planning.image import Image
from ketch.build.planning.resolver import ResolvedImage, Resolver
from ketch.build.planning.vertices import Vertices
from ketch.build.request import MAIN_CONTEXT, Git, Http, ImageInput, Input, LayoutInput
from ketch.dataclass import dataclass
from ketch.errors import InvalidArgumentError
from ketch.spec import reference as references
from ketch.spec.dockerfile.stages import SCRATCH
from ketch.spec.reference import Reference

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_RESERVED = {SCRATCH, MAIN_CONTEXT}


@dataclass(frozen=True)
class Beginning:
    """What a stage begins with.

    Attributes:
        root: its files.
        image: its configuration, None where there are only files.
        source: the image's vertex, None for none.
    """

    root: Vertex
    image: Image | None = None
    source: ImageSource | None = None


class Inputs:
    """Contexts by the names that a Dockerfile may have for them, and images by theirs.

    Args:
        contexts: as they were asked for.
        resolver: who knows images.
        vertices: what is one already.
    """

    def __init__(
        self, contexts: Mapping[str, Input], resolver: Resolver, vertices: Vertices
    ) -> None:
        self.contexts = contexts
        self.resolver = resolver
        self.vertices = vertices
        self._resolved: dict[tuple[str, str, str], ResolvedImage] = {}
        self._keys: dict[str, str] = {}
        for key in contexts:
            name, _, platform = key.partition("::")
            familiar = _familiar(name)
            self._keys[f"{familiar}::{platform}" if platform else familiar] = key

    def main(self) -> Vertex:
        """Returns the vertex of the main context."""
        return self.vertices.one(
            ContextSource(context=MAIN_CONTEXT, name="[internal] load build context")
        )

    def named(self, name: str, platform: "Platform") -> str:
        """Returns the context that stands in the place of a stage or an image, empty for none.

        Args:
            name: the stage's or the image's.
            platform: one that is given for this platform alone (``name::platform``) goes first.
        """
        if name.lower() in _RESERVED:
            return ""
        familiar = _familiar(name)
        shown = platforms.shown(platforms.normal(platform))
        return self._keys.get(f"{familiar}::{shown}", self._keys.get(familiar, ""))

    def context(self, key: str, platform: "Platform") -> Beginning:
        """Returns what a named context holds.

        Raises:
            KetchError: it is an image that is not there.
        """
        given = self.contexts[key]
        if isinstance(given, ImageInput):
            if given.reference == SCRATCH:
                return Beginning(self.scratch())
            name = references.parse(given.reference).tagged()
            resolved = self.resolved(str(name), platform)
            return self._image(resolved, platform, f"[context {key}] {given.reference}")
        if isinstance(given, LayoutInput):
            resolved = self.resolved(given.reference, platform, key)
            return self._image(resolved, platform, f"[context {key}] OCI load from client", key)
        shown = f"[context {key}] load from client"
        if isinstance(given, Git):
            shown = f"[internal] load git source {given.url}"
        elif isinstance(given, Http):
            shown = f"[context {key}] {given.url}"
        return Beginning(self.vertices.one(ContextSource(context=key, name=shown)))

    def name_of(self, stage_base: str, context: str, platform: "Platform") -> str:
        """Returns the image that a registry may be asked for, empty for none.

        Args:
            stage_base: what a stage builds on.
            context: the context that stands in the stage's place, empty for none.
            platform: what it is for.
        """
        try:
            if not context:
                if stage_base == SCRATCH:
                    return ""
                name = str(base_name(stage_base))
                context = self.named(name, platform)
                if not context:
                    return name
            given = self.contexts[context]
            if isinstance(given, ImageInput) and given.reference != SCRATCH:
                return str(references.parse(given.reference).tagged())
        except InvalidArgumentError:
            pass  # who asks for it hears of that
        return ""

    def expect(self, wanted: Sequence[tuple[str, "Platform"]]) -> None:
        """Has images looked up that will be asked for."""
        known = [(name, platforms.shown(platform)) for name, platform in wanted if name]
        self.resolver.expect(
            [key for key in dict.fromkeys(known) if (*key, "") not in self._resolved]
        )

    def scratch(self) -> Vertex:
        """Returns the vertex of no files."""
        return self.vertices.one(Scratch(name=""))

    def resolved(self, reference: str, platform: "Platform", layout: str = "") -> ResolvedImage:
        """Returns what a name stands for; it is asked for once.

        Raises:
            KetchError: there is no such image.
        """
        key = (reference, platforms.shown(platform), layout)
        if key not in self._resolved:
            self._resolved[key] = self.resolver.resolve(*key)
        return self._resolved[key]

    def _image(
        self, resolved: ResolvedImage, platform: "Platform", shown: str, layout: str = ""
    ) -> Beginning:
        source = self.vertices.one(
            ImageSource(
                name=shown,
                platform=platforms.shown(platform),
                reference=resolved.reference,
                digest=resolved.digest,
                config_digest=resolved.config_digest,
                layout=layout,
            )
        )
        return Beginning(source, Image.of(resolved.config), source)


def base_name(text: str) -> Reference:
    """Reads the name of a base image.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        return references.parse(text).tagged()
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f'failed to parse stage name "{text}": {error.message}', error.hint
        ) from error


def with_digest(name: Reference, digest: str) -> str:
    """Returns a name with the digest that it was resolved to."""
    if not digest:
        return str(name)
    return str(Reference(name.domain, name.path, name.tag, digest))


def _familiar(name: str) -> str:
    try:
        return references.parse(name).familiar.removesuffix(":latest")
    except InvalidArgumentError:
        return name  # a stage may have a name that no image can
