"""What came of a tool, in words for the model."""

from __future__ import annotations

from typing import Any

from voiceflow.errors import VoiceflowError

LONGEST = 8000
"""Characters of a result: about 2,000 tokens, which every later answer reads again."""
MESSAGE = 500
"""Characters of an error's message."""

INTERRUPTED = "The caller interrupted: this was not finished."
NOT_BEGUN = "The caller interrupted: this was not done."
SPOKEN = "Not done: the caller spoke before it could happen. Ask for it again if it is still wanted."
CALL_OVER = "The call ended: this was not finished."


def words_of(value: Any) -> str:
    """A result: a str as it is, None is "Done.", anything else as JSON."""
    if value is None:
        return "Done."
    text = value if isinstance(value, str) else _json(value)
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is in no request
    if len(text) > LONGEST:
        return f"{text[:LONGEST]}\n(Cut here: it has {len(text)} characters.)"
    return text


def _json(value: Any) -> str:
    from pydantic_core import to_json

    try:
        return to_json(value, fallback=str).decode()
    except Exception:  # bytes that are no text, a list that holds itself: whatever it is, the tool has worked
        return f"(a result of type {type(value).__name__}, which cannot be shown)"


def failure(error: BaseException) -> str:
    """An error. What was raised on purpose says why; anything else may quote what a model must not read."""
    if expected(error) and (message := " ".join(str(error).split())):
        return f"It failed: {message[:MESSAGE]}"
    return f"It failed ({type(error).__name__})."


def expected(error: BaseException) -> bool:
    """Raised on purpose, with a message for whoever asked."""
    # pydantic's own is a ValueError too, of many lines and with an address.
    return isinstance(error, VoiceflowError | ValueError) and not hasattr(error, "error_count")


def overdue(limit: float, *, changes: bool) -> str:
    late = f"It did not finish within {limit:g} s."
    return f"{late} Whether it took effect is not known." if changes else late
