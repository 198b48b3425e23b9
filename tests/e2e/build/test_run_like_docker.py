"""What a program sees that RUN runs, as BuildKit in dockerd shows it to the same program."""

import pathlib
import pprint

from tests.support import built
from tests.support.commands import Engine

# Limits that docker's own defaults exceed where a container's root may not raise them.
_LIMITED = ("--ulimit", "nofile=1024:1024")

SEEN = r"""FROM busybox AS base
RUN mkdir -p /o/sub && echo 1 > /o/1 && echo 2 > /o/sub/2 && chown 7:8 /o/sub && chmod 711 /o/sub
FROM busybox
ENV A=b
ARG GIVEN
ARG BUILDKIT_SANDBOX_HOSTNAME
RUN env | sort; id; pwd; hostname; cat /etc/hosts; umask; ulimit -n
RUN grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status; ls /dev | sort
RUN grep -E ' / | /proc| /sys | /dev' /proc/mounts | cut -d' ' -f2- | grep -v '^/ ' | \
    grep -v devtmpfs | grep -v '/proc/\(keys\|timer_list\|acpi\|interrupts\)' | sort
RUN exec 2>&1; touch /proc/sys/x; (echo 1 > /proc/sys/kernel/panic); mount -t tmpfs x /tmp; true
RUN echo $$; ls -d /proc/[0-9]* | head -1
RUN exec 2>&1; cat /etc/hostname; echo mine > /etc/hostname; (echo x >> /etc/hosts); \
    (echo x > /etc/resolv.conf); true
RUN --mount=target=/ctx find /ctx -exec stat -c '%n %a %u %g %F' {} + | sort; \
    exec 2>&1; (echo x > /ctx/new); true
RUN --mount=target=/ctx,rw echo x > /ctx/new; rm /ctx/a; find /ctx | sort
RUN --mount=target=/ctx find /ctx | sort
RUN --mount=source=d/b,target=/x/y cat /x/y; stat -c '%n %a %u %g %F' /x /x/y
RUN --mount=from=base,source=o,target=/o,readwrite find /o -exec stat -c '%n %a %u %g' {} + | sort
RUN --mount=from=base,source=/o/sub,target=relative ls /relative relative
RUN --mount=type=cache,target=/c stat -c '%a %u %g' /c; ls -A /c; echo 1 > /c/one
RUN --mount=type=cache,target=/other,id=/c ls -A /other
RUN --mount=type=cache,target=/c,uid=7,gid=8,mode=0750 stat -c '%a %u %g' /c; ls -A /c; echo > /c/2
RUN --mount=type=cache,target=/c,from=base,source=o ls -A /c; rm /c/1; echo > /c/3
RUN --mount=type=cache,target=/c,from=base,source=o,sharing=locked ls -A /c
RUN --mount=type=cache,target=/c,from=base,source=o,id=p,sharing=private,ro touch /c/x 2>&1; ls /c
RUN --mount=type=tmpfs,target=/t stat -c '%a %u %g' /t; touch /t/x; grep ' /t ' /proc/mounts
RUN --mount=type=tmpfs,target=/tmp,size=4m stat -c '%a' /tmp; df -k /tmp | tail -1
RUN --mount=type=secret,id=word cat /run/secrets/word; stat -c '%a %u %g' /run/secrets/word; \
    grep -o '/run/secrets.*' /proc/mounts | cut -d, -f1
RUN --mount=type=secret,id=word,target=/s,mode=0444,uid=5,gid=6 stat -c '%a %u %g %s' /s
RUN --mount=type=secret,id=none ls /run 2>&1; ls /run/secrets 2>&1; true
RUN --network=none ip -o link | cut -d: -f2; cat /etc/resolv.conf | wc -l
RUN <<EOF
#!/bin/cat
itself
EOF
RUN <<one cat && cat <<two
1
one
2
two
USER 1234
WORKDIR /made/here
RUN id; pwd; env | grep HOME; stat -c '%u %g %a' .; stat -c '%a %u' /dev/shm /dev/null /tmp
"""


def test_programs_see_the_same(
    ketch: Engine, docker_engine: Engine, tmp_path: pathlib.Path
) -> None:
    context = tmp_path / "context"
    (context / "d").mkdir(parents=True)
    (context / "a").write_text("a")
    (context / "d/b").write_text("b\n")
    (context / "d/b").chmod(0o640)
    (context / "d").chmod(0o750)
    (context / "Dockerfile").write_text(SEEN)
    (tmp_path / "word").write_text("hush")
    told, images = [], []
    for engine in (ketch, docker_engine):
        ran = engine(
            "build", "--progress=plain", "--no-cache", *_LIMITED, "--provenance=false",
            "--secret", f"id=word,src={tmp_path}/word", "--build-arg", "GIVEN=1",
            "--build-arg", "http_proxy=http://nobody.example", "-t", "seen", str(context),
            timeout=300,
        )  # fmt: skip
        assert ran.status == 0, ran.err
        told.append(steps(ran.err))
        images.append(built.image(engine, "seen", tmp_path))
        engine.ok("rmi", "seen")
    ours, theirs = told
    assert ours.keys() == theirs.keys()
    wrong = [(step, seen, theirs[step]) for step, seen in ours.items() if seen != theirs[step]]
    assert not wrong, pprint.pformat(wrong)
    for layer in images[1]["layers"][1:]:
        # Changed by the mount points alone, which are gone again: its times tell of them there.
        if layer.keys() == {"etc"}:
            layer.clear()
    pairs = zip(*(image["layers"] for image in images), strict=True)
    unlike = [(number, *pair) for number, pair in enumerate(pairs) if pair[0] != pair[1]]
    assert not unlike, pprint.pformat(unlike)


def steps(progress: str) -> dict[str, list[str]]:
    """Return what each RUN has written, by what it says."""
    names: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for line in progress.splitlines():
        number, _, rest = line.partition(" ")
        if rest.startswith("[") and "] RUN " in rest:
            names[number] = rest.partition("] ")[2]
            found.setdefault(names[number], [])
        elif number in names and rest[:1].isdigit():
            found[names[number]].append(rest.partition(" ")[2])
    return found
