"""What holds for every test: root where it is needed, and the machine left as it was found."""

import contextlib
import os
import re
import secrets
import signal
from collections.abc import Generator
from typing import Any

import pytest

from ketch.linux import process
from tests.support import distribution, forking, leftovers

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_WORKER_VARIABLE = "PYTEST_XDIST_WORKER"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Whose engine the end-to-end tests are played on."""
    parser.addoption(
        "--engine",
        choices=("root", "user", "lone"),
        default="root",
        help="whose ketch tests/e2e runs: root's, an ordinary user's, or one's without subordinate"
        " ids",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the run; a worker's name begins with the whole run's."""
    heed_signals()
    worker = os.environ.get(_WORKER_VARIABLE)
    if worker is None:
        os.environ.setdefault(leftovers.RUN_VARIABLE, f"ketch-test-{secrets.token_hex(4)}")
        config.pluginmanager.register(_Machine(os.environ[leftovers.RUN_VARIABLE]))
        return
    os.environ[leftovers.RUN_VARIABLE] += f"-{worker}"
    # The others' are there as well. What is whose the controller need not ask, at the end.
    os.environ[leftovers.SHARED_VARIABLE] = "1"
    process.clone3 = forking.as_fork_does(process.clone3)


def heed_signals() -> None:
    """Give signals their default actions, which whoever had the suite started may have taken.

    A shell has what it starts in the background ignore two of them, and nohup(1) another one; what
    this process starts would, and ketch's client leaves ignored what it finds ignored.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Share out the tests by file, unless another way is asked for."""
    if config.getoption("dist") != "load":
        return None
    from tests.support.scheduler import Files

    return Files(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Show bytes that are no UTF-8: a report that has some would end its worker, and the run."""
    return _encodable((yield))


def _encodable(data: Any) -> Any:
    match data:
        case str():
            return data.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_encodable(key): _encodable(value) for key, value in data.items()}
        case list() | tuple():
            return type(data)(map(_encodable, data))
    return data


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root where there is none; begin with what takes long, among workers.

    A name with an object's address in it is another one in each worker, and in the next run.
    """
    if changing := [item.nodeid for item in items if _ADDRESS.search(item.nodeid)]:
        raise pytest.UsageError(f"give this parameter an id that stays: {changing[0]}")
    if _WORKER_VARIABLE in os.environ:
        items.sort(key=lambda item: distribution.rank(item.nodeid))
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or "/e2e/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(autouse=True)
def _stays_where_it_is() -> Generator[None, None, None]:
    """Hold that no test leaves its worker in another directory, where the next ones then begin."""
    before = os.getcwd()
    yield
    assert os.getcwd() == before


@pytest.fixture(scope="session")
def run_name() -> str:
    """Return the name by which this run's processes and directories can be told from others."""
    return os.environ[leftovers.RUN_VARIABLE]


class _Machine:
    """Compares mounts, links, rules, cgroups, processes and paths before and after the run.

    Args:
        run_name: the run's; those of workers begin with it.
    """

    def __init__(self, run_name: str) -> None:
        self._run_name = run_name
        self._found: list[str] = []
        self._at_the_end = contextlib.ExitStack()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Look before there are workers."""
        if session.config.option.collectonly:
            return
        before = leftovers.state(self._run_name)
        self._at_the_end.callback(self._compare, before)
        self._at_the_end.enter_context(leftovers.packet_filter_as_before())
        self._at_the_end.enter_context(leftovers.interpreter_as_before())

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Look when fixtures and workers have gone."""
        self._at_the_end.close()
        if self._found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: "pytest.TerminalReporter") -> None:
        """Say what there is."""
        if self._found:
            terminalreporter.section("the tests left behind", red=True)
            for line in self._found:
                terminalreporter.write_line(line)

    def _compare(self, before: leftovers.State) -> None:
        self._found = leftovers.left(before, self._run_name)
