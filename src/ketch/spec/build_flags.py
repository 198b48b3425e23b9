"""The options of ``build``, each stated once: for the command line, the library and the docs."""

from ketch.errors import InvalidArgumentError
from ketch.spec import hosts, values
from ketch.spec.flag import EXPLAIN, Flag

ENTITLEMENTS = {"network.host", "security.insecure", "device"}


def _network(text: str) -> str:
    return text or "default"


def _allowed(text: str) -> str:
    if text not in ENTITLEMENTS and not text.startswith("device="):
        raise InvalidArgumentError(f"invalid entitlement: {text}")
    return text


def _ulimit(text: str) -> str:
    values.ulimit(text)
    return text


def _isolation(text: str) -> str:
    if text not in {"", "default"}:
        raise InvalidArgumentError(f"invalid isolation {text!r}: Linux has default alone")
    return text


FLAGS = (
    Flag("add-host", "", "list", "Add a line to /etc/hosts of RUN (name:address)",
         metavar="strings", convert=hosts.extra_host),
    Flag("allow", "", "list", "Allow more privileges (network.host, security.insecure, device)",
         metavar="strings", convert=_allowed),
    Flag("annotation", "", "list", "Add annotation to the image", metavar="stringArray"),
    Flag("attest", "", "list", "Attestation parameters (type=provenance,mode=max)",
         metavar="stringArray"),
    Flag("build-arg", "", "list", "Set build-time variables", metavar="stringArray"),
    Flag("build-context", "", "list", "Additional build contexts (name=path)",
         metavar="stringArray"),
    Flag("cache-from", "", "list",
         "Results of other builds (user/app:cache, type=local,src=path)",
         metavar="stringArray"),
    Flag("cache-to", "", "list", "Where results are written to (type=local,dest=path)",
         metavar="stringArray"),
    Flag("cgroup-parent", "", "string", "Set the parent control group of RUN"),
    Flag("compress", "", "bool",
         "Accepted as docker has it: a context is read in its place, and never sent"),
    Flag("cpu-period", "", "int", "Period of RUN's CPU quota, in microseconds"),
    Flag("cpu-quota", "", "int", "CPU time in each period, in microseconds"),
    Flag("cpu-shares", "c", "int", "CPU shares of RUN (relative weight)"),
    Flag("cpuset-cpus", "", "string", "CPUs on which to run (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "Memory nodes from which to allocate (0-3, 0,1)"),
    EXPLAIN,
    Flag("file", "f", "string", 'Name of the Dockerfile ("PATH/Dockerfile" if empty)'),
    Flag("force-rm", "", "bool", "Accepted as docker has it: nothing is ever left"),
    Flag("iidfile", "", "string", "Write the image ID to the file"),
    Flag("isolation", "", "string", "Container isolation technology", convert=_isolation),
    Flag("label", "", "list", "Set metadata for an image", metavar="stringArray"),
    Flag("load", "", "bool", "Shorthand for --output=type=docker"),
    Flag("memory", "m", "string", "Memory limit of RUN", metavar="bytes",
         convert=values.size, default=0),
    Flag("memory-swap", "", "string",
         "Limit of memory and swap together: '-1' for unlimited swap", metavar="bytes",
         convert=values.swap_size, default=0),
    Flag("metadata-file", "", "string", "Write build result metadata to the file"),
    Flag("network", "", "string", "Network of RUN: default, none, host, or a network's name",
         default="default", convert=_network),
    Flag("no-cache", "", "bool", "Do not use cache when building the image"),
    Flag("no-cache-filter", "", "list", "Do not cache specified stages",
         metavar="stringArray"),
    Flag("output", "o", "list", "Output destination (type=local,dest=path)",
         metavar="stringArray"),
    Flag("platform", "", "list", "Set target platform for build", metavar="stringArray"),
    Flag("progress", "", "string", "Kind of progress output: auto, plain, quiet, rawjson, tty"),
    Flag("provenance", "", "string", "Shorthand for --attest=type=provenance"),
    Flag("pull", "", "bool", "Always attempt to pull all referenced images"),
    Flag("push", "", "bool", "Shorthand for --output=type=registry"),
    Flag("quiet", "q", "bool",
         "Suppress the build output and print image ID on success"),
    Flag("rm", "", "bool", "Accepted as docker has it: nothing is ever left", default=True),
    Flag("sbom", "", "string", "Shorthand for --attest=type=sbom"),
    Flag("secret", "", "list", "Secret to expose to the build (id=mysecret,src=/local/secret)",
         metavar="stringArray"),
    Flag("shm-size", "", "string", "Size of /dev/shm of RUN", metavar="bytes",
         convert=values.size, default=0),
    Flag("squash", "", "bool", "Make one layer of all new ones"),
    Flag("ssh", "", "list",
         "SSH agent socket or keys to expose (default|<id>[=<socket>|<key>[,<key>]])",
         metavar="stringArray"),
    Flag("tag", "t", "list", 'Name and optionally a tag ("name:tag")', metavar="stringArray"),
    Flag("target", "", "string", "Set the target build stage to build"),
    Flag("ulimit", "", "list", "Ulimit options", metavar="ulimit", convert=_ulimit),
)  # fmt: skip
