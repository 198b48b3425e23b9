"""What OCI runtimes are called, and which of them is ketch's own."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OWN = ("ketch", "runc", "io.containerd.runc.v2")
"""Names of ketch's own: Docker's clients say the last two where they mean the usual one."""


def is_other(record: "Mapping[str, Any]") -> bool:
    """Whether a container's program is run by another runtime than ketch's own.

    Args:
        record: the container's, or a request for one.
    """
    name = record.get("HostConfig", {}).get("Runtime", "")
    return bool(name) and name not in OWN
