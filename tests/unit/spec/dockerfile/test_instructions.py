"""Instructions with their flags, and what variables make of them."""

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.spec.dockerfile import reading
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.expansion import Expander
from ketch.spec.dockerfile.instructions import (
    Command,
    Content,
    Copy,
    Env,
    Run,
    Variable,
    expand,
)
from ketch.spec.dockerfile.mounts import Device, Mount
from ketch.spec.dockerfile.parsing import parse
from ketch.spec.dockerfile.words import Pair

if TYPE_CHECKING:
    from ketch.spec.dockerfile.instructions import Instruction

ENVIRONMENT = {"a": "1", "dir": "/d", "two": "x y", "empty": ""}


def read(text: str) -> "Instruction":
    (node,) = parse(text.encode()).nodes
    return reading.read(node)


def expanded(text: str) -> "Instruction":
    return expand(read(text), Expander(ENVIRONMENT))


def refused(text: str) -> str:
    with pytest.raises(DockerfileError) as caught:
        expanded(text)
    assert caught.value.places
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("from --platform=$P a:1 As B", {"base": "a:1", "stage": "b", "platform": "$P",
                                        "given_as": "As", "given_stage": "B"}),
        ("FROM scratch", {"base": "scratch", "stage": "", "given_as": ""}),
        ("ARG a b=c d=", {"variables": (Variable("a"), Variable("b", "c"), Variable("d", ""))}),
        ("# b is it\nARG a b=c", {"variables": (Variable("a"), Variable("b", "c", "is it"))}),
        ("ENV a=$b", {"pairs": (Pair("a", "$b"),)}),
        ("LABEL a b c", {"pairs": (Pair("a", "b c", legacy=True),)}),
        ("RUN a b", {"command": Command(("a b",), shell=True), "network": "default",
                     "security": "sandbox", "mount_texts": (), "mounts": None}),
        ('RUN ["a", "b"]', {"command": Command(("a", "b"), shell=False)}),
        ("RUN --network=none --security=insecure --device=a.b/c=d --device=x,required a",
         {"network": "none", "security": "insecure",
          "devices": (Device("a.b/c=d"), Device("x", required=True))}),
        ("RUN --mount=type=bind,from=x,target=/y --mount=target=/z a",
         {"mount_texts": ("type=bind,from=x,target=/y", "target=/z"), "mount_sources": ("x", "")}),
        ("COPY --from=x --chown=a:b --chmod=u+x --link --parents --exclude=*.o --exclude=b a b /c/",
         {"sources": ("a", "b"), "destination": "/c/", "source_stage": "x", "owner": "a:b",
          "mode": "u+x", "link": True, "parents": True, "excluded": ("*.o", "b")}),
        ("COPY --link=false --parents=TRUE a b", {"link": False, "parents": True}),
        ("ADD --checksum=sha256:a --keep-git-dir --unpack=false a b",
         {"checksum": "sha256:a", "keep_git_dir": True, "unpack": False, "link": False}),
        ("ADD a b", {"keep_git_dir": None, "unpack": None}),
        ("COPY <<a <<-'b' c /d\n$x\na\n\t$y\n\tb",
         {"contents": (Content("a", "$x\n", expand=True), Content("b", "$y\n", expand=False)),
          "sources": ("c",)}),
        ("CMD", {"command": Command((), shell=True)}),
        ("CMD []", {"command": Command((), shell=False)}),
        ('ENTRYPOINT ["a"]', {"command": Command(("a",), shell=False)}),
        ('SHELL ["a", "-c"]', {"words": ("a", "-c")}),
        ("HEALTHCHECK --interval=1m30s --timeout=2s --start-period=3s --start-interval=4ms "
         "--retries=5 CMD a b",
         {"test": ("CMD-SHELL", "a b"), "interval_ns": 90 * 10**9, "timeout_ns": 2 * 10**9,
          "start_period_ns": 3 * 10**9, "start_interval_ns": 4 * 10**6, "retries": 5}),
        ('HEALTHCHECK cmd ["a"]', {"test": ("CMD", "a"), "retries": 0}),
        ("HEALTHCHECK --interval=1s NONE", {"test": ("NONE",), "interval_ns": 0}),
        ("EXPOSE 90 80/udp", {"ports": ("80/udp", "90")}),
        ("USER a:b", {"user": "a:b"}),
        ("WORKDIR /a b", {"path": "/a b"}),
        ('VOLUME ["/a b", "/c"]', {"paths": ("/a b", "/c")}),
        ("STOPSIGNAL SIGTERM", {"signal": "SIGTERM"}),
        ("MAINTAINER a <b@c>", {"author": "a <b@c>"}),
        ("ONBUILD  RUN a  b", {"trigger": "RUN a  b"}),
        ("ONBUILD COPY <<a /b\nx\na\n", {"trigger": "COPY <<a /b\nx\na"}),
    ],
)  # fmt: skip
def test_an_instruction_has_what_is_written(text: str, fields: dict[str, Any]) -> None:
    found = read(text)
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("FRM a", "unknown instruction: FRM (did you mean FROM?)"),
        ("copi a b", "unknown instruction: copi (did you mean copy?)"),
        ("NOTHING LIKE IT", "unknown instruction: NOTHING"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a is b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'invalid name for build stage: "1b", name can\'t start with a number or '
                         "contain symbols"),
        ("FROM --plattform=x a", "unknown flag: --plattform (did you mean platform?)"),
        ("FROM --platform a", "missing a value on flag: --platform"),
        ("COPY a", "COPY requires at least two arguments, but only one was provided. Destination "
                   "could not be determined"),
        ("ADD", "ADD requires at least two arguments, but only one was provided. Destination "
                "could not be determined"),
        ("COPY --link --link a b", "duplicate flag specified: --link"),
        ("COPY --from=a --from=b a b", "duplicate flag specified: --from"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=yes a b", "expecting boolean value for flag --link, not: yes"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination"),
        ("RUN --network=bridge a", 'invalid network mode "bridge"'),
        ("RUN --security=none a", 'security "none" is not valid'),
        ("RUN --x a", "unknown flag: --x"),
        ("RUN --mount=from=$x a", "'from' doesn't support variable expansion, define alias stage "
                                  "instead"),
        ("RUN --device=a,b a", "invalid field 'b' must be a key=value pair"),
        ("RUN --device=a,requird=1 a", "unexpected key 'requird' in 'requird=1' "
                                       "(did you mean required?)"),
        ("USER", "USER requires exactly one argument"),
        ("WORKDIR", "WORKDIR requires exactly one argument"),
        ("ARG", "ARG requires at least one argument"),
        ("ARG =a", "ARG names can not be blank"),
        ("ENV", "ENV requires at least one argument"),
        ("LABEL =a", "LABEL names can not be blank"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ('VOLUME [""]', "VOLUME specified can not be an empty string"),
        ("VOLUME $empty", "VOLUME specified can not be an empty string"),
        ("SHELL a", "SHELL requires the arguments to be in JSON form"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE a", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK MAYBE", 'Unknown type "MAYBE" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD a", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK --interval=1 CMD a", 'time: missing unit in duration "1"'),
        ("HEALTHCHECK --retries=-1 CMD a", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD a", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN a", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM a", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer a", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("WORKDIR ${x:?is needed}", 'failed to process "${x:?is needed}": x: is needed'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_buildkits_words(text: str, reason: str) -> None:
    assert refused(text) == reason


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", Mount(target="/x", read_only=True)),
        ("type=bind,from=s,source=/a,dst=$dir/$a,rw",
         Mount(source_stage="s", source="/a", target="/d/1")),
        ("type=CACHE,id=$a,target=/c,sharing=Locked,mode=0755,uid=1,gid=2",
         Mount("cache", id="1", target="/c", sharing="locked", mode=0o755, uid=1, gid=2)),
        ("type=cache,target=/c,readonly", Mount("cache", target="/c", read_only=True)),
        ("type=cache,target=/c,ro=false", Mount("cache", target="/c")),
        ("type=bind,target=/c,readwrite=0", Mount(target="/c", read_only=True)),
        ("type=tmpfs,target=/t,size=10m", Mount("tmpfs", target="/t", size_bytes=10 << 20)),
        ("type=secret,id=s,env=TOKEN,required",
         Mount("secret", id="s", env="TOKEN", required=True, read_only=True)),
        ("type=secret,src=s,required=false,mode=0400", Mount("secret", source="s", mode=0o400,
                                                            read_only=True)),
        ("type=ssh", Mount("ssh", read_only=True)),
        ('type=bind,"target=/a,b"', Mount(target="/a,b", read_only=True)),
    ],
)  # fmt: skip
def test_a_mount_has_what_is_written(text: str, mount: Mount) -> None:
    quoted = text.replace('"', '\\"')
    run = expanded(f"RUN --mount={quoted} x")
    assert isinstance(run, Run)
    assert run.mounts == (mount,)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("type=volume", 'unsupported mount type "volume"'),
        ("type=cach", 'unsupported mount type "cach" (did you mean cache?)'),
        ("type=cache,sharing=share", 'unsupported sharing value "share" (did you mean shared?)'),
        ("type=cache,targt=/a", "unexpected key 'targt' in 'targt=/a' (did you mean target?)"),
        ("target", "invalid field 'target' must be a key=value pair"),
        ("ro=maybe", "invalid value for ro: maybe"),
        ("required", "unexpected key 'required' for mount type 'bind'"),
        ("size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,size=x", "invalid value for size: x"),
        ("type=cache,mode=9", "invalid value 9 for mode"),
        ("type=cache,uid=a", "invalid value a for uid"),
        ("type=cache,gid=-1", "invalid value -1 for gid"),
        ("mode=1", 'mode not allowed for "bind" type mounts'),
        ("type=secret,from=a,id=b", "secret mount should not have a from"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
    ],
)
def test_a_mount_that_cannot_be_is_refused(text: str, reason: str) -> None:
    assert refused(f"RUN --mount={text} x") == reason


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("ENV $a=$two 'b'=\"$dir\"", {"pairs": (Pair("1", "x y"), Pair("b", "/d"))}),
        ("ENV x $two '$a'", {"pairs": (Pair("x", "x y $a", legacy=True),)}),
        ("LABEL a=$a", {"pairs": (Pair("a", "1"),)}),
        ("COPY --chown=$a --chmod=$a --exclude=$a $two $dir/",
         {"sources": ("x y",), "destination": "/d/", "owner": "1", "mode": "1",
          "excluded": ("$a",)}),
        ("ADD --checksum=$a x y", {"checksum": "1"}),
        ("COPY <<A <<'B' /x\n'$a' \\$a\nA\n$a\nB\n",
         {"contents": (Content("A", "'1' $a\n", expand=True), Content("B", "$a\n", expand=False))}),
        ("EXPOSE $two 80", {"ports": ("x", "y", "80")}),
        ("USER $a", {"user": "1"}),
        ("USER $missing", {"user": ""}),
        ("WORKDIR $dir", {"path": "/d"}),
        ("VOLUME $dir '/$a'", {"paths": ("/d", "/$a")}),
        ("STOPSIGNAL SIG$a", {"signal": "SIG1"}),
        ("RUN echo $a", {"command": Command(("echo $a",), shell=True)}),
        ("CMD $a", {"command": Command(("$a",), shell=True)}),
        ("HEALTHCHECK CMD $a", {"test": ("CMD-SHELL", "$a")}),
        ("ARG x=$a", {"variables": (Variable("x", "$a"),)}),
        ("ONBUILD ENV a=$a", {"trigger": "ENV a=$a"}),
        ("MAINTAINER $a", {"author": "$a"}),
    ],
)  # fmt: skip
def test_variables_are_put_in_where_buildkit_puts_them_in(
    text: str, fields: dict[str, Any]
) -> None:
    found = expanded(text)
    assert {name: getattr(found, name) for name in fields} == fields


def test_an_error_of_expansion_has_the_instructions_place() -> None:
    found = parse(b"FROM a\nCOPY a \\\n 'b\n").nodes[1]
    with pytest.raises(DockerfileError) as caught:
        expand(reading.read(found), Expander({}))
    assert caught.value.places == (Place(2, 3),)


def test_expansion_leaves_the_original_alone() -> None:
    before = read("ENV a=$a")
    expand(before, Expander(ENVIRONMENT))
    assert isinstance(before, Env)
    assert before.pairs == (Pair("a", "$a"),)
    copy = expanded("COPY a b")
    assert isinstance(copy, Copy)
    assert (copy.name, copy.text, copy.place) == ("COPY", "COPY a b", Place(1, 1))


@given(
    st.sampled_from(reading.NAMES),
    st.lists(st.sampled_from(["--", "--mount=", "type=", "=", ",", " ", "$a", "[", '"', "]", "x",
                              "--from=", "--link", "CMD ", "AS ", "'", "\\", "--device="])),
)  # fmt: skip
def test_any_instruction_is_read_and_expanded_or_refused(name: str, pieces: list[str]) -> None:
    try:
        expanded(f"{name} {''.join(pieces)}")
    except DockerfileError as error:
        assert error.message  # noqa: PT017 - either outcome is right
