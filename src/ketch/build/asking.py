"""What the options of ``build`` ask for, whoever read them: a command line, or keywords."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ketch.build.addresses import remote
from ketch.build.entrusted import GivenAgents, GivenSecrets
from ketch.build.planning.arguments import EPOCH
from ketch.build.request import (
    MAIN_CONTEXT,
    Archive,
    CachePlace,
    Http,
    ImageInput,
    LayoutInput,
    LocalDirectory,
    Output,
    Request,
)
from ketch.dataclass import dataclass
from ketch.engine.files import appearing
from ketch.errors import InvalidArgumentError, NotFoundError, UnsupportedError
from ketch.spec import build_options, environment
from ketch.spec import reference as references
from ketch.spec.flag import Values

if TYPE_CHECKING:
    from typing import BinaryIO

    from ketch.build.request import Input

_OUTPUT_MODE = 0o644
_DOCKERFILE_BYTES_MAX = 16 << 20


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        environment: its variables.
        stdin: its standard input, None where it has none to give.
        proxies: ``NAME=value`` of build arguments that it has written down for all builds.
    """

    environment: Mapping[str, str]
    stdin: "BinaryIO | None" = None
    proxies: Sequence[str] = ()


def request(given: Values, where: str, caller: Caller, held: contextlib.ExitStack) -> Request:
    """Read the options of ``spec.build_flags``.

    Args:
        given: their values.
        where: the context: a directory, an address, or ``-``.
        caller: who asks.
        held: takes what is to be closed when the build has ended; files that are written appear
            then.

    Raises:
        InvalidArgumentError: something cannot be meant.
        NotFoundError: a file that is named is not there.
    """
    contexts: dict[str, Input] = {MAIN_CONTEXT: _main_context(where, caller)}
    for text in given.items("build-context"):
        name, value = build_options.build_context(text)
        contexts[name] = _input(value)
    dockerfile, dockerfile_input, dockerfile_text = _dockerfile(given.text("file"), where, caller)
    secrets = GivenSecrets(map(build_options.secret, given.items("secret")), caller.environment)
    agents = GivenAgents(map(build_options.agent, given.items("ssh")), caller.environment)
    provenance, sbom = build_options.attestations(
        given.items("attest"), given.text("provenance"), given.text("sbom")
    )
    arguments = _arguments(given.items("build-arg"), caller)
    platforms = _listed(given.items("platform"))
    if not platforms and caller.environment.get("DOCKER_DEFAULT_PLATFORM"):
        platforms = [caller.environment["DOCKER_DEFAULT_PLATFORM"]]
    allow = given.items("allow")
    if given.text("network") == "host":
        allow = [*allow, "network.host"]  # who asks for all of it allows it
    tags = [_tag(text) for text in given.items("tag")]
    return Request(
        contexts=contexts,
        dockerfile=dockerfile,
        dockerfile_input=dockerfile_input,
        dockerfile_text=dockerfile_text,
        target=given.text("target"),
        platforms=platforms,
        build_args=arguments,
        labels=environment.mapping(given.items("label")),
        annotations=build_options.annotations(given.items("annotation")),
        tags=tags,
        no_cache=given.enabled("no-cache"),
        no_cache_filter=_listed(given.items("no-cache-filter")),
        pull=given.enabled("pull"),
        network=given.text("network"),
        add_hosts=given.items("add-host"),
        shm_size_bytes=given.number("shm-size"),
        ulimits=given.items("ulimit"),
        cgroup_parent=given.text("cgroup-parent"),
        limits=_limits(given),
        entitlements=allow,
        secrets=secrets,
        agents=held.enter_context(agents),
        outputs=[held.enter_context(_output(fields, tags)) for fields in _outputs(given)],
        cache_from=[_cache(text, exports=False) for text in given.items("cache-from")],
        cache_to=[_cache(text, exports=True) for text in given.items("cache-to")],
        provenance=provenance,
        sbom=sbom,
        squash=given.enabled("squash"),
        environment=caller.environment,
    )


def _listed(texts: Sequence[str]) -> list[str]:
    """Returns what several texts list, parted by commas."""
    return [one for text in texts for one in text.split(",") if one]


def _tag(text: str) -> str:
    try:
        return references.new_name(text, "a tag cannot have a digest").familiar
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid tag {text!r}: {error.message}", error.hint) from error


def _limits(given: Values) -> dict[str, object]:
    found: dict[str, object] = {
        "CpuPeriod": given.number("cpu-period"), "CpuQuota": given.number("cpu-quota"),
        "CpuShares": given.number("cpu-shares"), "CpusetCpus": given.text("cpuset-cpus"),
        "CpusetMems": given.text("cpuset-mems"), "Memory": given.number("memory"),
        "MemorySwap": given.number("memory-swap"),
    }  # fmt: skip
    return {name: value for name, value in found.items() if value}


def _arguments(texts: Sequence[str], caller: Caller) -> dict[str, str | None]:
    """Read ``NAME=value``, and the caller's value for a name alone.

    The caller's time for all that is made counts unasked, as with docker/buildx, build/opt.go.
    """
    found: dict[str, str | None] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgumentError(f"invalid build argument {text!r}: it has no name")
        found[name] = value if equals else caller.environment.get(name)
    for line in caller.proxies:
        name, _, value = line.partition("=")
        found.setdefault(name, value)
    if epoch := caller.environment.get(EPOCH):
        found.setdefault(EPOCH, epoch)
    return found


def _main_context(where: str, caller: Caller) -> "Input":
    if where == "-":
        if caller.stdin is None or caller.stdin.isatty():
            raise InvalidArgumentError(
                "requested build from stdin, but stdin is empty",
                "pipe a Dockerfile or an archive into it, or name a directory",
            )
        return Archive(caller.stdin)
    found = _input(where)
    if isinstance(found, LocalDirectory) and not os.path.isdir(found.path):
        missing = not os.path.lexists(found.path)
        raise InvalidArgumentError(
            f"unable to prepare context: path {where!r} not found"
            if missing
            else f"unable to prepare context: path {where!r} is not a directory",
            "" if missing else "a Dockerfile is named with -f; its directory is the context",
        )
    return found


def _input(text: str) -> "Input":
    """Tell what a context's text means; moby/buildkit, frontend/dockerui, and buildx alike."""
    scheme, separator, rest = text.partition("://")
    match scheme if separator else "":
        case "docker-image":
            return ImageInput(rest)
        case "oci-layout":
            path, at, reference = rest.partition("@")
            if not at and ":" in os.path.basename(path):
                path, _, reference = path.rpartition(":")
            return LayoutInput(os.path.abspath(path), reference)
        case "target":
            raise UnsupportedError(f"the context {text} needs a bake file")
    found = remote(text) if separator or not os.path.isdir(text) else None
    return found or LocalDirectory(os.path.abspath(text))


def _dockerfile(name: str, where: str, caller: Caller) -> "tuple[str, Input | None, bytes | None]":
    """Tell where the Dockerfile is: its name, what it is in, and its text where that is known."""
    if name == "-":
        if where == "-":
            raise InvalidArgumentError(
                "invalid argument: can't use stdin for both build context and dockerfile"
            )
        if caller.stdin is None:
            raise InvalidArgumentError("there is no standard input to read the Dockerfile from")
        return "Dockerfile", None, caller.stdin.read(_DOCKERFILE_BYTES_MAX)
    if not name:
        return "Dockerfile", None, None
    if name.startswith(("http://", "https://")):
        return "Dockerfile", Http(name), None
    if not isinstance(_input(where), LocalDirectory) or where == "-":
        return name, None, None  # within what is fetched
    path = os.path.abspath(name)
    if not os.path.exists(path):
        raise NotFoundError(
            f"failed to read dockerfile: open {name}: no such file or directory",
            "-f names it from here, and not from the context",
        )
    return os.path.basename(path), LocalDirectory(os.path.dirname(path)), None


def _outputs(given: Values) -> "list[build_options.Fields]":
    """What is made of the result, with the shorthands."""
    found = [build_options.output(text) for text in given.items("output")]
    if given.enabled("push"):
        pushed = [one for one in found if one.type in {"image", "registry"}]
        if not found:
            return [build_options.Fields("image", {"push": "true"})]
        if not pushed:
            raise InvalidArgumentError(f"push and {found[0].type!r} output can't be used together")
        found = [
            build_options.Fields(one.type, {**one.attributes, "push": "true"})
            if one in pushed else one for one in found
        ]  # fmt: skip
    if given.enabled("load"):
        if not found:
            return [build_options.Fields("image")]
        if not any(one.type in {"docker", "image"} for one in found):
            found.append(build_options.Fields("image"))
    return found


@contextlib.contextmanager
def _output(fields: "build_options.Fields", tags: Sequence[str]) -> "Iterator[Output]":
    """Open where a result goes; a file appears when all of it is written."""
    attributes = dict(fields.attributes)
    target = attributes.pop("dest", "")
    kind = fields.type
    unpacked = kind in {"oci", "docker"} and not build_options.is_true(attributes.get("tar", "t"))
    if kind == "registry" and not tags and not attributes.get("name"):
        raise InvalidArgumentError("tag is needed when pushing to registry")
    if kind in {"image", "registry"} or (kind == "docker" and not target):
        yield Output("image" if kind == "docker" else kind, attributes)
    elif kind == "local" or unpacked:
        if not target:
            raise InvalidArgumentError(f"dest is required for {kind} exporter")
        if target == "-":
            raise InvalidArgumentError("dest file is a directory: it cannot be standard output")
        yield Output(kind, attributes, directory=os.path.abspath(target))
    else:
        if target in {"", "-"} and os.isatty(1):
            raise InvalidArgumentError(
                f"dest file is required for {kind} exporter. refusing to write to console"
            )
        name = "" if target == "-" else target
        with (
            appearing.output(name, "export", _OUTPUT_MODE) as descriptor,
            open(descriptor, "wb", closefd=False) as stream,
        ):
            yield Output(kind, attributes, stream=stream)


def _cache(text: str, *, exports: bool) -> CachePlace:
    fields = build_options.cache(text, exports=exports)
    return CachePlace(fields.type, fields.attributes)
