"""What others wrote is a number in ASCII digits, or a clear error: nothing else is raised."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cgroups import units
from ketch.errors import KetchError
from ketch.images import changes
from ketch.images.registry import headers, proxies
from ketch.spec import (
    devices,
    image,
    log_drivers,
    passwd,
    platforms,
    ports,
    template,
    timestamps,
    user_namespaces,
    values,
)
from ketch.spec.filters import Filters

# Digits of other scripts, which Python's int() takes, and what only str.isdigit() takes for some.
FOREIGN = "٣७３²³①𝟗"
TEXTS = st.text(FOREIGN + "0159+-_ .:x", max_size=8)


def _unified(text: str) -> object:
    return units._unified({"unified": {"cpu.weight": text, "memory.max": text}}, 999)


def _change(instruction: str) -> "Callable[[str], object]":
    return lambda text: changes.apply({}, [f"{instruction} {text}"])


# Each refuses what has a foreign digit in it, and returns what it makes of all else.
REFUSE: dict[str, Callable[[str], Any]] = {
    "cgroup units": _unified,
    "filter": lambda text: Filters([f"exited={text}"], {"exited"}).numbers("exited"),
    "log size": log_drivers.decimal_size,
    "size": values.size,
    "cpus": values.cpus,
    "port": ports.parse,
    "host port": ports.host_range,
    "published port": lambda text: ports.published([text]),
    "exposed port": lambda text: ports.exposed([text]),
    "ulimit": lambda text: values.ulimit(f"nofile={text}"),
    "device rule": lambda text: devices.cgroup_rule(f"c {text}:1 rwm"),
    "user namespace": lambda text: user_namespaces.check(f"auto:size={text}"),
    "time": lambda text: timestamps.moment(text, 0),
    "EXPOSE": _change("EXPOSE"),
    "HEALTHCHECK": lambda text: _change(f"HEALTHCHECK --interval={text}s CMD")("true"),
    "STOPSIGNAL": _change("STOPSIGNAL"),
    "platform": image.parse_platform,
}


@pytest.mark.parametrize("reader", REFUSE)
def test_a_foreign_digit_is_a_clear_error(reader: str) -> None:
    for digit in FOREIGN:
        for text in (digit, f"1{digit}", f"{digit}1"):
            with pytest.raises(KetchError) as raised:
                REFUSE[reader](text)
            assert raised.value.message


@pytest.mark.parametrize("reader", REFUSE)
@given(text=TEXTS)
def test_any_digits_are_understood_or_refused(reader: str, text: str) -> None:
    with contextlib.suppress(KetchError):
        REFUSE[reader](text)


@given(TEXTS)
def test_what_never_refuses_does_not_raise(text: str) -> None:
    headers.retry_after_seconds(text, 60)
    with contextlib.suppress(KetchError):
        proxies.proxy_for("http", "host", 80, {"HTTP_PROXY": text, "NO_PROXY": f"host:{text}"})
    with contextlib.suppress(KetchError):
        passwd.look_up(text, f"name:x:{text}:{text}::/:\n", f"group:x:{text}:name\n")
    platforms.normal({"os": "linux", "architecture": "arm", "variant": text})
    for source in (f"{{{{{text}}}}}", f'{{{{printf "%{text}d" 1}}}}'):
        with contextlib.suppress(KetchError):
            template.Template(source).execute({})
