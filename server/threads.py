"""The threads that run passes. All bookkeeping is done on the event loop's thread; a thread only ever computes what it was handed.

A thread that dies is seen at once: what it was handed fails with `ThreadDied`, it is counted and logged, and the next piece of
work gets a new one. One that hangs cannot be stopped: it keeps what it was handed, and other work goes to others. Threads are
daemons, so that one that hangs does not hold the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import structlog

log = structlog.stdlib.get_logger("supportbot.threads")

R = TypeVar("R")


class ThreadDied(Exception):
    """Raised to whoever waits for work whose thread ended without a result; `__cause__` is what ended it."""


class _Thread(threading.Thread):
    """One thread; `future` and `work` are what it was handed last."""

    def __init__(self, name: str, on_end: Callable[[_Thread, object, BaseException | None], bool]) -> None:
        super().__init__(name=name, daemon=True)
        self.future: asyncio.Future[Any] | None = None
        self.work: Callable[[], object] | None = None
        self._on_end = on_end
        self._wake = threading.Lock()  # held but for the moment in which there is something to do
        self._wake.acquire()

    def hand(self, work: Callable[[], object] | None, future: asyncio.Future[Any] | None) -> None:
        """Let the thread do this next; None lets it end."""
        self.work, self.future = work, future
        self._wake.release()

    def run(self) -> None:
        """Do what is handed over, until None is."""
        try:
            while True:
                self._wake.acquire()
                if self.work is None:
                    return
                result: object = None
                error: Exception | None = None
                try:
                    result = self.work()
                except StopIteration as failure:
                    # A future refuses it, and nobody would ever hear of it.
                    error = RuntimeError("raised StopIteration")
                    error.__cause__ = failure
                except Exception as failure:  # noqa: BLE001 - it belongs to whoever waits
                    error = failure
                if not self._on_end(self, result, error):
                    return
        except BaseException as death:  # noqa: BLE001 - it ends this thread, and is not lost
            self._on_end(self, None, death)


class PassThreads:
    """Runs functions in threads, each in one of its own at a time. Use it on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # All mutable state; touched on the loop's thread only.
        self._idle: list[_Thread] = []
        self._started = 0
        self._is_closed = False
        self.died = 0

    def run(self, function: Callable[[], R]) -> asyncio.Future[R]:
        """Run it, beginning now; the future has its result, what it raises, or `ThreadDied`."""
        future: asyncio.Future[R] = self._loop.create_future()
        (self._idle.pop() if self._idle else self._start()).hand(function, future)
        return future

    def close(self) -> None:
        """Let the idle threads end; the others are not waited for."""
        self._is_closed = True
        for thread in self._idle:
            thread.hand(None, None)
        self._idle.clear()

    def _start(self) -> _Thread:
        self._started += 1
        thread = _Thread(f"inference-{self._started}", self._on_end)
        thread.start()
        return thread

    def _on_end(self, thread: _Thread, result: object, error: BaseException | None) -> bool:
        """Called in the thread; False when there is nobody left to work for."""
        with suppress(RuntimeError):  # the loop is closed, after a hang that outlived the server
            self._loop.call_soon_threadsafe(self._take_back, thread, result, error)
            return True
        return False

    def _take_back(self, thread: _Thread, result: object, error: BaseException | None) -> None:
        future, thread.future, thread.work = thread.future, None, None
        if error is None or isinstance(error, Exception):
            if self._is_closed:
                thread.hand(None, None)
            else:
                self._idle.append(thread)
        else:
            self.died += 1
            if thread in self._idle:
                self._idle.remove(thread)
            log.error("thread died", thread=thread.name, reason=type(error).__name__)
            died = ThreadDied(f"{thread.name} ended with {type(error).__name__}")
            died.__cause__ = error
            error = died
        if future is None or future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
