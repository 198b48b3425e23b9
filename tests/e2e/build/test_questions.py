"""A Dockerfile asked about instead of being built."""

import json
import pathlib

from tests.support.commands import Engine

_TEXT = """\
# hello says so
FROM scratch AS hello
ARG A=1
WORKDIR x
"""


def test_what_is_asked_is_answered_and_nothing_is_built(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(_TEXT)
    images = ketch.ok("images", "-q")

    checked = ketch("build", "--check", str(tmp_path))
    assert checked.status == 1
    assert checked.out.startswith("Check complete, 1 warning has been found!\n")
    assert "WARNING: WorkdirRelativePath - https://" in checked.out
    assert "   4 | >>> WORKDIR x\n" in checked.out

    found = json.loads(ketch("build", "--call=check,format=json", str(tmp_path)).out)
    assert [warning["ruleName"] for warning in found["warnings"]] == ["WorkdirRelativePath"]

    assert "hello (default) says so" in ketch.ok("build", "--call=targets", str(tmp_path))
    outline = ketch.ok("build", "--call=outline", "--build-arg", "A=2", str(tmp_path))
    assert "A           2" in outline

    dockerfile.write_text("FROM scratch\nCOPY https://host.example/a /\n")
    broken = ketch("build", "--check", str(tmp_path))
    assert broken.status == 1
    assert broken.err.endswith("ERROR: source can't be a URL for COPY\n")
    assert "   2 | >>> COPY" in broken.err

    dockerfile.write_text("FROM scratch\nWORKDIR /x\n")
    assert ketch.ok("build", "--check", str(tmp_path)) == "Check complete, no warnings found."
    assert ketch("build", "--call=nothing", str(tmp_path)).status != 0
    assert ketch.ok("images", "-q") == images


def test_broken_rules_fail_a_build_where_that_is_wanted(
    ketch: Engine, tmp_path: pathlib.Path
) -> None:
    dockerfile = tmp_path / "Dockerfile"
    words = ("build", "--progress=plain", "--output=type=cacheonly")
    for first, status in (
        ("# check=error=true\n", 1), ("# check=skip=WorkdirRelativePath;error=true\n", 0), ("", 0),
    ):  # fmt: skip
        dockerfile.write_text(f"{first}{_TEXT}")
        done = ketch(*words, str(tmp_path))
        assert done.status == status, str(done)
        assert ("WorkdirRelativePath" in done.err) is ("skip" not in first)
        # Who is asked otherwise is not asked by the file.
        asked = ketch(*words, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=false", str(tmp_path))
        assert asked.status == 0


def test_a_plan_is_explained(ketch: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").write_text(_TEXT.replace("WORKDIR x", "WORKDIR planned"))
    done = ketch("build", "--explain", "--build-arg", "TYPO=1", str(tmp_path))
    assert done.status == 0
    assert "directory /planned\n" in done.err
    assert "image for linux/" in done.err
    assert "[1/1] WORKDIR planned: not cached" in done.err
    assert done.err.endswith("[Warning] One or more build-args [TYPO] were not consumed\n")
