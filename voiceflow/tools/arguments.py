"""What a model sent as arguments: validated, or a refusal in words with which it can do better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

if TYPE_CHECKING:
    from voiceflow.tools.tool import Tool

LONGEST = 20_000
"""Characters of arguments: a model that sends more repeats itself."""
TOLD = 4
"""Mistakes that are told at once."""
LINE = 200
"""Characters of what is said of one mistake."""


@dataclass(slots=True, frozen=True)
class Refusal:
    """Why a call cannot be made, for the model."""

    words: str


def validated(tool: Tool, arguments: str) -> dict[str, Any] | Refusal:
    """The keyword arguments for the tool's function, the call not among them, or why there are none. Nothing
    at all, and `null`, are no arguments."""
    if len(arguments) > LONGEST:
        return Refusal(f"The arguments are too long: {LONGEST} characters at most.")
    text = arguments.strip()
    if text in ("", "null"):
        text = "{}"
    try:
        sent = text.encode()  # raises for half of a surrogate pair
        if not isinstance(from_json(sent, allow_inf_nan=False), dict):
            return Refusal("The arguments have to be one JSON object.")
    except ValueError as error:  # also what is nested deeper than 200 levels
        return Refusal(f"The arguments are not valid JSON: {str(error)[:LINE]}.")
    known = tool.details
    try:
        model = known.model.model_validate_json(sent)
    except ValidationError as error:
        return Refusal(_words(error.errors(include_url=False, include_context=False, include_input=False)))
    except Exception as error:  # a validator of the user's own
        return Refusal(f"The arguments could not be checked ({type(error).__name__}).")
    given = model.model_fields_set
    return {
        name: getattr(model, field)
        for field, name in known.names.items()
        if field in given or field not in known.defaults
    }


def _words(mistakes: Sequence[ErrorDetails]) -> str:
    lines = [_line(mistake) for mistake in mistakes[:TOLD]]
    if len(mistakes) > TOLD:
        lines.append(f"and {len(mistakes) - TOLD} more")
    return "The arguments are wrong:\n" + "\n".join(lines)


def _line(mistake: ErrorDetails) -> str:
    where = ".".join(str(place) for place in mistake["loc"])[:LINE] or "arguments"
    match mistake["type"]:
        case "missing":
            return f"{where}: it is missing"
        case "extra_forbidden":
            return f"{where}: there is no such argument"
    says = " ".join(mistake["msg"].removeprefix("Value error, ").split())
    says = says.replace("Input should be", "it should be", 1)
    return f"{where}: {says}"[:LINE]
