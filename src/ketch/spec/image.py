"""Image documents: descriptor, manifest, index and configuration.

What is parsed here comes from registries and archives, so every parser takes bytes, bounds them,
checks the fields that ketch relies on and raises InvalidArgumentError; unknown fields stay in the
document. Source: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md,
config.md) and the Docker media types that mean the same.
"""

import json
import os
from collections.abc import Iterable, Mapping

from ketch.errors import InvalidArgumentError
from ketch.spec import digest as digests
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, NotRequired, TypedDict

    class Platform(TypedDict):
        """What a manifest's content runs on, in Go's names."""

        architecture: str
        os: str
        variant: NotRequired[str]

    class Descriptor(TypedDict):
        """A pointer to content."""

        mediaType: str
        digest: str
        size: int
        annotations: NotRequired[dict[str, str]]
        platform: NotRequired[Platform]

    class Manifest(TypedDict):
        """One image: its configuration and its layers, lowest first."""

        schemaVersion: int
        mediaType: NotRequired[str]
        config: Descriptor
        layers: list[Descriptor]
        annotations: NotRequired[dict[str, str]]

    class Index(TypedDict):
        """A list of manifests, mostly one a platform."""

        schemaVersion: int
        mediaType: NotRequired[str]
        manifests: list[Descriptor]
        annotations: NotRequired[dict[str, str]]

    class Healthcheck(TypedDict, total=False):
        """How to probe a container; Docker's extension. Times are nanoseconds."""

        Test: list[str]
        Interval: int
        Timeout: int
        StartPeriod: int
        StartInterval: int
        Retries: int

    class ContainerConfig(TypedDict, total=False):
        """What containers of an image run with unless told otherwise."""

        User: str
        ExposedPorts: dict[str, dict[str, object]]
        Env: list[str]
        Entrypoint: list[str]
        Cmd: list[str]
        Volumes: dict[str, dict[str, object]]
        WorkingDir: str
        Labels: dict[str, str]
        StopSignal: str
        Healthcheck: Healthcheck
        OnBuild: list[str]
        Shell: list[str]
        ArgsEscaped: bool

    class RootFS(TypedDict):
        """The layers as digests of their uncompressed archives, lowest first."""

        type: str
        diff_ids: list[str]

    class History(TypedDict, total=False):
        """How one layer came about."""

        created: str
        author: str
        created_by: str
        comment: str
        empty_layer: bool

    class ImageConfig(TypedDict):
        """An image's configuration; its digest is the image's ID."""

        architecture: str
        os: str
        variant: NotRequired[str]
        created: NotRequired[str]
        author: NotRequired[str]
        config: NotRequired[ContainerConfig]
        rootfs: RootFS
        history: NotRequired[list[History]]
        comment: NotRequired[str]


OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""What the file ``oci-layout`` of an image layout says."""

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)

# What containerd and Docker accept of a manifest; a configuration with a long history is the
# largest document that occurs.
DOCUMENT_SIZE_MAX = 4 << 20
BLOB_SIZE_MAX = 1 << 46
LAYERS_MAX = 500  # overlayfs stacks no more: fs/overlayfs/params.h, OVL_MAX_STACK
MANIFESTS_MAX = 10_000
# What an image may say of its containers: all of it is kept with each of them, told in their events
# and listings, and handed to their programs.
_WORD_MAX = 128 * 1024  # an argument or a variable: execve(2), MAX_ARG_STRLEN
_CONFIG_TEXT_MAX = 2 << 20
_VOLUMES_MAX = 256  # each is a directory of the host, and a mount
_DEPTH_MAX = 64  # whoever shows a document, or writes it anew, does so by recursion

# Go's names of the machines, as images use them, by the kernel's.
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "mips64": ("mips64", ""),
    "loongarch64": ("loong64", ""),
}
_ARCHITECTURE_ALIASES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "i386": ("386", ""),
    "aarch64": ("arm64", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
}  # fmt: skip
_KNOWN_ARCHITECTURES = {
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64",
    "ppc64le", "riscv64", "s390x",
}  # fmt: skip
_SYSTEMS = {
    "aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd",
    "openbsd", "plan9", "solaris", "windows",
}  # fmt: skip
_PLATFORM_HINT = "a platform is os[/architecture[/variant]], or an architecture"


def encode(document: "Mapping[str, Any]") -> bytes:
    """Returns a document as the bytes that its digest is taken of."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def descriptor(media_type: str, digest: str, size_bytes: int) -> "Descriptor":
    """Returns a descriptor of some content."""
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}


def manifest(config: "Descriptor", layers: "Iterable[Descriptor]") -> "Manifest":
    """Returns an OCI manifest of a configuration and its layers, lowest first."""
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": list(layers),
    }


def parse_manifest(content: bytes) -> "Manifest":
    """Read a manifest.

    Raises:
        InvalidArgumentError: it is malformed, too large, or another kind of document.
    """
    document = _document(content, "image manifest")
    _expect_type(document, MANIFEST_TYPES, "image manifest")
    layers = document["layers"] = _list(document, "layers", "image manifest", LAYERS_MAX)
    _descriptor(document.get("config"), "image manifest: config")
    sizes: dict[str, int] = {}
    for number, layer in enumerate(layers):
        where = f"image manifest: layers[{number}]"
        _descriptor(layer, where)
        if sizes.setdefault(layer["digest"], layer["size"]) != layer["size"]:
            raise InvalidArgumentError(f"{where}: a blob with two sizes")
    return document  # type: ignore[return-value]


def parse_index(content: bytes) -> "Index":
    """Read an index (Docker's word: manifest list).

    An entry that cannot be read is left out, so that the others can be had: what one tool writes
    for a signature, or gets wrong for one platform, is no matter to the rest. Its size may be
    missing, as Docker lets it be.

    Raises:
        InvalidArgumentError: it is malformed, too large, or another kind of document; or none of
            its entries can be read.
    """
    document = _document(content, "image index")
    _expect_type(document, INDEX_TYPES, "image index")
    manifests = _list(document, "manifests", "image index", MANIFESTS_MAX)
    document["manifests"] = found = []
    odd: InvalidArgumentError | None = None
    for number, entry in enumerate(manifests):
        try:
            found.append(parse_entry(entry, f"image index: manifests[{number}]"))
        except InvalidArgumentError as error:
            odd = odd or error
    if odd is not None and not found:
        raise odd
    return document  # type: ignore[return-value]


def is_index(content: bytes) -> bool:
    """Whether a document is an index, by what it says itself or what it has.

    Raises:
        InvalidArgumentError: it is no JSON object.
    """
    document = _document(content, "manifest")
    said = document.get("mediaType")
    return said in INDEX_TYPES if said is not None else "manifests" in document


def parse_entry(entry: "Any", where: str) -> "Descriptor":
    """Check one descriptor of an index; what is null or empty in it is as good as missing.

    Args:
        entry: the descriptor.
        where: what it is called in errors.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    _strings(entry, ("mediaType",), where)
    made = {name: value for name, value in entry.items() if value is not None}
    made.setdefault("mediaType", "")
    _descriptor({"size": 0, **made}, where)
    platform = made.pop("platform", None)
    if platform is not None:
        _strings(platform, ("architecture", "os", "variant"), f"{where}.platform")
        platform = {name: value for name, value in platform.items() if value}
    if platform:
        made["platform"] = {"architecture": "", "os": "", **platform}
    return made  # type: ignore[return-value]


def listed_size(entry: "Descriptor") -> int | None:
    """Returns how many bytes an index says that a document has, None where it does not say."""
    return entry.get("size")


def parse_config(content: bytes) -> "ImageConfig":
    """Read an image's configuration; what is null in it is as good as missing, as in Go.

    Raises:
        InvalidArgumentError: it is malformed or too large.
    """
    where = "image configuration"
    document = _without_nulls(_document(content, where))
    _strings(document, ("architecture", "os"), where, required=True)
    others = ("variant", "created", "author", "comment", "docker_version", "os.version")
    _strings(document, others, where)
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise InvalidArgumentError(f"{where}: rootfs is not of type 'layers'")
    rootfs["diff_ids"] = _list(rootfs, "diff_ids", f"{where}: rootfs", LAYERS_MAX)
    for diff_id in rootfs["diff_ids"]:
        if not isinstance(diff_id, str):
            raise InvalidArgumentError(f"{where}: rootfs.diff_ids holds what is no text")
        digests.split(diff_id)
    if "config" in document:
        document["config"] = _container_config(document["config"], f"{where}: config")
    if "history" in document:
        steps = _list(document, "history", where, 10_000)
        document["history"] = [
            _step(entry, f"{where}: history[{number}]") for number, entry in enumerate(steps)
        ]
    return document  # type: ignore[return-value]


def oci_layer_type(media_type: str) -> str:
    """Returns what OCI calls the type of a layer that may have Docker's."""
    if not media_type.startswith(DOCKER_LAYER):
        return media_type
    compression = media_type[len(DOCKER_LAYER) :].lstrip(".")
    return f"{OCI_LAYER}+{compression}" if compression else OCI_LAYER


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Returns the chain ID of each stack of layers, from the lowest layer alone to all.

    Source: config.md, "Layer ChainID".
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(next_chain_id(chain[-1] if chain else "", diff_id))
    return chain


def next_chain_id(below: str, diff_id: str) -> str:
    """Returns the chain ID of a layer on top of a stack, whose own is empty where there is none."""
    return digests.of(f"{below} {diff_id}".encode()) if below else diff_id


def platform_of(config: "ImageConfig") -> "Platform":
    """Returns the platform that an image's configuration is for."""
    platform: Platform = {"architecture": config["architecture"], "os": config["os"]}
    if config.get("variant"):
        platform["variant"] = config["variant"]
    return platform


def host_platform() -> "Platform":
    """Returns the platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    platform: Platform = {"architecture": architecture, "os": "linux"}
    if variant:
        platform["variant"] = variant
    return platform


def parse_platform(text: str) -> "Platform":
    """Read ``os[/architecture[/variant]]``, or an architecture; the rest is this machine's.

    Source: github.com/containerd/platforms, "Parse".

    Raises:
        InvalidArgumentError: it has no such form.
    """
    parts = text.lower().split("/")
    if len(parts) > 3:
        raise InvalidArgumentError(f'"{text}": cannot parse platform specifier', _PLATFORM_HINT)
    for part in parts:
        if not part or not part.isascii() or not part.replace("-", "").replace("_", "").isalnum():
            raise InvalidArgumentError(
                f'"{part}" is an invalid component of "{text}"', _PLATFORM_HINT
            )
    host = host_platform()
    if len(parts) == 1 and parts[0] not in _SYSTEMS:
        if usual(parts[0])[0] not in _KNOWN_ARCHITECTURES:
            raise InvalidArgumentError(
                f'"{text}": unknown operating system or architecture', _PLATFORM_HINT
            )
        parts.insert(0, "linux")
    if len(parts) == 1:
        return {**host, "os": parts[0]}
    architecture, variant = usual(*parts[1:])
    if not variant and architecture == host["architecture"]:
        variant = host.get("variant", "")
    platform: Platform = {"architecture": architecture, "os": parts[0]}
    if variant:
        platform["variant"] = variant
    return platform


def usual(name: str, variant: str = "") -> tuple[str, str]:
    """Returns an architecture and its variant, in lower case, under the names that Go has for them.

    Source: github.com/containerd/platforms, "normalizeArch".
    """
    architecture, implied = _ARCHITECTURE_ALIASES.get(name, (name, ""))
    if decimal(variant) is not None and architecture in {"arm", "arm64"}:
        variant = f"v{variant}"
    return architecture, variant or implied


def _document(content: bytes, where: str) -> "dict[str, Any]":
    if len(content) > DOCUMENT_SIZE_MAX:
        raise InvalidArgumentError(f"{where}: larger than {DOCUMENT_SIZE_MAX} bytes")
    try:
        document = json.loads(content, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{where}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidArgumentError(f"{where}: not a JSON object")
    level: list[Any] = [document]
    for _ in range(_DEPTH_MAX):
        tables = [node.values() for node in level if isinstance(node, dict)]
        lists = [node for node in level if isinstance(node, list)]
        level = [inner for nodes in (*tables, *lists) for inner in nodes]
    if level:
        raise InvalidArgumentError(f"{where}: nested more than {_DEPTH_MAX} deep")
    if b"\\u" in content:
        # Half a character, which JSON can name, can be neither written nor shown. As in Go, it is
        # replaced.
        text = json.dumps(document, ensure_ascii=False).encode("utf-16", "surrogatepass")
        replaced: dict[str, Any] = json.loads(text.decode("utf-16", "replace"))
        return replaced
    return document


def _constant(name: str) -> "NoReturn":
    raise ValueError(f"{name} is no JSON")


def _expect_type(document: "dict[str, Any]", types: tuple[str, ...], where: str) -> None:
    # A document that could be read as a manifest and as an index is a known trick: OCI
    # distribution's GHSA-mc8v-mgrf-8f4m.
    other = "manifests" if types is MANIFEST_TYPES else "layers"
    if document.get("schemaVersion") != 2:
        raise InvalidArgumentError(f"{where}: schemaVersion is not 2")
    if document.get("mediaType", types[0]) not in types or other in document:
        raise InvalidArgumentError(f"{where}: the document is of another type")


def _list(document: "dict[str, Any]", key: str, where: str, limit: int) -> "list[Any]":
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidArgumentError(f"{where}: {key} is not a list")
    if len(value) > limit:
        raise InvalidArgumentError(f"{where}: {len(value)} {key}, at most {limit} are possible")
    return value


def _descriptor(value: "Any", where: str) -> None:
    _strings(value, ("mediaType", "digest"), where, required=True)
    try:
        digests.split(value["digest"])
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{where}: {error.message}", error.hint) from error
    size = value.get("size")
    if type(size) is not int or not 0 <= size <= BLOB_SIZE_MAX:
        raise InvalidArgumentError(f"{where}: size is not a possible number of bytes")
    annotations = value.get("annotations")
    if annotations is not None and not _is_text_table(annotations):
        raise InvalidArgumentError(f"{where}: annotations is not an object of text")


def _strings(value: "Any", keys: tuple[str, ...], where: str, *, required: bool = False) -> None:
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{where} is not an object")
    for key in keys:
        text = value.get(key)
        if text is None and not required:
            continue
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{where}: {key} is not text")


def _without_nulls(table: "dict[str, Any]") -> "dict[str, Any]":
    return {key: value for key, value in table.items() if value is not None}


def _step(entry: "Any", where: str) -> "History":
    """Returns one entry of a history, checked."""
    _strings(entry, ("created", "author", "created_by", "comment"), where)
    step: History = _without_nulls(entry)  # type: ignore[assignment] # checked here
    if not isinstance(step.get("empty_layer", False), bool):
        raise InvalidArgumentError(f"{where}.empty_layer is neither true nor false")
    return step


def _container_config(given: "Any", where: str) -> "dict[str, Any]":
    """Returns a ContainerConfig, checked, each field in it of its type."""
    _strings(given, ("User", "WorkingDir", "StopSignal"), where)
    config = _without_nulls(given)
    for key in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell"):
        if not _all_text(config.get(key, []), list):
            raise InvalidArgumentError(f"{where}: {key} is not a list of text")
    for key in ("ExposedPorts", "Volumes"):
        if key in config:
            config[key] = _names(config[key], f"{where}: {key}")
    if not isinstance(config.get("Labels", {}), dict):
        raise InvalidArgumentError(f"{where}: Labels is not an object")
    if not _is_text_table(config.get("Labels", {})):
        raise InvalidArgumentError(f"{where}: Labels holds what is no text")
    if len(config.get("Volumes", ())) > _VOLUMES_MAX:
        raise InvalidArgumentError(f"{where}: more than {_VOLUMES_MAX} Volumes")
    if not isinstance(config.get("ArgsEscaped", False), bool):
        raise InvalidArgumentError(f"{where}: ArgsEscaped is neither true nor false")
    if "Healthcheck" in config:
        config["Healthcheck"] = _healthcheck(config["Healthcheck"], f"{where}: Healthcheck")
    _check_sizes(config, where)
    return config


def _names(table: "Any", where: str) -> "dict[str, dict[str, object]]":
    """Returns a set of names, which Go writes as an object of empty objects."""
    if not isinstance(table, dict):
        raise InvalidArgumentError(f"{where} is not an object")
    for name, value in table.items():
        if value is not None and not isinstance(value, dict):
            raise InvalidArgumentError(f"{where}: {name[:200]!a} is not an object")
    return {name: {} for name in table}


def _healthcheck(given: "Any", where: str) -> "dict[str, Any]":
    """Returns a Healthcheck, checked, each field in it of its type."""
    if not isinstance(given, dict):
        raise InvalidArgumentError(f"{where} is not an object")
    check = _without_nulls(given)
    if not _all_text(check.get("Test", []), list):
        raise InvalidArgumentError(f"{where}: Test is not a list of text")
    for key in ("Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"):
        number = check.get(key, 0)
        if type(number) is not int or not -(1 << 63) <= number < 1 << 63:
            raise InvalidArgumentError(f"{where}: {key} is not a number of 64 bits")
    return check


def _check_sizes(config: "dict[str, Any]", where: str) -> None:
    """Bound what each word, and what all of it, may take."""
    total = 0
    lists = [("Healthcheck", config.get("Healthcheck", {}).get("Test", []))]
    lists += [(key, [config.get(key, "")]) for key in ("User", "WorkingDir", "StopSignal")]
    lists += [(key, list(config.get(key, ()))) for key in ("ExposedPorts", "Volumes")]
    lists += [
        (key, config.get(key, [])) for key in ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell")
    ]
    for key, words in lists:
        lengths = [*map(len, words)]
        if lengths and max(lengths) >= _WORD_MAX:
            raise InvalidArgumentError(
                f"{where}: {key} holds a text of {max(lengths)} characters: a program can be given "
                f"{_WORD_MAX - 1}"
            )
        total += sum(lengths)
    labels = config.get("Labels", {})
    total += sum(map(len, labels)) + sum(map(len, labels.values()))
    if total > _CONFIG_TEXT_MAX:
        raise InvalidArgumentError(
            f"{where}: {total} characters of text, at most {_CONFIG_TEXT_MAX} are possible"
        )


def _is_text_table(value: "Any") -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _all_text(value: "Any", kind: type[list[str]] | type[dict[str, object]]) -> bool:
    return isinstance(value, kind) and all(isinstance(word, str) for word in value)
