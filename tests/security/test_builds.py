"""Ways from what a build is given to the host's files and privileges, by the installed program.

Dockerfiles, contexts, archives, repositories, downloads, secrets: those that were published, and
others of their kinds.
"""

import contextlib
import gzip
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import archives
from tests.support.archives import archive, member
from tests.support.commands import Engine
from tests.support.registry import FakeRegistry, Handler, fake
from tests.support.repositories import Repository, served

pytestmark = pytest.mark.timeout(300)

WORD = "the host's own word"

# {host} is a directory of the host's with a file ``marker``; the context has links to it, and to
# the root by way of many parents.
BREAKS = {
    "CVE-2024-23652: the mount point's rest is a link": """FROM busybox
RUN --mount=type=tmpfs,target=/d/e/marker umount /d/e/marker; rm -rf /d; mkdir /d; ln -s {host} /d/e
RUN cat /d/e/marker""",
    "CVE-2024-23652: a file's mount point is a link": """FROM busybox
RUN --mount=target=/d/marker,source=Dockerfile mv /d /d2; ln -s {host} /d
RUN cat /d/marker""",
    "CVE-2024-23653: privileges that nobody allowed": """FROM busybox
RUN --security=insecure true""",
    "CVE-2024-23653: devices that nobody allowed": """FROM busybox
RUN --device=/dev/kmsg true""",
    "CVE-2024-9407: options that are mount's": """FROM busybox
RUN --mount=type=tmpfs,target=/m,bind-propagation=upperdir=/ true""",
    "CVE-2024-9675: a cache by a path": """FROM busybox
RUN --mount=type=cache,id=../../../../../../../..{host},target=/m cat /m/marker""",
    "CVE-2024-9675: a cache that begins with a path": """FROM busybox
RUN --mount=type=cache,from=busybox,source=../../../../../..{host},target=/m cat /m/marker""",
    "CVE-2024-1753: an image's link to the root": """FROM busybox AS other
RUN ln -s / /root-link; ln -s ../../../../../../../.. /parents
FROM busybox
RUN --mount=from=other,source=/root-link{host},target=/m,rw cat /m/marker""",
    "CVE-2024-11218: a context's link to the parents": """FROM busybox
RUN --mount=source=parents{host},target=/m,rw cat /m/marker""",
    "CVE-2026-55686: a working directory through a link": """FROM busybox
RUN ln -s {host} /w
WORKDIR /w/made
COPY --chown=1:1 Dockerfile /w/marker
ADD --chown=1:1 --chmod=777 Dockerfile /w/
VOLUME /w
RUN cmp Dockerfile marker || false""",
    "a stage's link": """FROM busybox AS other
RUN ln -s {host} /link
FROM busybox
COPY --from=other /link/marker /""",
    "a context's link": "FROM busybox\nCOPY link/marker /",
    "files of accounts that are links": """FROM busybox
RUN ln -sf {host}/marker /etc/passwd; ln -sf {host}/marker /etc/group
USER the
RUN cat /etc/passwd""",
    "where names and secrets are mounted": """FROM busybox
RUN rm -rf /etc/hosts /run; ln -s {host} /run; ln -s {host}/hosts /etc/hosts
RUN --mount=type=secret,id=w,target=/run/word --mount=type=tmpfs,target=/run/made \\
    cat /run/marker""",
    "a heredoc's name": """FROM busybox
COPY <<../../../../../../..{host}/e /
../../../../../../..{host}/e""",
    "a mount in place of everything": """FROM busybox
RUN --mount=type=tmpfs,target=/ cat {host}/marker""",
    "a mount in place of everything, said otherwise": """FROM busybox
RUN --mount=target=/a/../..,rw cat {host}/marker""",
    "a mount within a mount, through its link": """FROM busybox AS other
RUN ln -s {host} /link
FROM busybox
RUN --mount=from=other,target=/m,rw --mount=type=tmpfs,target=/m/link/t cat /m/link/marker""",
    "a mount over another's point, which is a link by then": """FROM busybox
RUN --mount=type=cache,id=turned,target=/c rm -rf /c/d; ln -s {host} /c/d
RUN --mount=type=cache,id=turned,target=/c --mount=type=bind,target=/c/d/sub cat /c/d/marker""",
    "a copy through links of procfs": """FROM busybox AS other
RUN ln -s /proc/self/root /self; ln -s /proc/1/cwd /cwd
FROM busybox
COPY --from=other /self{host}/marker /""",
    "a copy of what the context's links of procfs lead to": "FROM busybox\nCOPY procfs /",
    "a stage that is a file of the host's": "FROM busybox\nCOPY --from={host} marker /",
    "a frontend that nobody asked about": """# syntax={host}/marker
FROM busybox
RUN cat {host}/marker""",
    "variables that name files": """FROM busybox
ENV BASH_ENV={host}/marker ENV={host}/marker LD_PRELOAD={host}/marker
RUN [ -z "$(cat {host}/marker)" ] || exit 0; exit 1""",
}


@pytest.mark.parametrize("text", BREAKS.values(), ids=BREAKS)
def test_no_dockerfile_leads_to_the_host(ketch: Engine, tmp_path: pathlib.Path, text: str) -> None:
    host, context = tmp_path / "host", tmp_path / "context"
    for directory in (host, context):
        directory.mkdir()
    (host / "marker").write_text(WORD)
    before = _seen(host)
    (context / "link").symlink_to(host)
    (context / "parents").symlink_to("../" * 30)
    (context / "procfs").symlink_to(f"/proc/self/root{host}/marker")
    (context / "Dockerfile").write_text(text.replace("{host}", str(host)))
    secret = ["--secret", f"id=w,src={context}/Dockerfile"]
    done = ketch("build", "--no-cache", "--progress", "plain", *secret, str(context))
    assert done.status == 1, str(done)
    assert "failed to solve" in done.err
    assert WORD not in done.out + done.err
    assert _seen(host) == before


def _seen(host: pathlib.Path) -> list[object]:
    facts = [os.lstat(one) for one in (host, host / "marker")]
    return [sorted(os.listdir(host)), [(one.st_mode, one.st_uid, one.st_ctime_ns) for one in facts]]


def _linked(name: bytes, *more: bytes) -> Callable[[str], bytes]:
    return lambda host: archive(
        member(name, archives.SYMLINK, link=os.fsencode(host)),
        *(member(name + b"/" + one, data=b"evil", mode=0o4777) for one in more),
    )


# What is added to an image at /in, on which a step looks for what came of it.
ARCHIVES: dict[str, Callable[[str], bytes]] = {
    "a file through a link": _linked(b"l", b"marker"),
    "a file through a link to the parents": lambda host: archive(
        member(b"l", archives.SYMLINK, link=b"../" * 20 + os.fsencode(host)[1:]),
        member(b"l/marker", data=b"evil"),
    ),
    "a hard link to the host's": lambda host: archive(
        member(b"h", archives.HARD_LINK, link=b"../" * 20 + os.fsencode(host)[1:] + b"/marker"),
    ),
    "a hard link through a link": lambda host: archive(
        member(b"l", archives.SYMLINK, link=os.fsencode(host)),
        member(b"h", archives.HARD_LINK, link=b"l/marker"),
    ),
    "an absolute name": lambda host: archive(member(os.fsencode(host) + b"/marker", data=b"evil")),
    "a directory that turns into a link": lambda host: archive(
        member(b"d", archives.DIRECTORY, mode=0o755),
        member(b"d", archives.SYMLINK, link=os.fsencode(host)),
        member(b"d/new", data=b"evil"),
        member(b"d", archives.DIRECTORY, mode=0o777, uid=5),
    ),
    "whiteouts": lambda host: archive(
        member(b"l", archives.SYMLINK, link=os.fsencode(host)),
        member(b"l/.wh.marker"),
        member(b"l/.wh..wh..opq"),
    ),
    "a name by a record": lambda host: archive(
        member(b"x", data=b"evil", pax={b"path": b"../" * 9 + os.fsencode(host)[1:] + b"/marker"})
    ),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES)
def test_no_archive_leads_to_the_host(
    ketch: Engine,
    tmp_path: pathlib.Path,
    make: Callable[[str], bytes],
    pack: Callable[[bytes], bytes],
) -> None:
    host, context = tmp_path / "host", tmp_path / "context"
    for directory in (host, context):
        directory.mkdir()
    (host / "marker").write_text(WORD)
    before = _seen(host)
    evil = pack(make(str(host)))
    (context / "evil.tar").write_bytes(evil)
    (context / "Dockerfile").write_text(
        "FROM busybox\nADD evil.tar /in/\nRUN cat /in/*/marker /in/h /in/marker 2>/dev/null; true\n"
    )
    told = ketch("build", "--no-cache", "--progress", "plain", str(context))
    # The same archive is the whole context, with a Dockerfile behind it.
    text = b"FROM busybox\nCOPY . /in/\nRUN cat /in/*/marker /in/h 2>/dev/null; true\n"
    whole = make(str(host))[:-1024] + archive(member(b"Dockerfile", data=text))
    given = ketch("build", "--no-cache", "--progress", "plain", "-", stdin=pack(whole))
    for done in (told, given):
        assert done.status in {0, 1}, str(done)
        assert WORD not in done.out + done.err
        assert "internal error" not in done.err
    assert _seen(host) == before


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
@pytest.mark.parametrize("kind", [archives.SYMLINK, archives.HARD_LINK])
def test_what_a_build_reads_first_is_in_its_context(
    ketch: Engine, tmp_path: pathlib.Path, name: str, kind: str
) -> None:
    """An error would show the lines of a Dockerfile, and a malformed pattern."""
    marker = tmp_path / "marker"
    marker.write_text(f"[{WORD}\n")
    others = [
        member(one.encode(), data=b"FROM busybox\nCOPY . /all\n")
        for one in ("Dockerfile",) if one != name
    ]  # fmt: skip
    for link in (str(marker), "../" * 20 + str(marker)[1:], "/proc/self/fd/0"):
        evil = archive(member(name.encode(), kind, link=link.encode()), *others)
        done = ketch("build", "--progress", "plain", "-", stdin=evil)
        assert WORD not in done.out + done.err
        assert "internal error" not in done.err
        if name == "Dockerfile":
            assert done.status == 1


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with fake() as one:
        yield one


@pytest.mark.parametrize("wanted", ["Dockerfile", ".dockerignore", "sub"])
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_no_repository_leads_to_the_host(
    ketch: Engine, tmp_path: pathlib.Path, wanted: str
) -> None:
    host, root = tmp_path / "host", tmp_path / "repositories"
    host.mkdir()
    for name in ("marker", "Dockerfile"):
        (host / name).write_text(f"[{WORD}\n")
    project = Repository(root / "project.git")
    if wanted != "Dockerfile":
        (project.path / "Dockerfile").write_text("FROM busybox\nCOPY . /all\n")
    (project.path / wanted).symlink_to(host if wanted == "sub" else host / "marker")
    project.commit(config=f"[core]\n\tfsmonitor = touch {host}/new\n")
    with served(root) as server:
        url = f"http://{server.host}/project.git"
        for rest in ("", "#:sub", "#main:.git", f"#main:../..{host}", "#-u"):
            done = ketch("build", "--progress", "plain", f"{url}{rest}")
            assert WORD not in done.out + done.err
            assert "internal error" not in done.err
            assert done.status == 1 or not rest, str(done)
    assert sorted(os.listdir(host)) == ["Dockerfile", "marker"]


def test_no_download_leads_to_the_host(
    ketch: Engine, server: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    marker = tmp_path / "marker"
    marker.write_text(WORD)
    answered: dict[str, str] = {}
    status = [302]

    def hook(request: Handler) -> bool:
        request.answer(status[0], b"content", dict(answered))
        return True

    server.hooks[:] = [hook]
    context = tmp_path / "context"
    context.mkdir()

    def build(url: str, *words: str) -> str:
        (context / "Dockerfile").write_text(
            f"FROM busybox\nADD {url} /in/\nRUN cat /in/*; find /in\n"
        )
        done = ketch("build", "--no-cache", "--progress=plain", *words, str(context))
        assert WORD not in done.out + done.err
        assert "internal error" not in done.err
        return done.err

    base = f"http://{server.host}"
    for target in (f"file://{marker}", "unix:///run/docker.sock", "\\\\host\\x"):
        answered["Location"] = target
        assert "ERROR" in build(f"{base}/file")
    answered.clear()
    status[0] = 200
    for name in (f"../../..{marker}", ".."):
        answered["Content-Disposition"] = f'attachment; filename="{name}"'
        assert "find: " not in build(f"{base}/file")
    # Nothing that is written in an address becomes a line of a request's head.
    answered.clear()
    server.requests.clear()
    build(f"{base}/a%0d%0aX-Evil:%201")
    assert server.requests
    assert not any("X-Evil" in fields for _, _, fields in server.requests)


def test_what_is_shown_to_a_server_is_shown_to_no_other(
    ketch: Engine, server: FakeRegistry, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "word").write_text("Bearer s3cret")
    with fake() as other:
        target = f"http://localhost:{other.host.rpartition(':')[2]}/there"

        def lead(request: Handler) -> bool:
            request.answer(302, headers={"Location": target})
            return True

        def give(request: Handler) -> bool:
            request.answer(200, b"content")
            return True

        server.hooks[:], other.hooks[:] = [lead], [give]
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD http://{server.host}/here /\n")
        secret = f"id=HTTP_AUTH_HEADER_127.0.0.1,src={tmp_path}/word"
        done = ketch("build", "--no-cache", "--progress=plain", "--secret", secret, str(tmp_path))
        assert done.status == 0, str(done)
        assert [one[2]["Authorization"] for one in server.requests] == ["Bearer s3cret"]
        assert ["Authorization" in one[2] for one in other.requests] == [False]
        assert "s3cret" not in done.err


SECRETS = """FROM busybox
RUN --mount=type=secret,id=w --mount=type=cache,target=/c test -s /run/secrets/w
RUN --mount=type=secret,id=w,env=WORD,target=/s test "$WORD" = "$(cat /s)"
RUN --mount=type=secret,id=w,target=/e/t/c trap 'exit 0' TERM; while :; do sleep 1; done
RUN --mount=type=secret,id=w,env=WORD sh -c 'exit $EXIT'
"""


def test_a_secret_is_nowhere_but_in_its_step(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """In no file of the engine's, output, record, cache, attestation, argument or variable."""
    word = os.urandom(16).hex()
    context, made = tmp_path / "context", tmp_path / "made"
    context.mkdir()
    (tmp_path / "word").write_text(word)
    said = []
    for status in ("0", "3"):
        text = SECRETS.replace("$EXIT", status)
        (context / "Dockerfile").write_text(text)
        words = [
            "--secret", f"id=w,src={tmp_path}/word", "--provenance", "mode=max", "-t", "secretive",
            "-o", f"type=oci,tar=false,dest={made}-{status}", "-o", "type=image",
            "--cache-to", f"type=local,dest={tmp_path}/kept,mode=max",
            "--metadata-file", f"{made}-{status}.json", "--explain",
        ]  # fmt: skip
        process = ketch.start("build", "--progress", "rawjson", *words, str(context))
        try:
            if status == "0":
                step = _step_that_waits(process)
                assert _with(word) == []
                # As whoever that is: an ordinary user's step knows no id of ours.
                os.kill(step, signal.SIGTERM)
            out, errors = process.communicate(timeout=100)
        finally:
            process.kill()
        assert (process.returncode == 0) is (status == "0"), errors
        said += [out, errors]
    assert not [one for one in said if word.encode() in one]
    root = ketch.ok("info", "--format", "{{.DockerRootDir}}")
    (state,) = re.findall(r"(?:--state |XDG_RUNTIME_DIR=)(\S+)", " ".join(ketch.prefix))
    found = subprocess.run(
        ["grep", "-rlaF", "-e", word, root, *filter(os.path.exists, [state]), str(context),
         str(tmp_path / "kept"), *map(str, tmp_path.glob("made*"))],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (found.stdout, found.returncode) == ("", 1), found.stderr
    assert word not in ketch.ok("history", "--no-trunc", "secretive")
    ketch("rmi", "secretive")


def _step_that_waits(process: "subprocess.Popen[bytes]") -> int:
    """Return the pid of the program of the step that waits, which has its secret by then."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        for found in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                said = (found / "cmdline").read_bytes()
                if b"; while :; do" in said and os.path.exists(found / "root/e/t/c"):
                    return int(found.name)
        time.sleep(0.1)
    raise AssertionError("no step waits")


def _with(word: str) -> list[str]:
    """Return the processes among whose words and variables there is this one."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                if word.encode() in (process / name).read_bytes():
                    found.append(f"{process}/{name}")
    return found


def test_what_a_step_holds_on_to_is_gone_in_the_next(ketch: Engine, tmp_path: pathlib.Path) -> None:
    """Mounts, descriptors of them, processes, sockets, and what lies beneath a mount point."""
    (tmp_path / "word").write_text("hush")
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=tmpfs,target=/t --mount=type=secret,id=w,target=/s/t "
        "--mount=type=cache,target=/c/d touch /t/x /c/d/x; "
        "(cd /t; setsid sh -c 'exec 3</s/t; sleep 600' &) ; sleep 0.3\n"
        "RUN cat /proc/*/cmdline | tr '\\0' ' ' | grep -c 'sleep 60[0]'; ls -d /t /s /c 2>&1; "
        "grep -cE ' /(t|s/t|c/d) ' /proc/mounts; ls /proc/[0-9]*/fd/3 2>/dev/null; true\n"
    )
    secret = ("--secret", f"id=w,src={tmp_path}/word")
    done = ketch("build", "--no-cache", "--progress=plain", *secret, str(tmp_path))
    said = [line.partition(" ")[2] for line in done.err.splitlines() if line[:1] == "#"]
    told = [line.partition(" ")[2] for line in said if line[:1].isdigit() and "." in line[:6]]
    assert "hush" not in done.err
    assert told == ["0", "ls: /t: No such file or directory", "ls: /s: No such file or directory",
                    "ls: /c: No such file or directory", "0"], str(done)  # fmt: skip
