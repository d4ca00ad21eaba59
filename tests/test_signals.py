"""Signals are deferred to the end of a context."""

from __future__ import annotations

import signal
import threading

import pytest

from nases_env.signals import INTERRUPTS, defer_signals


def interrupted_step(number: signal.Signals, done: list[str]) -> None:
    with defer_signals():
        signal.raise_signal(number)
        signal.raise_signal(number)
        done.append("inside")
    done.append("after")


@pytest.mark.parametrize("number", INTERRUPTS)
def test_interrupt_is_raised_on_exit(number: signal.Signals) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        done: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            interrupted_step(number, done)
        assert done == ["inside"]
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done: list[str] = []
        interrupted_step(signal.SIGINT, done)
        assert done == ["inside", "after"]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), defer_signals():
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before


def test_no_effect_in_other_threads() -> None:
    done: list[str] = []

    def step() -> None:
        with defer_signals():
            done.append("inside")

    thread = threading.Thread(target=step)
    thread.start()
    thread.join()
    assert done == ["inside"]
