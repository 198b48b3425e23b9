"""``python -m ketch``: the command, by the interpreter that has the package."""

import sys

from ketch.cli.main import leave, main

if __name__ == "__main__":
    sys.argv[0] = "ketch"
    leave(main())
