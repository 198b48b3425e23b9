import itertools

import pytest

from ketch.cli.flags import Command, UsageError, parse
from ketch.errors import InvalidArgumentError, UnsupportedError
from ketch.spec.container import Request
from ketch.spec.options import CREATE_OPTIONS, OPTIONS, Caller, request

RUN = Command("ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]", "", OPTIONS, 1, None, False)
FILES = {
    "/cwd/env": b"FROM_FILE=1\nHOME\n",
    "/cwd/labels": b"a=file\nb\n",
    "/cwd/profile.json": b"{}",
}


def read(name: str) -> bytes:
    try:
        return FILES[name]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory", name) from None


def ask(*words: str) -> Request:
    parsed = parse(RUN, words)
    caller = Caller("/cwd", {"HOME": "/me"}, read)
    return request(parsed.values, parsed.given, parsed.arguments, caller)


def test_the_table_has_every_name_once_and_in_order() -> None:
    names = [name for option in OPTIONS for name in (option.name, *option.aliases)]
    assert len(names) == len(set(names))
    letters = [option.shorthand for option in OPTIONS if option.shorthand]
    assert len(letters) == len(set(letters))
    assert all(a.name < b.name for a, b in itertools.pairwise(OPTIONS))
    assert all(option.help and not option.help.endswith(".") for option in OPTIONS)


def test_every_field_is_one_of_the_apis() -> None:
    from ketch.spec.container import Config, HostConfig

    for option in OPTIONS:
        if option.field:
            section, _, key = option.field.partition(".")
            known = {"Config": Config, "HostConfig": HostConfig}[section]
            assert key in known.__annotations__, option.name


def test_what_is_not_given_is_not_asked_for() -> None:
    assert ask("busybox") == {
        "Config": {
            "Image": "busybox",
            "Env": [],
            "Labels": {},
            "AttachStdin": False,
            "AttachStdout": True,
            "AttachStderr": True,
            "StdinOnce": False,
        },
        "HostConfig": {},
    }


def test_the_old_notes_command_lines() -> None:
    made = ask(
        "-ti", "-m", "100m", "-cpuset", "1", "-cpushare", "512", "-net", "none", "-name", "web",
        "-v", "/a:/b", "-e", "X=1", "busybox", "top", "-b",
    )  # fmt: skip
    assert made["Config"]["Tty"]
    assert made["Config"]["OpenStdin"]
    assert made["Config"]["Cmd"] == ["top", "-b"]
    assert made["HostConfig"] == {
        "Memory": 100 << 20,
        "CpusetCpus": "1",
        "CpuShares": 512,
        "NetworkMode": "none",
        "Binds": ["/a:/b"],
    }


def test_structured_fields() -> None:
    made = ask(
        "--cpus", ".5", "--ulimit", "nofile=5:9", "--sysctl", "net.a=1", "--tmpfs", "/t:size=1m",
        "--tmpfs", "/u", "--device", "/dev/full:r", "--add-host", "a=[::1]", "--dns", " 1.1.1.1 ",
        "--mount", "type=bind,src=./x,dst=/y", "--entrypoint", "", "--annotation", "k=v=w",
        "busybox",
    )  # fmt: skip
    assert made["Config"]["Entrypoint"] == [""]
    assert made["HostConfig"] == {
        "NanoCpus": 500_000_000,
        "Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 9}],
        "Sysctls": {"net.a": "1"},
        "Tmpfs": {"/t": "size=1m", "/u": ""},
        "Devices": [
            {"PathOnHost": "/dev/full", "PathInContainer": "/dev/full", "CgroupPermissions": "r"}
        ],
        "ExtraHosts": ["a:::1"],
        "Dns": ["1.1.1.1"],
        "Mounts": [{"Type": "bind", "Source": "/cwd/x", "Target": "/y"}],
        "Annotations": {"k": "v=w"},
    }


def test_files_and_the_callers_environment() -> None:
    made = ask(
        "--env-file", "env", "-e", "HOME", "-e", "GONE", "--label-file", "labels", "-l", "a=flag",
        "--security-opt", "seccomp=profile.json", "--security-opt", "no-new-privileges:true", "x",
    )  # fmt: skip
    assert made["Config"]["Env"] == ["FROM_FILE=1", "HOME=/me", "HOME=/me", "GONE"]
    assert made["Config"]["Labels"] == {"a": "flag", "b": ""}
    assert made["HostConfig"]["SecurityOpt"] == ["seccomp={}", "no-new-privileges:true"]


def test_a_detached_container_has_nobody_attached() -> None:
    config = ask("-d", "-i", "x")["Config"]
    assert config["OpenStdin"]
    assert not config["AttachStdin"]
    assert not config["StdinOnce"]
    assert not config["AttachStdout"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pid foo", "--pid: invalid PID mode"),
        ("--uts foo", "--uts: invalid UTS mode"),
        ("--cgroupns foo", "--cgroupns: invalid CGROUP mode"),
        ("--memory-swappiness 101", "invalid value: 101. Valid memory swappiness range is 0-100"),
        ("--env-file nope", "open nope: no such file or directory"),
        ("--label-file nope", "open nope: no such file or directory"),
        ("--security-opt foo", 'Invalid --security-opt: "foo"'),
        (
            "--security-opt seccomp=/nope",
            "opening seccomp profile (/nope) failed: open /nope: no such file or directory",
        ),
        ("--device /dev/null:foo", "foo is not an absolute path"),
        ("--device /dev/null:/foo:x", "bad mode specified: x"),
        ("--device a:b:c:d", "bad format for path: a:b:c:d"),
        ("-v /a:", "invalid spec: /a:: empty section between colons"),
    ],
)
def test_refusals_after_the_flags(words: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        ask(*words.split(), "busybox")
    assert not isinstance(caught.value, UsageError)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("flag", "value", "reason"),
    [
        ("-m, --memory", "x", "invalid size: 'x'"),
        ("--sysctl", "a=b", "sysctl 'a=b' is not allowed"),
        ("--ulimit", "foo", "invalid ulimit argument: foo"),
        ("--add-host", "foo", 'bad format for add-host: "foo"'),
        ("--add-host", "a:foo", 'invalid IP address in add-host: "foo"'),
        ("--dns", "foo", "IP address is not correctly formatted: foo"),
        ("--dns-search", "-", "- is not a valid domain"),
        ("--device-cgroup-rule", "x", "invalid device cgroup format 'x'"),
        ("-e, --env", "=x", "invalid environment variable: =x"),
        ("--mount", "type=bind,src=/a", "target is required"),
    ],
)
def test_refusals_of_the_flags_have_dockers_words(flag: str, value: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(flag.split(", ", maxsplit=1)[0], value, "busybox")
    assert caught.value.message == f'invalid argument "{value}" for "{flag}" flag: {reason}'


def test_what_concerns_a_start_is_none_of_creates() -> None:
    names = {option.name for option in OPTIONS} - {option.name for option in CREATE_OPTIONS}
    assert names == {"detach", "detach-keys", "sig-proxy"}


def test_what_there_is_no_way_to_do_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot verify signatures"):
        ask("--disable-content-trust=false", "busybox")
    with pytest.raises(UsageError, match="unknown flag: --cpu-count"):
        ask("--cpu-count", "1", "busybox")


def test_the_api_socket_and_the_callers_credentials() -> None:
    made = ask("--use-api-socket", "busybox")
    assert made["HostConfig"]["Mounts"][0] == {
        "Type": "bind", "Source": "/run/ketch.sock", "Target": "/var/run/docker.sock",
        "BindOptions": {},
    }  # fmt: skip


def test_masked_paths_can_be_given_up() -> None:
    host = ask("--security-opt", "systempaths=unconfined", "busybox")["HostConfig"]
    assert host["MaskedPaths"] == host["ReadonlyPaths"] == []
    assert host["SecurityOpt"] == []
