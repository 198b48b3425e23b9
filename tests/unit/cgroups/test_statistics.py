"""Figures out of control files of both versions."""

from ketch.cgroups.facts import Facts
from ketch.cgroups.layout import Hierarchy, Layout
from ketch.cgroups.statistics import collect

V1 = {
    "memory.stat": "cache 4096\ninactive_file 1\ntotal_cache 8192\ntotal_inactive_file 2\n",
    "memory.usage_in_bytes": "1000\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.max_usage_in_bytes": "2000\n",
    "memory.memsw.usage_in_bytes": "1500\n",
    "memory.failcnt": "3\n",
    "cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 700\n",
    "cpuacct.usage": "90\n",
    "cpuacct.usage_user": "60\n",
    "cpuacct.usage_sys": "30\n",
    "cpuacct.usage_percpu": "50 40 \n",
    "pids.current": "2\n",
    "pids.max": "max\n",
    "blkio.throttle.io_service_bytes_recursive": (
        "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\nTotal 30\n"
    ),
    "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
}
V2 = {
    "memory.stat": "anon 500\nfile 8192\ninactive_file 2\n",
    "memory.current": "1000\n",
    "memory.max": "67108864\n",
    "memory.swap.current": "500\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
    "cpu.stat": (
        "usage_usec 9\nuser_usec 6\nsystem_usec 3\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n"
    ),
    "pids.current": "2\n",
    "pids.max": "64\n",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
}
DISK = {
    "major": 8,
    "minor": 0,
    "read_bytes": 10,
    "write_bytes": 20,
    "read_operations": 1,
    "write_operations": 2,
}


def facts(files: dict[str, str]) -> Facts:
    return Facts(lambda _, file: files.get(file))


def test_v1() -> None:
    names = ("memory", "cpu", "cpuacct", "pids", "blkio")
    found = collect(Layout([Hierarchy(f"/c/{name}", 1, (name,)) for name in names]), facts(V1))
    assert found["memory"] == {
        "detail": {
            "cache": 4096,
            "inactive_file": 1,
            "total_cache": 8192,
            "total_inactive_file": 2,
        },
        "usage_bytes": 1000,
        "limit_bytes": None,
        "peak_bytes": 2000,
        "swap_usage_bytes": 500,
        "cache_bytes": 8192,
        "inactive_file_bytes": 2,
        "limit_hits": 3,
    }
    assert found["cpu"] == {
        "usage_ns": 90,
        "user_ns": 60,
        "system_ns": 30,
        "per_cpu_ns": [50, 40],
        "periods": 5,
        "throttled_periods": 2,
        "throttled_ns": 700,
    }
    assert found["pids"] == {"current": 2, "limit": None}
    assert found["blkio"] == [DISK]


def test_v2() -> None:
    layout = Layout([Hierarchy("/c", 2, ("memory", "cpu", "pids", "io"))])
    found = collect(layout, facts(V2))
    assert found["memory"]["limit_bytes"] == 67108864
    assert found["memory"]["peak_bytes"] is None  # Linux 5.19
    assert found["memory"]["swap_usage_bytes"] == 500
    assert found["memory"]["limit_hits"] == 3
    assert (found["cpu"]["usage_ns"], found["cpu"]["throttled_ns"]) == (9000, 7000)
    assert found["pids"] == {"current": 2, "limit": 64}
    assert found["blkio"] == [DISK]


def test_what_is_not_there_is_left_out() -> None:
    assert collect(Layout([Hierarchy("/c", 1, ("freezer",))]), facts({})) == {}
