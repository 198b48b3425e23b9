import os

from ketch.engine import host
from ketch.spec import values


def test_this_machine() -> None:
    facts = host.examine()
    assert len(values.number_list(facts.cpus)) >= len(os.sched_getaffinity(0))
    assert 0 in values.number_list(facts.memory_nodes)
    assert facts.machine == os.uname().machine
    assert facts.hostname == os.uname().nodename
    assert set(facts.sysctls) <= set(host.DEFAULT_SYSCTLS)
    assert all(os.path.isdir(path) for path in facts.thermal_paths)
