"""Play what has the library in its own process, as root of an ordinary user's namespaces.

``python -m tests.support.inside ARGUMENTS-OF-PYTEST``, as root; marked they are ``in_process``.
"""

import os
import secrets
import subprocess
import sys

from tests.support import leftovers, users

_SCRIPT = 'cd "$0" && TMPDIR=$HOME exec "$@"'


def command(user: users.User, *arguments: str) -> list[str]:
    """Return the words that run pytest in a user's namespaces.

    Args:
        user: who has the installed ketch.
        arguments: of pytest.
    """
    played = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    shared = {leftovers.SHARED_VARIABLE: "1"}  # there are links and mounts that are not its own
    return [
        *user.prefix(**shared), "ketch", "unshare", "sh", "-c", _SCRIPT, os.getcwd(), *played,
    ]  # fmt: skip


def main() -> None:
    """Make a user, play, and take it away."""
    os.environ[leftovers.RUN_VARIABLE] = run = f"ketch-test-{secrets.token_hex(4)}"
    with users.made(run) as user:
        done = subprocess.run(command(user, *sys.argv[1:]), check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
