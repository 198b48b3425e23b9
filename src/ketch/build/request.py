"""What a build is asked for: by the command line, the API, BuildKit's API and the library alike."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Protocol

from ketch.dataclass import dataclass, field

if TYPE_CHECKING:
    from ketch.images.registry.credentials import Credentials

MAIN_CONTEXT = "context"
"""The name of the main context in ``Request.contexts``."""


class Session(Protocol):
    """Files that a client keeps, and sends when they are asked for (BuildKit's file sync)."""

    @property
    def key(self) -> str:
        """What tells the places of clients apart, where what they sent is kept for the next time.

        BuildKit's clients send it as the session's shared key; empty where nothing is to be kept.
        """

    def fetch(
        self,
        name: str,
        directory: int,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        follow: Sequence[str] = (),
        tell: Callable[[int], object] | None = None,
    ) -> None:
        """Bring what a client's directory holds into one of ours; anything else there goes.

        Args:
            name: what the client calls it: ``context``, ``dockerfile``.
            directory: descriptor of ours; what an earlier call left there is made use of.
            include: patterns of what is wanted; everything where empty.
            exclude: patterns of what is not, as ``.dockerignore`` has them.
            follow: paths whose symlinks are followed; what they lead to is wanted as well, and
                nothing but these where ``include`` is empty.
            tell: is given how many bytes have come.

        Raises:
            UnavailableError: the client has gone, or failed.
        """


@dataclass(frozen=True)
class LocalDirectory:
    """A directory of this machine."""

    path: str


@dataclass(frozen=True)
class Archive:
    """A tar archive, plain or compressed, or a lone Dockerfile: told apart by their beginning.

    Attributes:
        stream: it; read once.
        owned: whether its members' owners stay theirs when they are copied, as BuildKit has it;
            in Docker's older API all of a context is 0:0's.
    """

    stream: BinaryIO
    owned: bool = True


@dataclass(frozen=True)
class Git:
    """A Git repository: ``https://host/path.git#ref:subdirectory``."""

    url: str


@dataclass(frozen=True)
class Http:
    """What a URL answers: an archive, or a lone Dockerfile."""

    url: str


@dataclass(frozen=True)
class ImageInput:
    """An image, in place of a name (``docker-image://``)."""

    reference: str


@dataclass(frozen=True)
class LayoutInput:
    """An image of an OCI layout directory (``oci-layout://``).

    Attributes:
        path: of the directory.
        reference: which image: a tag or a digest, empty for the only one.
    """

    path: str
    reference: str = ""


@dataclass(frozen=True)
class SessionDirectory:
    """A client's directory.

    Attributes:
        session: to ask.
        name: what the client calls it.
    """

    session: Session
    name: str


Input = LocalDirectory | Archive | Git | Http | ImageInput | LayoutInput | SessionDirectory


class Secrets(Protocol):
    """Where secrets come from."""

    def get(self, id: str) -> bytes | None:  # noqa: A002 - the field's word
        """Returns a secret, None where there is none of that name."""


class Agents(Protocol):
    """Where ssh agents listen."""

    def socket(self, id: str) -> str | None:  # noqa: A002 - the field's word
        """Returns the path of an agent's socket, None where there is none of that name."""


@dataclass(frozen=True)
class Output:
    """Where a result goes.

    Attributes:
        type: ``image`` (into the store), ``docker``, ``oci``, ``tar``, ``local``, ``registry``.
        attributes: as ``--output`` has them: ``name``, ``push``, ``dest``, ``compression`` ...
        stream: where an archive is written to.
        directory: path that a ``local`` output, or an unpacked layout, is written to.
    """

    type: str = "image"
    attributes: Mapping[str, str] = field(default_factory=dict)
    stream: BinaryIO | None = None
    directory: str = ""


@dataclass(frozen=True)
class CachePlace:
    """Somewhere else where a cache is read from or written to.

    Attributes:
        type: ``registry``, ``local`` or ``inline``.
        attributes: as ``--cache-from`` and ``--cache-to`` have them.
    """

    type: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One build.

    Attributes:
        contexts: by name; the main one is ``context``. One that a Dockerfile names as image or
            stage stands in its place.
        dockerfile: its path in ``dockerfile_input``.
        dockerfile_input: where it is; None for the main context.
        dockerfile_text: the Dockerfile itself, None where it is to be read.
        target: the stage that is wanted, empty for the last.
        platforms: ``os/architecture[/variant]``; this machine's where empty.
        build_args: ``--build-arg``; None takes nothing (as a name alone that is not set does).
        labels: of the image.
        annotations: of the manifest (``manifest:key``, ``index:key`` and so on as buildx has it).
        tags: names of the image.
        no_cache: whether no earlier result is taken.
        no_cache_filter: stages of which none is taken.
        pull: whether images are always asked for at their registry.
        network: ``default``, ``none``, ``host``, or a network's name.
        add_hosts: ``name:address``.
        shm_size_bytes: of /dev/shm, 0 for the default.
        ulimits: ``name=soft[:hard]``.
        cgroup_parent: below which steps get their control groups.
        limits: of memory and processors, as ``HostConfig`` has them.
        entitlements: ``network.host``, ``security.insecure``, ``device``.
        secrets: where they come from.
        agents: where ssh agents listen.
        outputs: where the result goes; into the store where empty.
        cache_from: where results of others can be found.
        cache_to: where results are written to.
        provenance: ``min``, ``max``, or empty for none; ``sbom`` names a scanner's image.
        squash: whether the new layers become one.
        environment: the caller's: proxies, and where registries' configuration and credentials are.
        credentials: says who the caller is to a registry's host; what the files that
            ``environment`` names say, if None.
    """

    contexts: Mapping[str, Input]
    dockerfile: str = "Dockerfile"
    dockerfile_input: Input | None = None
    dockerfile_text: bytes | None = None
    target: str = ""
    platforms: Sequence[str] = ()
    build_args: Mapping[str, str | None] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    no_cache: bool = False
    no_cache_filter: Sequence[str] = ()
    pull: bool = False
    network: str = "default"
    add_hosts: Sequence[str] = ()
    shm_size_bytes: int = 0
    ulimits: Sequence[str] = ()
    cgroup_parent: str = ""
    limits: Mapping[str, object] = field(default_factory=dict)
    entitlements: Sequence[str] = ()
    secrets: Secrets | None = None
    agents: Agents | None = None
    outputs: Sequence[Output] = ()
    cache_from: Sequence[CachePlace] = ()
    cache_to: Sequence[CachePlace] = ()
    provenance: str = ""
    sbom: str = ""
    squash: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    credentials: "Callable[[str], Credentials] | None" = None


@dataclass(frozen=True)
class Result:
    """What a build came to.

    Attributes:
        image_id: of the image in the store, empty where none was put there.
        digest: of its manifest or index.
        metadata: what ``--metadata-file`` gets, in BuildKit's keys (``containerimage.digest``,
            ``containerimage.config.digest``, ``containerimage.descriptor``, ``image.name`` ...).
        unused_arguments: build arguments that nothing in the Dockerfile declares.
    """

    image_id: str = ""
    digest: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    unused_arguments: Sequence[str] = ()

    @property
    def identifier(self) -> str:
        """What names the image by its content, wherever it went; empty where there is none."""
        return self.image_id or str(self.metadata.get("containerimage.config.digest", self.digest))

    @property
    def warning(self) -> str:
        """What is to be said of arguments that came to nothing, in Docker's words; may be empty."""
        if not self.unused_arguments:
            return ""
        names = " ".join(self.unused_arguments)
        return f"[Warning] One or more build-args [{names}] were not consumed\n"
