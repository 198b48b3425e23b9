"""What is told of a checkpoint: what criu is asked for, and the command that asks the same."""

from ketch.runtime import checkpoint


def test_the_command_names_what_criu_is_asked_for() -> None:
    options = checkpoint.Options("/saved/one")
    options.work_path = "/saved/work"
    options.flags.add("leave_running")
    told = {
        "pid": 7, "root": "/proc/7/root", "log_file": "dump.log", "freeze_cgroup": "/sys/f/a b",
        "external": ["net[3]:extRootNetNS"],
        "ext_mnt": [{"key": "/etc/hosts", "val": "/etc/hosts"}],
    }  # fmt: skip
    step = checkpoint.describe(options, told)
    assert step.topic == "program"
    assert step.words == "save the processes, they run on · criu(8), ptrace(2)"
    assert ("process", 7) in step.values
    assert ("images", "/saved/one") in step.values
    assert ("log", "/saved/work/dump.log") in step.values
    assert ("external", "net[3]:extRootNetNS") in step.values
    assert ("external-mount", "/etc/hosts") in step.values
    (command,) = step.outside
    assert command.startswith("criu dump --tree 7 --images-dir /saved/one --work-dir /saved/work ")
    assert " --leave-running " in command
    assert " --freeze-cgroup '/sys/f/a b' " in command
    assert " --external 'net[3]:extRootNetNS' " in command
    assert command.endswith(" --external 'mnt[/etc/hosts]:/etc/hosts'")


def test_who_does_not_run_on_ends() -> None:
    told = {"pid": 7, "root": "/", "log_file": "dump.log", "external": []}
    step = checkpoint.describe(checkpoint.Options("/one"), told)
    assert "they end with that" in step.words
    assert ("log", "/one/dump.log") in step.values
    assert "--leave-running" not in step.outside[0]
