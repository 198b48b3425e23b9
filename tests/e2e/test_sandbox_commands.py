"""``ketch sandbox``: a program at work on a project, whose changes are looked at and taken over."""

import contextlib
import dataclasses
import os
import pathlib

import pytest

from tests.support.commands import Engine


@pytest.fixture
def project(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "file").write_text("one\n")
    return tmp_path / "project"


def test_changes_are_looked_at_and_taken_over(ketch_engine: Engine, project: pathlib.Path) -> None:
    ketch = ketch_engine
    script = "cat; echo two >> file; ln -s / out; echo $A > b; echo e >&2; exit 3"
    ran = ketch(
        "sandbox", "run", "--project", str(project), "--name", "work", "-e", "A=\x1b[31m", "--",
        "sh", "-c", script, stdin=b"typed\n",
    )  # fmt: skip
    try:
        assert (ran.status, ran.out) == (3, "typed\n"), ran
        assert ran.err.startswith("e\n")
        assert "3 paths" in ran.err
        assert "ketch sandbox apply work" in ran.err
        assert os.listdir(project) == ["file"]
        listed = ketch("sandbox", "ls").out.splitlines()[1].split()
        assert (listed[0], listed[1], listed[-1]) == ("work", str(project), "running")
        difference = ketch("sandbox", "diff", "work").out
        assert " one\n+two\n" in difference
        assert "A link      out -> /  (the link leads out of the project: '/')\n" in difference
        names = ketch("sandbox", "diff", "--name-only", "work").out
        assert [line.split()[2] for line in names.splitlines()] == ["b", "file", "out"]
        assert ketch("sandbox", "exec", "work", "cat", "file").out == "one\ntwo\n"
        one = ketch("sandbox", "apply", "work", "file")
        assert (one.out, (project / "file").read_text()) == ("M file\n", "one\ntwo\n")
        rest = ketch("sandbox", "apply", "work")
        assert rest.out == "A b\n"
        assert "left: out: the link leads out" in rest.err
        refused = ketch("sandbox", "apply", "work", "out")
        assert (refused.status, "leads out" in refused.err) == (1, True)
        options = list(ketch.prefix)
        places = options[options.index("--root") : options.index("--state") + 2]
        completed = ketch("__complete", *places, "sandbox", "diff", "wo").out
        assert completed.splitlines()[0] == "work"
    finally:
        removed = ketch("sandbox", "rm", "work")
    assert (removed.status, removed.out) == (0, "work\n")
    gone = ketch("sandbox", "rm", "work")
    assert (gone.status, "No such sandbox: work" in gone.err) == (1, True)
    assert ketch("sandbox", "ls", "-q").out == ""


def test_a_sandbox_without_changes_goes_with_its_program(
    ketch_engine: Engine, project: pathlib.Path
) -> None:
    ketch = ketch_engine
    missing = ketch("sandbox", "run", "--project", str(project), "nosuch")
    assert (missing.status, "nosuch" in missing.err) == (127, True)
    reader = ketch("sandbox", "run", "--project", str(project), "cat", "file")
    assert (reader.status, reader.out, reader.err) == (0, "one\n", "")
    thrown = ketch("sandbox", "run", "--rm", "--project", str(project), "rm", "file")
    assert (thrown.status, thrown.err) == (0, "")
    image = ketch("sandbox", "run", "--image", "busybox", "-m", "64m", "--", "sh", "-c",
                  "pwd; touch /x; id -u; grep -c : /proc/net/dev")  # fmt: skip
    assert image.out == "/workspace\n65534\n1\n"
    assert ketch("sandbox", "ls", "-q").out == ""
    assert (project / "file").read_text() == "one\n"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--memory", "lots"], "memory='lots'"), (["--cpus", "x"], "--cpus x"),
        (["--publish", "80:80"], "--publish 80:80"), (["--project", "/"], "project='/'"),
        (["--volume", "a:b:c:d"], "--volume a:b:c:d"), (["--timeout", "soon"], "--timeout soon"),
        *(([f"--{option}", wrong], f"--{option} {wrong}")
          for option in ("cpus", "timeout", "idle-timeout", "pids-limit")
          for wrong in ("nan", "inf", "-1", "1e400", "1e99")),
        (["--pids-limit", "1.5"], "--pids-limit 1.5"), (["--memory", "nan"], "memory='nan'"),
        (["--secret", "KEY,host=a.example"], "no variable KEY"),
        (["--secret", "KEY,env=KEY2,host=a.example"], "no variable KEY2"),
        (["--secret", "KEY,file=/nosuch,host=a.example"], "--secret KEY: /nosuch: "),
        (["--secret", "KEY=value"], "--secret KEY: for whom?"),
        (["--secret", "KEY=value,env=PATH,host=a.example"], "--secret KEY: one of"),
        (["--secret", "KEY=value,more,host=a.example"], "--secret KEY: what stands"),
        (["--secret", "K-Y=value,host=a.example"], "secret 'K-Y'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(ketch_engine: Engine, flags: list[str], why: str) -> None:
    told = ketch_engine("sandbox", "run", *flags, "true")
    assert told.status != 0
    assert why in told.err
    assert "Traceback" not in told.err
    assert "value" not in told.err.replace("a value with", "").replace("say where the value", "")


@pytest.mark.parametrize("way", ["env", "name", "file", "line"])
def test_a_secret_is_used_and_not_shown(
    ketch_engine: Engine, tmp_path: pathlib.Path, project: pathlib.Path, way: str
) -> None:
    """Its value is in nobody's arguments, but where it was given there."""
    pytest.importorskip("cryptography")
    value = "the-very-value"
    (tmp_path / "key").write_text(f"{value}\n")
    said = {"env": "API_KEY,env=OTHER", "name": "API_KEY", "file": f"API_KEY,file={tmp_path}/key",
            "line": f"API_KEY={value}"}[way]  # fmt: skip
    variables = {"env": {"OTHER": value}, "name": {"API_KEY": value}}.get(way, {})
    script = "echo $API_KEY; grep -c . $SSL_CERT_FILE; touch made"
    told = dataclasses.replace(ketch_engine, environment={**ketch_engine.environment, **variables})
    ran = told(
        "sandbox", "run", "--name", f"secret-{way}", "--project", str(project),
        "--secret", f"{said},host=api.example", "--", "sh", "-c", script,
    )  # fmt: skip
    try:
        assert ran.status == 0, ran
        assert ran.out.startswith("ketch-secret-")
        shown = ketch_engine("inspect", f"secret-{way}").out
        assert value not in ran.out + ran.err + shown
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                assert value.encode() not in (process / "cmdline").read_bytes()
                if b"ketch" in (process / "cmdline").read_bytes():
                    assert value.encode() not in (process / "environ").read_bytes()
    finally:
        ketch_engine("sandbox", "rm", f"secret-{way}")


def test_apply_leaves_what_both_have_changed(ketch_engine: Engine, project: pathlib.Path) -> None:
    ketch = ketch_engine
    script = "echo guest > file; echo guest > new"
    assert ketch("sandbox", "run", "--project", str(project), "--name", "both", "--", "sh", "-c",
                 script).status == 0  # fmt: skip
    try:
        (project / "file").write_text("caller's\n")
        assert "conflict: file: it was changed" in ketch("sandbox", "diff", "both").err
        left = ketch("sandbox", "apply", "both")
        assert (left.status, left.out) == (1, "A new\n")
        assert "left: file: it was changed in the project meanwhile: --overwrite" in left.err
        named = ketch("sandbox", "apply", "both", "file")
        assert (named.status, "--overwrite" in named.err) == (1, True)
        assert (project / "file").read_text() == "caller's\n"
        assert ketch("sandbox", "apply", "--overwrite", "both").out == "M file\n"
        assert (project / "file").read_text() == "guest\n"
    finally:
        ketch("sandbox", "rm", "both")
