"""What is said of how an image came about: SLSA provenance, as BuildKit writes it.

``min`` says which images and addresses went into it and when it was built; ``max`` adds what the
build was asked for and the Dockerfile. Secrets, and the values of build arguments under ``min``,
are never part of it.

Source: https://slsa.dev/spec/v0.2/provenance; moby/buildkit, docs/attestations/slsa-definitions.md.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ketch.dataclass import dataclass, field
from ketch.spec import reference as references
from ketch.spec import timestamps

if TYPE_CHECKING:
    from ketch.build.request import Request

PREDICATE_TYPE = "https://slsa.dev/provenance/v0.2"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v0.1"
_BUILD_TYPE = "https://mobyproject.org/buildkit@v1"


@dataclass(frozen=True)
class Material:
    """Something from elsewhere that went into an image.

    Attributes:
        uri: what it is: see ``image_uri``; an URL of Git or HTTP as it is.
        digest: ``algorithm:hex`` of its content, empty where that is not known.
    """

    uri: str
    digest: str = ""


@dataclass(frozen=True)
class Facts:
    """What a predicate is made of.

    Attributes:
        platform: that it was built for.
        invocation: what tells this build from others.
        started_ns: when it began, nanoseconds since the epoch.
        finished_ns: when it ended.
        materials: what went into it.
        dockerfile: the Dockerfile's name.
        text: its content.
        is_complete: whether ``materials`` is all: no step had a network, no context is local.
        steps: names of the steps, for ``max``.
    """

    platform: str
    invocation: str
    started_ns: int
    finished_ns: int
    materials: Sequence[Material]
    dockerfile: str = "Dockerfile"
    text: bytes = b""
    is_complete: bool = False
    steps: Sequence[str] = field(default_factory=tuple)


def image_uri(reference: str, platform: str) -> str:
    """Returns the package URL of an image."""
    from urllib.parse import quote  # noqa: PLC0415 - few images are told of

    name = references.parse(reference)
    where = name.familiar_name
    version = f"@{name.tag}" if name.tag else ""
    digest = f"&digest={quote(name.digest, safe=':')}" if name.digest else ""
    return f"pkg:docker/{quote(where)}{version}?platform={quote(platform, safe='')}{digest}"


def predicate(facts: Facts, request: "Request", mode: str) -> dict[str, Any]:
    """Returns what is said of one image.

    Args:
        facts: what happened.
        request: what was asked for.
        mode: ``min`` or ``max``.
    """
    parameters: dict[str, Any] = {"frontend": "dockerfile.v0"}
    if mode == "max":
        parameters |= _parameters(request)
    parameters["locals"] = [{"name": name} for name in ("context", "dockerfile")]
    metadata: dict[str, Any] = {
        "buildInvocationID": facts.invocation,
        "buildStartedOn": timestamps.rfc3339(facts.started_ns),
        "buildFinishedOn": timestamps.rfc3339(facts.finished_ns),
        "completeness": {
            "parameters": mode == "max", "environment": True, "materials": facts.is_complete,
        },
        "reproducible": False,
    }  # fmt: skip
    said: dict[str, Any] = {
        "builder": {"id": ""},
        "buildType": _BUILD_TYPE,
        "materials": _materials(facts.materials),
        "invocation": {
            "configSource": {"entryPoint": facts.dockerfile},
            "parameters": parameters,
            "environment": {"platform": facts.platform},
        },
        "metadata": metadata,
    }
    if mode == "max":
        said["buildConfig"] = {
            "llbDefinition": [
                {"id": f"step{number}", "op": {"name": name}}
                for number, name in enumerate(facts.steps)
            ]
        }
        source = {
            "filename": facts.dockerfile, "language": "Dockerfile",
            "data": base64.b64encode(facts.text).decode("ascii"),
        }  # fmt: skip
        metadata[f"{_BUILD_TYPE}#metadata"] = {"source": {"infos": [source]}}
    return said


def statement(
    kind: str, said: Mapping[str, Any], names: Iterable[str], platform: str, digest: str
) -> dict[str, Any]:
    """Returns a predicate of some kind as a statement about an image's manifest."""
    algorithm, _, digits = digest.partition(":")
    subjects = [image_uri(name, platform) for name in names] or ["_"]
    return {
        "_type": _STATEMENT_TYPE,
        "predicateType": kind,
        "subject": [{"name": name, "digest": {algorithm: digits}} for name in subjects],
        "predicate": dict(said),
    }


def _materials(materials: Iterable[Material]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for material in materials:
        algorithm, _, digits = material.digest.partition(":")
        entry: dict[str, Any] = {"uri": _without_credentials(material.uri)}
        if digits:
            entry["digest"] = {algorithm: digits}
        found.setdefault(entry["uri"], entry)
    return list(found.values())


def _without_credentials(uri: str) -> str:
    """Returns an address without the user and password that it may hold."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - see above

    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _parameters(request: "Request") -> dict[str, Any]:
    """What was asked for, in BuildKit's names."""
    arguments: dict[str, str] = {}
    for name, value in request.build_args.items():
        if value is not None and not name.lower().endswith("_proxy"):
            arguments[f"build-arg:{name}"] = value
    arguments |= {f"label:{name}": value for name, value in request.labels.items()}
    for name, text in (
        ("filename", request.dockerfile if request.dockerfile != "Dockerfile" else ""),
        ("target", request.target),
        ("no-cache", "" if not request.no_cache else "true"),
        ("force-network-mode", request.network if request.network != "default" else ""),
        ("add-hosts", ",".join(request.add_hosts)),
        ("cgroup-parent", request.cgroup_parent),
    ):
        if text:
            arguments[name] = text
    return {"args": dict(sorted(arguments.items()))} if arguments else {}
