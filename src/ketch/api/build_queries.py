"""What a client asks a build for in the query of ``POST /build``: for either builder of Docker's.

Source: moby/moby, api/server/router/build/build_routes.go, builder/builder-next/builder.go.
"""

import os
from typing import TYPE_CHECKING

from ketch.api import transfer
from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.build.addresses import remote
from ketch.build.request import MAIN_CONTEXT, Archive, CachePlace, Request
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.images.registry.credentials import Credentials, bare_host, key_of
from ketch.spec import reference as references
from ketch.spec import values
from ketch.spec.build_options import is_true

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from ketch.api.call import Call

SESSION = "client-session"
"""Stands in place of a context's address: files come from the client's session."""
UPLOADED = "upload-request"
"""Likewise: the archive is the body of another request, whose build has this before its name."""


def request(call: "Call", body: "BinaryIO") -> Request:
    """Returns what the classic builder is asked for, by the query and the headers.

    Args:
        call: the request.
        body: its body: the context, unless the query has the address of another.

    Raises:
        InvalidArgumentError: something in them is malformed.
    """
    address = call.text("remote")
    context = remote(address) if address else Archive(body, owned=False)
    if context is None:
        raise InvalidArgumentError(f"remote {address[:200]!r} is neither a Git nor an HTTP address")
    shm_size_bytes = call.number("shmsize") or 0
    if shm_size_bytes < 0:
        raise InvalidArgumentError("SHM size can not be less than 0")
    network = call.text("networkmode")
    return Request(
        contexts={MAIN_CONTEXT: context},
        dockerfile=call.text("dockerfile") or "Dockerfile",
        target=call.text("target"),
        platforms=[call.text("platform")] if call.text("platform") else (),
        build_args=_document(call, "buildargs", dict[str, str | None]) or {},
        labels=_document(call, "labels", dict[str, str]) or {},
        tags=_tags(call),
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        network="default" if network in {"", "default", "bridge"} else network,
        add_hosts=[one for text in call.texts("extrahosts") for one in _hosts(text)],
        shm_size_bytes=shm_size_bytes,
        ulimits=_ulimits(call),
        cgroup_parent=call.text("cgroupparent"),
        limits=_limits(call),
        entitlements=("network.host",) if network == "host" else (),
        cache_from=[CachePlace("registry", {"ref": name})
                    for name in _document(call, "cachefrom", list[str]) or ()],
        squash=call.flag("squash"),
        environment=os.environ,
        credentials=_credentials(call.exchange.headers.get("x-registry-config", "")),
    )  # fmt: skip


def attributes(call: "Call", uploaded: str) -> dict[str, str]:
    """Returns what BuildKit's front end is asked for, in its own words.

    Args:
        call: the request.
        uploaded: the address of a context that is a request's body.

    Raises:
        InvalidArgumentError: something in the query is malformed.
        UnsupportedError: BuildKit has nothing for it.
    """
    if call.flag("squash"):
        raise UnsupportedError("squash with BuildKit", "use DOCKER_BUILDKIT=0, or ketch build")
    network = call.text("networkmode")
    if network not in {"", "default", "host", "none"}:
        raise InvalidArgumentError(f'network mode "{network[:100]}" not supported by buildkit')
    address = call.text("remote")
    build_args = _document(call, "buildargs", dict[str, str | None]) or {}
    labels = _document(call, "labels", dict[str, str]) or {}
    hosts = [
        one.replace(":", "=", "=" not in one)
        for text in call.texts("extrahosts")
        for one in _hosts(text)
    ]
    found = {
        "context": uploaded if address in {"", UPLOADED} else address,
        "filename": call.text("dockerfile"),
        "target": call.text("target"),
        "platform": call.text("platform"),
        "force-network-mode": "" if network == "default" else network,
        "image-resolve-mode": "pull" if call.flag("pull") else "",
        "add-hosts": ",".join(hosts),
        "ulimit": ",".join(_ulimits(call)),
        "shm-size": str(call.number("shmsize") or ""),
        "cgroup-parent": call.text("cgroupparent"),
        "cache-from": ",".join(_document(call, "cachefrom", list[str]) or ()),
    }
    if address == SESSION:
        del found["context"]
    found = {name: value for name, value in found.items() if value}
    if call.flag("nocache"):
        found["no-cache"] = ""
    found |= {f"build-arg:{name}": one for name, one in build_args.items() if one is not None}
    return found | {f"label:{name}": one for name, one in labels.items()}


def output(call: "Call") -> tuple[str, dict[str, str]] | None:
    """Returns the type and the attributes of BuildKit's output, None for the cache alone.

    Raises:
        InvalidArgumentError: it is malformed, or there are several.
    """
    asked = _document(call, "outputs", list[dict[str, object]]) or [{"Type": "moby"}]
    if len(asked) > 1:
        raise InvalidArgumentError("multiple outputs not supported")
    kind = str(asked[0].get("Type") or "")
    if kind == "cacheonly":
        return None
    said = conform(asked[0].get("Attrs") or {}, dict[str, str], "outputs")
    if kind in {"moby", "image"} and (tags := _tags(call)):
        said["name"] = ",".join(tags)
    return kind, said


def caches_inline(call: "Call") -> bool:
    """Whether the image is to tell of its own cache."""
    arguments = _document(call, "buildargs", dict[str, str | None]) or {}
    return is_true(arguments.get("BUILDKIT_INLINE_CACHE") or "false")


def _tags(call: "Call") -> list[str]:
    return [
        references.new_name(text, "a tag cannot have a digest").familiar
        for text in call.texts("t")
        if text
    ]


def _document(call: "Call", name: str, wanted: object) -> "Any":
    """Returns a field of the query that is JSON, None where it is missing."""
    text = call.text(name)
    return conform(parse(text.encode()), wanted, name) if text else None


def _hosts(text: str) -> list[str]:
    """Docker's clients send a list with commas, docker-py a map in JSON."""
    if text.startswith("{"):
        found = conform(parse(text.encode()), dict[str, str], "extrahosts")
        return [f"{name}:{address}" for name, address in found.items()]
    return [one for one in text.split(",") if one]


def _ulimits(call: "Call") -> list[str]:
    found = _document(call, "ulimits", list[dict[str, object]]) or ()
    limits = []
    for one in found:
        small = {name.lower(): value for name, value in one.items()}
        soft, hard = small.get("soft"), small.get("hard")
        if not isinstance(soft, int) or not isinstance(hard, int):
            raise InvalidArgumentError("ulimits: Soft and Hard must be numbers")
        text = f"{small.get('name')}={soft}:{hard}"
        values.ulimit(text)
        limits.append(text)
    return limits


def _limits(call: "Call") -> dict[str, object]:
    numbers = {
        "CpuPeriod": "cpuperiod", "CpuQuota": "cpuquota", "CpuShares": "cpushares",
        "Memory": "memory", "MemorySwap": "memswap",
    }  # fmt: skip
    found: dict[str, object] = {key: call.number(name) for key, name in numbers.items()}
    found |= {"CpusetCpus": call.text("cpusetcpus"), "CpusetMems": call.text("cpusetmems")}
    return {name: value for name, value in found.items() if value}


def _credentials(text: str) -> "Callable[[str], Credentials]":
    """Read ``X-Registry-Config``: who the client is, by registry."""
    found = transfer.shown(text, dict[str, transfer.AuthConfig]) or {}
    known = {key_of(bare_host(place)): transfer.from_document(who) for place, who in found.items()}
    return lambda host: known.get(key_of(host), Credentials())
