"""What a mistyped command or flag may have meant, and where docker's and podman's others are.

Loaded only once something was wrong.
"""

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LIKENESS = 0.6  # of two words, from 0 to 1, from which one may have been meant for the other

_SWARM = "ketch has one machine's containers and no cluster; a Compose file goes by ketch compose"
_CLIENT = (
    "ketch runs containers itself and asks no daemon: for another machine's, ssh HOST ketch ..., "
    "or docker's own command with DOCKER_HOST=ssh://HOST, where ketch serve answers"
)
_TRUST = "images are pinned by digest (NAME@sha256:...); signatures are checked by cosign verify"
_SCAN = "a scanner reads what ketch save writes: ketch save IMAGE | trivy image --input -"
_POD = "containers share namespaces by --network, --ipc and --pid container:NAME, without a pod"
_UNITS = (
    "ketch serve --install-unit writes units for systemd; --restart always with "
    "ketch system start brings containers back after a boot"
)

# Words that other engines' command lines have where this one has none.
_COMMANDS = {
    "app": "a Compose file goes by ketch compose",
    "buildah": "images are built by ketch build",
    "buildx": "ketch build and ketch builder have what docker buildx does; docker's own buildx "
    "works on ketch serve",
    "config": _SWARM,
    "context": _CLIENT,
    "daemon": "the Docker API is served by ketch serve",
    "generate": _UNITS,
    "healthcheck": "ketch inspect --format '{{json .State.Health}}' CONTAINER has what checks said",
    "init": "an interpreter's image and a few lines do: ketch build --help, docs/build.md",
    "kube": _POD,
    "machine": "ketch needs no virtual machine: it runs containers on this Linux itself",
    "node": _SWARM,
    "play": _POD,
    "plugin": "drivers of volumes and networks are built in; there are no plugins to install",
    "pod": _POD,
    "sbom": _SCAN,
    "scan": _SCAN,
    "scout": _SCAN,
    "secret": "secrets of a build go by ketch build --secret, those of a container by a read-only "
    "volume or by Compose",
    "service": _SWARM,
    "stack": _SWARM,
    "swarm": _SWARM,
    "trust": _TRUST,
}
# Docker's options before a command.
_OPTIONS = {
    "H": _CLIENT, "host": _CLIENT, "c": _CLIENT, "context": _CLIENT,
    "tls": _CLIENT, "tlscacert": _CLIENT, "tlscert": _CLIENT, "tlskey": _CLIENT,
    "tlsverify": _CLIENT,
    "D": "KETCH_DEBUG=1 in the environment shows where an error came from",
    "debug": "KETCH_DEBUG=1 in the environment shows where an error came from",
    "l": "ketch serve --log-level says what a server logs",
    "log-level": "ketch serve --log-level says what a server logs",
    "config": "DOCKER_CONFIG in the environment names the directory of config.json",
}  # fmt: skip


def of_command(name: str, group: str, known: "Iterable[str]") -> str:
    """Say what may have been meant by a command that there is not.

    Args:
        name: what was typed.
        group: the group that it was typed behind, or empty.
        known: the commands that there are in its place.

    Returns:
        A sentence, or nothing.
    """
    if not group and name in _COMMANDS:
        return _COMMANDS[name]
    return _meant([f"ketch {group} {one}" if group else f"ketch {one}"
                   for one in _nearest(name, known)])  # fmt: skip


def of_flag(path: str, name: str, known: "Iterable[str]") -> str:
    """Say what may have been meant by a flag that there is not.

    Args:
        path: the command's: ``ketch run``.
        name: what was typed, without dashes.
        known: the long names of the command's flags.

    Returns:
        A sentence, or nothing.
    """
    if path == "ketch" and name in _OPTIONS:
        return _OPTIONS[name]
    return _meant([f"--{one}" for one in _nearest(name, known)])


def _nearest(name: str, known: "Iterable[str]") -> list[str]:
    if len(name) < 2:
        return []
    return difflib.get_close_matches(name[:64], list(known), n=3, cutoff=_LIKENESS)


def _meant(words: list[str]) -> str:
    return f"did you mean {' or '.join(words)}?" if words else ""
