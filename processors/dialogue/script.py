"""What a Dialogue can talk about: intents with an answer, forms with slots, a goodbye. Checked when made."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from processors.dialogue.slots import Slot
from voiceflow.errors import DeclarationError
from voiceflow.tools.ending import end_call
from voiceflow.tools.tool import Effect, Tool


class Intent:
    """Something that callers want, known by examples of how they say it.

    name, examples
        Three to six different ways to say it are enough.
    answer
        What is said to that.
    done
        A tool that is run then, without arguments: see `voiceflow.tools`. One that ends the conversation does
        so once the answer was heard.
    then
        Said when the tool has run; `{result}` is what it returned.
    failed
        Said when the tool failed; `{reason}` is what it said.

    Raises DeclarationError for what cannot work.
    """

    def __init__(
        self,
        name: str,
        examples: Sequence[str],
        answer: str,
        *,
        done: Tool | None = None,
        then: str = "",
        failed: str = "I'm sorry, that did not work. {reason}",
    ) -> None:
        self.name, self.examples = name, _examples(name, examples)
        self.answer, self.done, self.then, self.failed = answer, done, then, failed
        if not answer.strip() and not (done is not None and then):
            raise DeclarationError(f"Intent({name!r}): it needs an answer")
        if done is not None:
            _check_tool(name, done, ())
        check_fields(f"Intent({name!r}, answer=...)", answer, ())
        check_fields(f"Intent({name!r}, then=...)", then, ("result",))
        check_fields(f"Intent({name!r}, failed=...)", failed, ("reason",))


class Goodbye(Intent):
    """The caller is done: `answer` is said, and when it was heard the call ends. If the caller speaks before
    that, it goes on."""

    def __init__(
        self,
        examples: Sequence[str] = (
            "Goodbye",
            "Bye bye",
            "That is all, thank you",
            "No thanks, that's everything",
            "Nothing else, thanks",
        ),
        answer: str = "Thank you for calling. Goodbye!",
        *,
        name: str = "goodbye",
        done: Tool | None = None,
    ) -> None:
        super().__init__(name, examples, answer, done=done if done is not None else end_call())


class Form:
    """Something to be done for the caller that needs to know a few things first.

    slots
        What it has to know, in the order in which it is asked for. Callers may give it in any order, several
        at once, and correct it at any time.
    confirm
        Reads all of it back and asks whether it is right; `{slot}` for each. Nothing is done before the
        caller has heard it to its end and agreed. Empty: it is done at once.
    done
        The tool that does it, with a parameter for each slot: `@tool(effect="commit")`.
    then
        Said when it is done; also `{result}`, which is what the tool returned.
    failed, again
        Said when the tool failed; `{reason}` is what it said. The slots named in `again` are asked anew.
    change
        Asked when the caller does not agree.
    left
        Said when the caller does not want it any more.

    Raises DeclarationError for what cannot work.
    """

    def __init__(
        self,
        name: str,
        examples: Sequence[str],
        slots: Sequence[Slot],
        done: Tool,
        *,
        confirm: str = "",
        then: str = "{result}",
        failed: str = "I'm sorry, that did not work. {reason}",
        again: Sequence[str] = (),
        change: str = "What should I change?",
        left: str = "All right, I leave it.",
    ) -> None:
        self.name, self.examples = name, _examples(name, examples)
        self.slots, self.done = tuple(slots), done
        self.confirm, self.then, self.failed = confirm, then, failed
        self.again, self.change, self.left = tuple(again), change, left
        names = tuple(slot.name for slot in self.slots)
        if not names or len(set(names)) != len(names):
            raise DeclarationError(f"Form({name!r}): it needs slots, each with a name of its own")
        if unknown := set(self.again) - set(names):
            raise DeclarationError(
                f"Form({name!r}, again=...): there is no slot {', '.join(sorted(unknown))}"
            )
        for n, slot in enumerate(self.slots):
            check_fields(f"Form({name!r}): the question of {slot.name}", slot.ask, names[:n])
        check_fields(f"Form({name!r}, confirm=...)", confirm, names)
        check_fields(f"Form({name!r}, then=...)", then, (*names, "result"))
        check_fields(f"Form({name!r}, failed=...)", failed, (*names, "reason"))
        _check_tool(name, done, names)

    def slot(self, name: str) -> Slot:
        return next(slot for slot in self.slots if slot.name == name)

    def fill(self, text: str, values: dict[str, Any], **more: str) -> str:
        """`text` with the values as the agent says them."""
        shown = {name: self.slot(name).show(value) for name, value in values.items()}
        return text.format_map({**shown, **more})


class Script:
    """All that one Dialogue knows. `help`, `fallback`, `unheard`, `more`, `give_up`: see Dialogue."""

    def __init__(
        self,
        intents: Sequence[Intent | Form],
        *,
        help: str,
        fallback: str,
        unheard: str,
        more: str,
        give_up: str,
        give_up_after: int,
    ) -> None:
        if not intents:
            raise DeclarationError("Dialogue(intents=[...]): at least one, something that callers want")
        self.known = {each.name: each for each in intents}
        if len(self.known) != len(intents):
            raise DeclarationError("Dialogue: every intent needs a name of its own")
        for name, text in (
            ("help", help),
            ("fallback", fallback),
            ("unheard", unheard),
            ("give_up", give_up),
        ):
            if not text.strip():
                raise DeclarationError(f'Dialogue({name}=""): it needs words')
        if give_up_after < 2:
            raise DeclarationError(f"Dialogue(give_up_after={give_up_after}): 2 or more")
        self.help, self.fallback, self.unheard = help, fallback, unheard
        self.more, self.give_up, self.give_up_after = more, give_up, give_up_after
        self.goodbye = next((each for each in intents if isinstance(each, Goodbye)), None)
        self.hang_up = self.goodbye.done if self.goodbye is not None and self.goodbye.done else end_call()

    @property
    def tools(self) -> tuple[Tool, ...]:
        """All that its intents may run, each once."""
        found = [each.done for each in self.known.values() if each.done is not None]
        return tuple(dict.fromkeys([*found, self.hang_up]))

    @property
    def examples(self) -> dict[str, tuple[str, ...]]:
        return {name: each.examples for name, each in self.known.items()}


def check_fields(what: str, text: str, allowed: Sequence[str]) -> None:
    """DeclarationError for a `{field}` that nobody will fill."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(text) if field is not None]
    except ValueError as error:
        raise DeclarationError(
            f"{what}: {text!r} cannot be filled in ({error}): write {{{{ for a brace"
        ) from None
    if wrong := [field for field in fields if field not in allowed]:
        there = ", ".join(f"{{{name}}}" for name in allowed) or "none"
        raise DeclarationError(f"{what}: {{{wrong[0]}}} is not known there; what is: {there}")


def _examples(name: str, examples: Sequence[str]) -> tuple[str, ...]:
    if not name.strip() or isinstance(examples, str) or not any(each.strip() for each in examples):
        raise DeclarationError(f"Intent({name!r}): a name, and a list of examples of how callers say it")
    return tuple(examples)


def _check_tool(name: str, done: Tool, slots: Sequence[str]) -> None:
    if not isinstance(done, Tool):
        raise DeclarationError(f'{name}: done={done!r} is no tool: write @tool(effect="commit") above it')
    properties = done.parameters.get("properties", {})
    if missing := [slot for slot in slots if slot not in properties]:
        raise DeclarationError(
            f"{name}: the tool {done.name} has no parameter {missing[0]}, but a slot is so called"
        )
    if wanted := [each for each in done.parameters.get("required", ()) if each not in slots]:
        raise DeclarationError(f"{name}: the tool {done.name} needs {wanted[0]}, but there is no such slot")
    if slots and done.effect is Effect.TERMINAL:
        raise DeclarationError(
            f"{name}: {done.name} ends the conversation: that is for an Intent, or Goodbye()"
        )
