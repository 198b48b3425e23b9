"""``ketch mount`` and ``umount``, as root and as a user inside ``ketch unshare``."""

import contextlib
import json
import os
import pathlib
import subprocess

import pytest

from tests.support.commands import Engine
from tests.support.users import User

# One script for both, since a user's mounts show inside ``ketch unshare`` alone.
_SCRIPT = r"""
set -e
ketch="$*"
$ketch create --name held busybox \
    sh -c 'cat /before; echo run > /during; exec sleep 1000' >/dev/null
at=$($ketch mount held)
echo before > "$at/before"
echo before-2 > "$at/copied"
[ "$($ketch mount held)" = "$at" ] || echo "mounted twice"
$ketch mount --no-trunc | sed "s|$at|PLACE|; s|$($ketch inspect -f '{{.Id}}' held)|ID|"
echo "copied: $($ketch cp held:/copied - | tar xO)"
$ketch start held >/dev/null
until [ -s "$at/during" ]; do sleep 0.05; done
echo "ran: $(cat "$at/during"), read: $($ketch logs held)"
echo outside > "$at/outside"
echo "inside: $($ketch exec held cat /outside)"
$ketch stop -t 0 held >/dev/null
$ketch umount held >/dev/null
echo "still: $(cat "$at/outside")"
$ketch umount held >/dev/null
echo "gone: $(ls "$at")"
$ketch umount held || echo "status $?"
$ketch start held >/dev/null
at=$($ketch mount held)
echo "of a running one: $(cat "$at/outside")"
$ketch mount held >/dev/null
$ketch umount --force held >/dev/null
echo "gone: $(ls "$at")"
$ketch mount held >/dev/null
$ketch rm -f held >/dev/null
[ -e "$at" ] || echo "removed"
image=$($ketch image mount busybox)
ls "$image" | grep -x bin
touch "$image/x" 2>/dev/null || echo "read-only"
$ketch image mount --format json
$ketch image umount --all >/dev/null
$ketch image mount
! grep "$image" /proc/self/mountinfo
"""
_SAID = """\
ID  PLACE
copied: before-2
ran: run, read: before
inside: outside
still: outside
gone:
status 125
of a running one: outside
gone:
removed
bin
read-only
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_root_is_mounted_as_often_as_asked_for(request: pytest.FixtureRequest, who: str) -> None:
    if who == "root":
        ketch: Engine = request.getfixturevalue("ketch")
        done = subprocess.run(
            ["sh", "-c", _SCRIPT, "sh", *ketch.prefix], capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        out, err = done.stdout, done.stderr
    else:
        user: User = request.getfixturevalue("user")
        told = user.run("ketch", "unshare", "sh", "-c", _SCRIPT, "sh", "ketch", timeout=120)
        out, err = told.out, told.err
    lines = [line.rstrip() for line in out.splitlines()]
    said = _SAID.splitlines()
    assert lines[: len(said)] == said, err
    (shown,) = json.loads("\n".join(lines[len(said) :]))
    assert shown["Repositories"] == ["docker.io/library/busybox:latest"]
    assert shown["mountpoint"].endswith("/merged")


def test_a_user_is_told_to_be_inside_first(user: User) -> None:
    for words in (["mount"], ["container", "umount", "x"], ["image", "mount", "busybox"]):
        told = user.ketch(*words)
        assert (told.status, "ketch unshare" in told.err) == (125, True), str(told)


def test_what_is_mounted_elsewhere_is_told_until_nobody_is_there(ketch: Engine) -> None:
    ketch.ok("create", "--name", "held", "busybox", "true")
    words = ["unshare", "--mount", "sh", "-c", '"$@" >&2; echo ready; read line', "sh"]
    try:
        with subprocess.Popen(
            [*words, *ketch.prefix, "mount", "held"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as elsewhere:  # fmt: skip
            assert elsewhere.stdout is not None
            assert elsewhere.stdout.readline() == "ready\n"
            assert ketch("mount").out == ""
            for command in ("mount", "umount", "start"):
                told = ketch(command, "held")
                assert told.status != 0
                assert "mounted in another mount namespace" in told.err, str(told)
        # The number of a namespace that has gone is the next one's that is made.
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                other = stack.enter_context(
                    subprocess.Popen(["unshare", "--mount", "cat"], stdin=subprocess.PIPE)
                )
                stack.callback(other.kill)
            assert ketch.ok("start", "-a", "held") == ""
        at = pathlib.Path(ketch.ok("mount", "held"))
        assert os.path.ismount(at)
        assert ketch("mount", "held", "nobody").status == 125
    finally:
        ketch.ok("rm", "-f", "held")
