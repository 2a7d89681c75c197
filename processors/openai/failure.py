"""When a model does not answer: what happened, whether to ask again, and which model is asked next."""

from __future__ import annotations

from voiceflow.errors import LinkError

PAUSE = 0.25
"""Seconds before a server that said no is asked again, unless it says how long itself."""


class ModelFailed(LinkError):
    """A model gave no answer, or half of one.

    `retry_after`: the seconds after which the same model may be asked again; None when that will not help.
    0.0 says that the connection was at fault, and not the model.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself. If not, somebody has to change something."""
        return self.retry_after is not None


class Silent(ModelFailed):
    """It answered, and there was not a word in it."""


class Attempts:
    """Which of `models` models is asked, and when, as long as nothing of the answer has been said.

    One that could not be reached, or broke off, is asked again once, at once. One that said no makes room
    for the next; the last is asked again once, if that may help. Nothing begins after `until`.
    """

    def __init__(self, models: int, until: float) -> None:
        self.place = 0
        """The model to ask now."""
        self.until = until
        self._last = models - 1
        self._again = False

    def after(self, failure: ModelFailed, now: float) -> float | None:
        """Seconds until the next attempt, or None: there is none."""
        pause = failure.retry_after
        if pause is not None and not self._again and (pause == 0.0 or self.place == self._last):
            self._again = True
        elif self.place < self._last:
            self.place += 1
            self._again, pause = False, 0.0
        else:
            return None
        return pause if now + pause < self.until else None
