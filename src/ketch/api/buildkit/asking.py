"""What a client of BuildKit's asks for, as a request to ketch's builder: pure.

A build is said in attributes of the Dockerfile front end (``build-arg:NAME``), exporters and places
of caches. Whatever is of the client's own (directories, uploads, layouts, archives that it writes)
is named here, and got from its ``Places``.
Source: moby/buildkit, frontend/dockerui/{config,attr,context,namedcontext}.go,
frontend/attestations/parse.go; docker/buildx, build/opt.go.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ketch.api.buildkit import llb
from ketch.build.addresses import remote
from ketch.build.request import (
    CachePlace,
    Git,
    Http,
    ImageInput,
    Input,
    Output,
    Request,
)
from ketch.dataclass import dataclass, field
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec.build_options import is_true
from ketch.spec.values import boolean, fields, integer, quoted

DOCKERFILE, GATEWAY = "dockerfile.v0", "gateway.v0"
UPLOADS = "http://buildkit-session/"
"""Where what a client uploads is found."""
_DOCKERFILE_IMAGE = re.compile(r"(docker\.io/)?docker/dockerfile(-upstream)?(:[\w.-]+)?(@.*)?")
_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)")
MOBY = "moby"
"""The exporter of buildx's docker driver: into the engine's store."""
_OUTPUTS = {
    MOBY: "image", "image": "image", "docker": "docker", "oci": "oci", "tar": "tar",
    "local": "local",
}  # fmt: skip
_CACHES_FROM, _CACHES_TO = ("registry", "local"), ("registry", "local", "inline")
_IMPORTS_MAX = 100


@dataclass(frozen=True)
class Asked:
    """One build, as it was asked for.

    Attributes:
        attributes: of the front end.
        frontend: its name.
        inputs: sources that attributes name.
        outputs: types and attributes of exporters.
        cache_from: types and attributes of places.
        cache_to: likewise.
        entitlements: what the client agrees to.
    """

    attributes: Mapping[str, str]
    frontend: str = DOCKERFILE
    inputs: Mapping[str, llb.Source] = field(default_factory=dict)
    outputs: Sequence[tuple[str, Mapping[str, str]]] = ()
    cache_from: Sequence[tuple[str, Mapping[str, str]]] = ()
    cache_to: Sequence[tuple[str, Mapping[str, str]]] = ()
    entitlements: Sequence[str] = ()


class Places(Protocol):
    """What is the client's."""

    def directory(self, name: str, session: str) -> Input:
        """Returns a directory that the client sends; of another session than its own by id."""

    def upload(self, path: str) -> Input:
        """Returns what the client uploads under a path, once."""

    def layout(self, store: str, digest: str, platforms: Sequence[str]) -> Input:
        """Returns an image of an OCI layout of the client's, for some platforms or the host's."""

    def result(self, name: str) -> Input:
        """Returns what an earlier build came to."""

    def output(self, number: int, type_: str, attributes: Mapping[str, str]) -> Output:
        """Returns an output of the client's."""

    def cache_from(self, type_: str, attributes: Mapping[str, str]) -> CachePlace:
        """Returns a place that a cache is read from."""

    def cache_to(self, type_: str, attributes: Mapping[str, str]) -> CachePlace:
        """Returns a place that a cache is written to."""


def request(asked: Asked, places: Places) -> Request:
    """Returns what the builder is asked for.

    Args:
        asked: what the client asked for.
        places: what is the client's.

    Raises:
        InvalidArgumentError: it is wrong.
        UnsupportedError: ketch has nothing for it.
    """
    attributes = asked.attributes
    check_frontend(asked)
    contexts, dockerfile = _contexts(asked, places)
    outputs, annotations = _outputs(asked, places)
    provenance, sbom = _attestations(attributes, asked.outputs)
    no_cache = attributes.get("no-cache")
    build_args: dict[str, str | None] = {**_with_prefix(attributes, "build-arg:")}
    for attribute, name in (
        ("multi-platform", "BUILDKIT_MULTI_PLATFORM"),
        ("hostname", "BUILDKIT_SANDBOX_HOSTNAME"),
    ):
        if attribute in attributes:
            build_args.setdefault(name, attributes[attribute])
    return Request(
        contexts=contexts,
        dockerfile=attributes.get("filename", "Dockerfile"),
        dockerfile_input=dockerfile,
        target=attributes.get("target", ""),
        platforms=_list(attributes.get("platform", "")),
        build_args=build_args,
        labels=_with_prefix(attributes, "label:"),
        annotations=annotations,
        no_cache=no_cache == "",
        no_cache_filter=_list(no_cache or ""),
        pull=_resolve_mode(attributes.get("image-resolve-mode", "")) == "pull",
        network=_network(attributes.get("force-network-mode", "")),
        add_hosts=_hosts(attributes.get("add-hosts", "")),
        shm_size_bytes=_size("shm-size", attributes.get("shm-size", "")),
        ulimits=_fields("ulimit", attributes.get("ulimit", "")),
        cgroup_parent=attributes.get("cgroup-parent", ""),
        entitlements=_entitlements(asked.entitlements),
        outputs=outputs,
        cache_from=[
            _cache(places.cache_from, kind, said, _CACHES_FROM)
            for kind, said in (*asked.cache_from, *_imports(attributes))
        ],
        cache_to=[_cache(places.cache_to, kind, said, _CACHES_TO) for kind, said in asked.cache_to],
        provenance=provenance,
        sbom=sbom,
    )


def check_frontend(asked: Asked) -> None:
    """Look whether what is asked for is the front end that there is.

    Raises:
        UnsupportedError: it is another one.
    """
    source = asked.attributes.get("source", "")
    if asked.frontend == GATEWAY and _DOCKERFILE_IMAGE.fullmatch(source):
        return  # a Dockerfile's syntax line: ketch's own front end is a current one
    if asked.frontend != DOCKERFILE:
        named = f"{asked.frontend} {source}".strip()
        raise UnsupportedError(
            f"front end {quoted(named)}", f"ketch builds Dockerfiles alone ({DOCKERFILE})"
        )


# Where files come from


def _contexts(asked: Asked, places: Places) -> tuple[dict[str, Input], Input | None]:
    """Returns the contexts, and where the Dockerfile is: None for the main one."""
    attributes = asked.attributes
    sessions = _with_prefix(attributes, "local-sessionid:")

    def local(name: str) -> Input:
        return places.directory(name, sessions.get(name, ""))

    main = attributes.get(attributes.get("contextkey", "context"), "")
    forced = attributes.get("dockerfilekey", "")
    dockerfile: Input | None = local(forced or "dockerfile")
    found = _remote(main, places)
    if found is not None or "context" in asked.inputs:
        found = found or input_of(asked.inputs["context"], places)
        if not forced:
            dockerfile = None
    elif main:
        raise InvalidArgumentError(f"invalid context {quoted(main[:200])}")
    if not forced and "dockerfile" in asked.inputs:
        same = asked.inputs["dockerfile"] == asked.inputs.get("context")
        dockerfile = None if same else input_of(asked.inputs["dockerfile"], places)
    contexts: dict[str, Input] = {"context": found or local("context")}
    for name, value in _with_prefix(attributes, "context:").items():
        contexts[name] = _named(name, value, asked, places, local)
    return contexts, dockerfile


def _remote(text: str, places: Places) -> Input | None:
    if text.startswith(UPLOADS):
        return places.upload(text[len(UPLOADS) - 1 :])
    return remote(text)


def _named(
    name: str, value: str, asked: Asked, places: Places, local: Callable[[str], Input]
) -> Input:
    scheme, colon, rest = value.partition(":")
    path = rest.removeprefix("//")
    if not colon or not rest:
        raise InvalidArgumentError(f"invalid context specifier {quoted(value)} for {name}")
    if scheme == "docker-image":
        return ImageInput(path)
    if scheme == "local":
        return local(rest)
    if scheme == "input":
        if rest not in asked.inputs:
            raise InvalidArgumentError(f"invalid input {rest} for {name}")
        return input_of(asked.inputs[rest], places)
    if scheme == "oci-layout":
        store, at, digest = path.partition("@")
        if not at:
            raise InvalidArgumentError(f"oci-layout reference {quoted(path)} has no digest")
        platforms = _list(asked.attributes.get("platform", ""))
        return places.layout(store.partition(":")[0], digest, platforms)
    found = _remote(value, places)
    if found is None:
        raise InvalidArgumentError(f"unsupported context source {scheme} for {name}")
    return found


def input_of(source: llb.Source, places: Places) -> Input:
    """Returns what an LLB source is.

    Raises:
        UnsupportedError: nothing that ketch has.
    """
    if source.scheme == llb.RESULT_SCHEME:
        return places.result(source.path)
    if source.scheme == "docker-image":
        return ImageInput(source.path)
    if source.scheme == "local":
        return places.directory(source.path, source.attributes.get("local.session", ""))
    if source.scheme == "git":
        url, _, fragment = source.path.partition("#")
        url = source.attributes.get("git.fullurl", "") or f"https://{url}"
        return Git(f"{url}#{fragment}" if fragment else url)
    if source.scheme in {"http", "https"}:
        return Http(f"{source.scheme}://{source.path}")
    raise UnsupportedError(f"an LLB source {source.scheme}://")


# Where results go


def _outputs(asked: Asked, places: Places) -> tuple[list[Output], dict[str, str]]:
    """Returns the outputs, and annotations, which their attributes tell as well."""
    found: list[Output] = []
    annotations: dict[str, str] = {}
    for number, (kind, attributes) in enumerate(asked.outputs):
        if kind not in _OUTPUTS:
            raise UnsupportedError(f"exporter {quoted(kind)} could not be found")
        said: dict[str, str] = {}
        for key, value in attributes.items():
            if (match := _ANNOTATION.fullmatch(key)) is not None:
                platform = f"[{match[2]}]" if match[2] else ""
                annotations[f"{match[1] or 'manifest'}{platform}:{match[3]}"] = value
            else:
                said[key] = value
        if kind == MOBY:
            # buildx pushes such an image itself, by the engine's own API, once it is there.
            said.pop("push", None)
        type_ = _OUTPUTS[kind]
        if type_ == "image":
            found.append(Output(type_, said))
        else:
            found.append(places.output(number, type_, said))
    # Nothing to put anywhere is a build for its cache alone.
    return found or [Output("cacheonly")], annotations


def _attestations(
    attributes: Mapping[str, str], outputs: Sequence[tuple[str, Mapping[str, str]]]
) -> tuple[str, str]:
    """Returns the provenance's mode and the scanner's image; empty for none."""
    provenance = sbom = ""
    for name, value in _with_prefix(attributes, "attest:").items():
        pairs = (one.partition("=") for one in _fields(name, value))
        said = {key: rest if equals else "true" for key, equals, rest in pairs}
        if "disabled" in said and _boolean("disabled", said["disabled"]):
            continue
        if name == "provenance":
            provenance = _provenance(said, outputs)
        elif name == "sbom":
            sbom = said.get("generator", "")
            if not sbom:
                raise UnsupportedError(
                    "an SBOM without a scanner", "name its image: --sbom=generator=IMAGE"
                )
        else:
            raise InvalidArgumentError(f"unknown attestation type {quoted(name)}")
    return provenance, sbom


def _provenance(said: Mapping[str, str], outputs: Sequence[tuple[str, Mapping[str, str]]]) -> str:
    mode = said.get("mode", "min") or "min"
    if mode not in {"min", "max"}:
        raise InvalidArgumentError(f"invalid mode {quoted(mode)}")
    if _boolean("inline-only", said.get("inline-only", "false")):
        # Nobody asked for it: it goes where an index does, and not into the store, where an image's
        # ID would be another one for it.
        outside = (
            kind == "oci" or (kind != MOBY and is_true(attributes.get("push", "false")))
            for kind, attributes in outputs
        )
        return mode if any(outside) else ""
    return mode


def _cache(
    place: Callable[[str, Mapping[str, str]], CachePlace],
    kind: str,
    attributes: Mapping[str, str],
    known: Sequence[str],
) -> CachePlace:
    if kind not in known:
        raise UnsupportedError(f"unknown cache type {quoted(kind)}", f"there is {', '.join(known)}")
    if kind == "registry" and not attributes.get("ref"):
        raise InvalidArgumentError("a cache at a registry needs a name (ref)")
    return place(kind, attributes)


def _imports(attributes: Mapping[str, str]) -> list[tuple[str, Mapping[str, str]]]:
    """Returns places of caches that stand among the attributes."""
    found: list[tuple[str, Mapping[str, str]]] = [
        ("registry", {"ref": one}) for one in _list(attributes.get("cache-from", ""))
    ]
    text = attributes.get("cache-imports", "")
    if text:
        try:
            listed = json.loads(text)
            found += [(str(one["Type"]), _texts(one.get("Attrs"))) for one in listed or ()]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidArgumentError(f"invalid cache-imports {quoted(text[:200])}") from error
    if len(found) > _IMPORTS_MAX:
        raise InvalidArgumentError(f"more than {_IMPORTS_MAX} caches to import")
    return found


def _texts(document: object) -> dict[str, str]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise TypeError
    return {str(name): str(value) for name, value in document.items()}


# Values


def _with_prefix(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    size = len(prefix)
    return {name[size:]: value for name, value in attributes.items() if name.startswith(prefix)}


def _list(text: str) -> list[str]:
    return text.split(",") if text else []


def _fields(name: str, text: str) -> list[str]:
    try:
        return fields(text) if text else []
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"failed to parse {name}: {error.message}") from error


def _boolean(name: str, text: str) -> bool:
    try:
        return boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid boolean value for {name}: {text}") from error


def _resolve_mode(text: str) -> str:
    if text not in {"", "default", "pull", "local"}:
        raise InvalidArgumentError(f"invalid image-resolve-mode: {text}")
    return text


def _network(text: str) -> str:
    if text not in {"", "none", "host", "sandbox"}:
        raise InvalidArgumentError(f"invalid netmode {text}")
    return "default" if text in {"", "sandbox"} else text


def _hosts(text: str) -> list[str]:
    found = []
    for one in _fields("additional hosts", text):
        name, equals, address = one.partition("=")
        if not equals:
            raise InvalidArgumentError(
                f"failed to parse additional hosts: invalid key-value pair {one}"
            )
        found.append(f"{name}:{address}")
    return found


def _size(name: str, text: str) -> int:
    if not text:
        return 0
    try:
        return integer(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"failed to parse {name}: {error.message}") from error


def _entitlements(given: Sequence[str]) -> list[str]:
    for one in given:
        if one.partition("=")[0] not in {"network.host", "security.insecure", "device"}:
            raise InvalidArgumentError(f"unknown entitlement {quoted(one)}")
    return list(given)
