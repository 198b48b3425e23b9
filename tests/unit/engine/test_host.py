import os

from ketch.engine import host
from ketch.spec import number_lists


def test_this_machine() -> None:
    facts = host.examine()
    assert len(number_lists.number_list(facts.cpus)) >= len(os.sched_getaffinity(0))
    assert 0 in number_lists.number_list(facts.memory_nodes)
    assert facts.machine == os.uname().machine
    assert facts.hostname == os.uname().nodename
    assert set(facts.sysctls) <= set(host.DEFAULT_SYSCTLS)
    assert all(os.path.isdir(path) for path in facts.thermal_paths)
