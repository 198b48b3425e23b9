"""Other programs: one that does not end is killed, and told of."""

import pathlib
import time

import pytest

from ketch.errors import UnavailableError
from ketch.linux import nftables, programs


def test_what_a_program_says_and_how_it_ends() -> None:
    done = programs.ask(["sh", "-c", "pwd; cat; printf '\\377' >&2; exit 3"], directory="/")
    assert (done.returncode, done.stdout, done.stderr) == (3, "/\n", "\ufffd")


def test_a_program_that_does_not_end_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"^sleep has not ended within 0 seconds"):
        programs.ask(["sleep", "100"], seconds=0.1)
    assert time.monotonic() - began < 10


def test_rules_that_nft_does_not_get_to_the_kernel_are_given_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec /bin/sleep 100\n")
    program.chmod(0o755)
    monkeypatch.setattr(nftables, "_DIRECTORIES", (str(tmp_path),))
    monkeypatch.setattr(nftables, "_NFT_SECONDS", 0.1)
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="make a table: nft has not ended"):
        nftables.Transaction("", "make a table").wait()
    assert time.monotonic() - began < 10
