import contextlib
import json
from collections.abc import Iterator

import pytest

from ketch.errors import InvalidArgumentError, KetchError, RegistryError
from ketch.images.registry.configuration import Configuration
from ketch.images.registry.credentials import Credentials
from ketch.images.registry.registries import Registries
from ketch.images.registry.search import search
from tests.support.registry import FakeRegistry, Handler


@pytest.fixture
def registries() -> Iterator[Registries]:
    with Registries({}, credentials=Credentials(), settings=Configuration()) as opened:
        yield opened


def answering(
    registry: FakeRegistry, path: str, status: int, content: bytes, link: str = ""
) -> None:
    def hook(request: Handler) -> bool:
        if not request.path.startswith(path):
            return False
        request.answer(status, content, {"Link": link} if link else {})
        return True

    registry.hooks.append(hook)


def test_the_search_of_version_1(registry: FakeRegistry, registries: Registries) -> None:
    found = [
        {"name": "nginx", "description": "Web", "star_count": 7, "is_official": True},
        {"name": "me/nginx", "description": None, "star_count": "x"},
    ]
    answering(registry, "/v1/search?q=ng&n=5", 200, json.dumps({"results": found}).encode())
    first, second = search(registries, f"{registry.host}/ng", 5)
    assert first == (f"{registry.host}/nginx", "Web", 7, True, False)
    assert second == (f"{registry.host}/me/nginx", "", 0, False, False)


def test_the_catalogue_where_there_is_no_search(
    registry: FakeRegistry, registries: Registries
) -> None:
    answering(registry, "/v2/_catalog?n=1000", 200, b'{"repositories":["a/x","b"]}',
              "</v2/_catalog?last=b>; rel=next")  # fmt: skip
    answering(registry, "/v2/_catalog?last=b", 200, b'{"repositories":["x"]}')
    found = search(registries, f"{registry.host}/x")
    assert [image.name for image in found] == [f"{registry.host}/a/x", f"{registry.host}/x"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"results":5}', b'{"results":[5]}', b"[" * 9999])
def test_an_answer_that_is_none(
    registry: FakeRegistry, registries: Registries, content: bytes
) -> None:
    answering(registry, "/v1/search", 200, content)
    with pytest.raises(RegistryError, match="malformed"):
        search(registries, f"{registry.host}/x")


@pytest.mark.parametrize(
    "target", ["http://[x", ".elsewhere.example/", "http://elsewhere.example/x", "//[", "@x.y/"]
)
def test_a_catalogue_that_goes_on_elsewhere(
    registry: FakeRegistry, registries: Registries, target: str
) -> None:
    answering(registry, "/v2/_catalog", 200, b'{"repositories":["x"]}', f"<{target}>; rel=next")
    with contextlib.suppress(KetchError):  # some are paths of the registry's own
        search(registries, f"{registry.host}/x")
    assert all(headers["Host"] == registry.host for _, _, headers in registry.requests)


def test_a_search_with_values_of_other_types(
    registry: FakeRegistry, registries: Registries
) -> None:
    entry = {"name": json.loads("[" * 400 + "]" * 400), "description": {}, "star_count": True}
    answering(registry, "/v1/search", 200, json.dumps({"results": [entry]}).encode())
    assert search(registries, f"{registry.host}/x") == [(f"{registry.host}/", "", 0, False, False)]


def test_a_catalogue_without_an_end_is_left(registry: FakeRegistry, registries: Registries) -> None:
    answering(registry, "/v2/_catalog", 200, b'{"repositories":["x"]}',
              "</v2/_catalog?n=1000>; rel=next")  # fmt: skip
    assert search(registries, f"{registry.host}/x")
    assert len(registry.requests) < 200


@pytest.mark.parametrize(("term", "limit"), [("x", -1), ("x", 101), ("https://x/y", 0)])
def test_what_cannot_be_asked(registries: Registries, term: str, limit: int) -> None:
    with pytest.raises(InvalidArgumentError):
        search(registries, term, limit)
