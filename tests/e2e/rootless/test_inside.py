"""A few tests that have the library in their own process, as a user's; others: make test-user."""

import subprocess

import pytest

from tests.support import inside
from tests.support.users import User

_CHOSEN = (
    "tests/e2e/test_library.py::test_what_is_asked_of_programs_is_understood_or_refused",
    "tests/e2e/test_library.py::test_an_engine_serves_many_threads",
    "tests/e2e/build/test_builder.py::test_stages_steps_and_what_becomes_of_them",
)


@pytest.mark.timeout(300)
def test_the_library_is_a_users_as_well(user: User) -> None:
    command = inside.command(user, "-q", "-rf", *_CHOSEN)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(_CHOSEN)} passed" in done.stdout
