"""Images that ketch builds and those that BuildKit in dockerd builds from the same files."""

import os
import pathlib
import tarfile
from collections.abc import Callable

import pytest

from tests.support import built
from tests.support.commands import Engine

Make = Callable[[pathlib.Path], None]

# Limits that docker's own defaults exceed where a container's root may not raise them.
_LIMITED = ("--ulimit", "nofile=1024:1024")

INSTRUCTIONS = r"""ARG BASE=busybox
ARG UNUSED
FROM ${BASE} AS one
MAINTAINER Somebody <somebody@host.example>
ARG GREETING=hello
ARG GIVEN
ENV A=1 B="two words" C=$GREETING\ ${GIVEN:-none}
ENV OLD style value
LABEL plain=x "with space"="a b" multi="line one \
line two" empty=
RUN echo "$GREETING $GIVEN $A" > /greeting && \
    echo worker:x:4321:4321::/:/bin/sh >> /etc/passwd && \
    echo worker:x:4321: >> /etc/group
SHELL ["/bin/sh", "-ec"]
RUN test "$B" = "two words"; mkdir -p /data/d; chmod 1777 /data/d; ln -s d /data/l; \
    touch /data/f; ln /data/f /data/g
WORKDIR /work
WORKDIR sub/dir
USER worker:worker
RUN id -u > /data/d/who && pwd >> /data/d/who
USER 12:34
WORKDIR /owned
EXPOSE 80 443/tcp 53/UDP 8000-8002
VOLUME /v1 /v2
VOLUME ["/v3"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=2s --retries=3 --start-period=1s CMD wget -q http://localhost/
ENTRYPOINT ["/bin/sh", "-c"]
CMD echo $A
ONBUILD RUN echo later
USER root
RUN rm /data/f && echo more >> /greeting
CMD ["exec", "form"]
"""

COPIES = r"""FROM busybox AS other
RUN mkdir -p /o/x/y && echo 1 > /o/x/y/1 && echo 2 > /o/2 && chown -R 7:8 /o && chmod 640 /o/2
FROM busybox
RUN echo worker:x:4321:4321::/:/bin/sh >> /etc/passwd && \
    echo worker:x:4321: >> /etc/group && \
    mkdir /there && ln -s there /link
COPY a.txt /
COPY a.txt renamed
COPY a.txt b.txt /many/
COPY tree /tree/
COPY tree/. /dot
COPY *.txt /globbed/
COPY --chown=worker:9 a.txt /chowned
COPY --chown=5 --chmod=0604 tree /both/
COPY --from=other /o /from/
COPY --from=other --chown=1:2 /o/2 /from-chowned
COPY link-to-tree /linked/
COPY a.txt /link/through
COPY [ "with space", "/with space/" ]
COPY exec.sh /bin/
ADD archive.tar /unpacked/
ADD archive.tar.gz /unpacked-gz/
ADD a.txt /added
COPY --link b.txt /linked-layer/b
COPY <<one <<"two" /here/
hello $PATH
one
not $expanded
two
COPY <<-EOF /tabs
	stripped
	EOF
RUN <<EOF
echo from a document > /doc
cat /doc
EOF
RUN <<EOF cat > /doc2
inline
EOF
WORKDIR /made
COPY a.txt .
"""

STAGES = r"""ARG TAG=latest
FROM busybox:${TAG} AS base
ENV STAGE=base
RUN echo base > /base
ONBUILD RUN echo later > /later
FROM base AS unused
RUN false
FROM base AS left
RUN echo left > /left
FROM scratch AS bare
COPY --from=left /left /base /
FROM bare
COPY --from=base /base /again
COPY --from=busybox /bin/busybox /bin/busybox
LABEL a=b
CMD ["/bin/busybox", "true"]
"""

IGNORED = "FROM busybox\nCOPY . /all/\n"
IGNORE_FILE = "# comment\n*.log\n!keep.log\nbuild\n!build/out\n**/node_modules\nsub/*/x?\n"


def write(directory: pathlib.Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def instructions(directory: pathlib.Path) -> None:
    write(directory, {"Dockerfile": INSTRUCTIONS})


def copies(directory: pathlib.Path) -> None:
    write(directory, {
        "Dockerfile": COPIES, "a.txt": "a", "b.txt": "bb", "exec.sh": "#!/bin/sh\n",
        "tree/one": "1", "tree/sub/two": "2", "tree/sub/deep/three": "3",
        "with space/file name": "s",
    })  # fmt: skip
    (directory / "exec.sh").chmod(0o755)
    (directory / "tree").chmod(0o711)
    (directory / "tree/sub").chmod(0o750)
    (directory / "tree/sub/two").chmod(0o600)
    (directory / "tree/l").symlink_to("sub/two")
    os.link(directory / "tree/one", directory / "tree/same")
    (directory / "link-to-tree").symlink_to("tree")
    for name, mode in (("archive.tar", "w"), ("archive.tar.gz", "w:gz")):
        with tarfile.open(directory / name, mode) as archive:  # type: ignore[call-overload]
            archive.add(directory / "tree", "tree", filter=_owned)


def _owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid = 77, 88
    member.uname = member.gname = ""
    return member


def stages(directory: pathlib.Path) -> None:
    write(directory, {"Dockerfile": STAGES})


def ignored(directory: pathlib.Path) -> None:
    names = (
        "a.log", "keep.log", "a", "build/in", "build/out/bin", "sub/node_modules/m", "sub/a/x1",
        "sub/a/y1", "sub/x1", "node_modules/n",
    )  # fmt: skip
    write(
        directory, {"Dockerfile": IGNORED, ".dockerignore": IGNORE_FILE} | dict.fromkeys(names, "")
    )


@pytest.mark.parametrize("make", [instructions, copies, stages, ignored])
def test_the_image_is_the_same(
    ketch: Engine, docker_engine: Engine, make: Make, tmp_path: pathlib.Path
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    make(context)
    found = []
    for engine in (ketch, docker_engine):
        name = f"like-{make.__name__}"
        arguments = [
            "--build-arg",
            "GIVEN=given",
            "--label",
            "late=label",
            "-t",
            name,
            str(context),
        ]
        limited = _LIMITED if engine is docker_engine else ()
        engine.ok("build", "--provenance=false", *limited, *arguments, timeout=300)
        found.append(built.image(engine, name, tmp_path))
        engine.ok("rmi", name)
    ours, theirs = found
    for image in found:
        for entry in image["history"]:
            entry["created_by"] = built.of_any_version(entry.get("created_by", ""))
    assert ours["config"] == theirs["config"]
    assert ours["history"] == theirs["history"]
    assert len(ours["layers"]) == len(theirs["layers"])
    for number, (one, other) in enumerate(zip(ours["layers"], theirs["layers"], strict=True)):
        # There /etc is changed by what is mounted in it.
        other = {name: what for name, what in other.items() if name in one or name != "etc"}  # noqa: PLW2901
        assert one == other, f"layer {number}"
