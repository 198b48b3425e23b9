"""Containers must not be able to write the interpreter that enters them (CVE-2019-5736).

A process that enters a container can be made to execute ``/proc/self/exe`` there, and what then
runs, the container's, can open the host's interpreter for writing. So what enters a container must
have been executed from a read-only mount: the kernel checks the mount through which the file was
opened, whatever the container's own mounts are.

For root the mount is kept, so that it costs nothing a start::

    /run/ketch-oci/.python/bin/python3.11    the interpreter, bound read-only
    /run/ketch-oci/.python/lib               link to its library
    /run/ketch-oci/.python/start             where all is, for the shell script ketch-oci

Where none can be kept, ``ensure`` executes the interpreter again from a detached mount, or from a
sealed copy in memory: one more boot.
"""

import errno
import fcntl
import os
import sys

from ketch.linux import libc, mount, process
from ketch.linux.scopes import owned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_PLACE = "/run/ketch-oci/.python"
# A command is over before collecting garbage would pay.
BOOT = (
    "import gc, sys; gc.disable(); sys.path.append(sys.argv.pop(1)); "
    "from ketch.runtime.cli.main import main; main()"
)
_EXECUTABLE = "/proc/self/exe"
_COPY_BYTES = 1 << 20


def ensure() -> None:
    """Return in a process whose executable no container can write.

    Where it is not yet so the program begins anew, so this comes before anything is done.
    """
    if os.statvfs(_EXECUTABLE).f_flag & os.ST_RDONLY:
        return
    # Owned by somebody whom this user namespace does not know, such as the machine's root.
    if not os.access(_EXECUTABLE, os.W_OK) and os.stat(_EXECUTABLE).st_uid != os.geteuid():
        return
    process.exec_descriptor(_sealed(), _words(sys.executable), dict(os.environ))


def start() -> "NoReturn":
    """Be the first start: keep the mount for those that follow, and run the program from it.

    Called with the path of the script ``ketch-oci`` before the program's own arguments.
    """
    script = os.path.abspath(sys.argv.pop(1))
    interpreter = os.path.realpath(sys.executable)
    if os.geteuid() == 0:
        try:  # noqa: SIM105 contextlib is not loaded without need
            interpreter = _keep(script, interpreter)
        except OSError:
            pass  # no such privilege, or /run is read-only: ``ensure`` will do without
    os.execv(interpreter, _words(interpreter))


def _words(interpreter: str) -> list[str]:
    package_parent = __file__.rsplit("/", 4)[0]
    return [interpreter, "-I", "-S", "-c", BOOT, package_parent, *sys.argv[1:]]


def _keep(script: str, interpreter: str) -> str:
    """Make the mount, unless it is there, and tell the script of it; return the sealed path."""
    library = os.path.dirname(os.path.dirname(os.__file__))
    sealed = f"{_PLACE}/bin/{os.path.basename(interpreter)}"
    os.makedirs(f"{_PLACE}/bin", 0o755, exist_ok=True)
    with owned(os.open(_PLACE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as lock:
        # Who comes while another one makes it does without, and waits for nobody.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not (os.path.exists(sealed) and os.path.samefile(sealed, interpreter)):
            _bind(interpreter, sealed)
        # By the library beside it the interpreter knows where it belongs.
        link = f"{_PLACE}/{os.path.basename(library)}"
        _replace(link, lambda path: os.symlink(library, path))
        facts = {"script": script, "interpreter": interpreter, "sealed": sealed,
                 "package": _words(sealed)[5], "boot": BOOT}  # fmt: skip
        text = "".join(f"{name}={_shell_word(value)}\n" for name, value in facts.items())
        _replace(f"{_PLACE}/start", lambda path: _write(path, text))
    return sealed


def _bind(interpreter: str, target: str) -> None:
    """Bind the interpreter read-only; one of an earlier version goes."""
    while True:
        try:
            mount.umount2(target, mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOENT}:
                raise
            break
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o755))
    with owned(_detached(interpreter)) as tree:
        # Private, so that no container or other namespace gets a copy to keep.
        mount.mount_setattr(tree, propagation=mount.MS_PRIVATE)
        mount.move_mount(tree, libc.AT_FDCWD, target)


def _detached(path: str) -> int:
    tree = mount.open_tree(libc.AT_FDCWD, path, mount.OPEN_TREE_CLONE)
    mount.mount_setattr(tree, set_attributes=mount.MOUNT_ATTR_RDONLY)
    return tree


def _sealed() -> int:
    """A descriptor of the interpreter that cannot be opened for writing."""
    try:
        return _detached(os.path.realpath(_EXECUTABLE))
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EINVAL, errno.ENOSYS}:
            raise
    copy = os.memfd_create("python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(_EXECUTABLE, os.O_RDONLY | os.O_CLOEXEC)
    while os.sendfile(copy, source, None, _COPY_BYTES):
        pass
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, seals)
    return copy


def _replace(path: str, make: "Callable[[str], None]") -> None:
    """Make a file under a temporary name and rename it."""
    temporary = f"{path}.new"
    try:  # noqa: SIM105 contextlib is not loaded without need
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    make(temporary)
    os.rename(temporary, path)


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _shell_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
