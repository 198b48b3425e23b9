"""What each instruction does to a stage.

History's lines are BuildKit's to the letter. Source: github.com/moby/buildkit,
frontend/dockerfile/dockerfile2llb/convert.go, "dispatch".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ketch.build.graph import MakeDirectory
from ketch.build.planning import gotext, paths, platforms
from ketch.build.planning.arguments import Declared
from ketch.build.planning.copying import copy
from ketch.build.planning.running import run
from ketch.build.planning.setting import Turn
from ketch.build.planning.stages import State
from ketch.errors import InvalidArgumentError
from ketch.spec import signals
from ketch.spec.dockerfile import exposing
from ketch.spec.dockerfile import instructions as language
from ketch.spec.dockerfile.checks import UNSEEN_ARGUMENTS
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Expander

if TYPE_CHECKING:
    from ketch.spec.image import Healthcheck


def apply(turn: Turn) -> None:
    """Goes on by an instruction.

    Raises:
        DockerfileError: the instruction cannot be; it says where.
    """
    instruction = turn.command.instruction
    try:
        if isinstance(instruction, language.Arg):
            _arg(turn, instruction)
            return
        expander = Expander(turn.state.environment, turn.setting.lexer.escape)
        expanded = language.expand(instruction, expander)
        turn.check(expanded, expander.missing)
        _APPLIED[type(expanded)](turn, expanded)
    except DockerfileError as error:
        raise error.at(instruction.place) from error.__cause__
    except InvalidArgumentError as error:
        raise DockerfileError(error.message, error.hint, (instruction.place,)) from error


def _arg(turn: Turn, this: language.Arg) -> None:
    setting, stage, state = turn.setting, turn.stage, turn.state
    shown = []
    missing: set[str] = set()
    for variable in this.variables:
        name = variable.name
        value = setting.overrides.get(name)
        inherited = False
        if value is None and variable.default is not None:
            expanded = setting.lexer.process(variable.default, state.environment)
            value = expanded.text
            missing |= expanded.missing
        elif value is None and name in setting.arguments:
            value, inherited = setting.arguments[name], True
        if value is not None and name not in UNSEEN_ARGUMENTS:
            state.environment.set(name, value)
        if not inherited:
            stage.declared[name] = Declared(variable, value or "", this.place)
        stage.used.add(name)
        state.arguments.append((name, value))
        shown.append(name if value is None else f"{name}={value}")
    turn.check(this, missing)
    state.steps.add(f"ARG {' '.join(shown)}")


def _env(turn: Turn, this: language.Env) -> None:
    for pair in this.pairs:
        turn.state.environment.set(pair.name, pair.value)
        turn.state.image.set_variable(pair.name, pair.value)
    turn.state.steps.add(f"ENV {' '.join(map(str, this.pairs))}")


def _label(turn: Turn, this: language.Label) -> None:
    turn.state.image.table("Labels").update((pair.name, pair.value) for pair in this.pairs)
    turn.state.steps.add(f"LABEL {' '.join(map(str, this.pairs))}")


def _workdir(turn: Turn, this: language.Workdir) -> None:
    state = turn.state
    set_directory(state, this.path)
    made = None
    if state.directory != "/":
        name = turn.named(turn.setting.expanded_name(this.text, state.environment))
        made = state.root = turn.setting.vertices.one(
            MakeDirectory(
                name=name,
                stage=turn.stage.label,
                place=this.place,
                platform=platforms.shown(state.platform),
                base=state.root,
                path=paths.rooted(state.directory),
                owner=state.image.config.get("User", ""),
                time_s=turn.setting.epoch_s,
            )
        )
    state.steps.add(f"WORKDIR {state.directory}", made)


def set_directory(state: State, path: str) -> None:
    """Changes the directory that programs start in."""
    state.directory = paths.absolute(state.image.config.get("WorkingDir", ""), path)
    state.image.config["WorkingDir"] = state.directory


def _user(turn: Turn, this: language.User) -> None:
    turn.state.image.config["User"] = this.user
    turn.state.steps.add(f"USER {this.user}")


def _volume(turn: Turn, this: language.Volume) -> None:
    turn.state.image.table("Volumes").update((path, {}) for path in this.paths)
    turn.state.steps.add(f"VOLUME {gotext.listed(this.paths)}")


def _expose(turn: Turn, this: language.Expose) -> None:
    found = [port for word in exposing.read(this.ports) for port in word.ports]
    turn.setting.allowance.take(0, len(found))
    turn.state.image.table("ExposedPorts").update((port, {}) for port in found)
    turn.state.steps.add(f"EXPOSE {gotext.listed(found)}")


def _cmd(turn: Turn, this: language.Cmd) -> None:
    turn.stage.command_given = True
    words = _words(turn.state, this.command)
    turn.state.image.config["Cmd"] = words
    turn.state.image.config["ArgsEscaped"] = True
    turn.state.steps.add(f"CMD {gotext.quoted_list(words)}")


def _entrypoint(turn: Turn, this: language.Entrypoint) -> None:
    words = _words(turn.state, this.command)
    turn.state.image.config["Entrypoint"] = words
    if not turn.stage.command_given:
        turn.state.image.config.pop("Cmd", None)
    turn.state.steps.add(f"ENTRYPOINT {gotext.quoted_list(words)}")


def _words(state: State, command: language.Command) -> list[str]:
    if command.shell:
        return state.image.shell_command(" ".join(command.words))
    return [*command.words]


def _shell(turn: Turn, this: language.Shell) -> None:
    turn.state.image.config["Shell"] = [*this.words]
    turn.state.steps.add(f"SHELL {gotext.listed(this.words)}")


def _healthcheck(turn: Turn, this: language.Healthcheck) -> None:
    numbers = {
        "Interval": this.interval_ns,
        "Timeout": this.timeout_ns,
        "StartPeriod": this.start_period_ns,
        "StartInterval": this.start_interval_ns,
        "Retries": this.retries,
    }
    check: dict[str, Any] = {name: number for name, number in numbers.items() if number}
    found = cast("Healthcheck", {"Test": [*this.test], **check})
    turn.state.image.config["Healthcheck"] = found
    turn.state.steps.add(f"HEALTHCHECK {gotext.healthcheck(found)}")


def _stop_signal(turn: Turn, this: language.StopSignal) -> None:
    signals.number(this.signal)
    turn.state.image.config["StopSignal"] = this.signal
    turn.state.steps.add(f"STOPSIGNAL {this.signal}")


def _maintainer(turn: Turn, this: language.Maintainer) -> None:
    turn.state.image.author = this.author
    turn.state.steps.add(f"MAINTAINER {this.author}")


def _on_build(turn: Turn, this: language.OnBuild) -> None:
    turn.state.image.config.setdefault("OnBuild", []).append(this.trigger)


_APPLIED: "dict[type, Callable[[Turn, Any], None]]" = {
    language.Add: copy,
    language.Cmd: _cmd,
    language.Copy: copy,
    language.Entrypoint: _entrypoint,
    language.Env: _env,
    language.Expose: _expose,
    language.Healthcheck: _healthcheck,
    language.Label: _label,
    language.Maintainer: _maintainer,
    language.OnBuild: _on_build,
    language.Run: run,
    language.Shell: _shell,
    language.StopSignal: _stop_signal,
    language.User: _user,
    language.Volume: _volume,
    language.Workdir: _workdir,
}
