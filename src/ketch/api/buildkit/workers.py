"""Who builds, as BuildKit's clients see it: one worker, ketch; and what its API can do."""

import os
from typing import TYPE_CHECKING, Any

from ketch.api.buildkit import schema
from ketch.engine.views import information
from ketch.errors import KetchError
from ketch.spec import image as documents

if TYPE_CHECKING:
    from ketch.engine.engine import Engine

# Abilities that clients look for. Those of LLBBridge are BuildKit's without those for graphs:
# moby/buildkit, frontend/gateway/pb/caps.go; those of builds: solver/pb/caps.go.
BRIDGE = (
    "solve.base", "solve.inlinereturn", "return", "returnmap", "proto.refarray",
    "reference.output", "importcaches", "frontend.inputs", "frontend.caps",
    "gateway.solve.metadata", "gateway.evaluate", "gateway.evaluate.solve", "gateway.warnings",
    "readfile", "statfile",
)  # fmt: skip
BUILDS = (
    "source.image", "source.image.resolvemode", "source.local", "source.local.unique",
    "source.local.sessionid", "source.local.includepatterns", "source.local.followpaths",
    "source.local.excludepatterns", "source.local.sharedkeyhint", "source.local.differ",
    "source.git", "source.git.keepgitdir", "source.git.fullurl", "source.git.subdir",
    "source.http", "source.http.checksum", "source.ocilayout",
    "exec.meta.base", "exec.meta.cgroup.parent", "exec.meta.network", "exec.meta.proxyenv",
    "exec.meta.security", "exec.meta.setsdefaultpath", "exec.meta.ulimit",
    "exec.mount.bind", "exec.mount.cache", "exec.mount.cache.sharing", "exec.mount.selector",
    "exec.mount.tmpfs", "exec.mount.tmpfs.size", "exec.mount.secret", "exec.mount.ssh",
    "exec.secretenv", "file.base", "constraints", "platform",
    "meta.ignorecache", "meta.description", "meta.exportcache",
    "exporter.image.annotations", "exporter.image.attestations", "exporter.sourcedateepoch",
    "exporter.multiple", "gc.freespacefilter",
)  # fmt: skip

_GATEWAY = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
_SNAPSHOTTER = "org.mobyproject.buildkit.worker.snapshotter"
_LABELS = "org.mobyproject.buildkit.worker."


def abilities(names: tuple[str, ...]) -> list[Any]:
    """Returns abilities as messages have them."""
    words = schema.messages("control")
    return [words.APICap(ID=name, Enabled=True) for name in names]


def record(engine: "Engine") -> Any:
    """Returns the worker."""
    words = schema.messages("control")
    told = information.info(engine)
    labels = {
        f"{_LABELS}executor": "ketch",
        f"{_LABELS}hostname": os.uname().nodename,
        # Without this one buildx takes it that there are no archives, caches and platforms.
        _SNAPSHOTTER: told["Driver"],
    }
    gateway = _gateway(engine)
    if gateway:
        labels[_GATEWAY] = gateway
    host = documents.host_platform()
    return words.WorkerRecord(
        ID=told["ID"],
        Labels=labels,
        platforms=[
            words.Platform(
                OS=host["os"], Architecture=host["architecture"], Variant=host.get("variant", "")
            )
        ],
        BuildkitVersion=words.BuildkitVersion(package="ketch", version=told["ServerVersion"]),
    )


def _gateway(engine: "Engine") -> str:
    """The address by which steps reach the host, for ``host-gateway``; empty for none."""
    try:
        network = engine.networks.find("default")
    except KetchError:
        return ""
    return next((str(one.gateway) for one in network.subnets if one.gateway), "")
