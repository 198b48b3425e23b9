"""Which system call filter a program of a container gets, and who answers what it asks."""

from ketch.linux import namespaces
from ketch.runtime import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.engine.settings import Settings
    from ketch.runtime.seccomp import Filter
    from ketch.spec.runtime import Process, Seccomp


def prepare(
    settings: "Settings", section: "Seccomp | None", process: "Process"
) -> "tuple[Filter | None, Callable[[int], None] | None]":
    """Returns a program's filter, and what takes the filter's listener where that is the engine.

    Args:
        settings: where compiled filters are kept.
        section: the container's ``linux.seccomp``, None for none.
        process: the program's ``process``.
    """
    supervise = None
    if not namespaces.in_initial_user_namespace():
        section, supervise = _for_user(section, process)
    return seccomp.prepare(section, f"{settings.root}/seccomp") if section else None, supervise


def _for_user(
    section: "Seccomp | None", process: "Process"
) -> "tuple[Seccomp | None, Callable[[int], None] | None]":
    from ketch.linux import owners  # noqa: PLC0415 - for users alone

    if not owners.alone():
        return section, None
    from ketch.linux import libc  # noqa: PLC0415 - as above
    from ketch.runtime import standing_in as supervisor  # noqa: PLC0415 - as above
    from ketch.spec import standing_in  # noqa: PLC0415 - as above
    from ketch.spec.seccomp import architectures  # noqa: PLC0415 - as above
    from ketch.spec.seccomp_default import default_profile  # noqa: PLC0415 - as above

    own = bool(section and standing_in.asks(section))
    names = process.get("capabilities", {}).get("bounding", ())
    native = architectures(default_profile(), libc.MACHINE)
    return standing_in.section(section, names, native), None if own else supervisor.start
