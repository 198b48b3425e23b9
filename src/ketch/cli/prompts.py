"""Questions that a command asks before it takes something away."""

import sys


def confirmed(warning: str) -> bool:
    """Ask whether to go on; only a yes on standard input is one, as with Docker.

    Args:
        warning: what is going to happen.
    """
    print(f"{warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    return answer.strip().lower() == "y"
