"""Plans of Dockerfiles in tests: images that are made up, and plans as text."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ketch.build.graph import Copy, Plan, Run
from ketch.build.planning.dating import Dated
from ketch.build.planning.description import vertices
from ketch.build.planning.planner import plan
from ketch.build.planning.resolver import ResolvedImage
from ketch.build.request import LocalDirectory, Request
from ketch.errors import ImageNotFoundError
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.image import parse_platform

DIGEST = f"sha256:{'0' * 64}"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Images:
    """Has every image whose name does not begin with ``missing``, and tells what was asked for.

    Args:
        configs: what is in an image's configuration, by its name as people write it.
        platform: what all images are for; what is asked for where it is empty.
    """

    def __init__(
        self, configs: Mapping[str, Mapping[str, object]] | None = None, platform: str = ""
    ) -> None:
        self.configs = configs or {}
        self.platform = platform
        self.asked: list[tuple[str, str, str]] = []
        self.expected: list[tuple[str, str]] = []

    def expect(self, wanted: Sequence[tuple[str, str]]) -> None:
        """See ``Resolver``."""
        self.expected += wanted

    def resolve(self, reference: str, platform: str, layout: str = "") -> ResolvedImage:
        """See ``Resolver``."""
        self.asked.append((reference, platform, layout))
        familiar = reference.removeprefix("docker.io/library/").removesuffix(":latest")
        if familiar.startswith("missing"):
            raise ImageNotFoundError(f"{reference}: not found")
        document: dict[str, Any] = {
            **parse_platform(self.platform or platform),
            "config": dict(self.configs.get(familiar, {})),
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        }
        return ResolvedImage(reference, DIGEST, DIGEST, document)  # type: ignore[arg-type]


def planned(
    text: str, images: Images | None = None, /, *, dated: Dated = lambda _: None, **wanted: Any
) -> Plan:
    """Returns the plan of a Dockerfile, for linux/amd64 where nothing else is asked for."""
    asked = {"platforms": ["linux/amd64"], "contexts": {"context": LocalDirectory("/")}} | wanted
    content = textwrap.dedent(text).encode(errors="surrogateescape")
    return plan(content, "Dockerfile", Request(**asked), images or Images(), dated=dated)


def refused(text: str, images: Images | None = None, /, **wanted: Any) -> DockerfileError:
    """Returns the error that a Dockerfile comes to."""
    with pytest.raises(DockerfileError) as caught:
        planned(text, images, **wanted)
    assert caught.value.source is not None
    return caught.value


def history(found: Plan) -> list[str]:
    """Returns the first image's history, as far as the Dockerfile has it."""
    return [step.created_by for step in found.targets[0].steps]


def config(found: Plan) -> dict[str, Any]:
    """Returns what the first image's containers run with."""
    return dict(found.targets[0].config["config"])


def names(found: Plan) -> list[str]:
    """Returns what the vertices are called, each after those that it needs."""
    return [vertex.name for vertex in vertices(found)]


def runs(found: Plan) -> list[Run]:
    """Returns the programs that are run."""
    return [vertex for vertex in vertices(found) if isinstance(vertex, Run)]


def copies(found: Plan) -> list[Copy]:
    """Returns what is copied."""
    return [vertex for vertex in vertices(found) if isinstance(vertex, Copy)]
