"""Print what can be done to the file that this process is executed from.

CVE-2019-5736: where it is the host's and can be written, every later start of it runs what was
written. Nothing is: a change of mode to what the mode is already tells as much.
"""

import json
import os
import stat


def outcome(path: str) -> str:
    """Change the file's mode to what it is; return ``done`` or why not."""
    try:
        os.chmod(path, stat.S_IMODE(os.stat(path).st_mode))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


def write(path: str) -> str:
    """Open the file for writing; return ``done`` or why not (where it runs: text file busy)."""
    try:
        os.close(os.open(path, os.O_WRONLY))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "done"


EXE = "/proc/self/exe"
print(
    json.dumps(
        {
            "inode": os.stat(EXE).st_ino,
            "chmod": outcome(EXE),
            "write": write(EXE),
            "read-only": bool(os.statvfs(EXE).f_flag & os.ST_RDONLY),
        }
    )
)
