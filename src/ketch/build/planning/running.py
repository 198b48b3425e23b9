"""RUN: what it runs, in which surroundings, with which mounts.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb: dispatchRun in convert.go,
convert_runmount.go, convert_secrets.go, convert_ssh.go.
"""

import posixpath
from collections.abc import Iterator, Mapping, Sequence

from ketch.build.graph import Mount, MountKind, Network, Run, Sharing
from ketch.build.planning import paths, platforms
from ketch.build.planning.setting import Setting, Turn
from ketch.build.planning.stages import Stage, State
from ketch.spec.dockerfile import heredocs
from ketch.spec.dockerfile import mounts as written
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.instructions import Run as RunInstruction
from ketch.spec.values import quoted

PIPES = "/dev/pipes/"
"""Where a here-document with a shebang is put."""

_AGENT = "/run/buildkit/ssh_agent."
_HOST = "network.host"
_INSECURE = "security.insecure"


def run(turn: Turn, this: RunInstruction) -> None:
    """Adds the vertex of a RUN, and its line of history.

    Raises:
        DockerfileError: it asks for what it cannot have.
    """
    setting, state = turn.setting, turn.state
    words, files, summary = _program(this)
    if this.command.shell:
        words = state.image.shell_command(" ".join(words))
    if not words:
        raise DockerfileError("arguments are required", "RUN takes a command")
    _check_entitled(setting, this)
    found = [*_mounts(turn, this)]
    environment = state.environment.listed()
    agent = next((mount for mount in found if mount.kind == MountKind.SSH), None)
    if agent is not None and "SSH_AUTH_SOCK" not in state.environment:
        environment = (*environment, f"SSH_AUTH_SOCK={agent.target}")
    state.root = setting.vertices.one(
        Run(
            name=_name(turn, this, summary),
            stage=turn.stage.label,
            place=this.place,
            platform=platforms.shown(state.platform),
            ignore_cache=turn.stage.ignore_cache,
            base=state.root,
            arguments=tuple(words),
            environment=environment,
            user=state.image.config.get("User", ""),
            directory=paths.rooted(state.directory),
            mounts=tuple(found),
            network=network(this, setting.request.network),
            insecure=this.security == "insecure",
            devices=tuple((device.name, device.required) for device in this.devices),
            files=files,
            hidden=setting.hidden,
            hostname=setting.hostname,
            hosts=tuple(setting.request.add_hosts),
        )
    )
    state.steps.add(f"RUN {_recorded(state, words)} # buildkit", state.root)


def network(this: RunInstruction, requested: str) -> Network:
    """Returns what a step reaches; a network that has a name is the build's default one."""
    if this.network != "default":
        return Network(this.network)
    return Network(requested) if requested in {"none", "host"} else Network.DEFAULT


def _program(this: RunInstruction) -> tuple[Sequence[str], dict[str, bytes], str]:
    """Returns what is run, the files that belong to it, and how the name sums them up."""
    files = this.command.files
    if not files:
        return this.command.words, {}, ""
    line = this.command.words[0]
    if heredocs.parse_or_none(line) is None:
        # The shell reads them itself.
        whole = [line, *(f"{each.content}{each.name}" for each in files)]
        return ["\n".join(whole)], {}, ""
    first = files[0]
    summary = f" ({_summary(first.content)})"
    if not first.text.startswith("#!"):
        return [first.text], {}, summary
    if "/" in first.name or first.name in {".", ".."}:
        raise DockerfileError(f"invalid name of a heredoc: {quoted(first.name)}")
    content = first.text.encode(errors="surrogateescape")
    return [f"{PIPES}{first.name}"], {first.name: content}, summary


def _summary(text: str) -> str:
    first, *others = text.strip().replace("\r\n", "\n").split("\n")
    return f"{first}..." if others else first


def _name(turn: Turn, this: RunInstruction, summary: str) -> str:
    environment: Mapping[str, str] = turn.state.environment
    secret = {mount.env: "****" for mount in this.mounts or () if mount.env}
    if secret:
        environment = {**environment, **secret}
    return turn.named(turn.setting.expanded_name(this.text + summary, environment, quotes=True))


def _recorded(state: State, words: Sequence[str]) -> str:
    """Returns a command as the history has it: the build arguments that it sees before it."""
    seen = {
        name: f"{name}={state.environment.get(name, value or '')}"
        for name, value in state.arguments
    }
    count = [f"|{len(seen)}"] if seen else []
    return " ".join([*count, *seen.values(), *words])


def _check_entitled(setting: Setting, this: RunInstruction) -> None:
    allowed = {*setting.request.entitlements}
    if setting.request.network == "host":
        allowed.add(_HOST)
    if network(this, setting.request.network) == Network.HOST and _HOST not in allowed:
        raise _refused(_HOST)
    if this.security == "insecure" and _INSECURE not in allowed:
        raise _refused(_INSECURE)
    for device in this.devices:
        if not {"device", f"device={device.name}"} & allowed:
            raise DockerfileError(
                f"failed to load LLB: device {device.name} is requested by the build but not "
                "allowed",
                f"allow it with --allow device={device.name}",
            )


def _refused(entitlement: str) -> DockerfileError:
    return DockerfileError(
        f"failed to load LLB: {entitlement} is not allowed", f"allow it with --allow {entitlement}"
    )


def _mounts(turn: Turn, this: RunInstruction) -> Iterator[Mount]:
    agents = 0
    for number, mount in enumerate(this.mounts or ()):
        if mount.type == "secret":
            made = _secret(mount)
            turn.stage.secrets.setdefault(made.id, (this.place, made.required))
            yield made
        elif mount.type == "ssh":
            made = _agent(mount, agents)
            turn.stage.agents.setdefault(made.id, (this.place, made.required))
            yield made
            agents += 1
        else:
            yield _files(turn.setting, turn.state, mount, turn.command.sources[number])


def _files(setting: Setting, state: State, mount: written.Mount, source: Stage | None) -> Mount:
    target = paths.rooted(paths.absolute(state.directory, mount.target))
    if target == "/":
        raise DockerfileError(f"invalid mount target {quoted(target)}")
    if mount.type == "tmpfs":
        return Mount(
            MountKind.TMPFS, target, read_only=mount.read_only, size_bytes=mount.size_bytes
        )
    if source is not None and source.state is None:
        raise DockerfileError(
            f"cannot mount from stage {quoted(mount.source_stage)} to {quoted(mount.target)}, "
            "stage needs to be defined before current command"
        )
    root = source.state.root if source is not None and source.state is not None else None
    path = paths.rooted(mount.source)
    if mount.type == "bind":
        return Mount(MountKind.BIND, target, root or setting.main, path, read_only=mount.read_only)
    identity = mount.id or paths.clean(mount.target)
    if setting.cache_namespace:
        identity = f"{setting.cache_namespace}/{identity}"
    # Of a part of something else nothing is changed.
    own = path == "/"
    return Mount(
        MountKind.CACHE,
        target,
        root,
        path,
        read_only=mount.read_only,
        id=identity,
        sharing=Sharing(mount.sharing or "shared"),
        mode=mount.mode if own else None,
        uid=(mount.uid or 0) if own else 0,
        gid=(mount.gid or 0) if own else 0,
    )


def _secret(mount: written.Mount) -> Mount:
    identity = mount.source or mount.id or posixpath.basename(mount.target.rstrip("/"))
    if not identity:
        raise DockerfileError("one of source, target required")
    target = mount.target
    if mount.env is None and not target:
        target = f"/run/secrets/{posixpath.basename(identity)}"
    return Mount(
        MountKind.SECRET,
        paths.rooted(target) if target else "",
        read_only=True,
        id=identity,
        required=mount.required,
        mode=mount.mode,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
        variable="" if mount.env is None else mount.env or identity,
    )


def _agent(mount: written.Mount, number: int) -> Mount:
    if mount.source:
        raise DockerfileError("ssh does not support source")
    return Mount(
        MountKind.SSH,
        paths.rooted(mount.target) if mount.target else f"{_AGENT}{number}",
        id=mount.id or "default",
        required=mount.required,
        mode=mount.mode,
        uid=mount.uid or 0,
        gid=mount.gid or 0,
    )
