from collections.abc import Callable, Iterator

import pytest

from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.registries import Registries
from ketch.images.registry.repository import Repository
from ketch.spec import reference as references
from tests.support.registry import FakeRegistry, fake

Open = Callable[..., Repository]


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with fake() as running:
        yield running


@pytest.fixture
def slept() -> list[float]:
    """What was slept, in seconds: nobody does."""
    return []


@pytest.fixture
def repository(registry: FakeRegistry, slept: list[float]) -> Iterator[Open]:
    """Return what opens a repository of the fake registry."""
    opened: list[Registries] = []

    def open_one(
        name: str = "app",
        *,
        push: bool = False,
        user: str = "",
        credentials: Credentials | None = None,
        host: str = "",
        **settings: object,
    ) -> Repository:
        who = credentials or Credentials(user, "s3cret" if user else "")
        document = {"timeout-seconds": 2, **{k.replace("_", "-"): v for k, v in settings.items()}}
        registries = Registries({}, credentials=who, settings=Configuration(document, "test"))
        registries.transport.sleep = slept.append
        opened.append(registries)
        return registries.repository(references.parse(f"{host or registry.host}/{name}"), push=push)

    yield open_one
    for registries in opened:
        registries.transport.close()
