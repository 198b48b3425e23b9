from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.images import changes

if TYPE_CHECKING:
    from ketch.spec.image import ContainerConfig


def applied(*lines: str) -> "ContainerConfig":
    config: ContainerConfig = {}
    changes.apply(config, lines)
    return config


# What dockerd wrote into the image for the same change.
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("USER 1000", {"User": "1000"}),
        ('USER ""', {"User": ""}),
        ("USER ''", {"User": ""}),
        ("USER $NOTHING", {"User": ""}),
        ("WORKDIR /x", {"WorkingDir": "/x"}),
        ("WORKDIR x", {"WorkingDir": "/x"}),
        ("EXPOSE 80 443/udp", {"ExposedPorts": {"80/tcp": {}, "443/udp": {}}}),
        ("EXPOSE 80-82/tcp", {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "82/tcp": {}}}),
        ('LABEL a=b "c"="d e"', {"Labels": {"a": "b", "c": "d e"}}),
        ('VOLUME /v ["/a"]', {"Volumes": {"/v": {}, "[/a]": {}}}),
        ('VOLUME ["/b","/c"]', {"Volumes": {"/b": {}, "/c": {}}}),
        ("CMD echo hi", {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        ('cmd ["x"', {"Cmd": ["/bin/sh", "-c", '["x"']}),
        ("CMD []", {"Cmd": []}),
        ('ENTRYPOINT ["a","b"]', {"Entrypoint": ["a", "b"]}),
        ("ENV A b c", {"Env": ["A=b c"]}),
        ('ENV A=b C="d e" F=g\\ h', {"Env": ["A=b", "C=d e", "F=g h"]}),
        ("ENV A=$B", {"Env": ["A="]}),
        ("ENV PATH=x:$PATH", {"Env": ["PATH=x:"]}),
        ("ENV X=a Y=$X", {"Env": ["X=a", "Y="]}),
        ("HEALTHCHECK --interval=5s CMD true",
         {"Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}}),
        ('HEALTHCHECK --retries=3 CMD ["a"]',
         {"Healthcheck": {"Test": ["CMD", "a"], "Retries": 3}}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        ("ONBUILD RUN x", {"OnBuild": ["RUN x"]}),
        ("STOPSIGNAL SIGINT", {"StopSignal": "SIGINT"}),
        ("# comment\nUSER a\n", {"User": "a"}),
        ("CMD", {"Cmd": ["/bin/sh", "-c"]}),
        ("ENTRYPOINT", {}),
        ('ENTRYPOINT []', {}),
        ("EXPOSE 127.0.0.1:8080:80/TCP", {"ExposedPorts": {"80/tcp": {}}}),
        ("HEALTHCHECK --start-period=1s --start-interval=2s --timeout=3s CMD a",
         {"Healthcheck": {"Test": ["CMD-SHELL", "a"], "Timeout": 3_000_000_000,
                          "StartPeriod": 1_000_000_000, "StartInterval": 2_000_000_000}}),
        ("ENV A=${B:-x} C=${A:+y}", {"Env": ["A=x", "C="]}),
        ("# escape=`\nENV A=a`\n B=`$A", {"Env": ["A=a", "B=$A"]}),
        ("CMD a \\\n b", {"Cmd": ["/bin/sh", "-c", "a  b"]}),
    ],
)  # fmt: skip
def test_a_change_does_what_docker_does(change: str, expected: dict[str, Any]) -> None:
    assert dict(applied(change)) == expected


def test_later_changes_build_on_earlier_ones() -> None:
    config = applied(
        "ENV A=1 B=2", "ENV A=$B-${B:-x}-${C:-x}${B:+y}${C:+z}", "WORKDIR /a", "WORKDIR b/../c",
        "LABEL a=1", "LABEL b=2", "VOLUME /x", "VOLUME $B", "EXPOSE 1", "EXPOSE $B",
    )  # fmt: skip
    assert config["Env"] == ["A=2-2-xy", "B=2"]
    assert config["WorkingDir"] == "/a/c"
    assert config["Labels"] == {"a": "1", "b": "2"}
    assert set(config["Volumes"]) == {"/x", "2"}
    assert set(config["ExposedPorts"]) == {"1/tcp", "2/tcp"}


def test_changes_are_one_text_and_an_instruction_may_go_on_in_the_next() -> None:
    assert applied("USER a", "", "CMD x \\", " y")["Cmd"] == ["/bin/sh", "-c", "x  y"]
    assert applied() == {}


def test_a_shell_of_the_configuration_is_the_one() -> None:
    config: ContainerConfig = {"Shell": ["/bin/bash", "-ec"]}
    changes.apply(config, ["CMD a b"])
    assert config["Cmd"] == ["/bin/bash", "-ec", "a b"]


def test_nothing_is_changed_where_a_later_change_cannot_be_read() -> None:
    config: ContainerConfig = {"User": "a"}
    with pytest.raises(InvalidArgumentError):
        changes.apply(config, ["USER b", "HEALTHCHECK"])
    assert config == {"User": "a"}


def test_a_new_entrypoint_drops_the_old_command_but_not_a_given_one() -> None:
    config: ContainerConfig = {"Cmd": ["old"]}
    changes.apply(config, ['ENTRYPOINT ["e"]'])
    assert "Cmd" not in config
    assert applied('CMD ["c"]', 'ENTRYPOINT ["e"]')["Cmd"] == ["c"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("RUN x", "^run is not a valid change command$"),
        ("nonsense", "^nonsense is not a valid change command$"),
        ("SHELL ['a']", "^shell is not a valid change command$"),
        ("", "^file with no instructions$"),
        ("# only", "^file with no instructions$"),
        ("ENV A", "^ENV must have two arguments$"),
        ("ENV", "^ENV requires at least one argument$"),
        ("ENV A=b C", 'can\'t find = in "C"'),
        ("ENV =b", "names can not be blank"),
        ("LABEL x", "^LABEL must have two arguments$"),
        ("EXPOSE a", "^invalid containerPort: a$"),
        ("EXPOSE 70000", "^invalid containerPort: 70000$"),
        ("EXPOSE 9-8", "^invalid containerPort: 9-8$"),
        ("EXPOSE \u0661", "^invalid containerPort"),
        ("EXPOSE 80/icmp", '^invalid port: "80/icmp": invalid proto: icmp$'),
        ("USER", "^USER requires exactly one argument$"),
        ("VOLUME []", "^VOLUME requires at least one argument$"),
        ('VOLUME [""]', "can not be an empty string"),
        ("STOPSIGNAL SIGNOT", "SIGNOT"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("HEALTHCHECK --retries=x CMD x", 'parsing "x": invalid syntax'),
        ("HEALTHCHECK MAYBE", 'Unknown type "MAYBE"'),
        ("HEALTHCHECK CMD", "Missing command"),
        ('ENV A="b', "unexpected end"),
        ("ENV A=${b", "syntax error: missing '}'"),
    ],
)
def test_what_cannot_be_applied_is_refused_with_the_reason(change: str, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=reason):
        applied(change)


@given(st.sampled_from(changes.NAMES), st.text("ab=$\\\"' {}[]:-/\n1,%") | st.text())
def test_any_text_is_applied_or_a_clear_error(instruction: str, text: str) -> None:
    try:
        applied(f"{instruction} {text}")
    except InvalidArgumentError as error:
        assert error.message  # noqa: PT017 - either outcome is right
