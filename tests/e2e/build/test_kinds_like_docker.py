"""Dockerfiles of the kinds that people write, each built as BuildKit in dockerd builds it.

What one of them shows is one topic, with the turns that it takes in the wild; ``test_like_docker``
has all instructions in four dense files. Docker 26 has no ``--parents`` and no ``--exclude``: for
those ``test_language.py``.
"""

import io
import os
import pathlib
import pprint
import re
import stat
import tarfile
from collections.abc import Callable, Collection
from typing import Any

import pytest

from tests.support import built
from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(300)

# Limits that docker's own defaults exceed where a container's root may not raise them.
_LIMITED = ("--ulimit", "nofile=1024:1024")

ARGUMENTS = r"""ARG BASE=busybox
ARG TAG=${BASE:+latest}
ARG FROM_OUTSIDE=default
ARG NOBODY
FROM ${BASE}:${TAG} AS first
ARG FROM_OUTSIDE
ARG BASE
ARG OWN=own-${FROM_OUTSIDE} OTHER
ENV SEEN="$FROM_OUTSIDE,$TAG,$BASE,$OWN,$OTHER"
RUN echo "$OWN $OTHER $FROM_OUTSIDE $SEEN" > /seen
ARG OWN=again SEEN=hidden-by-the-variable
LABEL seen=$SEEN undeclared=${NOBODY-unset} tag="${TAG:-gone}"
FROM first
RUN echo "${OWN:-nothing}" >> /seen
ENV PATH=/opt/bin:$PATH EMPTY= SPACED='a  b' QUOTE=it\'s DOLLAR=\$x
CMD echo "$SPACED" $EMPTY
"""

PLATFORMS = r"""FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT
ARG BUILDPLATFORM BUILDOS BUILDARCH
RUN echo "$TARGETPLATFORM|$TARGETOS|$TARGETARCH|$TARGETVARIANT|$BUILDPLATFORM|$BUILDARCH" > /for
FROM scratch
ARG TARGETARCH
COPY --from=build /for /for-$TARGETARCH
LABEL arch=$TARGETARCH
ENTRYPOINT ["/x"]
"""

LINKED = r"""FROM busybox AS files
RUN mkdir -p /f/d && echo 1 > /f/d/1 && chmod 2755 /f/d && chown 3:4 /f/d && ln -s d /f/l
FROM busybox AS linked
RUN mkdir /real && ln -s /real /through && mkdir -m 700 /kept && chown 9:9 /kept
COPY --link --from=files /f /deep/er/
COPY --link --from=files /f/d/1 /kept/one
COPY --link --chown=5:6 a.txt /there/
ADD --link archive.tar /kept/
WORKDIR /deep
COPY --link a.txt relative/
COPY --link <<DOC /document
$HOME
DOC
FROM scratch
COPY --link a.txt /
COPY --link --from=files /f/d /d
"""

TRIGGERS = r"""FROM busybox AS base
ONBUILD ARG WHAT=none
ONBUILD ENV WHAT=$WHAT WHERE=/srv
ONBUILD WORKDIR $WHERE
ONBUILD COPY a.txt .
ONBUILD ADD archive.tar unpacked/
ONBUILD RUN echo $WHAT $(pwd) > /triggered
ONBUILD USER 3
ONBUILD LABEL on=build
ONBUILD CMD ["a.txt"]
RUN echo base > /base
FROM base AS app
RUN id -u > /tmp/who
ENTRYPOINT ["cat"]
FROM app
ARG WHAT
LABEL what=$WHAT
"""

CHANGES = r"""FROM busybox AS before
RUN mkdir -p /d/e /gone /turns /opaque/o && echo 1 > /d/e/1 && echo x > /gone/x && \
    echo f > /file && ln -s /file /link && ln /file /hard && mkfifo /fifo && \
    mkdir -p /opaque/o/p && echo o | tee /opaque/o/1 /opaque/o/p/2 && \
    mkdir /timed && echo 1 | tee /timed/f /timed-f && ln -s 1 /timed/l && \
    touch -hd @0 /timed/* /timed-f /timed
FROM before
RUN rm -r /gone && mkdir /gone && echo y > /gone/y
RUN rm /link && mkdir /link && rmdir /turns && ln -s /d /turns
RUN mv /d/e /d/f && cp /d/f/1 /d/f/2 && ln /d/f/2 /d/f/3
RUN chmod 600 /file && chown 7:8 /fifo && touch -d @1000000000 /hard
RUN rm -r /opaque && mkdir -p /opaque/o/p && echo n > /opaque/o/3
RUN rm -r /timed && mkdir /timed && echo 2 | tee /timed/f /timed-f && ln -s 2 /timed/l && \
    touch -hd @0 /timed/* /timed-f /timed
RUN chmod 4755 /bin/busybox
RUN echo same > /file2 && chmod 0 /file2; mkdir -m 1777 /sticky; mknod /null c 1 3
RUN truncate -s 1M /holes && echo end >> /holes
RUN true
RUN rm -f /file /hard /null && touch /file
RUN ln -s ../../../../etc/passwd /leads; ln -s /leads /circle1; ln -sf /circle2 /circle2
"""

DOCUMENTS = r"""FROM busybox
ARG WHO=world
ENV EXT=txt
COPY <<hello.txt <<"literal" /documents/
Hello $WHO, ${EXT} \$WHO
hello.txt
Hello $WHO
literal
COPY --chmod=755 --chown=3:4 <<-"SCRIPT" /bin/script
	#!/bin/sh
	echo "script: $1"
		indented
	SCRIPT
RUN <<EOF
set -e
sed -n 2p /bin/script
cat > /inner <<INNER
nested $WHO
INNER
EOF
RUN <<-EOF sh -s an-argument
	echo "$0 $1" > /given
	EOF
RUN sh -c "cat /documents/*" > /all && cat <<A >> /all && echo more >> /all
appended
A
RUN <<EOF
#!/bin/awk -f
BEGIN { print "awk" > "/awk" }
EOF
ADD <<x /added
\\ $WHO \" '${WHO}'
x
COPY a.txt <<b /mixed/
text
b
"""

PLAIN = (
    "\ufeff# escape=`\r\n"
    "# a comment\r\n"
    "from busybox as  one \r\n"
    "label  A=b  `\r\n"
    "   # within a line\r\n"
    '   c="d  `\r\n'
    '   e"\r\n'
    "run echo 'one'   two > /said && `\r\n"
    "    # a comment in it\r\n"
    "    echo three >> /said\r\n"
    "\texpose 80 8080/TCP 53/udp 7000-7001\r\n"
    "CMD [ `\r\n"
    '  "a",  `\r\n'
    '  "b" ]\r\n'
    "entrypoint  sh   -c\r\n"
    "env A  words  of   a  line \r\n"
    "stopsignal RTMIN+3\r\n"
    "User 1000:staff\r\n"
    "workdir /a\\b\r\n"
    "healthcheck --interval=1m30s --retries=5 CMD [ `\r\n"
    '  "true" ]\r\n'
)

RUNTIME = r"""FROM busybox AS service
ENTRYPOINT ["/bin/sh"]
CMD ["-c", "true"]
VOLUME /data
EXPOSE 80
ENV A=1
HEALTHCHECK --interval=3s CMD true
STOPSIGNAL 9
SHELL ["/bin/sh", "-eu", "-c"]
FROM service AS other
ENTRYPOINT ["/bin/other"]
RUN mkdir -p /data && echo kept > /data/file
SHELL ["/bin/busybox", "ash", "-c"]
RUN echo $0 > /shell
CMD shell form $A
HEALTHCHECK NONE
USER nobody
WORKDIR "/with space"
WORKDIR $A/b
FROM other
ENV B=$A A=2 C=$A
EXPOSE 81 80/udp
VOLUME ["/data", "/more and", "/$A"]
LABEL version="1.0" description="two words" \
      multi.line="a \
b" "quoted key"=x
ENTRYPOINT []
"""

IGNORED = "FROM busybox\nCOPY . /all/\nCOPY sub/*.t?t dir[12]/x /some/\nCOPY sub /s\n"
IGNORE_FILE = (
    "*\n!*.txt\n!sub\nsub/secret*\n!sub/secret-not\n**/*.bak\ndir1/../dir2\n!dir*/x\n /a b \n"
)

Make = Callable[[pathlib.Path], list[str]]


def _files(directory: pathlib.Path, dockerfile: str) -> None:
    (directory / "Dockerfile").write_bytes(dockerfile.encode())
    (directory / "a.txt").write_text("a\n")
    with tarfile.open(directory / "archive.tar", "w") as archive:
        for name, mode, kind in (
            ("d", 0o2750, tarfile.DIRTYPE), ("d/f", 0o4711, tarfile.REGTYPE),
            ("d/p", 0o600, tarfile.FIFOTYPE), ("s", 0o777, tarfile.SYMTYPE),
            ("d/c", 0o620, tarfile.CHRTYPE), ("b", 0o604, tarfile.BLKTYPE),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.mode, member.type, member.uid, member.gid = mode, kind, 71, 72
            member.linkname = "d/f" if kind == tarfile.SYMTYPE else ""
            member.devmajor, member.devminor = 1, 3
            member.size = 3 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"abc"))


def arguments(directory: pathlib.Path) -> list[str]:
    _files(directory, ARGUMENTS)
    return ["--build-arg", "FROM_OUTSIDE=given", "--build-arg", "OTHER"]


def platforms(directory: pathlib.Path) -> list[str]:
    _files(directory, PLATFORMS)
    return ["--platform", "linux/arm/v7"]


def linked(directory: pathlib.Path) -> list[str]:
    _files(directory, LINKED)
    return ["--target", "linked"]


def linked_alone(directory: pathlib.Path) -> list[str]:
    _files(directory, LINKED)
    return []


def triggers(directory: pathlib.Path) -> list[str]:
    _files(directory, TRIGGERS)
    return ["--build-arg", "WHAT=given"]


def changes(directory: pathlib.Path) -> list[str]:
    _files(directory, CHANGES)
    return []


def documents(directory: pathlib.Path) -> list[str]:
    _files(directory, DOCUMENTS)
    return []


def plain(directory: pathlib.Path) -> list[str]:
    _files(directory, PLAIN)
    return []


def runtime(directory: pathlib.Path) -> list[str]:
    _files(directory, RUNTIME)
    return []


def ignored(directory: pathlib.Path) -> list[str]:
    for name in (
        "sub/a.txt", "sub/b.tat", "sub/secret", "sub/secret-not", "sub/deep/c.bak", "sub/deep/c",
        "dir1/x", "dir1/y", "dir2/x", "dir2/y.txt", "top.txt", "top.md", "a b", "q/z.txt",
    ):  # fmt: skip
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    (directory / "build").mkdir()
    (directory / "build/My.Dockerfile").write_text(IGNORED)
    (directory / "build/My.Dockerfile.dockerignore").write_text(IGNORE_FILE)
    (directory / ".dockerignore").write_text("**\n")
    return ["-f", str(directory / "build/My.Dockerfile")]


def attributes(directory: pathlib.Path) -> list[str]:
    """Make files that have more than content: attributes, holes, names, links, times."""
    odd = directory / "odd"
    odd.mkdir()
    with (odd / "holes").open("wb") as holes:
        holes.truncate(3 << 20)
        holes.seek(1 << 20)
        holes.write(b"data")
    for name in (
        b"new\nline", b"back\\slash", b"\xc3\xa9", b"sp ace", b"-dash", b"*star", b"x" * 200,
    ):  # fmt: skip
        with open(os.fsencode(odd) + b"/" + name, "wb") as file:
            file.write(name)
    os.setxattr(odd / "holes", "user.word", b"value")
    os.link(odd / "holes", odd / "second")
    (odd / "exe").write_text("#!/bin/sh\n")
    (odd / "exe").chmod(stat.S_ISUID | 0o755)
    (odd / "dangling").symlink_to("nowhere")
    (odd / "out").symlink_to("/etc/shadow")
    os.mkfifo(odd / "fifo", 0o640)
    (odd / "empty").mkdir(mode=0o711)
    os.utime(odd / "exe", (1, 1))
    (directory / "Dockerfile").write_text(
        "FROM busybox\nCOPY odd /odd\nCOPY odd/ odd/exe /flat/\nADD --chown=2:3 odd /owned/\n"
        'COPY --chmod=640 odd/exe odd/-dash /mode/\nCOPY ["odd/sp ace", "/sp ace/"]\n'
    )
    return []


_MAKES = [
    arguments, platforms, linked, linked_alone, triggers, changes, documents, plain, runtime,
    ignored, attributes,
]  # fmt: skip


@pytest.mark.parametrize("make", _MAKES)
def test_the_image_is_the_same(
    ketch: Engine, docker_engine: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    options = make(context)
    name = f"kind-{make.__name__.replace('_', '-')}"
    found = []
    for engine in (ketch, docker_engine):
        limited = _LIMITED if engine is docker_engine else ()
        words = ["--provenance=false", *limited, *options, "-t", name, str(context)]
        engine.ok("build", *words, timeout=300)
        found.append(comparable(built.image(engine, name, tmp_path)))
        engine.ok("rmi", name)
    ours, theirs = found
    for part in ("config", "history"):
        assert ours[part] == theirs[part]
    assert len(ours["layers"]) == len(theirs["layers"])
    unlike = [
        (number, *pair)
        for number, pair in enumerate(zip(ours["layers"], theirs["layers"], strict=True))
        if seen(*pair, but=LEFT.get(make, ())) != seen(pair[1], pair[0], but=LEFT.get(make, ()))
    ]
    assert not unlike, pprint.pformat(unlike)
    # What is gone may be said in two ways: each name by itself, or all that a directory had.
    for number in range(len(ours["layers"])):
        after = [built.files({"layers": one["layers"][: number + 1]}) for one in found]
        assert after[0].keys() == after[1].keys(), number


LEFT: dict[Make, set[str]] = {linked: {"kept"}}
"""What docker 26 has otherwise: its store knows no --link, so parents are the base's."""


def comparable(image: dict[str, Any]) -> dict[str, Any]:
    for entry in image["history"]:
        line = built.of_any_version(entry.get("created_by", ""))
        # Of arguments, today's BuildKit names those of the stages below too, and each once.
        entry["created_by"] = re.sub(r"^RUN \|\d+ .*? /bin/sh -c", "RUN /bin/sh -c", line)
    return image


def seen(layer: dict[str, Any], other: dict[str, Any], *, but: Collection[str]) -> dict[str, Any]:
    """Return a layer without what says that something is gone.

    Docker's has a mark of /etc, in which something is mounted there, and no attributes of users.
    """
    return {
        name: [*what[:-1], {key: value for key, value in what[-1].items() if ".user." not in key}]
        for name, what in layer.items()
        if "/.wh." not in f"/{name}" and (name in other or name != "etc") and name not in but
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# escape=`\n# escape=`\nFROM busybox\n", "only one escape parser directive can be used"),
        ("# escape=`\n# Escape = \\\nFROM busybox\n",
         "only one escape parser directive can be used"),
        # Docker says of the end, as of a letter, that it is no modifier.
        ("FROM busybox\nENV A=${X\n", 'failed to process "${X": '),
        ("FROM busybox\nWORKDIR /${X:-\n",
         "failed to process \"/${X:-\": syntax error: missing '}'"),
    ],
    ids=["escape", "other escape", "end of a name", "end of a word"],
)  # fmt: skip
def test_both_refuse(
    ketch: Engine, docker_engine: Engine, tmp_path: pathlib.Path, text: str, said: str
) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    for engine in (ketch, docker_engine):
        done = engine("build", str(tmp_path))
        assert done.status == 1, str(done)
        assert said in done.err, str(done)


@pytest.mark.parametrize("mode", ["99", "07778", "64a"])
def test_modes_that_are_none(ketch: Engine, tmp_path: pathlib.Path, mode: str) -> None:
    """Docker 26 passes over them; today's BuildKit refuses them in these words."""
    (tmp_path / "a.txt").touch()
    for instruction in ("COPY", "ADD"):
        text = f"FROM busybox\n{instruction} --chmod={mode} a.txt /\n"
        (tmp_path / "Dockerfile").write_text(text)
        done = ketch("build", str(tmp_path))
        assert done.status == 1
        assert (
            f"invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
            in done.err
        )
