"""In which order a run's tests begin where several workers share them, and which wait for the rest.

Figures are those of a machine with two processors. Neither list is needed for a right result: a
file that is missing in the first begins later than it might, and whoever runs pytest without
workers has one test after the other anyway.
"""

# What takes longest begins first, so that at the end no worker is left alone with it.
LONG = (
    "tests/vm/test_vm.py",
    "tests/e2e/test_demonstrations.py",  # makes the Debian that the others wait for
    "tests/e2e/test_course.py",  # makes another one
    "tests/e2e/test_run_basic.py",
    "tests/e2e/test_inside.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_files.py",
    "tests/e2e/test_supervision.py",
    "tests/e2e/test_debian.py",
    "tests/e2e/test_registry.py",
    "tests/e2e/oci/test_cri.py",
    "tests/e2e/test_images.py",
    "tests/e2e/test_watching.py",
    "tests/e2e/api/test_testcontainers.py",
    "tests/e2e/api/test_buildkit.py",
    "tests/e2e/api/test_as_dockerd.py",
    "tests/e2e/test_kill9.py",
    "tests/e2e/test_networks.py",
    "tests/e2e/test_volumes.py",
    "tests/e2e/test_reset.py",
)

# What counts things of the whole machine, takes its time, or takes away what all engines share.
ALONE = (
    "tests/e2e/test_network.py::test_only_bridge_and_table_are_left",
    "tests/e2e/test_network.py::test_a_deleted_table_comes_back",
    "tests/e2e/test_networks.py::test_a_network_leaves_nothing",
    "tests/e2e/test_full_disk.py",
    "tests/e2e/test_library.py::test_the_loop_is_never_blocked",
    "tests/e2e/test_limits.py::test_a_busy_loop_gets_its_share_of_a_core",
    "tests/contracts/cgroups/test_manager.py::test_a_busy_loop_gets_its_share_of_a_processor",
)

_PARTS = ("e2e", "security", "kernel", "contracts", "unit")


def is_alone(nodeid: str) -> bool:
    """Whether a test needs the machine for itself: its file is listed, or it is by its name."""
    path, _, name = nodeid.partition("::")
    return path in ALONE or f"{path}::{name.partition('[')[0]}" in ALONE


def rank(nodeid: str) -> tuple[bool, int, int]:
    """Return by what tests are sorted, stably; files stay together."""
    path = nodeid.partition("::")[0]
    part = path.split("/")[1] if "/" in path else ""
    return (
        is_alone(nodeid),
        LONG.index(path) if path in LONG else len(LONG),
        _PARTS.index(part) if part in _PARTS else len(_PARTS),
    )
