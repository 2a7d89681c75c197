"""What a Dialogue says next: a pure function of its state and of what the caller said.

    State, Turn ──decide──▶ Decision: what is said, what is asked with it, what is run, the State after it

Nothing here has a side effect, so a draft that is dropped has done nothing, and the same conversation always
takes the same course. An open form is read in this order:

    leave it  ▷  yes or no to what was asked  ▷  values, also corrected ones  ▷  another intent  ▷  a miss
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from processors.dialogue.answers import cancels, yes_or_no
from processors.dialogue.script import Form, Goodbye, Intent, Script
from processors.dialogue.slots import find_all
from processors.dialogue.words import texts_of
from voiceflow.tools.tool import Tool
from voiceflow.tools.use import ToolUse, UseState

SURE = 0.7
"""A score with which a sentence is another intent although it holds a value for the open form: "Are you open
on Tuesday?" while a day is asked for."""
MISSING = 1
"""Words at the end of a question that need not have been heard: who answers then has understood it."""
FAILURE = "It failed: "
"""How the result of a tool begins that has said why."""


@dataclass(slots=True, frozen=True)
class Asked:
    """A question of ours: `what` is "slot", "confirm", "change" or "more". It counts once it was heard."""

    what: str
    text: str
    slot: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was read back."""


@dataclass(slots=True, frozen=True)
class State:
    """Where the conversation is. Never changed, only replaced."""

    form: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    asked: Asked | None = None
    submitted: str = ""
    """The id of the tool's use that is doing what the open form is for."""
    misses: int = 0
    """Turns in a row that were not understood."""


@dataclass(slots=True, frozen=True)
class Turn:
    """What the caller said, and what is known about it."""

    text: str
    today: date
    intent: str = ""
    """The closest, if it is close enough; and how close."""
    score: float = 0.0
    heard: bool = False
    """What was asked last was heard."""
    use: ToolUse | None = None
    """What became of `State.submitted`."""


@dataclass(slots=True, frozen=True)
class Request:
    """A tool to be run once all of `say` was given. `arguments` as JSON has them; `of` is whose it is."""

    tool: Tool
    of: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Decision:
    """`state` is to be taken over once the reply is no draft."""

    say: str
    state: State
    request: Request | None = None


def decide(script: Script, state: State, turn: Turn) -> Decision:
    """The answer to one turn."""
    state = settled(state, turn.use)
    asked = state.asked if turn.heard else None
    form = script.known.get(state.form)
    if not texts_of(turn.text):
        return _unheard(script, state)
    if isinstance(form, Form):
        return _in_form(script, form, state, turn, asked)
    if asked is not None and asked.what == "more":
        answer = yes_or_no(turn.text)
        if answer is False and not turn.intent and script.goodbye is not None:
            return _goodbye(script.goodbye, state)
        if answer is True and not turn.intent:
            return Decision(script.help, replace(state, asked=None, misses=0))
    return _intent(script, state, turn) or _miss(script, state, script.fallback)


def absorb(script: Script, state: State, turn: Turn) -> State:
    """The state after a turn whose answer nobody began: it was said, so its values count; what was to be
    agreed to is asked again."""
    state = settled(state, turn.use)
    known = script.known.get(state.form) or script.known.get(turn.intent)
    if not isinstance(known, Form) or state.submitted or cancels(turn.text):
        return state
    asked = state.asked if turn.heard else None
    found, _ = _values(known, turn, asked)
    return replace(state, form=known.name, values={**state.values, **found}, asked=None)


def settled(state: State, use: ToolUse | None) -> State:
    """The state, now that it is known what became of what was submitted."""
    if not state.submitted:
        return state
    if use is None or use.state is UseState.CANCELLED:  # never begun: it has to be agreed to again
        return replace(state, submitted="", asked=None)
    if use.state is UseState.DONE:
        return State(misses=state.misses)
    if use.state.over:
        return replace(state, submitted="", asked=None)
    return state


def concluded(script: Script, request: Request, use: ToolUse, state: State) -> Decision:
    """What is said of a tool's result, by whoever tells it."""
    known = script.known[request.of]
    values = dict(request.values)
    if use.state is UseState.DONE:
        result = {"result": use.result}
        if isinstance(known, Intent):
            return Decision(known.then.format_map(result), state)
        said = _joined(known.fill(known.then, values, **result), script.more)
        asked = Asked("more", script.more) if script.more else None
        if state.form not in ("", known.name):
            return Decision(known.fill(known.then, values, **result), state)
        return Decision(said, State(asked=asked))
    reason = use.result.removeprefix(FAILURE) if use.result.startswith(FAILURE) else ""
    reason = _sentence(reason)
    if isinstance(known, Intent):
        return Decision(known.failed.format_map({"reason": reason}).strip(), state)
    said = known.fill(known.failed, values, reason=reason).strip()
    if state.form not in ("", known.name):
        return Decision(said, state)
    left = {name: value for name, value in values.items() if name not in known.again}
    next_one = _next(script, known, replace(state, form=known.name, values=left, submitted="", asked=None))
    # Nothing is tried again by itself, nor what may have taken effect.
    if next_one.request is not None or use.state is UseState.TIMED_OUT:
        return Decision(said, State())
    return replace(next_one, say=_joined(said, next_one.say))


def open_question(script: Script, state: State) -> Decision:
    """What is said when there is a silence to be filled."""
    form = script.known.get(state.form)
    if isinstance(form, Form) and not state.submitted:
        again = _next(script, form, state)
        if again.request is None:
            return again
    return Decision(script.help, state)


def was_heard(question: str, heard: str) -> bool:
    """Whether the end of a question was heard, by what was heard of its reply: all but its last word will do.

    Its last words are looked for, because numbers before them may be spoken otherwise than written.
    """
    asked, ear = texts_of(question), texts_of(heard)
    for missing in range(min(MISSING, len(asked) - 1) + 1):
        end = asked[: len(asked) - missing][-2:]
        if end and ear[-len(end) :] == end:
            return True
    return False


# -- inside


def _in_form(script: Script, form: Form, state: State, turn: Turn, asked: Asked | None) -> Decision:
    other = script.known.get(turn.intent) if turn.intent != form.name else None
    if state.submitted:  # it is being done; something else may be wanted meanwhile
        meanwhile = _answered(other, state) if other is not None else None
        return meanwhile or Decision("One moment, please.", state)
    if cancels(turn.text):
        left = State(asked=Asked("more", script.more) if script.more else None)
        return Decision(_joined(form.left, script.more), left)
    found, objection = _values(form, turn, asked)
    fresh = {name: value for name, value in found.items() if state.values.get(name) != value}
    digresses = other is not None and turn.score >= SURE and (asked is None or asked.slot not in found)
    if (fresh or objection) and not digresses:
        changed = replace(state, values={**state.values, **fresh}, misses=0)
        following = _next(script, form, changed)
        return replace(following, say=_joined(objection, following.say))
    agreed = yes_or_no(turn.text)
    if asked is not None and asked.what == "confirm" and agreed is not None and asked.values == state.values:
        if agreed:
            return _submit(form, state)
        named = _named(form, turn.text)
        if named:
            return _ask_again(script, form, state, named)
        change = Asked("change", form.change)
        return Decision(form.change, replace(state, asked=change, misses=0))
    if asked is not None and asked.what in ("change", "confirm") and (named := _named(form, turn.text)):
        return _ask_again(script, form, state, named)
    if isinstance(other, Goodbye):
        return _goodbye(other, state)
    if other is not None and (answered := _answered(other, state)) is not None:
        back = _next(script, form, state)
        if answered.request is not None or back.request is not None:
            return answered
        return replace(back, say=_joined(answered.say, back.say))
    if turn.intent == form.name or asked is None:
        following = _next(script, form, replace(state, misses=0))
        if following.request is None:
            return following
    return _miss(script, state, script.unheard)


def _values(form: Form, turn: Turn, asked: Asked | None) -> tuple[dict[str, Any], str]:
    """What the turn says of the slots; and what is wrong with values that are not taken."""
    slot = asked.slot if asked is not None else ""
    found = find_all(form.slots, turn.text, today=turn.today, asked=slot)
    objections: list[str] = []
    for each in form.slots:
        if each.name in found and each.check is not None and (wrong := each.check(found[each.name])):
            del found[each.name]
            objections.append(wrong)
    return found, _joined(*dict.fromkeys(objections))


def _next(script: Script, form: Form, state: State) -> Decision:
    """Asks for what is missing, reads back, or, when there is nothing to read back, does it."""
    missing = next((slot for slot in form.slots if slot.name not in state.values), None)
    values = dict(state.values)
    if missing is not None:
        text = form.fill(missing.ask, values)
        return Decision(text, replace(state, asked=Asked("slot", text, missing.name)))
    if not form.confirm:
        return _submit(form, state)
    text = form.fill(form.confirm, values)
    return Decision(text, replace(state, asked=Asked("confirm", text, values=values)))


def _submit(form: Form, state: State) -> Decision:
    arguments = {name: form.slot(name).given(value) for name, value in state.values.items()}
    request = Request(form.done, form.name, arguments, dict(state.values))
    return Decision("", replace(state, asked=None, misses=0), request)


def _ask_again(script: Script, form: Form, state: State, slot: str) -> Decision:
    values = {name: value for name, value in state.values.items() if name != slot}
    return _next(script, form, replace(state, values=values, misses=0))


def _named(form: Form, text: str) -> str:
    """The slot that the caller speaks of: "the time is wrong"."""
    words = set(texts_of(text))
    return next((slot.name for slot in form.slots if words.intersection(slot.called)), "")


def _intent(script: Script, state: State, turn: Turn) -> Decision | None:
    known = script.known.get(turn.intent)
    if isinstance(known, Form):
        opened = State(form=known.name)
        found, objection = _values(known, turn, None)
        following = _next(script, known, replace(opened, values=found))
        return replace(following, say=_joined(objection, following.say))
    return _answered(known, replace(state, asked=None)) if known is not None else None


def _answered(known: Intent | Form, state: State) -> Decision | None:
    """The answer of an intent; None for a form, which is begun when the open one is done."""
    if isinstance(known, Form):
        return None
    if isinstance(known, Goodbye):
        return _goodbye(known, state)
    request = Request(known.done, known.name) if known.done is not None else None
    return Decision(known.answer, replace(state, misses=0), request)


def _goodbye(goodbye: Goodbye, state: State) -> Decision:
    assert goodbye.done is not None
    return Decision(goodbye.answer, replace(state, asked=None, misses=0), Request(goodbye.done, goodbye.name))


def _unheard(script: Script, state: State) -> Decision:
    """There were no words: nothing that could be a miss of ours."""
    return Decision(script.unheard, state)


def _miss(script: Script, state: State, words: str) -> Decision:
    missed = replace(state, misses=state.misses + 1)
    if missed.misses >= script.give_up_after:
        return Decision(script.give_up, State(), Request(script.hang_up, ""))
    form = script.known.get(state.form)
    if not isinstance(form, Form):
        return Decision(words, replace(missed, asked=None))
    following = _next(script, form, missed)
    return replace(following, say=_joined(words, following.say)) if following.request is None else following


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _sentence(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        return ""
    return f"{reason[0].upper()}{reason[1:]}{'' if reason[-1] in '.!?' else '.'}"
