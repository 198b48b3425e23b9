import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import image, platforms
from tests.support.evil import nodes, replaced

DIGEST = "sha256:" + "1" * 64
DESCRIPTOR = {"mediaType": "x/y", "digest": DIGEST, "size": 3}
MANIFEST = {"schemaVersion": 2, "config": DESCRIPTOR, "layers": [DESCRIPTOR]}
INDEX = {"schemaVersion": 2, "manifests": [DESCRIPTOR]}
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=b"], "Cmd": ["sh"], "Labels": {"a": "b"}, "Volumes": {"/v": {}}},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created_by": "me"}, {"empty_layer": True}],
}
WHOLE: dict[str, Any] = {
    **CONFIG, "variant": "v1", "created": "2024-01-01T00:00:00Z", "author": "me", "comment": "x",
    "docker_version": "1", "os.version": "10",
    "config": {
        "User": "1", "ExposedPorts": {"80/tcp": {}}, "Env": ["A=b"], "Entrypoint": ["a"],
        "Cmd": ["sh"], "Volumes": {"/v": {}}, "WorkingDir": "/", "Labels": {"a": "b"},
        "StopSignal": "9", "OnBuild": ["RUN x"], "Shell": ["sh"], "ArgsEscaped": True,
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1, "Timeout": 2, "StartPeriod": 3,
                        "StartInterval": 4, "Retries": 5},
    },
    "history": [{"created": "x", "created_by": "me", "author": "me", "comment": "x",
                 "empty_layer": True}],
}  # fmt: skip
"""A configuration with every field that ketch reads."""


def text(document: object) -> bytes:
    return json.dumps(document).encode()


def changed(document: dict[str, Any], **changes: object) -> bytes:
    return text({**document, **changes})


def test_well_formed_documents_come_back_as_they_are() -> None:
    assert image.parse_manifest(text(MANIFEST)) == MANIFEST
    assert image.parse_index(text(INDEX)) == INDEX
    assert image.parse_config(text(CONFIG)) == CONFIG


def test_dockers_media_types_mean_the_same() -> None:
    assert image.parse_manifest(changed(MANIFEST, mediaType=image.DOCKER_MANIFEST))
    assert image.parse_index(changed(INDEX, mediaType=image.DOCKER_INDEX))


def test_null_stands_for_absent_as_go_writes_it() -> None:
    config = {**dict.fromkeys(WHOLE["config"]), "Healthcheck": {"Test": ["x"], "Interval": None},
              "Volumes": {"/v": None}}  # fmt: skip
    parsed = image.parse_config(changed(
        CONFIG, config=config, created=None, history=[{"created": None, "empty_layer": None}]
    ))  # fmt: skip
    assert parsed == {**CONFIG, "history": [{}], "config": {
        "Healthcheck": {"Test": ["x"]}, "Volumes": {"/v": {}}}}  # fmt: skip


def test_null_platforms_and_variants_are_absent() -> None:
    entries = [
        {**DESCRIPTOR, "platform": None, "annotations": None},
        {**DESCRIPTOR, "platform": {"architecture": "arm", "os": "linux", "variant": None}},
    ]
    parsed = image.parse_index(changed(INDEX, manifests=entries))["manifests"]
    assert "platform" not in parsed[0]
    assert parsed[1]["platform"] == {"architecture": "arm", "os": "linux"}
    s390x: image.Platform = {"architecture": "s390x", "os": "linux"}
    assert platforms.by_preference(parsed, s390x) == parsed[:1]
    assert "linux/s390x" in platforms.unmatched(parsed, s390x).message


def test_an_entry_that_says_no_system_is_of_the_usual_one() -> None:
    entries = [{**DESCRIPTOR, "platform": {"architecture": "amd64"}},
               {**DESCRIPTOR, "platform": {"architecture": "amd64", "os": "windows"}}]  # fmt: skip
    parsed = image.parse_index(changed(INDEX, manifests=entries))["manifests"]
    amd64: image.Platform = {"architecture": "amd64", "os": "linux"}
    assert platforms.by_preference(parsed, amd64) == parsed[:1]


def test_half_a_character_is_replaced_as_in_go() -> None:
    content = changed(CONFIG, author="a\ud800b\ud83d\ude00", config={"Labels": {"\udfff": "x"}})
    parsed = image.parse_config(content)
    assert parsed["author"] == "a\ufffdb\U0001f600"
    assert parsed["config"]["Labels"] == {"\ufffd": "x"}


def test_what_is_built_parses_and_keeps_its_bytes() -> None:
    layer = image.descriptor(image.OCI_LAYER, DIGEST, 5)
    built = image.manifest(image.descriptor(image.OCI_CONFIG, DIGEST, 7), [layer, layer])
    assert image.parse_manifest(image.encode(built)) == built
    assert image.encode({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


@pytest.mark.parametrize(
    ("parse", "content", "reason"),
    [
        (image.parse_manifest, b"", "not JSON"),
        (image.parse_manifest, b"\xff\xfe", "not JSON"),
        (image.parse_manifest, b"[" * 100_000, "not JSON"),
        (image.parse_manifest, b"1" * 10_000, "not JSON"),
        (image.parse_manifest, b"[]", "not a JSON object"),
        (
            image.parse_manifest,
            changed(MANIFEST, layers=[DESCRIPTOR, {**DESCRIPTOR, "size": 4}]),
            r"layers\[1\]: a blob with two sizes",
        ),
        (image.parse_config, changed(CONFIG, x=float("nan")), "not JSON: NaN"),
        (image.parse_manifest, b" " * (image.DOCUMENT_SIZE_MAX + 1), "larger than"),
        (image.parse_manifest, changed(MANIFEST, schemaVersion=1), "schemaVersion"),
        (image.parse_manifest, changed(MANIFEST, mediaType=image.OCI_INDEX), "another type"),
        (image.parse_manifest, changed(MANIFEST, manifests=[]), "another type"),
        (image.parse_index, changed(INDEX, layers=[]), "another type"),
        (image.parse_manifest, changed(MANIFEST, config=None), "config is not an object"),
        (image.parse_manifest, changed(MANIFEST, layers={}), "layers is not a list"),
        (image.parse_manifest, changed(MANIFEST, layers=[DESCRIPTOR] * 501), "at most 500"),
        (image.parse_manifest, changed(MANIFEST, layers=[7]), r"layers\[0\] is not an object"),
        (
            image.parse_manifest,
            changed(MANIFEST, config={**DESCRIPTOR, "digest": "sha256:../../x"}),
            "config: invalid checksum digest length",
        ),
        (image.parse_manifest, changed(MANIFEST, config={**DESCRIPTOR, "size": -1}), "size"),
        (image.parse_manifest, changed(MANIFEST, config={**DESCRIPTOR, "size": True}), "size"),
        (image.parse_manifest, changed(MANIFEST, config={**DESCRIPTOR, "size": 1e300}), "size"),
        (image.parse_manifest, changed(MANIFEST, config={**DESCRIPTOR, "size": 1e400}), "Infinity"),
        (image.parse_index, changed(INDEX, manifests=[{**DESCRIPTOR, "platform": 1}]), "platform"),
        (image.parse_config, changed(CONFIG, os=None), "os is not text"),
        (image.parse_config, changed(CONFIG, rootfs={"type": "x"}), "rootfs"),
        (image.parse_config, changed(CONFIG, config={"Env": "A=b"}), "Env"),
        (image.parse_config, changed(CONFIG, config={"Cmd": [1]}), "Cmd"),
        (image.parse_config, changed(CONFIG, config={"Labels": {"a": 1}}), "Labels"),
        (image.parse_config, changed(CONFIG, config={"Volumes": []}), "Volumes"),
        (image.parse_config, changed(CONFIG, history=[{"empty_layer": 1}]), "empty_layer"),
        (image.parse_config, changed(CONFIG, config={"Healthcheck": 5}), "Healthcheck"),
        (image.parse_config, changed(CONFIG, config={"Healthcheck": {"Test": [5]}}), "Test"),
        (
            image.parse_config,
            changed(CONFIG, config={"Healthcheck": {"Interval": 1 << 63}}),
            "Interval",
        ),
        (image.parse_config, changed(CONFIG, x=json.loads("[" * 64 + "]" * 64)), "64 deep"),
        (
            image.parse_index,
            changed(INDEX, manifests=[{**DESCRIPTOR, "annotations": []}]),
            r"manifests\[0\]: annotations",
        ),
        (
            image.parse_index,
            changed(INDEX, manifests=[{**DESCRIPTOR, "annotations": {"a": 1}}]),
            "annotations",
        ),
    ],
)
def test_malformed_documents_are_refused_with_the_place(
    parse: Callable[[bytes], object], content: bytes, reason: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        parse(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
KEYS = ("schemaVersion", "config", "layers", "manifests", "rootfs", "history", "os", "mediaType")


@given(st.sampled_from([MANIFEST, INDEX, CONFIG]), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_change_parses_or_is_a_clear_error(
    document: dict[str, Any], changes: dict[str, object]
) -> None:
    for parse in (image.parse_manifest, image.parse_index, image.parse_config):
        with contextlib.suppress(InvalidArgumentError):
            parse(changed(document, **changes))


def kinds(node: Any, where: str = "") -> dict[str, set[type]]:
    """Return which types there are at each place of a document; what lists hold is one place."""
    found: dict[str, set[type]] = {where: {type(node)}}
    inner = node.items() if isinstance(node, dict) else []
    if isinstance(node, list):
        inner = [("[]", entry) for entry in node]
    elif where in {".config.ExposedPorts", ".config.Volumes", ".config.Labels"}:
        inner = [("{}", entry) for entry in node.values()]
    for key, value in inner:
        for place, types in kinds(value, f"{where}.{key}").items():
            found.setdefault(place, set()).update(types)
    return found


ODD: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [1], ["x"], [{}], [[]],
                  {"": None}, {"x": "y"}, {"x": 1}, {"x": {}}]  # fmt: skip


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_each_field_of_a_configuration_is_of_its_type_whatever_it_was(value: Any) -> None:
    usual = kinds(WHOLE)
    for place in range(nodes(WHOLE)):
        with contextlib.suppress(InvalidArgumentError):
            parsed = image.parse_config(text(replaced(WHOLE, place, value)))
            for found, types in kinds(parsed).items():
                assert found not in usual or types == usual[found], found


def test_chain_ids_follow_the_specification() -> None:
    # The chain of two layers, computed by hand with sha256sum.
    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert image.chain_ids([]) == []
    assert image.chain_ids([first, second]) == [
        first,
        "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", {"os": "linux", "architecture": "amd64"}),
        ("linux/x86_64", {"os": "linux", "architecture": "amd64"}),
        ("Linux/arm/v7", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ("linux/arm/7", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ("linux/armhf", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ("linux/armel", {"os": "linux", "architecture": "arm", "variant": "v6"}),
        ("linux/i386", {"os": "linux", "architecture": "386"}),
        ("s390x", {"os": "linux", "architecture": "s390x"}),
        ("X86_64", {"os": "linux", "architecture": "amd64"}),
        ("linux", image.host_platform()),
        ("windows", {**image.host_platform(), "os": "windows"}),
        ("windows/arm64", {"os": "windows", "architecture": "arm64"}),
        ("foo/amd64", {"os": "foo", "architecture": "amd64"}),
    ],
)
def test_platforms_parse(text: str, expected: dict[str, str]) -> None:
    assert image.parse_platform(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '"" is an invalid component of ""'),
        ("linux/", '"" is an invalid component of "linux/"'),
        ("a b", '"a b" is an invalid component of "a b"'),
        ("linux/a/b/c", '"linux/a/b/c": cannot parse platform specifier'),
        ("foo", '"foo": unknown operating system or architecture'),
    ],
)
def test_what_is_no_platform_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        image.parse_platform(text)
    assert caught.value.message == message
