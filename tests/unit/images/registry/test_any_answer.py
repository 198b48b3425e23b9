"""Whatever is in what registries, helpers and other tools wrote: values of their types, or a name.

Texts of a protocol's headers are in ``test_headers``, whole conversations in ``test_evil``.
"""

import base64
import json
import pathlib
import tempfile
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, KetchError
from ketch.images.registry import answers, manifest_lists
from ketch.images.registry.auth import basic
from ketch.images.registry.credentials import CredentialFile
from ketch.images.registry.login import registry_host
from ketch.images.registry.manifest_lists import ManifestLists
from ketch.spec import image as documents
from ketch.spec import platforms
from ketch.spec import reference as references
from tests.support.evil import VALUES, controls, replaced
from tests.support.registry import sha256

JSON = st.recursive(
    st.sampled_from(VALUES) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(st.integers(100, 999), st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_refusal_is_an_error_of_one_line(status: int, content: bytes) -> None:
    error = answers.error(status, content, "manifest for x")
    assert error.message
    assert "\n" not in error.message
    assert controls(error.message) == []
    assert len(error.message) < 1000


@given(st.lists(st.fixed_dictionaries({"code": JSON, "message": JSON}), max_size=7))
def test_any_list_of_errors_is_an_error_of_one_line(errors: list[Any]) -> None:
    error = answers.error(404, json.dumps({"errors": errors}).encode(), "x")
    assert "\n" not in error.message
    assert controls(error.message) == []


ENTRY = {"auth": base64.b64encode(b"a:b").decode(), "username": "u", "password": "p",
         "identitytoken": "t", "registrytoken": "r"}  # fmt: skip


@given(st.integers(0, 30), st.sampled_from(VALUES) | JSON)
def test_any_credentials_can_be_sent_or_are_refused(number: int, value: object) -> None:
    kept: Any = {
        "auths": {"r": ENTRY, "https://q/v1/": {"auth": "YTpi"}},
        "credHelpers": {"x": "y"},
        "credsStore": "",
    }
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "config.json")
        path.write_text(json.dumps(replaced(kept, number, value)), encoding="utf-8")
        try:
            file = CredentialFile({"DOCKER_CONFIG": directory, "PATH": ""})
            for host in ("r", "q", "docker.io"):
                found = file.get(host)
                basic(found).encode()
                f"{found.identity_token}{found.registry_token}".encode()
        except KetchError as error:
            assert error.message  # noqa: PT017 - either outcome is right


def _kept() -> dict[str, Any]:
    config = documents.descriptor(documents.OCI_CONFIG, sha256(b"{}"), 2)
    content = documents.encode(documents.manifest(config, []))
    return {
        "Ref": "docker.io/library/app:1",
        "Descriptor": {
            **documents.descriptor(documents.OCI_MANIFEST, sha256(content), len(content)),
            "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
        },
        "Raw": base64.b64encode(content).decode(),
    }


@given(st.integers(0, 12), st.sampled_from(VALUES) | JSON)
@example(5, None)
def test_any_file_of_a_list_is_an_image_or_is_refused(number: int, value: object) -> None:
    name = references.parse("docker.io/library/list:1")
    with tempfile.TemporaryDirectory() as directory:
        lists = ManifestLists({"DOCKER_CONFIG": directory})
        place = pathlib.Path(directory, "manifests", "docker.io_library_list-1")
        place.mkdir(parents=True)
        path = place / "docker.io_library_app-1"
        path.write_text(json.dumps(replaced(_kept(), number, value)), encoding="utf-8")
        try:
            entries = lists.entries(name)
            json.dumps(manifest_lists.index(name, entries)).encode()
            json.dumps([entry.document() for entry in entries])
            manifest_lists.annotate(lists, str(name), "app:1", {"variant": "v8"})
            assert lists.entries(name)
        except KetchError as error:
            assert error.message  # noqa: PT017 - either outcome is right


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9./:\[\]@-]{1,30}"))
def test_any_text_is_a_registry_or_none(text: str) -> None:
    try:
        host = registry_host(text)
    except InvalidArgumentError:
        return
    assert references.parse(f"{host}:1/x" if host.isalnum() else f"{host}/x")


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9]{0,9}(/[a-z0-9_-]{0,9}){0,4}"))
def test_any_text_is_a_platform_or_none(text: str) -> None:
    try:
        platform = documents.parse_platform(text)
    except InvalidArgumentError:
        return
    assert platform["os"].isascii()
    assert platforms.matches(platform, platform)


PLATFORM = st.sampled_from([*VALUES, {"architecture": "arm", "os": "linux", "variant": None}]) | (
    st.fixed_dictionaries(
        {"architecture": st.sampled_from(["amd64", "arm", "arm64", "x"]), "os": st.just("linux")},
        optional={"variant": st.sampled_from([None, "", "v1", "v7", "\x1b[2J"])},
    )
)  # fmt: skip


@given(st.lists(PLATFORM, max_size=5), st.sampled_from(["linux/amd64", "linux/arm/v7", "linux"]))
def test_any_index_has_an_image_for_a_platform_or_has_not(found: list[object], wanted: str) -> None:
    described = documents.descriptor(documents.OCI_MANIFEST, sha256(b""), 0)
    content = {"schemaVersion": 2, "manifests": [{**described, "platform": one} for one in found]}
    platform = documents.parse_platform(wanted)
    try:
        entries = documents.parse_index(json.dumps(content).encode())["manifests"]
        chosen = platforms.by_preference(entries, platform)
    except InvalidArgumentError as error:
        assert controls(error.message + error.hint) == []  # noqa: PT017 - either outcome is right
    else:
        said = [one for one in chosen if "platform" in one]
        assert all(platforms.matches(one["platform"], platform) for one in said)
        assert chosen[: len(said)] == said
        unmatched = platforms.unmatched(entries, platform)
        assert controls(unmatched.message + unmatched.hint) == []
