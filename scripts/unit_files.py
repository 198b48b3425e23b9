"""Write docs/systemd, what a package of ketch gives to systemd; a test compares the two.

The units are those of ``ketch serve --install-unit``, with a program that systemd finds in /usr/bin
and /usr/local/bin, and the group is made by systemd-sysusers(8), as distributions do it.
"""

import pathlib
import sys

from ketch.api import units
from ketch.engine.settings import Settings

PLACE = pathlib.Path(__file__).parents[1] / "docs" / "systemd"
GROUP = "ketch"


def pages() -> dict[str, str]:
    """Return all files, by their paths below ``PLACE``."""
    found = {
        f"system/{name}": text for name, text in units.files(Settings(), "ketch", GROUP).items()
    }
    found["sysusers.d/ketch.conf"] = f"g {GROUP} -\n"
    return found


if __name__ == "__main__":
    for name, text in pages().items():
        (PLACE / name).parent.mkdir(parents=True, exist_ok=True)
        (PLACE / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(pages())} files in {PLACE}\n")
