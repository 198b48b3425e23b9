#!/usr/bin/env python3
"""Write the root filesystem of a busybox image as a tar archive.

The program is the machine's own static busybox (Debian's busybox-static), with one link for each
of its applets. The same busybox gives the same bytes.

usage: busybox_rootfs.py ARCHIVE
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nadm:x:4:www-data\nwww-data:x:33:\nstaff:x:50:www-data\n"
    "nogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700,
    "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755,
    "sbin": 0o755, "var": 0o755, "var/tmp": 0o1777, "var/www": 0o755,
}  # fmt: skip


def write(archive: tarfile.TarFile, busybox: str) -> None:
    """Add directories, the program, its links and the account files, in that order."""

    def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
        archive.addfile(member, io.BytesIO(data))

    for name, mode in DIRECTORIES.items():
        add(name, tarfile.DIRTYPE, mode)
    with open(busybox, "rb") as program:
        add("bin/busybox", tarfile.REGTYPE, 0o755, program.read())
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)
    for applet in sorted(set(applets.stdout.split()) - {"busybox"}):
        add(f"bin/{applet}", tarfile.LNKTYPE, 0o755, link="bin/busybox")
    for name, text in FILES.items():
        add(name, tarfile.REGTYPE, 0o600 if name == "etc/shadow" else 0o644, text.encode())


def main(arguments: list[str]) -> int:
    """Write the archive to a temporary name, then rename it."""
    busybox = shutil.which("busybox")
    if busybox is None or len(arguments) != 1:
        print("busybox_rootfs.py: no busybox on this machine" if arguments else __doc__,
              file=sys.stderr)  # fmt: skip
        return 1
    (destination,) = arguments
    partial = f"{destination}.{os.getpid()}"
    os.makedirs(os.path.dirname(os.path.abspath(destination)), exist_ok=True)
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
        write(archive, busybox)
    os.rename(partial, destination)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
