"""The threads that run passes: reused, replaced when they die, left alone when they hang."""

from __future__ import annotations

import asyncio
import ctypes
import threading

import pytest

from server.threads import PassThreads, ThreadDied


def fail() -> None:
    raise ValueError("no")


def die() -> None:
    raise SystemExit


def kill(ident: int) -> None:
    """Make a thread raise `SystemExit` wherever it is, at its next step."""
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(SystemExit)) == 1


async def test_work_one_after_the_other_is_done_in_one_thread() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    names = {await threads.run(lambda: threading.current_thread().name) for _ in range(5)}
    assert len(names) == 1
    threads.close()


async def test_work_at_the_same_time_is_done_in_threads_of_its_own() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    barrier = threading.Barrier(3, timeout=20)
    await asyncio.gather(*(threads.run(barrier.wait) for _ in range(3)))
    threads.close()


async def test_an_exception_reaches_who_waits_and_the_thread_lives_on() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    before = await threads.run(threading.get_ident)
    with pytest.raises(ValueError, match="no"):
        await threads.run(fail)
    assert await threads.run(threading.get_ident) == before
    assert threads.died == 0
    threads.close()


async def test_an_exception_that_a_future_refuses_reaches_who_waits_too() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    assert await threads.run(lambda: 7) == 7
    threads.close()


async def test_a_thread_that_dies_in_its_work_is_replaced() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    before = await threads.run(threading.current_thread)
    with pytest.raises(ThreadDied) as died:
        await threads.run(die)
    assert isinstance(died.value.__cause__, SystemExit)
    after = await threads.run(threading.current_thread)
    before.join(20)
    assert after is not before
    assert threads.died == 1
    threads.close()


async def test_a_thread_that_dies_while_idle_is_seen_when_it_is_needed() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    kill(await threads.run(threading.get_ident))
    with pytest.raises(ThreadDied):
        await threads.run(threading.get_ident)
    assert await threads.run(lambda: 7) == 7
    assert threads.died == 1
    threads.close()


async def test_nobody_waits_for_a_thread_that_hangs_and_its_late_result_goes_nowhere() -> None:
    threads = PassThreads(asyncio.get_running_loop())
    gate = threading.Event()
    hanging = threads.run(lambda: gate.wait(20))
    hanging.cancel()
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(asyncio.CancelledError):
        await hanging
    threads.close()
    gate.set()


def test_a_thread_that_outlives_the_loop_ends_quietly() -> None:
    gate = threading.Event()

    async def main() -> threading.Thread:
        threads = PassThreads(asyncio.get_running_loop())
        before = set(threading.enumerate())
        threads.run(lambda: gate.wait(20)).cancel()
        (thread,) = set(threading.enumerate()) - before
        return thread

    thread = asyncio.run(main())
    gate.set()
    thread.join(20)
    assert not thread.is_alive()
