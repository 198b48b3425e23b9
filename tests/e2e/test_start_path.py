"""What a start loads: the client's whole life is a few milliseconds, so its modules are pinned."""

import pathlib
import subprocess
import sys

from tests.support.commands import Engine

# An import more is a millisecond more, or ten. Whoever adds one here has measured it.
CLIENT = {
    "_socket", "binascii", "errno", "select", "termios",
    "ketch", "ketch.cli", "ketch.cli.flags", "ketch.cli.main", "ketch.cli.run",
    "ketch.cli.session", "ketch.engine", "ketch.engine.launch", "ketch.engine.settings",
    "ketch.engine.wire", "ketch.errors", "ketch.spec", "ketch.spec.devices",
    "ketch.spec.environment", "ketch.spec.flag", "ketch.spec.hosts", "ketch.spec.mounts",
    "ketch.spec.options", "ketch.spec.sysctls", "ketch.spec.values",
}  # fmt: skip

# Each costs more than a monitor may: time where there is no zygote, memory in every monitor.
NOT_IN_A_MONITOR = {
    "argparse", "asyncio", "concurrent.futures", "dataclasses", "email", "http",
    "inspect", "logging", "multiprocessing", "pathlib", "random", "shutil", "socket", "ssl",
    "subprocess", "tarfile", "tempfile", "threading", "urllib", "uuid", "zstandard",
}  # fmt: skip


def imports(*arguments: str) -> set[str]:
    """Return the modules that an interpreter loads for its arguments, as it tells itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_the_clients_modules(ketch: Engine) -> None:
    ketch.ok("run", "--rm", "--network", "none", "busybox", "true")  # the zygote is there now
    command = [*ketch.prefix, "run", "--rm", "--network", "none", "busybox", "true"]
    loaded = imports(*command) - imports("-c", "")
    assert loaded == CLIENT


def test_what_a_monitor_does_not_load() -> None:
    source = pathlib.Path(__file__).parents[2] / "src"
    program = f"import sys; sys.path.append({str(source)!r}); import ketch.engine.monitor"
    loaded = imports("-I", "-S", "-c", program)
    assert "ketch.engine.monitor" in loaded
    assert sorted(loaded & NOT_IN_A_MONITOR) == []
