"""Every command of ``ketch-oci`` and its flags: runc's, 1.1 to 1.3."""

from ketch.runtime.cli.grammar import Command
from ketch.spec.flag import Flag

_ID = "<container-id>"

_BUNDLE = Flag("bundle", "b", help="directory of the bundle, the current one by default")
_CONSOLE_SOCKET = Flag("console-socket", help="unix socket that receives the terminal's master")
_DETACH = Flag("detach", "d", "bool", "leave once the process runs")
_PID_FILE = Flag("pid-file", help="file to write the process's pid to")
_PIDFD_SOCKET = Flag("pidfd-socket", help="unix socket that receives the process's pidfd")
_NO_SUBREAPER = Flag("no-subreaper", "", "bool", "do not adopt the container's orphans")
_NO_PIVOT = Flag("no-pivot", "", "bool", "move the root instead of pivot_root(2): for a ramdisk")
_NO_NEW_KEYRING = Flag("no-new-keyring", "", "bool", "keep the caller's session keyring")
_PRESERVE_FDS = Flag("preserve-fds", "", "int", "pass N descriptors from 3 on as well")
_EXPLAIN = Flag("explain", "", "bool", "say on standard error what is done, step by step")
_FORMAT = Flag("format", "f", default="table", help="table or json")
_STARTING = (_BUNDLE, _CONSOLE_SOCKET, _PIDFD_SOCKET, _PID_FILE)
_KEEPING = (_NO_PIVOT, _NO_NEW_KEYRING, _PRESERVE_FDS, _EXPLAIN)

_CRIU = (
    Flag("tcp-established", "", "bool", "allow open TCP connections"),
    Flag("ext-unix-sk", "", "bool", "allow external unix sockets"),
    Flag("shell-job", "", "bool", "allow shell jobs"),
    Flag("lazy-pages", "", "bool", "let userfaultfd bring memory when it is touched"),
    Flag("file-locks", "", "bool", "handle file locks"),
    Flag("manage-cgroups-mode", default="soft", help="soft, full, strict or ignore"),
    Flag("empty-ns", "", "list", "make such a namespace, but do not restore its properties"),
    Flag("auto-dedup", "", "bool", "deduplicate memory images"),
)

GLOBAL = (
    Flag("debug", "", "bool", "log what is done"),
    Flag("log", help="file to log to (standard error by default)"),
    Flag("log-format", default="text", help="text or json"),
    Flag("root", help="directory of the containers' state (default: /run/ketch-oci)"),
    Flag("criu", default="criu", help="path of criu"),
    Flag("systemd-cgroup", "", "bool", "have systemd make cgroups: slice:prefix:name"),
    Flag("rootless", default="auto", help="go on without cgroup permission: true, false, auto"),
    Flag("version", "v", "bool", "print the version"),
)

# Command: the function that answers it, under ketch.runtime.cli.
FUNCTIONS = {
    "checkpoint": ("checkpoint", "checkpoint"),
    "create": ("starting", "create"),
    "delete": ("removing", "delete"),
    "events": ("looking", "events"),
    "exec": ("executing", "exec_"),
    "features": ("describing", "features"),
    "kill": ("removing", "kill"),
    "list": ("looking", "list_"),
    "pause": ("changing", "pause"),
    "ps": ("looking", "ps"),
    "restore": ("checkpoint", "restore"),
    "resume": ("changing", "resume"),
    "run": ("starting", "run"),
    "spec": ("describing", "spec"),
    "start": ("changing", "start"),
    "state": ("looking", "state"),
    "update": ("changing", "update"),
}


def command(name: str) -> Command:
    """What a command of FUNCTIONS accepts."""
    return _COMMANDS[name]


_COMMANDS = {
    each.name: each
    for each in (
        Command("checkpoint", "checkpoint a running container", _ID, (
            Flag("image-path", help="directory for criu's images"),
            Flag("work-path", help="directory for criu's work files and logs"),
            Flag("parent-path", help="directory of the images of an earlier pre-dump"),
            Flag("leave-running", "", "bool", "let the container run on"),
            Flag("status-fd", default="-1", help="descriptor to tell once lazy pages are ready"),
            Flag("page-server", help="ADDRESS:PORT of the page server"),
            Flag("pre-dump", "", "bool", "dump memory only, and let the container run on"),
            Flag("tcp-skip-in-flight", "", "bool", "leave out TCP connections being made"),
            Flag("link-remap", "", "bool", "link files again that are open and without a name"),
            *_CRIU,
        )),
        Command("create", "create a container", _ID, (*_STARTING, *_KEEPING)),
        Command("delete", "delete what a container holds", _ID,
                (Flag("force", "f", "bool", "kill it first where it runs"),)),
        Command("events", "print what a container uses, and when it runs out of memory", _ID, (
            Flag("interval", default="5s", help="time between two statistics"),
            Flag("stats", "", "bool", "print the statistics once"),
        )),
        Command("exec", "run another process in a container",
                f"{_ID} <command> [command options]  || -p process.json {_ID}", (
            _CONSOLE_SOCKET, _PIDFD_SOCKET,
            Flag("cwd", help="working directory"),
            Flag("env", "e", "list", "environment variable, NAME=VALUE"),
            Flag("tty", "t", "bool", "give it a terminal"),
            Flag("user", "u", help="uid[:gid]"),
            Flag("additional-gids", "g", "list", "further gid"),
            Flag("process", "p", help="file with the process to run, as in config.json"),
            _DETACH, _PID_FILE,
            Flag("process-label", help="SELinux label"),
            Flag("apparmor", help="AppArmor profile"),
            Flag("no-new-privs", "", "bool", "let it gain no privileges by execve(2)"),
            Flag("cap", "c", "list", "further capability"),
            _PRESERVE_FDS,
            Flag("cgroup", "", "list", "sub-cgroup to run in, [CONTROLLER[,...]:]PATH"),
            Flag("ignore-paused", "", "bool", "enter a paused container as well"), _EXPLAIN,
        ), 1, None, interspersed=False),
        Command("features", "print what this runtime can do", "", (), 0, 0),
        Command("kill", "send a signal to a container's init", f"{_ID} [signal]", (
            Flag("all", "a", "bool", "send it to every process of the container"),
        ), 1, 2),
        Command("list", "list containers", "", (
            _FORMAT, Flag("quiet", "q", "bool", "identifiers only"),
        ), 0, 0),
        Command("pause", "stop all processes of a container", _ID),
        Command("ps", "list the processes of a container", f"{_ID} [ps options]", (_FORMAT,),
                1, None, interspersed=False),
        Command("restore", "restore a container from a checkpoint", _ID, (
            *_STARTING, _DETACH, _NO_SUBREAPER, _NO_PIVOT,
            Flag("image-path", help="directory of criu's images"),
            Flag("work-path", help="directory for criu's work files and logs"),
            Flag("lsm-profile", help="security profile, TYPE:NAME"),
            Flag("lsm-mount-context", help="security context of mounts"),
            *_CRIU,
        )),
        Command("resume", "let all processes of a container run again", _ID),
        Command("run", "create and start a container", _ID, (
            *_STARTING, _DETACH, Flag("keep", "", "bool", "do not delete it after it has ended"),
            _NO_SUBREAPER, *_KEEPING,
        )),
        Command("spec", "write a new config.json", "", (
            Flag("bundle", "b", help="directory to write it to"),
            Flag("rootless", "", "bool", "for a user without privileges"),
        ), 0, 0),
        Command("start", "start a created container", _ID),
        Command("state", "print the state of a container", _ID),
        Command("update", "change what a container may use", _ID, (
            Flag("resources", "r", help="file of resources as in config.json, - for standard input;"
                 " other flags do not count then"),
            Flag("blkio-weight", "", "int", "weight of block I/O, 10 to 1000"),
            Flag("cpu-period", help="CFS period in microseconds"),
            Flag("cpu-quota", help="CFS quota in microseconds a period"),
            Flag("cpu-burst", help="CFS burst in microseconds"),
            Flag("cpu-share", help="relative weight"),
            Flag("cpu-rt-period", help="real-time period in microseconds"),
            Flag("cpu-rt-runtime", help="real-time microseconds a period"),
            Flag("cpuset-cpus", help="processors"),
            Flag("cpuset-mems", help="memory nodes"),
            Flag("cpu-idle", help="1: SCHED_IDLE, 0: the usual class"),
            Flag("memory", help="bytes of memory"),
            Flag("memory-reservation", help="soft limit in bytes"),
            Flag("memory-swap", help="bytes of memory and swap together, -1 for no limit"),
            Flag("kernel-memory", help="accepted, and without effect: the kernel dropped it"),
            Flag("kernel-memory-tcp", help="bytes of TCP buffers (cgroup v1)"),
            Flag("pids-limit", "", "int", "number of tasks"),
            Flag("l3-cache-schema", help="Intel RDT L3 schema"),
            Flag("mem-bw-schema", help="Intel RDT memory bandwidth schema"),
        )),
    )
}  # fmt: skip
