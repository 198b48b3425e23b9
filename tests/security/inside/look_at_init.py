"""Print how far PID 1 lets itself be looked at."""

import json
import os


def outcome(path: str) -> str:
    """Open a file of PID 1's; return ``opened`` or why not."""
    try:
        os.close(os.open(f"/proc/1/{path}", os.O_RDONLY))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "opened"


with open("/proc/1/comm", encoding="utf-8") as file:
    name = file.read().strip()
paths = ("exe", "fd/0", "cwd", "root", "environ", "mem", "maps", "ns/mnt")
print(json.dumps({"name": name, "outcomes": {path: outcome(path) for path in paths}}))
