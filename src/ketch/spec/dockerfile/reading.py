"""Nodes become instructions.

Source: github.com/moby/buildkit, frontend/dockerfile/instructions/parse.go.
"""

import re
from typing import TYPE_CHECKING, TypedDict

from ketch.dataclass import replace
from ketch.errors import InvalidArgumentError
from ketch.spec import health
from ketch.spec.digits import signed
from ketch.spec.dockerfile import heredocs, instructions, mounts
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.flags import Flags
from ketch.spec.dockerfile.instructions import Command, Content, Variable
from ketch.spec.dockerfile.suggestions import did_you_mean
from ketch.spec.dockerfile.words import BLANKS
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.spec.dockerfile.instructions import Instruction
    from ketch.spec.dockerfile.parsing import Node

_STAGE_NAME = re.compile("[a-z][a-z0-9-_.]*")
_ONBUILD = re.compile(f"^[{BLANKS}]*ONBUILD[{BLANKS}]*", re.IGNORECASE | re.ASCII)
_RETRIES_MAX = (1 << 31) - 1


class _Common(TypedDict):
    keyword: str
    text: str
    place: Place
    comments: tuple[str, ...]


def read(node: "Node", place: Place | None = None) -> "Instruction":
    """Returns the instruction that a node is.

    Args:
        node: the node.
        place: where the instruction is said to be, in place of the node's lines.

    Raises:
        DockerfileError: there is no such instruction, or its flags or arguments are wrong. Its
            place is the node's.
    """
    node = replace(node, place=place) if place else node
    reading = _READINGS.get(node.keyword.lower())
    if reading is None:
        hint = did_you_mean(node.keyword, NAMES, any_case=True)
        raise DockerfileError(f"unknown instruction: {node.keyword}{hint}", places=(node.place,))
    try:
        return reading(node)
    except DockerfileError as error:
        error.at(node.place)
        raise


def _common(node: "Node") -> _Common:
    return {
        "keyword": node.keyword,
        "text": node.text.strip(BLANKS),
        "place": node.place,
        "comments": node.comments,
    }


def _one(node: "Node") -> str:
    """Returns the only argument of an instruction without flags."""
    if len(node.arguments) != 1:
        raise DockerfileError(f"{node.keyword.upper()} requires exactly one argument")
    Flags(node.flags)
    return node.arguments[0]


def _some(node: "Node") -> tuple[str, ...]:
    if not node.arguments:
        raise DockerfileError(f"{node.keyword.upper()} requires at least one argument")
    Flags(node.flags)
    return node.arguments


def described(comments: tuple[str, ...], name: str) -> str:
    """Returns what a comment says about a stage or variable: what follows its name."""
    for comment in comments if name else ():
        if comment.startswith(f"{name} "):
            return comment[len(name) + 1 :]
    return ""


def _from(node: "Node") -> "Instruction":
    base, *rest = node.arguments or ("",)
    given_as = given_stage = ""
    if len(rest) == 2 and rest[0].lower() == "as":
        given_as, given_stage = rest
        if _STAGE_NAME.fullmatch(given_stage.lower()) is None:
            raise DockerfileError(
                f"invalid name for build stage: {quoted(given_stage)}, "
                "name can't start with a number or contain symbols"
            )
    elif rest or not base:
        raise DockerfileError("FROM requires either one or three arguments")
    flags = Flags(node.flags, texts=("platform",))
    return instructions.From(
        **_common(node), base=base, stage=given_stage.lower(), platform=flags.text("platform"),
        given_as=given_as, given_stage=given_stage,
    )  # fmt: skip


def _arg(node: "Node") -> "Instruction":
    if not node.arguments:
        raise DockerfileError("ARG requires at least one argument")
    variables = []
    for word in node.arguments:
        name, equals, default = word.partition("=")
        if equals and not name:
            raise DockerfileError("ARG names can not be blank")
        description = described(node.comments, name)
        variables.append(Variable(name, default if equals else None, description))
    return instructions.Arg(**_common(node), variables=tuple(variables))


def _pairs(node: "Node") -> "Instruction":
    Flags(node.flags)
    name = node.keyword.upper()
    if not node.pairs:
        raise DockerfileError(f"{name} requires at least one argument")
    if not all(pair.name for pair in node.pairs):
        raise DockerfileError(f"{name} names can not be blank")
    if name == "ENV":
        return instructions.Env(**_common(node), pairs=node.pairs)
    return instructions.Label(**_common(node), pairs=node.pairs)


def _command(node: "Node") -> Command:
    return Command(node.arguments, not node.json, node.heredocs)


def _run(node: "Node") -> "Instruction":
    flags = Flags(node.flags, texts=("network", "security"), lists=("mount", "device"))
    texts = flags.list("mount")
    sources = tuple(map(mounts.source_stage, texts))
    network, security = flags.text("network", "default"), flags.text("security", "sandbox")
    if network not in {"default", "none", "host"}:
        raise DockerfileError(f"invalid network mode {quoted(network)}")
    if security not in {"insecure", "sandbox"}:
        raise DockerfileError(f"security {quoted(security)} is not valid")
    if node.heredocs and (len(node.arguments) != 1 or node.json):
        raise DockerfileError(f"parsing produced an invalid run command: {node.arguments}")
    return instructions.Run(
        **_common(node), command=_command(node), mount_texts=texts, mount_sources=sources,
        network=network, security=security, devices=tuple(map(mounts.device, flags.list("device"))),
    )  # fmt: skip


class _Transferred(TypedDict):
    sources: tuple[str, ...]
    contents: tuple[Content, ...]
    destination: str
    owner: str
    mode: str
    link: bool
    excluded: tuple[str, ...]


def _transfer(node: "Node", flags: Flags) -> _Transferred:
    name = node.keyword.upper()
    *given, destination = node.arguments
    if heredocs.parse_or_none(destination) is not None:
        raise DockerfileError(f"{name} cannot accept a heredoc as a destination")
    texts = {heredoc.name: heredoc.text for heredoc in node.heredocs}
    sources, contents = [], []
    for source in given:
        heredoc = heredocs.parse_or_none(source)
        if heredoc is None:
            sources.append(source)
        else:
            text = texts.get(heredoc.name, "")
            contents.append(Content(heredoc.name, text, heredoc.expand))
    return {
        "sources": tuple(sources),
        "contents": tuple(contents),
        "destination": destination,
        "owner": flags.text("chown"),
        "mode": flags.text("chmod"),
        "link": bool(flags.switch("link")),
        "excluded": flags.list("exclude"),
    }


def _check_destination(node: "Node") -> None:
    if len(node.arguments) < 2:
        raise DockerfileError(
            f"{node.keyword.upper()} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
        )


def _copy(node: "Node") -> "Instruction":
    _check_destination(node)
    flags = Flags(
        node.flags,
        texts=("chown", "from", "chmod"), lists=("exclude",), switches=("link", "parents"),
    )  # fmt: skip
    return instructions.Copy(
        **_common(node), **_transfer(node, flags),
        source_stage=flags.text("from"), parents=bool(flags.switch("parents")),
    )  # fmt: skip


def _add(node: "Node") -> "Instruction":
    _check_destination(node)
    flags = Flags(
        node.flags,
        texts=("chown", "chmod", "checksum"), lists=("exclude",),
        switches=("link", "keep-git-dir", "unpack"),
    )  # fmt: skip
    return instructions.Add(
        **_common(node), **_transfer(node, flags), checksum=flags.text("checksum"),
        keep_git_dir=flags.switch("keep-git-dir"), unpack=flags.switch("unpack"),
    )  # fmt: skip


def _cmd(node: "Node") -> "Instruction":
    Flags(node.flags)
    return instructions.Cmd(**_common(node), command=_command(node))


def _entrypoint(node: "Node") -> "Instruction":
    Flags(node.flags)
    return instructions.Entrypoint(**_common(node), command=_command(node))


def _shell(node: "Node") -> "Instruction":
    words = _some(node)
    if not node.json:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form",
            'write it as SHELL ["/bin/bash", "-c"]',
        )
    return instructions.Shell(**_common(node), words=words)


def _healthcheck(node: "Node") -> "Instruction":
    if not node.arguments:
        raise DockerfileError("HEALTHCHECK requires at least one argument")
    kind, words = node.arguments[0].upper(), node.arguments[1:]
    if kind == "NONE":
        if words:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return instructions.Healthcheck(**_common(node), test=("NONE",))
    times = ("interval", "timeout", "start-period", "start-interval")
    flags = Flags(node.flags, texts=(*times, "retries"))
    if kind != "CMD":
        raise DockerfileError(f"Unknown type {quoted(kind)} in HEALTHCHECK (try CMD)")
    if not words:
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return instructions.Healthcheck(
        **_common(node), test=("CMD" if node.json else "CMD-SHELL", *words),
        interval_ns=_period(flags, "interval"), timeout_ns=_period(flags, "timeout"),
        start_period_ns=_period(flags, "start-period"),
        start_interval_ns=_period(flags, "start-interval"),
        retries=_retries(flags.text("retries")),
    )  # fmt: skip


def _period(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        found = health.period(text)
    except InvalidArgumentError as error:
        raise DockerfileError(error.message, error.hint) from error
    if found and found < health.MINIMUM_NS:
        raise DockerfileError(f"Interval {quoted(name)} cannot be less than 1ms")
    return found


def _retries(text: str) -> int:
    found = signed(text) if text else 0
    if found is None:
        raise DockerfileError(f"strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    if abs(found) > _RETRIES_MAX:
        raise DockerfileError(f"strconv.ParseInt: parsing {quoted(text)}: value out of range")
    if found < 0:
        raise DockerfileError(f"--retries cannot be negative ({found})")
    return found


def _expose(node: "Node") -> "Instruction":
    return instructions.Expose(**_common(node), ports=tuple(sorted(_some(node))))


def _volume(node: "Node") -> "Instruction":
    paths = tuple(path.strip(BLANKS) for path in _some(node))
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return instructions.Volume(**_common(node), paths=paths)


def _on_build(node: "Node") -> "Instruction":
    if node.trigger is None:
        raise DockerfileError("ONBUILD requires at least one argument")
    Flags(node.flags)
    name = node.trigger.keyword.upper()
    if name == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in {"MAINTAINER", "FROM"}:
        raise DockerfileError(f"{name} isn't allowed as an ONBUILD trigger")
    text = _ONBUILD.sub("", node.text)
    text += "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return instructions.OnBuild(**_common(node), trigger=text)


def _user(node: "Node") -> "Instruction":
    return instructions.User(**_common(node), user=_one(node))


def _workdir(node: "Node") -> "Instruction":
    return instructions.Workdir(**_common(node), path=_one(node))


def _stop_signal(node: "Node") -> "Instruction":
    # BuildKit takes any flags here, as for ARG and HEALTHCHECK NONE.
    return instructions.StopSignal(**_common(node), signal=_one(replace(node, flags=())))


def _maintainer(node: "Node") -> "Instruction":
    return instructions.Maintainer(**_common(node), author=_one(node))


_READINGS: "dict[str, Callable[[Node], Instruction]]" = {
    "add": _add,
    "arg": _arg,
    "cmd": _cmd,
    "copy": _copy,
    "entrypoint": _entrypoint,
    "env": _pairs,
    "expose": _expose,
    "from": _from,
    "healthcheck": _healthcheck,
    "label": _pairs,
    "maintainer": _maintainer,
    "onbuild": _on_build,
    "run": _run,
    "shell": _shell,
    "stopsignal": _stop_signal,
    "user": _user,
    "volume": _volume,
    "workdir": _workdir,
}

NAMES = tuple(name.upper() for name in _READINGS)
"""All instructions."""
