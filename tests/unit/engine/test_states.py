"""The state table, whole, and what is derived from it and from facts."""

import itertools

import pytest

from ketch.engine.records import states
from ketch.engine.records.states import Facts, derive, next_state
from ketch.errors import ConflictError

# Paused is never recorded: the freezer says so.
ALL = {"creating", "created", "running", "restarting", "removing", "exited", "dead"}


def test_every_state_is_reached_and_left() -> None:
    before = {state for table in states.TRANSITIONS.values() for state in table}
    after = {state for table in states.TRANSITIONS.values() for state in table.values()}
    assert before == ALL
    assert after == ALL


@pytest.mark.parametrize(
    ("state", "event", "expected"),
    [
        ("created", "start", "running"),
        ("exited", "start", "running"),
        ("created", "start-failed", "created"),
        ("running", "exit", "exited"),
        ("running", "exit-to-restart", "restarting"),
        ("restarting", "exit", "exited"),
        ("exited", "remove", "removing"),
        ("removing", "remove-failed", "dead"),
        ("dead", "remove", "removing"),
    ],
)
def test_a_life(state: str, event: str, expected: str) -> None:
    assert next_state(state, event) == expected


@pytest.mark.parametrize(
    ("state", "event"),
    [("running", "start"), ("running", "remove"), ("exited", "exit"), ("removing", "start")],
)
def test_what_cannot_happen(state: str, event: str) -> None:
    with pytest.raises(ConflictError, match=f"{event}: not possible while .* {state}"):
        next_state(state, event)


def test_a_recorded_state_holds_while_somebody_is_in_charge() -> None:
    for state, init in itertools.product(ALL, (True, False)):
        assert derive(state, Facts(init=init, keeper=True)) == (state, False)


def test_a_container_outlives_its_monitor() -> None:
    assert derive("running", Facts(init=True, keeper=False)) == ("running", False)


def test_paused_is_a_fact() -> None:
    assert derive("running", Facts(init=True, keeper=True, frozen=True)) == ("paused", False)
    assert derive("running", Facts(init=True, keeper=False, frozen=True)) == ("paused", False)
    assert derive("exited", Facts(init=False, keeper=None, frozen=True)) == ("exited", False)


@pytest.mark.parametrize("state", sorted(states.ACTIVE - {"paused"}))
def test_with_everybody_dead_it_has_exited(state: str) -> None:
    assert derive(state, Facts(init=False, keeper=False)) == ("exited", True)


@pytest.mark.parametrize("state", sorted(ALL - states.ACTIVE))
def test_an_interrupted_making_or_removing_is_left_behind(state: str) -> None:
    assert derive(state, Facts(init=False, keeper=False)) == (state, True)
    assert derive(state, Facts(init=False, keeper=None)) == (state, False)
