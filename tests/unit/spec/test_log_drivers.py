"""Docker's words for what a log can be told; asked of docker 20.10 and read in 28's source."""

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import log_drivers


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("json-file", {"foo": "bar"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("syslog", {"foo": "a"}, "unknown log opt 'foo' for syslog log driver"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("nope", {}, "logger: no log driver named 'nope' is registered"),
        ("json-file", {"mode": "x"}, "logger: logging mode not supported: x"),
        ("json-file", {"max-buffer-size": "1m"},
         "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"max-file": "0"},
         "failed to initialize logging driver: max-file cannot be less than 1"),
        ("json-file", {"max-size": "abc"},
         "failed to initialize logging driver: invalid size: 'abc'"),
        ("json-file", {"max-size": "0"},
         "failed to initialize logging driver: max-size must be a positive number"),
        ("json-file", {"compress": "true"},
         "failed to initialize logging driver: compress cannot be true when max-file is less than "
         "2 or max-size is not set"),
        ("syslog", {"syslog-address": "x"},
         "syslog-address should be in form proto://address, got x"),
        ("syslog", {"syslog-facility": "x"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
    ],
)  # fmt: skip
def test_what_is_wrong(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        log_drivers.check(driver, options)
    assert caught.value.message == message


def bounds(driver: str, **options: str) -> tuple[int, int, bool]:
    found = log_drivers.rotation(
        driver, {name.replace("_", "-"): text for name, text in options.items()}
    )
    return found.max_size_bytes, found.max_files, found.compress


def test_bounds() -> None:
    assert bounds("json-file") == (20 << 20, 5, False)
    assert bounds("json-file", max_size="10m") == (10_000_000, 1, False)
    assert bounds("json-file", max_size="1.5k", max_file="3", compress="1") == (1500, 3, True)
    assert bounds("json-file", max_file="2") == (20 << 20, 2, False)
    assert bounds("local") == (20 << 20, 5, True)
    assert bounds("local", max_size="1kb", compress="false") == (1000, 5, False)
    assert bounds("syslog", cache_max_file="2") == (20 << 20, 2, True)


def test_addresses() -> None:
    assert log_drivers.address("") == ("", "", 0)
    assert log_drivers.address("udp://1.2.3.4:1234") == ("udp", "1.2.3.4", 1234)
    assert log_drivers.address("tcp://log.example") == ("tcp", "log.example", 514)
    assert log_drivers.address("tcp+tls://[::1]:6514") == ("tcp+tls", "::1", 6514)
    assert log_drivers.address("unix:///dev/log") == ("unix", "/dev/log", 0)
