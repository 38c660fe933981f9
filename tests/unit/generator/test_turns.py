"""Calls that run turn by turn, and end when nobody waits for them."""

import gc
import threading
import weakref
from collections.abc import Callable

import pytest

from services.generator.turns import Turns


def test_a_call_runs_from_pause_to_pause_in_one_thread() -> None:
    seen: list[int] = []
    threads: set[int] = set()

    def call(pause: Callable[[], None]) -> str:
        for step in range(3):
            threads.add(threading.get_ident())
            seen.append(step)
            pause()
        return "made"

    turns = Turns(call)
    assert not turns.ended
    for count in (1, 2, 3):
        turns.take()
        assert seen == list(range(count))
        assert not turns.ended
    turns.take()
    assert turns.ended
    assert turns.result == "made"
    turns.take()
    assert threads.isdisjoint({threading.get_ident()})
    assert len(threads) == 1


def test_what_a_call_raises_is_its_result() -> None:
    def call(pause: Callable[[], None]) -> None:
        pause()
        raise ValueError("broken")

    turns = Turns(call)
    turns.take()
    turns.take()
    assert turns.ended
    with pytest.raises(ValueError, match="broken"):
        _ = turns.result


def test_a_call_given_up_unwinds_and_lets_go() -> None:
    class Latents:
        pass

    held: list[weakref.ref[Latents]] = []
    unwound = threading.Event()

    def call(pause: Callable[[], None]) -> None:
        latents = Latents()
        held.append(weakref.ref(latents))
        try:
            pause()
        finally:
            unwound.set()

    turns = Turns(call)
    turns.take()
    assert held[0]() is not None
    turns.give_up()
    turns.join()
    assert unwound.is_set()
    gc.collect()
    assert held[0]() is None
    assert not turns.ended


def test_a_call_that_never_had_a_turn_has_no_thread() -> None:
    turns = Turns(lambda _pause: None)
    turns.give_up()
    turns.join()
    assert not turns.ended
