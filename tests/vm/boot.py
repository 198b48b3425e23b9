"""Run a part of ketch's tests in a virtual machine: a stock Debian kernel, cgroup v2 alone.

    boot.py [options] [--] [PYTEST ARGUMENT...]
    boot.py [options] --shell COMMAND

The exit status is pytest's or the command's; 125 when the machine gave none. README.md, beside this
file, tells how it works.
"""

import argparse
import fcntl
import hashlib
import os
import re
import selectors
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).resolve().parent / "guest"
CACHE = CHECKOUT / ".cache" / "vm"
IN_MEMORY = ("sh", str(CHECKOUT / "tests" / "support" / "in_memory.sh"))

PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
"""The Debians that a guest can be, and the Python of each."""

GUEST_PACKAGES = (
    "apparmor",  # to load a profile of one's own
    "busybox-static",
    "criu",
    "dbus",  # systemd answers on its bus: the systemd cgroup driver
    "dbus-user-session",  # with libpam-systemd: managers of users
    "e2fsprogs",
    "iproute2",
    "iptables",  # what other engines write their rules with, which ours must get along with
    "kmod",
    "libseccomp2",
    "nfs-kernel-server",  # homes that a server keeps
    "nftables",
    "procps",
    "python3",
    "runc",  # what ketch-oci does, it did before
    "systemd-sysv",
    "uidmap",
)
PYTHON_PACKAGES = (
    "python3-dnslib",
    "python3-h11",
    "python3-h2",
    "python3-hypothesis",
    "python3-isal",
    "python3-jsonschema",
    "python3-pexpect",
    "python3-protobuf",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-referencing",
    "python3-socks",
    "python3-urllib3",
    "python3-wsproto",
    "python3-zstandard",
)
"""What ketch and its tests import, as Debian has it, where it is recent enough there."""

OWN_PYTHON = ("trixie",)
"""Guests with `PYTHON_PACKAGES`; the others are handed the checkout's virtual environment."""

IN_THE_IMAGE = {
    "first.sh": "/ketch-vm.sh",
    "ketch-vm.service": "/etc/systemd/system/ketch-vm.service",
}
TESTS = ("tests/vm/guest/facilities.py", "tests/contracts", "tests/kernel", "tests/e2e")

# What the guest has no use for; the rest of the checkout is handed in as it stands.
LEFT_OUT = (
    ".git", ".cache", ".*_cache", ".hypothesis", "dist",
    "mypy", "mypyc", "*__mypyc*", "ruff", "pip", "setuptools",
)  # fmt: skip

SCRATCH = ".tmp"
ROOT_SIGNATURE = 0x6B657463

QEMU = "qemu-system-x86_64"
SYSTEM_PATH = ":/usr/sbin:/sbin"
PACKAGES = Path(__file__).with_name("packages.txt")

PRIORITY = -10
"""Of the machine among what the host does, see sched(7)."""

NO_STATUS = 125
"""Exit status when the machine ended, or was ended, without saying how the job did."""


class MachineError(Exception):
    """The machine could not be made or run."""


def say(text: str) -> None:
    """Tell the person at the terminal what goes on, apart from what the guest prints."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


def tool(*command: str, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed; what it said goes into the error."""
    path = os.environ.get("PATH", "") + SYSTEM_PATH
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | {"PATH": path, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except FileNotFoundError:
        raise MachineError(
            f"{command[0]} is not installed; tests/vm/packages.txt lists what is needed"
        ) from None
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stderr.strip().splitlines()[-8:])
        raise MachineError(f"{shlex.join(command)} failed ({error.returncode}):\n{last}") from None


def pack(tree: Path, image: Path, size_mib: int, disk_signature: int | None = None) -> None:
    """Make an ext4 image of a directory; what it does not fill takes no space on the host.

    Args:
        tree: the directory.
        image: the file to make.
        size_mib: the filesystem's size.
        disk_signature: make a disk with one partition, which the kernel then knows by this number
            (PARTUUID), where without an initramfs it knows no filesystem by its label.
    """
    unfinished = image.with_name(image.name + ".new")
    with unfinished.open("wb") as file:
        file.truncate((size_mib + 1) << 20)
        if disk_signature is not None:
            entry = (0, 0, 0, 0, 0x83, 0, 0, 0, (1 << 20) // 512, (size_mib << 20) // 512)
            file.seek(440)
            file.write(struct.pack("<IH8B2I48xH", disk_signature, 0, *entry, 0xAA55))
    offset = [] if disk_signature is None else ["-E", f"offset={1 << 20}"]
    tool(
        "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", *offset, "-d", str(tree),
        str(unfinished), f"{size_mib}M",
    )  # fmt: skip
    unfinished.rename(image)


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory in the cache that goes away with the block; made while the cache is locked."""
    with (
        tempfile.TemporaryDirectory(prefix=f"{name}-", suffix=SCRATCH, dir=CACHE) as directory,
        locked(Path(directory)),
    ):
        yield Path(directory)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a directory for the block, until the end of this process at the latest.

    Yields:
        Whether it was to be had: always, after waiting.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def sweep() -> None:
    """Remove the scratch directories of runs that were killed; the cache is locked."""
    for directory in CACHE.glob(f"*{SCRATCH}"):
        with locked(directory, wait=False) as abandoned:
            if abandoned:
                shutil.rmtree(directory)


def kernel(suite: str, package: str) -> Path:
    """The directory with `vmlinuz` and `modules.ext4` of a Debian kernel metapackage.

    The version that was current at the first call stays until its directory is deleted: no run
    depends on the network once it is there, and two runs are of one kernel.
    """
    for directory in sorted(CACHE.glob(f"{suite}-{package}_*")):
        return directory
    say(f"downloading {package} of {suite} (once)")
    with scratch("kernel") as work:
        # By apt as mmdebstrap sets it up, which is the suite's whatever the host is.
        tool(*IN_MEMORY, "mmdebstrap", "--variant=custom", "--format=null",
             f"--customize-hook={shlex.join(['sh', '-euc', FETCH, 'sh', package, str(work)])}",
             suite, "-")  # fmt: skip
        (archive,) = work.glob("*.deb")
        files = work / "files"
        tool("dpkg-deb", "--extract", str(archive), str(files))
        if not (files / "lib").exists():  # as from Debian 13 on
            (files / "lib").symlink_to("usr/lib")
        (modules,) = (files / "lib/modules").iterdir()
        tool("depmod", "--basedir", str(files), modules.name)
        result = work / "result"
        result.mkdir()
        (files / f"boot/vmlinuz-{modules.name}").rename(result / "vmlinuz")
        pack(modules.parent, result / "modules.ext4", 1024)
        version = tool("dpkg-deb", "--field", str(archive), "Version").strip()
        return result.rename(CACHE / f"{suite}-{package}_{version}")


# The package that a metapackage depends on, of the metapackage's own version.
FETCH = """
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
cd "$2"
depends=$(apt-cache show --no-all-versions "$1" | sed -n 's/^Depends: //p' | tr , '\\n')
image=$(echo "$depends" | sed -n 's/^ *\\(linux-image-[^ ]*\\) (= \\(.*\\))$/\\1=\\2/p')
[ -n "$image" ] || { echo "$1 is not a kernel metapackage" >&2; exit 1; }
apt-get -qq -o APT::Sandbox::User=root download "$image"
"""


def root_recipe(suite: str) -> list[str]:
    """mmdebstrap's command line for the guest's root filesystem, less the name of the result."""
    hooks = [
        'mkdir -p "$1/ketch-vm" "$1/usr/lib/modules"',
        *(
            f"upload {shlex.quote(str(GUEST / name))} {place}"
            for name, place in IN_THE_IMAGE.items()
        ),
        'chmod 755 "$1/ketch-vm.sh"',
        # mmdebstrap copies the host's; the image must be the same everywhere.
        'echo nameserver 192.0.2.53 >"$1/etc/resolv.conf"',
        'echo ketch-vm >"$1/etc/hostname"',
        'chroot "$1" systemctl enable --quiet ketch-vm.service',
        # Nobody logs in, nothing is kept up to date.
        'chroot "$1" systemctl mask --quiet'
        " getty.target serial-getty@ttyS0.service e2scrub_reap.service"
        # A test serves NFS itself.
        " nfs-server.service nfs-client.target nfs-blkmap.service rpcbind.socket rpcbind.service",
    ]
    packages = [*GUEST_PACKAGES, *(PYTHON_PACKAGES if suite in OWN_PYTHON else ())]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        *(f"--customize-hook={hook}" for hook in hooks),
        suite,
    ]


def root_image(suite: str) -> Path:
    """The guest's root filesystem: a minimal Debian, made again when its recipe changes."""
    recipe = root_recipe(suite)
    scripts = [(GUEST / name).read_text() for name in IN_THE_IMAGE]
    # Checkouts that share a cache share the image: where they lie is no part of it.
    facts = "\0".join([*recipe, *scripts]).replace(str(GUEST), "")
    image = CACHE / f"root-{suite}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}.ext4"
    if image.exists():
        return image
    say(f"making the root filesystem with mmdebstrap (once, about a minute): {image.name}")
    with scratch("root") as work:
        # To an archive, not a directory: an interrupted mmdebstrap may leave mounts in a directory,
        # and removing that would follow them.
        archive, tree = work / "root.tar", work / "root"
        tool(*IN_MEMORY, *recipe, str(archive))
        tree.mkdir()
        tool("tar", "-x", "--xattrs", "--xattrs-include=*", "-f", str(archive), "-C", str(tree))
        pack(tree, image, 4096, ROOT_SIGNATURE)
    for stale in set(CACHE.glob(f"root-{suite}-*.ext4")) - {image}:
        stale.unlink()
    return image


def link(source: str, target: str) -> None:
    """Stage a file without copying it; one that has just gone is left out."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return


def make_environment(venv: Path, python: str) -> None:
    """Make a virtual environment for a guest's Python: ketch, and what Debian packages of it."""
    packages = venv / f"lib/python{python}/site-packages"
    packages.mkdir(parents=True)
    (packages / "ketch.pth").write_text(f"{CHECKOUT}/src\n")
    (venv / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {python}.0\n"
    )
    programs = venv / "bin"
    programs.mkdir()
    for name in ("python", "python3"):
        (programs / name).symlink_to("/usr/bin/python3")
    for name in ("ketch", "ketch-oci"):
        text = (CHECKOUT / "bin" / name).read_text()
        (programs / name).write_text(
            text.replace("#!python\n", f"#!{CHECKOUT}/.venv/bin/python\n", 1)
        )
        (programs / name).chmod(0o755)


def run_image(work: Path, suite: str, job: str) -> Path:
    """The disk of this run: the job, and the checkout with a virtual environment."""
    stage = work / "stage"
    left_out = shutil.ignore_patterns(*LEFT_OUT, *([".venv"] if suite in OWN_PYTHON else []))
    shutil.copytree(CHECKOUT, stage / "tree", symlinks=True, copy_function=link, ignore=left_out)
    if suite in OWN_PYTHON:
        make_environment(stage / "tree/.venv", PYTHONS[suite])
    shutil.copy(GUEST / "session.sh", stage)
    # The checkout keeps its own path in the guest: the environment's scripts and .pth name it.
    (stage / "path").write_text(str(CHECKOUT))
    (stage / "job").write_text(job)
    image = work / "run.ext4"
    pack(stage, image, 2048)
    return image


def disk(identifier: int, image: Path, options: str = "") -> list[str]:
    """QEMU's arguments for an NVMe namespace; the guest must go by its identifier, not its name."""
    name = str(image).replace(",", ",,")
    return [
        "-drive", f"if=none,id=disk{identifier},format=raw,file={name}{options}",
        "-device", f"nvme-ns,drive=disk{identifier},nsid={identifier}",
    ]  # fmt: skip


def machine(boot: Path, disks: list[str], console: Path, init: str, memory_mib: int) -> list[str]:
    """QEMU's command line. NVMe, since Debian's cloud kernel has it built in: no initramfs."""
    started_by = {"tiny": "/ketch-vm.sh", "systemd": "/sbin/init"}[init]
    arguments = (
        f"root=PARTUUID={ROOT_SIGNATURE:08x}-01 rootfstype=ext4 rw console=ttyS0 quiet panic=-1"
        # These, and the three features that the processor lacks, cost much under emulation: with
        # erms a page is copied and cleared byte by byte.
        " mitigations=off transparent_hugepage=never init_on_alloc=0"
        f" cgroup_no_v1=all init={started_by}"
    )
    name = str(console).replace(",", ",,")
    return [
        # Should this process be killed, the machine goes with it.
        "setpriv", "--pdeathsig", "KILL",
        QEMU, "-accel", "tcg,thread=multi", "-machine", "q35",
        "-cpu", "max,-la57,-smap,-erms", "-smp", "2", "-m", str(memory_mib),
        "-nodefaults", "-display", "none", "-no-reboot",
        "-kernel", str(boot / "vmlinuz"), "-append", arguments,
        "-chardev", f"file,id=console,path={name}", "-serial", "chardev:console",
        "-chardev", "stdio,id=job,signal=off", "-serial", "chardev:job",
        "-device", "nvme,serial=ketch", *disks,
    ]  # fmt: skip


def stream(command: list[str], work: Path, timeout_seconds: float) -> bool:
    """Run the machine, passing on what the job prints; False when its time ran out."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(work)},  # where snapshot=on keeps what the guest writes
        start_new_session=True,
    )
    # What else goes on here would make of the guest's time limits a matter of luck. Where sessions
    # share the processors as groups, a process' own priority counts among its group's alone.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, PRIORITY)
        Path("/proc", str(process.pid), "autogroup").write_text(str(PRIORITY))
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_seconds
    try:
        with process.stdout as output, selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    return False
                data = os.read(output.fileno(), 65536)
                if not data:
                    return True
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        return False
    finally:
        process.kill()
        process.wait()


def check() -> None:
    """See whether all is installed that will be asked for, before anything is fetched or made."""
    path = os.environ.get("PATH", "") + SYSTEM_PATH
    needed = ("depmod", "dpkg-deb", "mke2fs", "mmdebstrap", "setpriv", QEMU)
    if missing := [name for name in needed if shutil.which(name, path=path) is None]:
        raise MachineError(
            f"not installed: {', '.join(missing)}; on Debian: apt-get install"
            f" {' '.join(PACKAGES.read_text(encoding='utf-8').split())}"
        )


def run(
    suite: str, job: str, package: str, init: str, memory_mib: int, timeout_seconds: float
) -> int:
    """Boot, run the job, and return its exit status."""
    check()
    CACHE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        with locked(CACHE):
            sweep()
            boot, root = kernel(suite, package), root_image(suite)
            work = stack.enter_context(scratch("run"))
        begun = time.monotonic()
        status, console = work / "status", work / "console.log"
        status.write_bytes(bytes(1 << 20))
        disks = [
            *disk(1, root, ",snapshot=on"),
            *disk(2, boot / "modules.ext4", ",readonly=on"),
            *disk(3, run_image(work, suite, job), ",cache=unsafe"),
            *disk(4, status),
        ]
        say(f"booting {boot.name}, with {init} as its init")
        in_time = stream(machine(boot, disks, console, init, memory_mib), work, timeout_seconds)
        last = CACHE / f"console-{suite}-{init}.log"
        if console.exists():
            shutil.copy(console, last)
        result = status.read_bytes().rstrip(b"\0").strip().decode()
        took = time.monotonic() - begun
    if result:
        say(f"status {result} after {took:.1f} s")
        return int(result)
    why = "ended without a result" if in_time else f"was stopped at {timeout_seconds:.0f} s"
    tail = last.read_text(errors="replace").strip().splitlines()[-40:]
    raise MachineError(f"the machine {why}; its console ended:\n" + "\n".join(tail))


def pytest_job(suite: str, arguments: list[str]) -> str:
    """The shell text that runs pytest on the checkout in the guest."""
    if suite not in OWN_PYTHON:
        environment = (CHECKOUT / ".venv/pyvenv.cfg").read_text()
        facts = dict(re.findall(r"^(\w+) = (.*)$", environment, re.MULTILINE))
        if facts["home"] != "/usr/bin" or not facts["version"].startswith(f"{PYTHONS[suite]}."):
            raise MachineError(
                f"the guest has Debian's Python {PYTHONS[suite]} alone, and .venv is of another"
            )
    chosen = arguments or ["-p", "selection", *TESTS]
    # Compiled for its Python here: else whoever may not write there compiles it again and again.
    compiles = "python3 -m compileall -q src\n" if suite in OWN_PYTHON else ""
    command = [
        "PYTHONPATH=tests/vm/guest",
        str(CHECKOUT / ".venv/bin/python"), "-m", "pytest",
        # Hypothesis' plugin takes longer to load here than most tests to run.
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
    ]  # fmt: skip
    return f"{compiles}{command[0]} exec {shlex.join([*command[1:], *chosen])}\n"


def main() -> int:
    """Parse the command line, run, and print what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shell", metavar="COMMAND", help="run this in the guest, not pytest")
    parser.add_argument("--suite", choices=PYTHONS, default="bookworm", help="which Debian it is")
    parser.add_argument("--init", choices=("tiny", "systemd"), default="tiny")
    parser.add_argument("--kernel", default="linux-image-cloud-amd64", metavar="PACKAGE")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS")
    parser.add_argument("pytest", nargs="*", metavar="PYTEST ARGUMENT")
    options = parser.parse_args()
    # So that whoever ends this process ends the machine and the temporary files too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(NO_STATUS))
    try:
        suite, shell = options.suite, options.shell
        job = pytest_job(suite, options.pytest) if shell is None else shell + "\n"
        return run(suite, job, options.kernel, options.init, options.memory, options.timeout)
    except MachineError as error:
        say(str(error))
        return NO_STATUS
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
