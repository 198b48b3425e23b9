"""ketch as a package: what is in it, and what people install it with, each in its own place."""

import os
import pathlib
import re
import subprocess
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator

import pytest

import ketch
from tests.support import images, leftovers

CHECKOUT = pathlib.Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"

pytestmark = pytest.mark.timeout(400)


def run(*argv: str | pathlib.Path, **environment: str | pathlib.Path) -> str:
    variables = {name: str(value) for name, value in environment.items()}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    done = subprocess.run(
        [str(word) for word in argv], check=False, capture_output=True, text=True, cwd="/",
        timeout=300, env={**inherited, **variables},
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def tools(scratch: pathlib.Path) -> pathlib.Path:
    """Return a directory with the programs that install and build packages."""
    place = scratch / "tools"
    run(PYTHON, "-m", "venv", place)
    try:
        run(place / "bin/python", "-m", "pip", "install", "-q", "--retries", "1", "hatchling",
            "pipx", "uv")  # fmt: skip
    except AssertionError as error:
        if "No matching distribution" in str(error):
            pytest.skip("packages cannot be fetched here")
        raise
    return place / "bin"


@pytest.fixture(scope="module")
def built(tools: pathlib.Path, scratch: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the wheel and the source archive of this checkout."""
    place = scratch / "dist"
    subprocess.run([tools / "python", "-m", "hatchling", "build", "-d", place], check=True,
                   cwd=CHECKOUT, capture_output=True)  # fmt: skip
    (wheel,), (source,) = place.glob("*.whl"), place.glob("*.tar.gz")
    return wheel, source


@pytest.fixture
def engine_places(tmp_path: pathlib.Path, run_name: str) -> Iterator[list[str]]:
    """Return the options of an engine of its own, which ends with the test."""
    options = ["--root", f"{tmp_path}/root", "--state", f"{tmp_path}/state"]
    yield options
    leftovers.stop_zygotes(run_name)


def works(ketch_words: list[str], options: list[str]) -> None:
    """Start a container, and look at what says how ketch is used."""
    assert f"Version:          {ketch.__version__}" in run(*ketch_words, "version")
    run(*ketch_words, *options, "import", images.busybox_archive(), "busybox")
    start = ["run", "--rm", "--network", "none", "busybox", "echo", "hello"]
    assert run(*ketch_words, *options, *start) == "hello\n"


def runtime_works(program: pathlib.Path, **environment: str) -> None:
    """Ask the OCI runtime twice: the second time it starts from where the first has sealed it."""
    for _ in range(2):
        told = run(program, "--version", **environment)
        assert told.startswith(f"ketch-oci version {ketch.__version__}\n")


def test_what_is_in_the_wheel_and_in_the_source_archive(
    built: tuple[pathlib.Path, pathlib.Path],
) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        facts = wheel.read(metadata).decode()
        (script,) = (name for name in names if name.endswith(".data/scripts/ketch"))
        assert wheel.read(script).startswith(b"#!python\n")
    files = {
        str(path.relative_to(CHECKOUT / "src"))
        for path in (CHECKOUT / "src/ketch").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if name.startswith("ketch/")} == files
    pages = {path.name for path in (CHECKOUT / "docs/man").iterdir()}
    assert {name.rsplit("/", 1)[1] for name in names if "/share/man/man1/" in name} == pages
    course = {
        str(path.relative_to(CHECKOUT / "docs")) for path in (CHECKOUT / "docs/course").rglob("*.*")
    }
    assert {
        name.partition("/share/ketch/")[2] for name in names if "/share/ketch/" in name
    } == course
    of_systemd = {name.partition(".data/data/lib/")[2] for name in names} - {""}
    assert of_systemd == {"sysusers.d/ketch.conf"} | {
        f"systemd/system/{unit}"
        for unit in ("ketch.socket", "ketch.service", "ketch-restart.service")
    }
    assert f"Version: {ketch.__version__}\n" in facts
    assert "License-File: LICENSE\n" in facts
    with tarfile.open(built[1]) as source:
        kept = {name.partition("/")[2] for name in source.getnames()}
    listing = subprocess.run(
        ["git", "-C", CHECKOUT, "ls-files", "--cached", "--others", "--exclude-standard"],
        check=False, text=True, capture_output=True,
    )  # fmt: skip
    if listing.returncode == 0:
        assert kept - {"PKG-INFO"} <= {*listing.stdout.split("\n")} | files
        assert {"Makefile", "tests/conftest.py", "bin/ketch", "docs/man/ketch.1"} <= kept


def test_the_source_archive_builds_the_same_package_without_git(
    built: tuple[pathlib.Path, pathlib.Path], tools: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """As distributions build it: no checkout, no tag, no program that would ask for one."""
    run("tar", "-xf", built[1], "-C", tmp_path)
    (tree,) = tmp_path.iterdir()
    subprocess.run([tools / "python", "-m", "hatchling", "build", "-t", "wheel", "-d",
                    tmp_path / "dist"], check=True, cwd=tree, capture_output=True,
                   env={"PATH": "/nowhere"})  # fmt: skip
    (again,) = (tmp_path / "dist").iterdir()
    assert again.name == built[0].name
    with zipfile.ZipFile(again) as wheel, zipfile.ZipFile(built[0]) as first:
        facts = [{(info.filename, info.CRC) for info in one.infolist()} for one in (wheel, first)]
    assert facts[0] == facts[1]


def test_the_version_is_one_and_the_pythons_are_told() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changes = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\S+)", changes, re.MULTILINE)
    assert ketch.__version__ in sections[:2]
    told = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert f">={told[0]}" == project["requires-python"]
    tags = subprocess.run(["git", "-C", CHECKOUT, "tag", "--points-at", "HEAD", "v*"], check=False,
                          text=True, capture_output=True)  # fmt: skip
    assert set(tags.stdout.split()) <= {f"v{ketch.__version__}"}


def test_for_one_user_by_pip(
    built: tuple[pathlib.Path, pathlib.Path], tools: pathlib.Path, tmp_path: pathlib.Path,
    engine_places: list[str],
) -> None:  # fmt: skip
    """The script of the OCI runtime has no interpreter beside it, and no HOME from some callers."""
    (pip,) = tools.parent.glob("lib/python3*/site-packages")
    home = tmp_path / "home"
    run(PYTHON, "-m", "pip", "install", "-q", "--user", "--break-system-packages", "--no-deps",
        "--no-index", built[0], HOME=home, PYTHONPATH=pip)  # fmt: skip
    places = home / ".local"
    assert (places / "share/man/man1/ketch-run.1").exists()
    assert (places / "share/ketch/course/mini.py").exists()
    runtime_works(places / "bin/ketch-oci")
    assert (places / "bin/ketch").read_text(encoding="utf-8").startswith(f"#!{PYTHON}\n")
    works(["env", f"HOME={home}", str(places / "bin/ketch")], engine_places)


def test_in_a_path_with_a_space(
    built: tuple[pathlib.Path, pathlib.Path], tmp_path: pathlib.Path, engine_places: list[str]
) -> None:
    """Of pip's script the kernel finds no interpreter there; the module has none to find."""
    place = tmp_path / "with a space"
    venv.create(place, with_pip=True, symlinks=True)
    run(place / "bin/python3", "-m", "pip", "install", "-q", "--no-deps", "--no-index", built[0])
    works([str(place / "bin/python3"), "-m", "ketch"], engine_places)
    runtime_works(place / "bin/ketch-oci")


def test_by_pipx_and_uv(
    built: tuple[pathlib.Path, pathlib.Path], tools: pathlib.Path, tmp_path: pathlib.Path,
    engine_places: list[str],
) -> None:  # fmt: skip
    of_pipx, of_uv = tmp_path / "pipx", tmp_path / "uv tools"
    run(tools / "pipx", "install", "--python", PYTHON, built[0],
        PIPX_HOME=of_pipx, PIPX_BIN_DIR=of_pipx / "bin", PIPX_MAN_DIR=of_pipx / "man")  # fmt: skip
    run(tools / "uv", "tool", "install", "--python", PYTHON, built[0], UV_TOOL_DIR=of_uv,
        UV_TOOL_BIN_DIR=of_uv / "bin", UV_CACHE_DIR=tmp_path / "cache")  # fmt: skip
    for place in (of_pipx, of_uv):
        works([str(place / "bin/ketch")], [*engine_places[:3], f"{place}/state"])
        runtime_works(place / "bin/ketch-oci")
