"""What ketch-oci prints, beside what runc prints: callers and scripts read both alike."""

import json
import pathlib
import re
from typing import Any

import pytest

from tests.e2e.oci.conftest import Bundle
from tests.support import oci
from tests.support.commands import Engine

Both = tuple[Engine, Engine]


def normal(text: str, engine: Engine) -> str:
    """Take out what differs between two runs, and the programs' names."""
    text = text.replace("/usr/sbin/", "").replace(engine.name, "RUNTIME")
    text = re.sub(r'time="[^"]*"', "time=T", text)
    text = re.sub(r" hint=.*", "", text)
    text = re.sub(r'"time":"[^"]*"', '"time":"T"', text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z *", "CREATED ", text)
    return re.sub(r'("pid": ?|"PID": ?)\d+', r"\1PID", text)


def same(both: Both, *words: str) -> str:
    """Run a command with both; return what both said, which must be the same."""
    said = []
    for engine in both:
        result = engine(*words)
        said.append(
            (result.status, normal(result.out, engine), normal(result.err.rstrip(), engine))
        )
    assert said[0] == said[1], words
    return said[0][1] + said[0][2]


@pytest.fixture
def running(both: Both, bundle: Bundle) -> Both:
    """Return both with a running container, one after the other in different cgroups."""
    for engine in both:

        def place(config: Any, name: str = engine.name) -> None:
            config["linux"]["cgroupsPath"] += f"-{name}"
            config["annotations"] = {"a.b": "c"}

        path = bundle("sleep", "100", change=place)
        assert oci.quietly(engine, "run", "-d", "-b", path, "c") == 0
    return both


def test_errors_about_no_container(both: Both) -> None:
    for command in ("state", "start", "kill", "delete", "pause", "resume", "ps", "events"):
        assert "container does not exist" in same(both, command, "c")
    same(both, "delete", "--force", "c")
    same(both, "exec", "c", "true")


def test_errors_about_a_running_container(running: Both, tmp_path: pathlib.Path) -> None:
    same(running, "start", "c")
    same(running, "delete", "c")
    same(running, "resume", "c")
    same(running, "exec", "c")
    same(running, "kill", "c", "NOSUCH")
    same(running, "kill", "c", "0")
    same(running, "kill", "c", "33")
    for command in ("create", "run"):
        same(running, command, "-b", str(tmp_path / "bundle"), "c")
    same(running, "pause", "c")
    same(running, "pause", "c")
    same(running, "exec", "c", "true")
    same(running, "resume", "c")


def test_errors_about_a_stopped_container(both: Both, bundle: Bundle) -> None:
    path = bundle("true")
    for engine in both:
        engine.ok("run", "--keep", "-b", path, "c")
    for words in (["start"], ["kill"], ["pause"], ["resume"], ["exec"], ["events"]):
        same(both, *words, "c", *(["true"] if words == ["exec"] else []))
    same(both, "ps", "-f", "json", "c")
    same(both, "kill", "--all", "c", "KILL")


def test_wrong_command_lines(both: Both) -> None:
    for words in (
        ["state"], ["state", "a", "b"], ["kill"], ["nosuch"], ["run"], ["list", "-f", "xml"],
        ["run", "a/b"], ["--log-format", "xml", "list"], ["ps"], ["start", "a", "b", "c"],
    ):  # fmt: skip
        results = [engine(*words) for engine in both]
        assert results[0].status == results[1].status, words
        # Beside the error stands help, which is each program's own.
        last = [normal(r.err.splitlines()[-1], e) for r, e in zip(results, both, strict=True)]
        assert last[0].replace("\\n", "") == last[1], words


def test_help_about_no_command(both: Both) -> None:
    results = [engine("help", "nosuch") for engine in both]
    assert [result.status for result in results] == [3, 3]
    assert all("No help topic for 'nosuch'" in result.err for result in results)


def test_documents_that_are_none(running: Both, tmp_path: pathlib.Path) -> None:
    for text in ("{", "", "[]", '{"memory": {"limit": "x"}, "args": 1}'):
        (tmp_path / "file").write_text(text)
        for words in (["update", "-r"], ["exec", "-p"]):
            for engine in running:
                result = engine(*words, str(tmp_path / "file"), "c")
                assert result.status == (255 if words[0] == "exec" else 1), (words, text)
                assert result.err.startswith("time="), (engine.name, result.err)
                assert len(result.err.splitlines()) == 1 or engine.name == "runc"


def test_wrong_flags(both: Both) -> None:
    for words in (
        ["--bad", "list"], ["state", "--bad", "c"], ["kill", "--all=maybe", "c"],
        ["create", "--preserve-fds", "x", "c"], ["create", "--bundle"],
    ):  # fmt: skip
        results = [engine(*words) for engine in both]
        assert [result.status for result in results] == [1, 1]
        heads = [result.out.splitlines()[0] for result in results]
        assert heads[0] == heads[1]
        last = [normal(r.err.splitlines()[-1], e) for r, e in zip(results, both, strict=True)]
        assert last[0] == last[1]


def test_logs(both: Both, tmp_path: pathlib.Path) -> None:
    for form in ("text", "json"):
        texts = []
        for engine in both:
            path = tmp_path / f"{engine.name}.{form}"
            result = engine("--log", str(path), "--log-format", form, "state", "c")
            assert result.err == "container does not exist\n"
            texts.append(normal(path.read_text(), engine))
        assert texts[0] == texts[1]


def test_bundles_that_are_none(both: Both, tmp_path: pathlib.Path) -> None:
    same(both, "run", "-b", "/nosuch", "c")
    results = [engine("run", "-b", str(tmp_path), "c") for engine in both]
    for result in results:
        assert result.status == 1
        assert "JSON specification file config.json not found" in result.err


def test_state(running: Both) -> None:
    versions = ("1.0.2-dev", "1.3.0")
    texts = [
        normal(engine.ok("state", "c"), engine).replace(version, "VERSION")
        for engine, version in zip(running, versions, strict=True)
    ]
    assert re.sub(r'"ociVersion": "[^"]*"', "", texts[0]) == re.sub(
        r'"ociVersion": "[^"]*"', "", texts[1]
    )


def test_list(running: Both) -> None:
    keys = []
    for engine in running:
        (row,) = json.loads(engine.ok("list", "-f", "json"))
        keys.append(list(row))
        assert (row["id"], row["status"], row["owner"]) == ("c", "running", "root")
    assert keys[0] == keys[1]
    assert same(running, "list", "-q") == "c\n"
    rows = [re.sub(r"(?m)^c +\d+ +", "c PID ", engine.ok("list")) for engine in running]
    # How wide the last column is depends on the nanoseconds.
    shown = [
        re.sub("CREATED +", "CREATED ", normal(r, e)) for r, e in zip(rows, running, strict=True)
    ]
    assert shown[0] == shown[1]


def test_an_empty_list(both: Both, tmp_path: pathlib.Path) -> None:
    for name in ("runc", "ketch"):
        (tmp_path / name).mkdir()
    assert same(both, "list", "-f", "json") == "null\n"
    same(both, "list")
    same(both, "list", "-q")
    # runc 1.1 makes the directory; later ones do not, and say so.
    (tmp_path / "ketch").rmdir()
    for words in (["list"], ["list", "-q"], ["list", "-f", "json"]):
        failed = both[1](*words)
        assert (failed.status, failed.out) == (1, "")
        assert f"open {tmp_path}/ketch: no such file or directory" in failed.err
    assert not (tmp_path / "ketch").exists()


def test_the_version_as_callers_read_it(both: Both) -> None:
    for words in (["--version"], ["-v"]):
        lines = [engine.ok(*words).splitlines() for engine in both]
        for name, found in zip(("runc", "ketch-oci"), lines, strict=True):
            # What dockerd and go-runc look for: moby's parseRuntimeVersion, parseVersion.
            assert re.fullmatch(rf"{name} version \d+\.\d+\.\d+\S*", found[0])
            assert re.fullmatch(r"commit: \S+", found[1])
            assert re.fullmatch(r"spec: \d+\.\d+\.\d+\S*", found[2])
            assert re.fullmatch(r"libseccomp: \d+\.\d+\.\d+", found[-1])
    help_ = both[1].ok("--help")
    assert f"VERSION:\n   {lines[1][0].split()[-1]}\n{lines[1][1]}\n" in help_


def test_help_has_the_sections_of_runcs(both: Both) -> None:
    texts = [engine.ok("--help") for engine in both]
    sections = [re.findall(r"^([A-Z ]+):$", text, re.MULTILINE) for text in texts]
    assert sections[0] == sections[1]
    options = [text.split("GLOBAL OPTIONS:")[1] for text in texts]
    for flag in ("--help, -h", "--version, -v"):
        assert all(flag in text for text in options)


def test_the_shape_of_statistics(running: Both) -> None:
    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(member) for name, member in value.items()}
        return type(value).__name__

    shapes = []
    for engine in running:
        data = json.loads(engine.ok("events", "--stats", "c"))["data"]
        for name in ("percpu_kernel", "percpu_user"):  # the kernel counts them in ticks
            data["cpu"]["usage"].pop(name, None)
        for entry in data["memory"].values():  # zeros are left out
            for name in ("usage", "max") if isinstance(entry, dict) else ():
                entry.pop(name, None)
        data["blkio"] = {}
        shapes.append(shape(data))
    assert shapes[0] == shapes[1]


def test_spec(both: Both, tmp_path: pathlib.Path) -> None:
    written = []
    for engine in both:
        directory = tmp_path / f"spec-{engine.name}"
        directory.mkdir()
        engine.ok("spec", "-b", str(directory))
        again = engine("spec", "-b", str(directory))
        assert again.status == 1
        assert "File config.json exists. Remove it first" in again.err
        text = (directory / "config.json").read_text()
        assert text.startswith('{\n\t"ociVersion"')
        written.append(json.loads(text))
    runc, ketch = written
    # Newer runc gives no ambient capabilities, and masks more.
    runc["process"]["capabilities"].pop("ambient", None)
    for config in written:
        del config["ociVersion"], config["hostname"], config["linux"]["maskedPaths"]
    assert ketch == runc


def test_rootless_spec(both: Both, tmp_path: pathlib.Path) -> None:
    written = []
    for engine in both:
        directory = tmp_path / f"spec-{engine.name}"
        directory.mkdir()
        engine.ok("spec", "--rootless", "-b", str(directory))
        written.append(json.loads((directory / "config.json").read_text()))
    runc, ketch = written
    assert ketch["mounts"] == runc["mounts"]
    for name in ("namespaces", "uidMappings", "gidMappings"):
        assert ketch["linux"][name] == runc["linux"][name]


def test_features_has_all_that_runcs_has(both: Both) -> None:
    runc, ketch = (json.loads(engine.ok("features")) for engine in both)
    assert set(runc["hooks"]) <= set(ketch["hooks"])
    assert set(runc["mountOptions"]) - set(ketch["mountOptions"]) == set()
    for name in ("namespaces", "capabilities"):
        assert set(runc["linux"][name]) <= set(ketch["linux"][name])
    for name in ("actions", "operators", "archs"):
        assert set(runc["linux"]["seccomp"][name]) <= set(ketch["linux"]["seccomp"][name])


def test_help(both: Both) -> None:
    for words in (["--help"], [], ["help"], ["run", "--help"], ["help", "exec"]):
        for engine in both:
            out = engine.ok(*words)
            assert out.startswith("NAME:\n   ")
            assert "USAGE:" in out


def test_all_of_runcs_flags_are_known(both: Both) -> None:
    commands = re.findall(r"^   (\w+)  ", both[0].ok("--help").split("COMMANDS:")[1], re.MULTILINE)
    for command in ["", *(name for name in commands if name != "help")]:
        words = [command, "--help"] if command else ["--help"]
        flags = [set(re.findall(r"^ +--([\w-]+)", e.ok(*words), re.MULTILINE)) for e in both]
        assert flags[0] - flags[1] - {"help"} == set(), command
