"""Random whole calls: all that can happen in a call, at any time, and what has to hold whatever happens.

A call is its seed: `pytest tests/e2e/test_any_call.py -k "[17]"` plays it again. How it comes about is in
any_call.py, the agent in any_agent.py, and the words by which everything is told apart in any_words.py.
"""

from __future__ import annotations

import json
import re
import wave
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.agents import environment
from tests.e2e.any_agent import Traits
from tests.e2e.any_call import Phone, Said, play
from tests.e2e.any_words import CALLERS, FAREWELL, PROTECTED, WORD, heard_in, is_notice, line, words
from tests.tool_talks import trouble
from tests.vendors import spelled
from tests.vendors.server import Vendors
from voiceflow.audio import encode
from voiceflow.engine.reply import Reply
from voiceflow.frames import PHONE
from voiceflow.tools import Effect, UseState
from voiceflow.tools.use import ToolUse

SEEDS = range(64)
CLOSING = 6.0
"""Seconds after a hang-up in which a call closes: a commit has 4 of them to finish."""
ONE_WORD = 0.36
"""Seconds that a word of the agent's takes, with its space."""
DECIDED = 1.3
"""Seconds until a voice has a word, the recogniser has told it, and the referee has judged it."""


@pytest.mark.parametrize("seed", SEEDS)
async def test_any_call(virtual_time: None, tmp_path: Path, seed: int) -> None:
    phone = Phone(Traits(seed), tmp_path)
    fakes = phone.traits.vendors(phone.model)
    with environment(fakes):
        await play(phone, fakes)
    it_is_over(phone, fakes)
    for check in CHECKS:
        check(phone)


def it_is_over(phone: Phone, fakes: Vendors) -> None:
    """No task is left: the virtual loop would say so."""
    assert phone.broken or phone.call.fault is None, phone.call.fault
    assert phone.over - phone.hung_up < CLOSING
    assert phone.seen.wrong == []
    assert [wrong for _, _, messages in phone.model.asked if (wrong := trouble(messages))] == []
    assert not (fakes.flux.wrongs)
    assert not (fakes.elevenlabs.wrongs)
    assert not (fakes.aura.wrongs)


# -- what the agent says


def history_is_what_the_ear_received(phone: Phone) -> None:
    """Word by word, in order. Of a reply that was cut the ear may have one word more, or two when the voice
    tells no words. At the end of a stream, what was on its way for the round trip is nobody's."""
    whole = [word for word in phone.ear() if word.whole]
    heard = list(dict.fromkeys(word.text for word in whole if word.text[0] != "Z"))
    believed = [text for said in phone.words_by("assistant") for text in said if text[0] != "Z"]
    if phone.traits.aura:  # a hold goes back into the middle of some word, which is then hard to read
        held = phone.held()
        heard, believed = ([text for text in each if text[:3] not in held] for each in (heard, believed))
    assert len(set(believed)) == len(believed), "nothing is in the history twice"
    on_its_way = round(phone.traits.round_trip / ONE_WORD) + 2
    last = whose(phone, heard[-1:] + believed[-1:])
    extra = [text for text in believed if text not in set(heard)]
    at_its_end = extra == believed[len(believed) - len(extra) :]
    assert at_its_end or len(phone.streams) > 1, f"not heard: {extra}"
    assert [text for text in believed if text not in extra] == [text for text in heard if text in believed]
    missing = Counter(whose(phone, [text])[0] for text in heard if text not in set(believed))
    for reply, number in missing.items():
        late = on_its_way if reply in last or len(phone.streams) > 1 else 0
        assert number <= (2 if phone.traits.aura else 1) + late, f"{reply}: {set(heard) - set(believed)}"
    if not phone.traits.aura:
        fixed = Counter(text for said in phone.words_by("assistant") for text in said if text[0] == "Z")
        extra += (fixed - Counter(word.text for word in whole)).elements()
    assert len(extra) <= on_its_way, f"not heard: {extra}"


def no_word_is_lost_and_few_are_said_again(phone: Phone) -> None:
    """What was heard of an answer is its beginning, without a gap."""
    whole = [word.text for word in phone.ear() if word.whole and word.text[0] != "Z"]
    given, hard = phone.seen.given(), phone.held() if phone.traits.aura else set()
    for code, found in groupby(sorted(set(whole)), key=lambda text: text[:3]):
        if code in given and code not in hard:
            heard = list(found)
            assert heard == given[code][: len(heard)]
    again = sum(number - 1 for number in Counter(whole).values())
    holds = figure(phone, "BargeIn.holds") + len(phone.streams) - 1
    assert again <= holds * (4 if phone.traits.aura else 1)


def one_reply_is_heard_at_a_time(phone: Phone) -> None:
    ear = [word.text for word in phone.ear() if word.whole and word.text[0] != "Z"]
    order = [reply for reply, _ in groupby(whose(phone, ear))]
    assert len(order) == len(set(order)), f"they alternate: {order}"


def nothing_is_left_of_dropped_drafts(phone: Phone) -> None:
    dropped = [told for reply, told in phone.seen.replies.items() if not reply.confirmed]
    codes = {code: told for told in dropped for code in told.codes if code not in phone.model.again}
    assert not {word.text[:3] for word in phone.ear() if word.whole} & set(codes)
    for entry in phone.call.history.messages:
        text = f"{entry.content} {getattr(entry, 'requested', '')}"
        assert not [code for code in codes if code in text], text
    for _, came, messages in phone.model.asked:
        for code, told in codes.items():
            if told.died is not None and came > told.died + 0.01:
                assert code not in str(messages), f"{code} was dropped at {told.died}, read at {came}"


def the_model_reads_what_was_heard(phone: Phone) -> None:
    """Of other replies than that which it makes: nothing that was generated and not heard."""
    believed = {text for said in phone.words_by("assistant") for text in said}
    replies = phone.seen.codes()
    for code, came, messages in phone.model.asked:
        if code not in replies:  # nothing came of it: whose it was is not known
            continue
        said = [m["content"] or "" for m in messages if m["role"] == "assistant"]
        for text in WORD.findall(" ".join(said)):
            own = replies.get(text[:3]) is replies[code]
            assert own or text in believed, f"{code} at {came} reads {text}"


def what_is_protected_is_said(phone: Phone) -> None:
    """From its first word to its last, unless the caller hung up; whoever says it is told so."""
    if phone.traits.troubled:
        return
    ear = phone.ear()
    lines = {"Znt": 7, "Ztn": 4, "Ztg": 4, **{p.code: 5 for p in phone.program if p.kind == "protected"}}
    for code, number in lines.items():
        begun = [word.begins for word in ear if word.text[:3] == code]
        needs = number * ONE_WORD + 0.5 + phone.traits.round_trip
        if begun and begun[0] + needs < phone.hung_up and len(phone.streams) == 1:
            assert {word.text for word in ear}.issuperset(words(code, number)), f"begun at {begun[0]}"
    for each in phone.program:
        if each.heard is not None and not each.over and each.kind != "cue":
            whole = line(each.code, 5)
            assert each.heard == whole if each.kind == "protected" else whole.startswith(each.heard)


def a_goodbye_is_heard(phone: Phone) -> None:
    ear = [word.text for word in phone.ear() if word.whole]
    match phone.result.reason if phone.result is not None else "":
        case "the caller was silent":  # a notice, or the program, may have been waiting
            lines = [text for text in ear if text[0] == "Z" and text[:3] != "Ztn"]
            assert lines[-4:] == words("Zig", 4)
        case "the agent hung up" if not phone.traits.troubled:
            said = phone.seen.given().get(ear[-1][:3], [ear[-1]])
            assert ear[-1] == said[-1] or ear[-1] in FAREWELL


def the_agent_listens(phone: Phone) -> None:
    """Whoever speaks silences the agent, but for what may not be interrupted."""
    for said in phone.says:
        if CALLERS.search(said.what):
            since = said.begins + phone.traits.round_trip + DECIDED
            over = [word for word in phone.ear() if since < word.begins and word.ends < said.ends]
            over = [w for w in over if w.text[:3] not in PROTECTED and w.text[0] != "Y"]
            assert not [word for word in over if not is_notice(word.text)], f"the agent goes on over {said}"


def idle_prompts_are_over_nobody(phone: Phone) -> None:
    for word in phone.ear():
        if word.text == "Ziaaa":
            known = word.begins - phone.traits.round_trip - 0.9
            over = [s for s in phone.says if CALLERS.search(s.what) and s.begins < known < s.ends - 0.9]
            assert not over, word


def nobody_waits_for_long(phone: Phone) -> None:
    """No dead air: something is heard, or said, at least every so often."""
    slow = phone.traits.troubled or phone.traits.gap > 0.1 or len(phone.streams) > 1
    if slow or "collect_keys" in str(phone.uses()):
        return
    loud = [(each.begins, each.ends) for each in (*phone.ear(), *phone.says)]
    end = 0.0
    for begins, ends in sorted([*loud, (phone.hung_up, phone.hung_up)]):
        assert begins - end < 8.0, f"dead air from {end} to {begins}"
        end = max(end, ends)


# -- what the caller says


def the_caller_is_heard(phone: Phone) -> None:
    """Each word once, in order, but for the last: those of an open turn are lost with the call."""
    gone = lost_words(phone)
    all_said = [(text, each) for each in phone.says for text in CALLERS.findall(each.what)]
    spoken = [text for text, _ in all_said if text not in gone]
    known = [text for said in phone.words_by("user") for text in said if text not in gone]
    wanted = [
        text for text, each in all_said if text not in gone and turn_end(phone, each) < phone.hung_up - 0.5
    ]
    assert known == spoken[: len(known)]
    assert len(known) >= len(wanted), f"lost: {spoken[len(known) : len(wanted)]}"


def turns_are_answered(phone: Phone) -> None:
    """Every turn's words were read by the model, unless they were kept, or said, until the call was over."""
    read = " ".join(str(messages) for _, _, messages in phone.model.asked)
    read += " ".join(m.content for m in phone.call.history.messages[-1:] if m.role == "user")
    until = min(phone.hung_up, phone.traits.limited - 3.0) - 3.0
    for each in phone.says:
        if turn_end(phone, each) < until and not phone.lost(each):
            for text in CALLERS.findall(each.what):
                assert text in read, f"{text}, said at {each.begins}"


def keys_are_kept(phone: Phone) -> None:
    """Each is told to the model once, or waits to be."""
    (end,) = [event.at for event in phone.call.trace.events if event.kind == "end"]
    keys = [each for each in phone.says if each.what.startswith("key")]
    until = min(end, phone.hung_up) - phone.traits.delay_out - 0.1
    arrived = [key for key in keys if key.begins < until and not phone.lost(key)]
    told: list[str] = [phone.waiting_keys]
    for entry in phone.call.history.messages:
        if entry.role == "user":
            told += re.findall(r"\(The caller pressed ([\d ]+)\.\)", entry.content)
        elif isinstance(entry, ToolUse) and entry.requested.name == "collect_keys":
            told += re.findall(r"^[\d ]+", entry.content)
    kept = Counter("".join("".join(told).split()))
    collecting = any("hung up before all keys" in use.content for use in phone.uses())
    assert kept <= Counter(key.what[4:] for key in keys), f"{told} of {keys}"
    assert collecting or Counter(key.what[4:] for key in arrived) <= kept, f"{told} of {keys}"


# -- what tools do


def commits_are_done_once(phone: Phone) -> None:
    begun = Counter(tag for what, tag, _ in phone.desk.log if what in ("book begins", "press begins"))
    ended = Counter(tag for what, tag, _ in phone.desk.log if re.match("(book|press) (?!begins)", what))
    ran: Counter[str] = Counter()
    for use in phone.uses():
        assert use.state.over, use
        if use.began is not None and use.requested.name in ("book", "press"):
            assert use.state is not UseState.CANCELLED, use
            ran[json.loads(use.requested.arguments)["tag"]] += 1
    assert begun == ended == ran, "what began is in the history, and has ended"


def results_are_told(phone: Phone) -> None:
    """What came of a commit is in some request, unless the call ended first."""
    read = str([messages for _, _, messages in phone.model.asked])
    until = min(phone.hung_up, phone.traits.limited) - 12.0
    for use in phone.uses():
        if use.effect is Effect.COMMIT and use.state is UseState.DONE and use.ended is not None:
            assert use.ended > until or use.content in read, f"{use.content}, at {use.ended}"


# -- what is kept of it


def it_is_recorded(phone: Phone) -> None:
    with wave.open(str(phone.wav), "rb") as file:
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    gone = lost_words(phone)
    sent = b"".join(sent for _, sent, _ in phone.tracks())
    left, said = (
        [text for text in CALLERS.findall(spelled.read(track)) if text not in gone]
        for track in (encode(frames[:, 0].copy(), PHONE), sent)
    )
    assert left == said[: len(left)]
    assert len(said) - len(left) <= 1 + round(phone.traits.round_trip / 0.24), said[len(left) :]
    if len(phone.streams) == 1:
        right = [word for word in heard_in(encode(frames[:, 1].copy(), PHONE)) if word.whole]
        ear = [word for word in phone.ear() if word.whole]
        both = list(zip(right, ear, strict=False))
        assert all(recorded.text == heard.text for recorded, heard in both)
        assert abs(len(right) - len(ear)) <= round(phone.traits.round_trip / ONE_WORD) + 2
        later = [heard.begins - recorded.begins for recorded, heard in both]
        assert not later or max(later) - min(later) < 0.02


def the_transcript_is_the_history(phone: Phone) -> None:
    found = json.loads(phone.wav.with_suffix(".transcript.json").read_text())["entries"]
    agent = [entry["text"] for entry in found if entry["speaker"] == "agent"]
    assert agent == [m.content for m in phone.call.history.messages if m.role == "assistant"]


def figures_are_sane(phone: Phone) -> None:
    figures = phone.call.figures()
    assert all(value >= 0 for value in figures.values()), figures
    assert figures["drafts"] == figures["drafts_kept"] + figures["drafts_dropped"]
    assert figures["drafts_dropped"] == sum(not reply.confirmed for reply in phone.seen.replies)
    assert figure(phone, "BargeIn.resumed") <= figure(phone, "BargeIn.holds")
    cancelled = [use for use in phone.uses() if use.state is UseState.CANCELLED]
    assert figures["ChatLLM.tools_cancelled"] >= len(cancelled)
    if not phone.traits.troubled:
        assert figures["underruns"] == 0, "the voice is fast enough"
    for path in phone.call.trace.paths:
        assert all(part.microseconds >= 0 for part in path.parts())


# -- parts of checks


def whose(phone: Phone, texts: list[str]) -> list[Reply | str]:
    """The replies of these words; the code where no model gave it."""
    replies = phone.seen.codes()
    return [replies.get(text[:3], text[:3]) for text in texts]


def figure(phone: Phone, name: str) -> float:
    return phone.call.figures().get(name, 0.0)


def lost_words(phone: Phone) -> set[str]:
    """Those that were said while there was no stream."""
    return {text for each in phone.says if phone.lost(each) for text in CALLERS.findall(each.what)}


def turn_end(phone: Phone, said: Said) -> float:
    """When the recogniser says that the turn is over."""
    end, pause = said.ends, phone.traits.end
    for each in phone.says:
        words_too = each.what != "noise" and not each.what.startswith("key")
        if words_too and said.ends <= each.begins < end + pause + 0.1:
            end = max(end, each.ends)
    return end + pause + 0.6 + phone.traits.delay_out


CHECKS = (
    history_is_what_the_ear_received,
    no_word_is_lost_and_few_are_said_again,
    one_reply_is_heard_at_a_time,
    nothing_is_left_of_dropped_drafts,
    the_model_reads_what_was_heard,
    what_is_protected_is_said,
    a_goodbye_is_heard,
    the_agent_listens,
    idle_prompts_are_over_nobody,
    nobody_waits_for_long,
    the_caller_is_heard,
    turns_are_answered,
    keys_are_kept,
    commits_are_done_once,
    results_are_told,
    it_is_recorded,
    the_transcript_is_the_history,
    figures_are_sane,
)
