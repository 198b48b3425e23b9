"""runc, ketch-oci and a bundle for them."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import images, oci
from tests.support.commands import Engine

KETCH_OCI = pathlib.Path(sys.executable).with_name("ketch-oci")
Bundle = Callable[..., str]


@pytest.fixture(scope="session")
def ketch_oci() -> str:
    """Return the installed runtime."""
    return str(KETCH_OCI)


@pytest.fixture(scope="session")
def rootfs(run_name: str) -> Iterator[pathlib.Path]:
    """Return a root filesystem with busybox that no test writes to."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{run_name}-"))
    directory.chmod(0o755)
    subprocess.run(["tar", "-C", directory, "-xf", images.busybox_archive()], check=True)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(params=["runc", "ketch-oci"])
def runtime(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, ketch_oci: str
) -> Iterator[Engine]:
    """Return runc, then ketch-oci, each with a root of its own; delete what a test leaves."""
    program = {"runc": shutil.which("runc"), "ketch-oci": ketch_oci}[request.param]
    if program is None:
        pytest.skip("runc is not installed")
    engine = Engine(request.param, [program, "--root", str(tmp_path / "state")])
    yield engine
    oci.delete_all(engine)


@pytest.fixture
def both(tmp_path: pathlib.Path, ketch_oci: str) -> Iterator[tuple[Engine, Engine]]:
    """Return runc and ketch-oci, to compare what they say."""
    program = shutil.which("runc")
    if program is None:
        pytest.skip("runc is not installed")
    engines = (
        Engine("runc", [program, "--root", str(tmp_path / "runc")]),
        Engine("ketch-oci", [ketch_oci, "--root", str(tmp_path / "ketch")]),
    )
    yield engines
    for engine in engines:
        oci.delete_all(engine)


@pytest.fixture
def bundle(tmp_path: pathlib.Path, rootfs: pathlib.Path) -> Bundle:
    """Return what writes a bundle: its arguments are the program's, keywords the process's."""

    def write(*arguments: str, change: Callable[[Any], None] | None = None, **process: Any) -> str:
        config = oci.configuration(rootfs, *arguments)
        config["process"] |= process
        if change:
            change(config)
        return oci.write_bundle(tmp_path / "bundle", config)

    return write
