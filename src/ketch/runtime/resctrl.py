"""Cache and memory bandwidth allocation: ``linux.intelRdt``, through the resctrl file system.

Source: runtime-spec config-linux.md "IntelRdt", Documentation/filesystems/resctrl.rst.
"""

import contextlib
import os

from ketch.errors import ConflictError, InvalidArgumentError, UnsupportedError
from ketch.linux.procfs import unescape
from ketch.linux.scopes import owned
from ketch.spec.told import Told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import IntelRdt


def mountpoint(mountinfo: str) -> str:
    """Where resctrl is mounted.

    Args:
        mountinfo: the text of /proc/self/mountinfo.

    Raises:
        UnsupportedError: nowhere.
    """
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith("resctrl "):
            return unescape(left.split(" ")[4])
    raise UnsupportedError(
        "linux.intelRdt: resctrl is not mounted",
        "on a processor that has it: mount -t resctrl resctrl /sys/fs/resctrl",
    )


def schemata(wanted: "IntelRdt") -> list[str]:
    """The lines for a group's ``schemata`` file, in the order in which they are written.

    The older fields come first, so that ``schemata`` has the last word, as the specification wants.
    """
    older = [wanted.get("l3CacheSchema", ""), wanted.get("memBwSchema", "")]
    lines = [line for text in older for line in text.splitlines() if line]
    return lines + list(wanted.get("schemata") or [])


class Group:
    """The container's resctrl group.

    Args:
        root: where resctrl is mounted.
        wanted: ``linux.intelRdt``.
        container_id: names the group where no ``closID`` does, and its monitoring group.
    """

    __slots__ = ("_container_id", "_own", "_root", "_wanted", "directory")

    def __init__(self, root: str, wanted: "IntelRdt", container_id: str) -> None:
        name = wanted.get("closID") or container_id
        self._own = not wanted.get("closID")
        self._root = root
        self._wanted = wanted
        self._container_id = container_id
        self.directory = f"{root}/{name}"

    def describe(self) -> Told:
        """What is done, in words."""
        return Told("limits", f"cache and memory bandwidth as in {self.directory} · resctrl")

    def apply(self, pid: int) -> None:
        """Make the group, limit it, and place a process in it.

        Raises:
            InvalidArgumentError: the kernel refuses a schema.
            ConflictError: a group that is shared by its ``closID`` has other limits.
        """
        lines = schemata(self._wanted)
        made = not os.path.isdir(self.directory)
        if made:
            if not self._own and not lines:
                raise InvalidArgumentError(
                    f"linux.intelRdt.closID: there is no group {self.directory}",
                    "make it, or give a schema for it",
                )
            os.mkdir(self.directory, 0o755)
        try:
            if lines and (made or self._own):
                self._write("schemata", "\n".join(lines) + "\n")
            elif lines:
                self._compare(lines)
            self._write("tasks", str(pid))
            if self._wanted.get("enableMonitoring"):
                group = f"mon_groups/{self._container_id}"
                os.makedirs(f"{self.directory}/{group}", exist_ok=True)
                self._write(f"{group}/tasks", str(pid))
        except BaseException:
            if made:
                self.remove()
            raise

    def change(self, wanted: "IntelRdt", pids: list[int]) -> None:
        """Limit a running container otherwise; one that had no group gets it now.

        Args:
            wanted: the fields that change.
            pids: all processes of the container.

        Raises:
            InvalidArgumentError: the kernel refuses a schema.
        """
        os.makedirs(self.directory, 0o755, exist_ok=True)
        self._write("schemata", "\n".join(schemata(wanted)) + "\n")
        for pid in pids:
            self._write("tasks", str(pid))

    def remove(self) -> None:
        """Remove what belongs to the container alone; a group named by ``closID`` stays."""
        with contextlib.suppress(FileNotFoundError):
            if self._wanted.get("enableMonitoring"):
                os.rmdir(f"{self.directory}/mon_groups/{self._container_id}")
        if self._own:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self.directory)

    def _compare(self, lines: list[str]) -> None:
        with open(f"{self.directory}/schemata", encoding="ascii") as file:
            present = {_parse(line) for line in file if line.strip()}
        for line in lines:
            if _parse(line) not in present:
                raise ConflictError(
                    f"linux.intelRdt: the group {self.directory} is there with another schema "
                    f"than {line!r}",
                    "choose another closID, or leave the schema out to share the group's",
                )

    def _write(self, file: str, words: str) -> None:
        try:
            with owned(
                os.open(f"{self.directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
            ) as descriptor:
                os.write(descriptor, words.encode())
        except OSError as error:
            raise InvalidArgumentError(
                f"linux.intelRdt: {words.strip()!r} in {file}: {self._last_error(error)}"
            ) from error

    def _last_error(self, error: OSError) -> str:
        """What the kernel says of the last failed write, beyond its error number."""
        reason = (error.strerror or "").lower()
        with (
            contextlib.suppress(OSError),
            open(f"{self._root}/info/last_cmd_status", encoding="ascii") as file,
        ):
            return f"{reason}: {file.read().strip()}"
        return reason


def group(wanted: "IntelRdt", container_id: str) -> Group:
    """The container's group on this machine.

    Raises:
        UnsupportedError: resctrl is not mounted.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return Group(mountpoint(file.read()), wanted, container_id)


def _parse(line: str) -> tuple[str, frozenset[str]]:
    resource, _, domains = line.strip().partition(":")
    return resource.strip(), frozenset(part.strip() for part in domains.split(";"))
