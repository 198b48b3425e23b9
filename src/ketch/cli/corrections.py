"""What a mistyped command or flag may have meant, and where docker's and podman's others are.

Loaded only once something was wrong.
"""

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

_LIKENESS = 0.6  # of two words, from 0 to 1, from which one may have been meant for the other

_FITTING_MAX = 3  # flags that one letter may be meant for

_SWARM = "ketch has one machine's containers and no cluster; a Compose file goes by ketch compose"
_CLIENT = (
    "ketch runs containers itself and asks no daemon: for another machine's, ssh HOST ketch ..., "
    "or docker's own command with DOCKER_HOST=ssh://HOST, where ketch serve answers"
)
_RUNTIME = "bundles are run by ketch-oci, which has runc's commands: ketch-oci --help"
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
    "farm": _CLIENT,
    "features": _RUNTIME,
    "node": _SWARM,
    "play": _POD,
    "plugin": "drivers of volumes and networks are built in; there are no plugins to install",
    "pod": _POD,
    "sbom": _SCAN,
    "scan": _SCAN,
    "scout": _SCAN,
    "quadlet": _UNITS,
    "secret": "secrets of a build go by ketch build --secret, those of a container by a read-only "
    "volume or by Compose",
    "service": _SWARM,
    "spec": _RUNTIME,
    "stack": _SWARM,
    "state": _RUNTIME,
    "swarm": _SWARM,
    "trust": _TRUST,
}
# What people say before they know what a command line calls it, alone and behind a group.
_EXEC = "ketch exec -it CONTAINER sh is a shell in a running container"
_LISTS = "ketch ps -a lists containers, ketch images images"
_REMOVALS = "ketch rm removes containers, ketch rmi images"
_PRUNES = "ketch system prune removes what nobody uses"
_COMPOSE = "a Compose file goes by ketch compose {}"
_SAID = {
    "bash": _EXEC, "console": _EXEC, "enter": _EXEC, "sh": _EXEC, "shell": _EXEC, "ssh": _EXEC,
    "list": _LISTS, "ls": _LISTS, "show": _LISTS, "status": _LISTS,
    "del": _REMOVALS, "delete": _REMOVALS, "destroy": _REMOVALS, "remove": _REMOVALS,
    "clean": _PRUNES, "cleanup": _PRUNES, "gc": _PRUNES, "prune": _PRUNES,
    "down": _COMPOSE.format("down"), "up": _COMPOSE.format("up"),
    "download": "ketch pull fetches an image", "install": "ketch pull fetches an image",
    "upload": "ketch push sends an image",
    "new": "ketch create makes a container, ketch run starts one as well",
}  # fmt: skip
_VERBS = {
    "add": "create", "clean": "prune", "cleanup": "prune", "del": "rm", "delete": "rm",
    "destroy": "rm", "gc": "prune", "info": "inspect", "list": "ls", "make": "create",
    "new": "create", "remove": "rm", "show": "inspect",
}  # fmt: skip
_FLAGS = {
    "background": "detach", "bind": "volume", "cwd": "workdir", "daemon": "detach",
    "delete": "rm", "dir": "workdir", "directory": "workdir", "environment": "env",
    "expose-port": "publish", "forward": "publish", "gpu": "gpus", "json": "format json",
    "lines": "tail", "map": "publish", "mem": "memory", "port": "publish", "ports": "publish",
    "processors": "cpus", "ram": "memory", "recursive": "force", "remove": "rm",
    "title": "name", "uid": "user", "var": "env", "variable": "env", "yes": "force",
}  # fmt: skip
# Docker's options before a command.
_OPTIONS = {
    "H": _CLIENT, "host": _CLIENT, "c": _CLIENT, "context": _CLIENT,
    "tls": _CLIENT, "tlscacert": _CLIENT, "tlscert": _CLIENT, "tlskey": _CLIENT,
    "tlsverify": _CLIENT,
    "runtime": "ketch is its own runtime; for podman, containerd and docker it is ketch-oci",
    "remote": _CLIENT, "url": _CLIENT, "connection": _CLIENT,
    "D": "KETCH_DEBUG=1 in the environment shows where an error came from",
    "debug": "KETCH_DEBUG=1 in the environment shows where an error came from",
    "l": "ketch serve --log-level says what a server logs",
    "log-level": "ketch serve --log-level says what a server logs",
    "config": "DOCKER_CONFIG in the environment names the directory of config.json",
}  # fmt: skip


def of_command(name: str, group: str, known: "Collection[str]") -> str:
    """Say what may have been meant by a command that there is not.

    Args:
        name: what was typed.
        group: the group that it was typed behind, or empty.
        known: the commands that there are in its place.

    Returns:
        A sentence, or nothing.
    """
    if not group and name in (said := {**_COMMANDS, **_SAID}):
        return said[name]
    if group and _VERBS.get(name) in known:
        return _meant([f"ketch {group} {_VERBS[name]}"])
    return _meant([f"ketch {group} {one}" if group else f"ketch {one}"
                   for one in _nearest(name, known)])  # fmt: skip


def of_flag(path: str, name: str, known: "Collection[str]") -> str:
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
    said = _FLAGS.get(name.lower(), "")
    if said.partition(" ")[0] in known:
        return _meant([f"--{said}"])
    near = _nearest(name, known)
    return (
        _of_letter(name[0], known)
        if not near and len(name) in {1, 2}
        else _meant([f"--{one}" for one in near])
    )


def _of_letter(letter: str, known: "Collection[str]") -> str:
    """What a letter may stand for: few flags that begin with it; behind ``rm`` that of rm(1)."""
    fits = sorted(one for one in known if one.startswith(letter))
    if not fits and letter in "rR" and "force" in known:
        return "what is removed goes with all that is in it; --force is for what is in use"
    return _meant([f"--{one}" for one in fits]) if len(fits) <= _FITTING_MAX else ""


def _nearest(name: str, known: "Collection[str]") -> list[str]:
    if len(name) < 2:
        return []
    return difflib.get_close_matches(name[:64], list(known), n=3, cutoff=_LIKENESS)


def _meant(words: list[str]) -> str:
    return f"did you mean {' or '.join(words)}?" if words else ""
