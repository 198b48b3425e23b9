"""What people are shown of a sample: Docker's arithmetic."""

from typing import Any

from ketch.engine.views.statistics import Figures


def document(**changes: Any) -> dict[str, Any]:
    cpu = {"cpu_usage": {"total_usage": 3_000}, "system_cpu_usage": 20_000, "online_cpus": 4}
    before = {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000}
    return {
        "cpu_stats": cpu,
        "precpu_stats": before,
        "memory_stats": {
            "usage": 1000, "limit": 4000, "stats": {"total_inactive_file": 200, "cache": 500},
        },
        "blkio_stats": {
            "io_service_bytes_recursive": [
                {"op": "read", "value": 5}, {"op": "write", "value": 7}, {"op": "read", "value": 1},
            ]
        },
        "networks": {
            "eth0": {"rx_bytes": 10, "tx_bytes": 1},
            "eth1": {"rx_bytes": 1, "tx_bytes": 2},
        },
        "pids_stats": {"current": 3},
        **changes,
    }  # fmt: skip


def test_figures() -> None:
    found = Figures(document())
    assert found.cpu_percent == 80.0
    assert (found.memory_bytes, found.memory_limit_bytes, found.memory_percent) == (800, 4000, 20)
    assert (found.received_bytes, found.sent_bytes) == (11, 3)
    assert (found.read_bytes, found.written_bytes) == (6, 7)
    assert found.tasks == 3


def test_what_does_not_run() -> None:
    empty = {"cpu_usage": {"total_usage": 0}}
    found = Figures(
        document(
            cpu_stats=empty, precpu_stats=empty, memory_stats={}, pids_stats={}, networks={},
            blkio_stats={"io_service_bytes_recursive": None},
        )
    )  # fmt: skip
    assert found.cpu_percent == found.memory_bytes == found.memory_percent == found.tasks == 0


def test_a_second_group_of_cgroups_tells_less() -> None:
    memory = {"usage": 1000, "limit": 0, "stats": {"inactive_file": 100}}
    assert Figures(document(memory_stats=memory)).memory_bytes == 900
