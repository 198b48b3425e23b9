"""Hooks: programs that a configuration wants run at points of the container's life.

===============  ==========================  =====================  =========================
kind             when                        in whose namespaces    when one fails
===============  ==========================  =====================  =========================
prestart         all is mounted              the runtime's          the container is not made
createRuntime    after prestart              the runtime's          the container is not made
createContainer  before the root is changed  the container's        the container is not made
startContainer   before the program          the container's        it does not start
poststart        after the program started   the runtime's          the container is stopped
poststop         after it was deleted        the runtime's          a warning, the rest run
===============  ==========================  =====================  =========================

One whose ``env`` is absent has the environment of who runs it: of the runtime, or, in the
container's namespaces, of the container. What the host's variables say is not for whom a container
may have put in a program's place. runc does the same.

``create.create`` runs the first three and init the fourth. Who starts runs ``poststart``, and who
deletes ``poststop``, also for a container whose creation failed.

Source: runtime-spec config.md "POSIX-platform Hooks", runtime.md "Lifecycle".
"""

import os
import select
import time

from ketch.errors import KetchError, UnavailableError
from ketch.linux import process, signals
from ketch.linux.scopes import owned
from ketch.runtime.process import restore_signals
from ketch.spec import json_text
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NoReturn

    from ketch.spec.runtime import Config, Hook, State, Status
    from ketch.spec.told import Say

    Kind = Literal[
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
    ]

SPECIFICATION = "1.3.0"
"""Version of the runtime specification that the state follows."""

_OUTPUT_BYTES_SHOWN = 1024
_ENDED_BEFORE_PROGRAM = 255


def state(
    config: "Config", container_id: str, bundle: str, status: "Status", pid: int = 0
) -> "State":
    """The container's state as hooks and listeners receive it: runtime-spec runtime.md "State".

    Args:
        config: its configuration, for the annotations.
        container_id: its identifier.
        bundle: absolute path of its bundle.
        status: its status.
        pid: init's, as the receiver sees it; 0 for none, once it is stopped.
    """
    told: State = {
        "ociVersion": SPECIFICATION,
        "id": container_id,
        "status": status,
        "bundle": os.path.abspath(bundle),
    }
    if pid:
        told["pid"] = pid
    if annotations := config.get("annotations"):
        told["annotations"] = annotations
    return told


def run(
    config: "Config",
    kind: "Kind",
    told: "State",
    say: "Say | None" = None,
    environment: "list[str] | None" = None,
) -> None:
    """Run the hooks of a kind, in their order, until one fails.

    Args:
        config: the container's configuration.
        kind: which hooks.
        told: what they read on standard input.
        say: takes what is told of each before it runs.
        environment: what those have that name none; the caller's own where it is None.

    Raises:
        UnavailableError: one failed, or took longer than its timeout.
    """
    for index, hook in enumerate(config.get("hooks", {}).get(kind, [])):
        if say:
            words = " ".join(hook.get("args") or [hook["path"]])
            say(Told("program", f"{kind} hook: {words} · execve(2)"))
        _run(kind, index, hook, told, environment)


def run_all(config: "Config", kind: "Kind", told: "State") -> list[KetchError]:
    """Run the hooks of a kind, each whether or not others failed; returns their failures.

    What ``poststop`` is to be run with: a failure there is a warning.
    """
    failures = []
    for index, hook in enumerate(config.get("hooks", {}).get(kind, [])):
        try:
            _run(kind, index, hook, told, None)
        except KetchError as error:
            failures.append(error)
    return failures


def _run(
    kind: "Kind", index: int, hook: "Hook", told: "State", environment: "list[str] | None"
) -> None:
    where = f"hooks.{kind}[{index}]"
    # In the container the bundle is out of sight, and init is where the hook is to be.
    directory = "" if kind in {"createContainer", "startContainer"} else told["bundle"]
    timeout = hook.get("timeout")
    # Files in memory and not pipes: what a hook does not read, or writes without end, blocks none.
    with (
        owned(os.memfd_create("state", os.MFD_CLOEXEC)) as given,
        owned(os.memfd_create("output", os.MFD_CLOEXEC)) as output,
    ):
        os.write(given, json_text.dumps(told).encode())
        os.lseek(given, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _become(hook, given, output, directory, environment)
        status = _await(pid, timeout)
        if status == 0:
            return
        said = os.pread(output, _OUTPUT_BYTES_SHOWN, 0).decode(errors="replace").strip()
    if status is None:
        outcome = f"ran longer than its timeout of {timeout} s"
    else:
        outcome = f"ended with status {status}" if status > 0 else f"was killed by signal {-status}"
    raise UnavailableError(
        f"{where}: {hook['path']} {outcome}" + (f": {said}" if said else ""),
        "mend the hook, or take it out of the configuration",
    )


def _become(
    hook: "Hook", given: int, output: int, directory: str, inherited: "list[str] | None"
) -> "NoReturn":
    """In the child: become the hook's program."""
    try:
        os.dup2(given, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_on_exec_from(3)
        restore_signals()
        if directory:
            os.chdir(directory)
        arguments = hook.get("args") or [hook["path"]]
        variables = hook.get("env", inherited)
        environment = (
            os.environ
            if variables is None
            else dict(entry.partition("=")[::2] for entry in variables)
        )
        os.execve(hook["path"], arguments, environment)
    except OSError as error:
        os.write(2, (error.strerror or str(error)).encode())
    finally:
        os._exit(_ENDED_BEFORE_PROGRAM)


def _await(pid: int, timeout_seconds: int | None) -> int | None:
    """A child's exit status, negative for a signal; None where it had to be killed."""
    expired = False
    if timeout_seconds is not None:
        with owned(process.pidfd_open(pid)) as pidfd:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            deadline = time.monotonic() + timeout_seconds
            while not (ready := poll.poll(max(0, (deadline - time.monotonic()) * 1000))):
                if time.monotonic() >= deadline:
                    break
            if not ready:
                expired = True
                process.pidfd_send_signal(pidfd, signals.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return None if expired else status
