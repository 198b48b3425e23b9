"""Published ways from a Dockerfile to the host's files and privileges, by the installed program."""

import os
import pathlib

import pytest

from tests.support.commands import Engine

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
