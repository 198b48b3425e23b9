"""``manifest.json`` is checked field by field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec import docker_archive


def test_what_docker_writes_is_read() -> None:
    content = json.dumps([
        {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l/layer.tar"], "LayerSources": {},
         "Parent": "sha256:0"},
        {"Config": "d.json", "RepoTags": None, "Layers": None},
    ]).encode()  # fmt: skip
    assert docker_archive.parse(content) == [
        {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l/layer.tar"], "Parent": "sha256:0"},
        {"Config": "d.json", "RepoTags": [], "Layers": [], "Parent": ""},
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "not a list"),
        (b"[1]", "Config is not the name of a member"),
        (b'[{"Config": 1}]', "Config is not the name of a member"),
        (b'[{"Config": ""}]', "Config is empty"),
        (b'[{"Config": "c", "Layers": [1]}]', "Layers is not a list of text"),
        (b'[{"Config": "c", "Parent": [1]}]', "Parent is not an image's ID"),
        (b'[{"Config": "c", "RepoTags": {}, "Layers": "x"}]', "Layers is not a list of text"),
        (json.dumps([{"Config": "c", "Layers": ["l"] * 501}]).encode(), "more than 500 layers"),
        (json.dumps([{"Config": "c", "RepoTags": ["a:1"] * 1001}]).encode(), "more than 1000"),
        (b" " * (5 << 20), "larger than"),
    ],
)
def test_what_is_malformed_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        docker_archive.parse(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Config", "Layers", "Parent", "RepoTags"]), inner)
    ),
    max_leaves=10,
)


@given(JSON)
def test_any_document_is_a_list_or_a_named_error(document: object) -> None:
    try:
        for item in docker_archive.parse(json.dumps(document).encode()):
            assert all(isinstance(text, str) for text in (*item["Layers"], *item["RepoTags"]))
    except KetchError as error:
        assert error.message  # noqa: PT017 - either outcome is right
