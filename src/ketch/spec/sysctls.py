"""Which kernel parameters a container may set: those of its own namespaces."""

from ketch.errors import InvalidArgumentError

# ipc_namespaces(7); `net.` belongs to the network namespace as a whole.
_IPC = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip


def sysctl(text: str) -> str:
    """Checks ``name=value``: the name must be that of a namespaced parameter."""
    name, equals, _ = text.partition("=")
    if equals and (name in _IPC or name.startswith(("net.", "fs.mqueue."))):
        return text
    raise InvalidArgumentError(f"sysctl '{text}' is not allowed")
