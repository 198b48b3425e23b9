"""--chmod: octal and symbolic, held against what chmod(1) makes of the same.

But for the sticky bit, which GNU takes to be the others' and BSD nobody's.
"""

import os
import subprocess
from pathlib import Path

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import modes

_SYMBOLIC = [
    "go-w", "u=rw,g=r,o=r", "a+X", "u+rw,g+r,o-x,o+w", "u=rwx,go=u-w", "go=", "a=",
    "+w", "-x", "g=o", "o=u", "go=u", "g+u", "o-g", "u+x,g=u", "a=r,u+w", "ug+s", "u+s,g-s",
    "=", "+t", "a+rX,u-r", "u=rwX", "go+rX-w", "u=rwX,go=rX", "a-X",
]  # fmt: skip


@pytest.mark.parametrize("text", _SYMBOLIC)
def test_symbolic_as_chmod_has_it(text: str, tmp_path: Path) -> None:
    bits = (0o000, 0o644, 0o755, 0o124, 0o666, 0o4711, 0o777, 0o070)
    files = [tmp_path / f"{one:o}" for one in bits]
    for file, one in zip(files, bits, strict=True):
        file.touch()
        file.chmod(one)
    subprocess.run(
        ["sh", "-c", 'umask 022; exec chmod -- "$@"', "sh", text, *files],
        check=False,  # it says so where the umask held something back
        stderr=subprocess.DEVNULL,
    )
    mode = modes.parse(text)
    changed = [mode.apply(one, is_directory=False) for one in bits]
    assert [f"{one:o}" for one in changed] == [
        f"{file.stat().st_mode & 0o7777:o}" for file in files
    ]


def test_capital_x_is_for_directories_and_what_somebody_may_execute() -> None:
    mode = modes.parse("a+X")
    assert mode.apply(0o644, is_directory=False) == 0o644
    assert mode.apply(0o644, is_directory=True) == 0o755
    assert mode.apply(0o654, is_directory=False) == 0o755
    assert modes.parse("u=rwX,go=rX").apply(0o700, is_directory=True) == 0o755
    # What was executable at first is meant, as BSD has it; for GNU this is what comes before it.
    assert modes.parse("=rw,+X").apply(0o755, is_directory=False) == 0o755


def test_copied_permissions_are_permissions_alone() -> None:
    assert modes.parse("u=g").apply(0o4751, is_directory=False) == 0o4551


@pytest.mark.parametrize(("text", "bits"), [("0", 0), ("644", 0o644), ("07777", 0o7777)])
def test_octal(text: str, bits: int) -> None:
    mode = modes.parse(text)
    assert mode.absolute == bits
    assert mode.apply(0o123, is_directory=True) == bits


@pytest.mark.parametrize("text", ["64a", "10000", "8", "0o644", "7" * 5000])
def test_what_is_no_octal_number(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        modes.parse(text)
    assert caught.value.message == (
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
    )


@pytest.mark.parametrize("text", ["", "u", "u+q", "z+x", "u+x,", "rwx", ",", "u~x"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid syntax"):
        modes.parse(text)


def test_everything_that_is_said_counts() -> None:
    assert os.umask(os.umask(0)) is not None  # the umask here has no part in it
    assert modes.parse("u=rwx,go=rx,u+s,g+s,+t").apply(0, is_directory=False) == 0o7755
