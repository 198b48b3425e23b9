"""Which image a name stands for: registries are asked for several at once."""

import pathlib
import threading
from collections.abc import Iterator

import pytest

from ketch.build.reporting import Reporter
from ketch.build.request import Request
from ketch.build.resolving import Resolver
from ketch.engine.engine import Engine
from ketch.engine.processes import ENDLESS
from ketch.engine.settings import Settings
from ketch.errors import NotFoundError
from tests.support.registry import FakeRegistry, Handler, fake

pytestmark = pytest.mark.root

PLATFORM = "linux/amd64"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    """Return a registry in this process."""
    with fake() as found:
        yield found


def test_several_images_are_asked_for_at_once(
    registry: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    named = {name: registry.add_image(name, "latest", author=name) for name in "abc"}
    together = threading.Barrier(len(named))

    def wait(request: Handler) -> bool:
        if request.path.endswith("/manifests/latest") and "missing" not in request.path:
            together.wait(20)  # for the others, who come only if nobody waits for an answer
        return False

    registry.hooks.append(wait)
    told: list[str] = []
    reporter = Reporter(lambda event: told.append(getattr(event, "error", "")))
    engine = Engine(Settings(f"{tmp_path}/root", f"{tmp_path}/state"))
    resolver = Resolver(engine, Request(contexts={}), reporter, ENDLESS)
    wanted = [f"{registry.host}/{name}:latest" for name in (*named, "missing")]

    resolver.expect([(name, PLATFORM) for name in wanted])
    asked = len(registry.requests)
    for name, reference in zip(named, wanted, strict=False):
        found = resolver.resolve(reference, PLATFORM)
        assert (found.digest, found.config["author"]) == (named[name]["digest"], name)
    with pytest.raises(NotFoundError, match="missing"):
        resolver.resolve(wanted[-1], PLATFORM)
    assert len(registry.requests) == asked
    assert [error for error in told if error]
