import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.images.registry import configuration


def parsed(**document: object) -> configuration.Configuration:
    return configuration.parse(json.dumps(document).encode(), "f")


def test_a_registry_is_reached_by_https_alone() -> None:
    (endpoint,) = parsed().endpoints("quay.io", for_pull=True)
    assert (endpoint.host, endpoint.schemes, endpoint.verifies) == ("quay.io", ("https",), True)


def test_docker_hub_is_at_another_host() -> None:
    (endpoint,) = parsed().endpoints("docker.io", for_pull=True)
    assert endpoint.host == "registry-1.docker.io"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "r:5000",
             "10.1.2.3:5000", "[fd00::7]:1", "plain"]
)  # fmt: skip
def test_insecure_registries(host: str) -> None:
    listed = ["r:5000", "10.0.0.0/8", "fd00::/8", "plain"]
    settings = parsed(**{"insecure-registries": listed})
    (endpoint,) = settings.endpoints(host, for_pull=False)
    assert endpoint.schemes == ("https", "http")
    assert not endpoint.verifies


@pytest.mark.parametrize("host", ["r:5001", "11.1.2.3", "example.org", "localhost.example.org"])
def test_others_are_secure(host: str) -> None:
    settings = parsed(**{"insecure-registries": ["r:5000", "10.0.0.0/8"]})
    assert not settings.is_insecure(host)


def test_mirrors_come_first_and_only_for_pulls() -> None:
    settings = parsed(
        **{"registry-mirrors": ["https://m/sub/"]}, mirrors={"quay.io": ["http://q:1"]}
    )
    mirror, hub = settings.endpoints("docker.io", for_pull=True)
    assert (mirror.host, mirror.prefix, mirror.schemes) == ("m", "/sub", ("https",))
    assert mirror.is_mirror
    assert not hub.is_mirror
    assert len(settings.endpoints("docker.io", for_pull=False)) == 1
    assert settings.endpoints("quay.io", for_pull=True)[0].schemes == ("http",)


@pytest.mark.parametrize(
    "document",
    [
        {"insecure_registries": []},
        {"registry-mirrors": "https://m"},
        {"registry-mirrors": ["m"]},
        {"registry-mirrors": ["https://user@m"]},
        {"mirrors": []},
        {"mirrors": {"quay.io": "https://m"}},
        {"max-concurrent-downloads": 0},
        {"max-concurrent-downloads": True},
        {"timeout-seconds": "5"},
    ],
)
def test_mistakes_are_told(document: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^f: "):
        parsed(**document)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_object_is_told(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^f: "):
        configuration.parse(content, "f")


@given(st.dictionaries(
    st.sampled_from(["registry-mirrors", "mirrors", "insecure-registries", "timeout-seconds"]),
    st.recursive(st.none() | st.integers() | st.text(max_size=20),
                 lambda inner: st.lists(inner, max_size=3)
                 | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=5),
))  # fmt: skip
def test_any_document_is_read_or_refused(document: dict[str, object]) -> None:
    try:
        settings = configuration.Configuration(document, "f")
    except InvalidArgumentError:
        return
    assert settings.endpoints("docker.io", for_pull=True)


def test_the_file_is_found_by_the_environment(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"timeout-seconds": 7}')
    assert configuration.read({"KETCH_REGISTRIES": str(path)}).timeout_seconds == 7
    assert configuration.read({"KETCH_REGISTRIES": f"{path}.not"}).timeout_seconds == 60
