"""What a build consists of: a graph of vertices, each a file system made of those before it.

The planner makes it of a Dockerfile, the solver executes what a target needs, and neither knows the
other. A vertex says all that its result depends on, so that a cache key can be made of it. Vertices
are told apart by identity: the planner makes one object of what is one.

The words are BuildKit's (solver/pb/ops.proto): source, exec, file, merge.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from ketch.dataclass import dataclass, field
from ketch.spec.dockerfile.errors import Place

if TYPE_CHECKING:
    from ketch.spec.image import ImageConfig


class MountKind(StrEnum):
    """What ``RUN --mount=type=`` can name."""

    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


class Sharing(StrEnum):
    """Who may have a cache mount while somebody has it."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


class Network(StrEnum):
    """What a step reaches."""

    DEFAULT = "default"
    NONE = "none"
    HOST = "host"


@dataclass(eq=False, kw_only=True)
class Vertex:
    """One step.

    Attributes:
        name: what people are shown: ``[build 2/5] RUN make``.
        stage: the stage that it belongs to, by name or number; empty for what belongs to none.
        place: where it stands in the Dockerfile, None where it does not.
        platform: ``os/architecture[/variant]`` that it is made for.
        ignore_cache: whether an earlier result must not be taken.
    """

    name: str
    stage: str = ""
    place: Place | None = None
    platform: str = ""
    ignore_cache: bool = False

    @property
    def inputs(self) -> "tuple[Vertex, ...]":
        """What must be there before this can be made."""
        return ()


@dataclass(eq=False, kw_only=True)
class Scratch(Vertex):
    """No files at all."""


@dataclass(eq=False, kw_only=True)
class ImageSource(Vertex):
    """An image's files.

    Attributes:
        reference: its name, normalized, with a tag or digest.
        digest: of the manifest that the name was resolved to, empty where the store alone knows.
        config_digest: of its configuration: the image's ID in the store.
        layout: the named context with an OCI layout that it is taken from, else empty.
    """

    reference: str
    digest: str = ""
    config_digest: str = ""
    layout: str = ""


@dataclass(eq=False, kw_only=True)
class ContextSource(Vertex):
    """The files of a context, of which only what is used is read.

    Attributes:
        context: the name in ``Request.contexts``; the main one is ``context``.
    """

    context: str


@dataclass(eq=False, kw_only=True)
class GitSource(Vertex):
    """A Git repository's files, as ADD takes them.

    Attributes:
        url: as it stands in the Dockerfile, expanded (with ``#ref:subdirectory``, or a query).
        checksum: the commit that it must be, empty for any.
        keep_git_dir: whether ``.git`` comes along.
    """

    url: str
    checksum: str = ""
    keep_git_dir: bool = False


@dataclass(eq=False, kw_only=True)
class HttpSource(Vertex):
    """What a URL answers, as one file.

    Attributes:
        url: where.
        checksum: ``algorithm:hex`` that it must have, empty for any.
        filename: what the file is called, empty for the URL's or the answer's own.
    """

    url: str
    checksum: str = ""
    filename: str = ""


@dataclass(eq=False, kw_only=True)
class InlineSource(Vertex):
    """Files that stand in the Dockerfile itself.

    Attributes:
        files: by name.
    """

    files: Mapping[str, bytes]


@dataclass(frozen=True)
class CopyItem:
    """Something that is copied.

    Attributes:
        source: where from.
        paths: there; patterns of Go's filepath.Match, but for what is one file by itself
            (downloads, and what stands in the Dockerfile).
        unpack: whether archives are unpacked: None as ADD has it (local ones, not downloads).
        required: whether a pattern that nothing matches is an error.
    """

    source: Vertex
    paths: tuple[str, ...]
    unpack: bool | None = False
    required: bool = True


@dataclass(eq=False, kw_only=True)
class Copy(Vertex):
    """Files copied on top of others (COPY, ADD).

    Attributes:
        base: what they are put on.
        items: what is copied.
        target: where to, absolute; a directory where it ends with a slash.
        owner: ``user[:group]`` by name or number in the base, empty for 0:0.
        mode: octal digits or a symbolic mode, empty for what the files have.
        parents: whether the paths' directories are kept (with ``/./`` as pivot).
        exclude: patterns of what is left out.
        link: whether the files are a layer of their own, which the base has no part in.
        time_s: when all that is copied was changed, in seconds since the epoch; None where files
            keep their times.
    """

    base: Vertex
    items: tuple[CopyItem, ...]
    target: str
    owner: str = ""
    mode: str = ""
    parents: bool = False
    exclude: tuple[str, ...] = ()
    link: bool = False
    time_s: int | None = None

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """See ``Vertex``."""
        return (self.base, *(item.source for item in self.items))


@dataclass(eq=False, kw_only=True)
class MakeDirectory(Vertex):
    """A directory that is there afterwards (WORKDIR), 0755, of the user that it is made for.

    Attributes:
        base: what it is made on.
        path: absolute.
        owner: as in ``Copy``.
        time_s: when it was changed, if it is new, in seconds since the epoch; None for now.
    """

    base: Vertex
    path: str
    owner: str = ""
    time_s: int | None = None

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """See ``Vertex``."""
        return (self.base,)


@dataclass(frozen=True)
class Mount:
    """One ``RUN --mount``.

    Attributes:
        kind: what it is.
        target: where, absolute; empty for a secret that is a variable alone.
        source: what is bound, or what a new cache begins with; None for nothing.
        source_path: the part of the source.
        read_only: whether it cannot be written to; what is written to a bind is thrown away.
        id: of a cache, secret or ssh agent.
        sharing: of a cache.
        mode: permissions of a new cache, a secret or a socket; None for the kind's default.
        uid: their owner.
        gid: their group.
        size_bytes: of a tmpfs, 0 for unlimited.
        required: whether a missing secret or agent is an error.
        variable: environment variable that a secret is given in, empty for none.
    """

    kind: MountKind
    target: str
    source: Vertex | None = None
    source_path: str = "/"
    read_only: bool = False
    id: str = ""
    sharing: Sharing = Sharing.SHARED
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    required: bool = False
    variable: str = ""


@dataclass(eq=False, kw_only=True)
class Run(Vertex):
    """A program that changes files (RUN).

    Attributes:
        base: its root.
        arguments: the program and its arguments; the shell's already in front.
        environment: ``NAME=value``, of the image and the build arguments that it sees.
        user: as ``USER`` has it.
        directory: working directory, absolute.
        mounts: in their order.
        network: what it reaches.
        insecure: whether it has all privileges (``--security=insecure``).
        devices: CDI names (``--device``), each with whether it is required.
        files: here-documents that the program reads, by name beneath ``/dev/pipes/``.
        hidden: values that do not belong to its cache key (proxies), ``NAME=value``.
        hostname: what it is called, empty for the default.
        hosts: ``name:address`` that it can look up beside what it finds by itself.
    """

    base: Vertex
    arguments: tuple[str, ...]
    environment: tuple[str, ...] = ()
    user: str = ""
    directory: str = "/"
    mounts: tuple[Mount, ...] = ()
    network: Network = Network.DEFAULT
    insecure: bool = False
    devices: tuple[tuple[str, bool], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    hostname: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[Vertex, ...]:
        """See ``Vertex``."""
        return (self.base, *(one.source for one in self.mounts if one.source is not None))


@dataclass(frozen=True)
class Step:
    """A line of an image's history.

    Attributes:
        created_by: what it says, as BuildKit writes it.
        vertex: what made its layer, None where it has none.
    """

    created_by: str
    vertex: Vertex | None = None


@dataclass(frozen=True)
class Target:
    """What one platform's image is.

    Attributes:
        platform: ``os/architecture[/variant]``.
        root: its files.
        config: its document, but for ``rootfs``, ``history`` and ``created``.
        base: the image that it builds on, None for scratch; its history goes before.
        steps: the history of what the Dockerfile adds.
        scanned: what an SBOM's scanner looks at beside the image, by name: stages that were asked
            for, and ``context``.
    """

    platform: str
    root: Vertex
    config: "ImageConfig"
    base: ImageSource | None
    steps: Sequence[Step]
    scanned: Mapping[str, Vertex] = field(default_factory=dict)


@dataclass(frozen=True)
class Remark:
    """What people are told of a Dockerfile, by a lint rule or by a client that reads it itself.

    Attributes:
        rule: its name: ``StageNameCasing``.
        description: what it says in general.
        url: where more is said.
        message: what it says of this.
        place: where, None for the whole file.
    """

    rule: str
    description: str
    url: str
    message: str
    place: Place | None = None


@dataclass(frozen=True)
class Plan:
    """A whole build.

    Attributes:
        targets: one a platform, in the order that they were asked for.
        warnings: of the Dockerfile.
        unused_arguments: build arguments that no stage declares.
        epoch_s: the time that SOURCE_DATE_EPOCH gives the image and its history, None for now.
        index: whether an index is asked for, also where there is one target.
    """

    targets: Sequence[Target]
    warnings: Sequence[Remark] = ()
    unused_arguments: Sequence[str] = ()
    epoch_s: int | None = None
    index: bool = False
