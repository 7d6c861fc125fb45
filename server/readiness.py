"""Whether the server takes work, and if not, why. The one place that knows where in its life the process is."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where in its life the server is.

    READY takes work. So does STALLED, as long as it can, but asks for a restart; and LEAVING, which will be DRAINING soon and asks
    for work to be sent elsewhere.
    """

    STARTING = "starting"
    READY = "ready"
    STALLED = "stalled"
    FAILED = "failed"
    LEAVING = "leaving"
    DRAINING = "draining"


class NotReady(Exception):
    """Raised when work arrives in a phase that takes none; the message is the reason that `GET /ready` shows."""

    def __init__(self, phase: Phase, reason: str) -> None:
        super().__init__(reason)
        self.phase = phase


class Readiness:
    """The current phase and its reason.

    STARTING leads to READY or FAILED, READY to LEAVING. DRAINING is reached from anywhere and is final.
    """

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.reason = "the model is being loaded and verified"

    def set_ready(self) -> None:
        """The model is verified and warm."""
        self._move(Phase.READY, "ready")

    def set_failed(self, reason: str) -> None:
        """The model cannot be used; `reason` is shown to operators."""
        self._move(Phase.FAILED, reason)

    def set_waiting(self, reason: str) -> None:
        """The model cannot be used yet and is tried again; `reason` is shown to operators. May be called in any thread."""
        if self.phase is Phase.STARTING:
            self.reason = reason

    def set_leaving(self) -> None:
        """The process was told to stop, and goes on until others have noticed."""
        self._move(Phase.LEAVING, "the server is about to shut down")

    def set_draining(self) -> None:
        """The process was told to stop."""
        self._move(Phase.DRAINING, "the server is shutting down")

    def check(self) -> None:
        """Raise `NotReady` unless there is a model that takes work."""
        if self.phase is not Phase.READY and self.phase is not Phase.LEAVING:  # a set would hash in Python, for each request
            raise NotReady(self.phase, self.reason)

    def check_ready(self) -> None:
        """Raise `NotReady` unless work should be sent here."""
        if self.phase is not Phase.READY:
            raise NotReady(self.phase, self.reason)

    def _move(self, phase: Phase, reason: str) -> None:
        if self.phase is not Phase.DRAINING:
            self.phase, self.reason = phase, reason
