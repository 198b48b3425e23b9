"""As much of LLB as is made and understood here: graphs that are one source.

BuildKit's clients send graphs of operations besides Dockerfiles. ketch has a builder for
Dockerfiles; of graphs it takes those that name one source (a repository, a URL, an image, a
client's directory, the result of an earlier build), and refuses others by name.
Source: moby/buildkit, solver/pb/ops.proto, client/llb/definition.go.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.dataclass import dataclass
from ketch.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULT_SCHEME = "ketch-result"
"""The scheme of what an earlier build of the same client came to."""

_OPERATIONS = {2: "exec", 4: "file", 5: "build", 6: "merge", 7: "diff"}


@dataclass(frozen=True)
class Source:
    """One source.

    Attributes:
        scheme: such as ``git``.
        path: what comes behind it.
        attributes: what else is said of it.
    """

    scheme: str
    path: str
    attributes: "Mapping[str, str]"


def definition(identifier: str) -> Any:
    """Returns the graph that is one source.

    Args:
        identifier: of the source, with its scheme.
    """
    words = schema.messages("control")
    source = schema.encode(words.Op(source=words.SourceOp(identifier=identifier)))
    # The last operation only says which result of which one is meant.
    end = schema.encode(words.Op(inputs=[words.Input(digest=_digest(source))]))
    operations = {_digest(one): words.OpMetadata() for one in (source, end)}
    return words.Definition(**{"def": [source, end]}, metadata=operations)


def source_of(graph: Any, what: str) -> Source:
    """Returns the one source that a graph is.

    Args:
        graph: a message ``Definition``.
        what: what it is for.

    Raises:
        UnsupportedError: it is more than that.
        InvalidArgumentError: it is no graph.
    """
    words = schema.messages("control")
    found: list[Any] = []
    for encoded in getattr(graph, "def"):
        operation = schema.decode(words.Op, encoded)
        for number, name in _OPERATIONS.items():
            if operation.HasField(name):
                raise UnsupportedError(
                    f"{what}: an LLB graph with an operation {name} (field {number} of pb.Op)",
                    "ketch builds Dockerfiles; LLB graphs need BuildKit's own daemon, which "
                    "buildx's docker-container driver runs",
                )
        if operation.HasField("source"):
            found.append(operation.source)
    if len(found) != 1:
        raise UnsupportedError(f"{what}: an LLB graph of {len(found)} sources, where one is taken")
    scheme, _, path = found[0].identifier.partition("://")
    return Source(scheme, path, dict(found[0].attrs))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
