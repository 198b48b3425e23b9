"""What dockerd 26 has no words for yet, or says elsewhere: looked at from inside its image."""

import pathlib
import tarfile

from tests.support.commands import Engine

TEXT = r"""# syntax=docker/dockerfile:1
# escape=`
ARG V=1
FROM --platform=$BUILDPLATFORM busybox AS a
ARG V
ARG TARGETPLATFORM TARGETSTAGE
ENV S=foobarfoo `
    EMPTY=
LABEL a=${S:-d}${EMPTY:-d}${EMPTY-d}${S:+p}${EMPTY:+p}${EMPTY+p} `
      b=${S#foo},${S##*o},${S%foo},${S%%o*},${S/foo/X},${S//foo/X},${S:?e},${EMPTY?e} `
      c=$TARGETSTAGE$V
COPY --chmod=u=rwx,go=r file /symbolic
COPY --parents d/./e/deep d/near /parents/
COPY --exclude=*.md --exclude=d/e . /excluded/
ADD --unpack=true t.tar /unpacked/
ADD --unpack=false t.tar /whole/
RUN <<one cat >/1 && cat <<"two" >/2
a $S
one
b $S
two
RUN <<EOF
#!/bin/sh -eu
test "$0" != sh
echo script > /3
EOF
COPY <<-EOF <<'EOG' /documents/
	t $S
	EOF
q $S
EOG
RUN --mount=type=tmpfs,target=/t,size=1m --network=none `
    test "$(stat -f -c %b /t)" = 256 && test "$(ls /sys/class/net)" = lo
RUN --mount=type=cache,id=language,target=/c test ! -e /c/mark && touch /c/mark
ONBUILD COPY file /triggered
FROM a
HEALTHCHECK NONE
"""
FILES = """/1 a foobarfoo
/2 b $S
/3 script
/documents/EOF t foobarfoo
/documents/EOG q $S
/excluded/d/near near
/excluded/file file
/parents/d/near near
/parents/e/deep deep
/symbolic file
/triggered file
/unpacked/near near"""


def test_words_of_todays_frontend(ketch: Engine, tmp_path: pathlib.Path) -> None:
    for name in ("file", "r.md", "d/near", "d/e/deep"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"{path.name}\n")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        archive.add(tmp_path / "d/near", "near")
    (tmp_path / "Dockerfile").write_text(TEXT)
    # Caches of the second namespace are not the first one's.
    for namespace in ("", "other"):
        named = ("--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={namespace}") if namespace else ()
        ketch.ok("build", "--no-cache", *named, "-q", "-t", "language", str(tmp_path))
    (tmp_path / "Dockerfile").write_text("FROM given\nRUN true\n")
    ketch.ok("build", "-q", "--build-context", "given=docker-image://language", str(tmp_path))
    labels = ketch.ok("inspect", "-f", "{{range .Config.Labels}}{{.}} {{end}}", "language")
    assert labels.split() == [
        "foobarfoodpp", "barfoo,,foobar,f,Xbarfoo,XbarX,foobarfoo,", "default1",
    ]  # fmt: skip
    look = (
        "cd /; for f in [1-3] documents/* excluded/d/* excluded/file parents/*/* symbolic "
        "triggered unpacked/*; do echo /$f $(cat $f); done; stat -c %a symbolic; ls whole excluded"
    )
    told = ketch.ok("run", "--rm", "language", "sh", "-c", look)
    assert told.startswith(FILES)
    assert told.removeprefix(FILES).split() == [
        "744", "excluded:", "Dockerfile", "d", "file", "t.tar", "whole:", "t.tar",
    ]  # fmt: skip
    ketch.ok("rmi", "language")
    ketch.ok("builder", "prune", "-af")
