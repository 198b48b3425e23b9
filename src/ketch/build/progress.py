"""What a build says while it goes on; the events are those of BuildKit's status stream.

Source: moby/buildkit, api/services/control/control.proto (StatusResponse).
"""

from collections.abc import Callable

from ketch.build.graph import Remark
from ketch.dataclass import dataclass


@dataclass(frozen=True)
class VertexState:
    """A vertex, told of when it is known, begins and ends.

    Attributes:
        id: ``sha256:...``, the same for the same vertex within a build.
        name: what people are shown.
        inputs: ids of what it needs.
        started_ns: when it began, nanoseconds since the epoch, 0 for not yet.
        completed_ns: when it ended, 0 for not yet.
        cached: whether its result was there.
        error: what went wrong, empty for nothing.
        group: the progress group (stage and platform) that it is shown in, may be empty.
    """

    id: str
    name: str
    inputs: tuple[str, ...] = ()
    started_ns: int = 0
    completed_ns: int = 0
    cached: bool = False
    error: str = ""
    group: str = ""


@dataclass(frozen=True)
class Status:
    """Something within a vertex that takes its time: a download, an export.

    Attributes:
        vertex: the vertex's id.
        id: what it is: ``transferring context``.
        current: how much is done, in bytes or pieces.
        total: of how much, 0 for unknown.
        started_ns: when it began.
        completed_ns: when it ended, 0 for not yet.
    """

    vertex: str
    id: str
    current: int = 0
    total: int = 0
    started_ns: int = 0
    completed_ns: int = 0


@dataclass(frozen=True)
class Log:
    """What a step's program wrote.

    Attributes:
        vertex: the vertex's id.
        stream: 1 for standard output, 2 for standard error.
        data: the bytes.
        time_ns: when.
    """

    vertex: str
    stream: int
    data: bytes
    time_ns: int


@dataclass(frozen=True)
class Warned:
    """A lint rule's finding.

    Attributes:
        vertex: id of the vertex that it is about.
        warning: what.
        filename: the Dockerfile's name.
        text: its content.
    """

    vertex: str
    warning: Remark
    filename: str
    text: bytes


Event = VertexState | Status | Log | Warned

Progress = Callable[[Event], None]
"""Takes events; called from any thread of the build, one call at a time."""
