"""The agent of random calls, its model and its tools; who it is, and what becomes of it, dice say."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from processors.aura import AuraTTS
from processors.barge_in import BargeIn
from processors.elevenlabs import ElevenLabsTTS
from processors.filler import Filler
from processors.flux import FluxSTT
from processors.idle import Cue, IdlePrompts
from processors.keypad import Keypad
from processors.openai import ChatLLM
from processors.recording import Recording
from processors.sentences import SentenceAggregator
from processors.time_limit import TimeLimit
from tests.e2e.agents import Loudness, vendors
from tests.e2e.any_words import (
    FAREWELL,
    FILLERS,
    IDLE,
    IDLE_GOODBYE,
    LIMIT,
    LIMIT_GOODBYE,
    SORRY,
    UNHEARD,
    WORD,
    Heard,
    is_notice,
    letters,
    words,
)
from tests.vendors.completions import Answer
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import FakeOpenAI, ToolCall
from tests.vendors.openai import Fault as ModelFault
from tests.vendors.server import DEEPGRAM_KEY, OPENAI_KEY, Vendors
from tests.vendors.speaking import Fault as VoiceFault
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on
from voiceflow.engine.reply import Reply, ReplyState
from voiceflow.errors import CallEnded
from voiceflow.frames import Interrupt, Prompt, Sent, Sentence, Token, ToolStart
from voiceflow.tools import Effect, end_call, tool
from voiceflow.tools.use import ToolUse


class Traits:
    """What a call is like, by its seed."""

    def __init__(self, seed: int) -> None:
        dice = self._dice = random.Random(f"traits {seed}")
        self.seed = seed
        self.seconds = dice.uniform(5, 45)
        """After which the caller hangs up, if nobody has before."""
        self.aura = dice.random() < 0.25
        """The voice tells no words."""
        self.ending = dice.choice(("hang-up",) * 8 + ("stop", "broken"))
        """The caller hangs up; the server stops; a vendor is down for good from some time on."""
        self.troubled = dice.random() < 0.2 or self.ending == "broken"
        """A vendor fails now and then."""
        self.delay_out, self.delay_in = dice.uniform(0, 0.2), dice.uniform(0, 0.2)
        self.round_trip = self.delay_out + self.delay_in
        self.end = dice.choice((0.4, 0.4, 1.2))
        """Seconds of silence after which a turn is over."""
        self.pace = dice.choice((1.1, 5.0, 5.0, 50.0))
        """How much faster than it is heard the voice speaks."""
        self.gap = dice.choice((0.01, 0.01, 0.15))
        """Seconds from one piece of an answer to the next."""
        self.idle = dice.choice((1.0, 3.0, 3.0))
        """Seconds until a silent caller is asked."""
        self.patience = dice.choice((0.2, 1.0, 3.0))
        """How long the caller waits between two things that he does, about."""
        self.limited = dice.uniform(15, 30) if dice.random() < 0.3 else 600.0
        """Seconds that the call may take."""

    def pipeline(self, call: Call, desk: Desk, keys: Keypad, witnesses: list[Witness], wav: Path) -> Pipeline:
        def often(part: float, *processors: Processor) -> tuple[Processor, ...]:
            return processors if dice.random() < part else ()

        dice, before, behind = self._dice, *witnesses
        tools = [desk.look, desk.book, desk.press, desk.leave, keys.collect, end_call(farewell=FAREWELL)]
        return Pipeline(
            call.source(),
            *often(0.8, Loudness()),
            FluxSTT(eager_eot_threshold=0.4 if dice.random() < 0.8 else None),
            *often(0.85, BargeIn(hold=dice.random() < 0.8)),
            keys,
            before,
            ChatLLM(
                instructions="You sell bread.", tools=tools, sorry=SORRY, unheard=UNHEARD, give_up_after=99
            ),
            behind,
            IdlePrompts(after=self.idle, lines=(IDLE, Cue("ask whether he is there")), goodbye=IDLE_GOODBYE),
            TimeLimit(self.limited, warn=6.0, line=LIMIT, goodbye=LIMIT_GOODBYE, wait=2.0),
            SentenceAggregator(),
            *often(0.3, Notices()),
            Filler(lines=FILLERS),
            AuraTTS() if self.aura else ElevenLabsTTS(),
            Recording(wav),
            call.sink(),
        )

    def greets(self) -> tuple[bool, bool]:
        """With the notice; with a question."""
        return self._dice.random() < 0.5, self._dice.random() < 0.5

    def vendors(self, model: Model) -> Vendors:
        dice = random.Random(f"vendors {self.seed}")
        llm = FakeOpenAI(
            key=OPENAI_KEY, reply=model, ttft=dice.choice((0.06, 0.3, 0.6)), gap=self.gap, packet=4
        )
        late = dice.choice((0, 0.1, 0.3))
        flux = FakeFlux(key=DEEPGRAM_KEY, eager_silence=0.12, eot_silence=self.end, delay=late)
        fakes = vendors(llm=llm, flux=flux)
        voice = self.voice(fakes)
        voice.pace, voice.delay = self.pace, dice.choice((0.1, 0.1, 0.5))
        if self.troubled:
            llm.faults.extend(_fault(dice) if dice.random() < 0.15 else None for _ in range(60))
            kinds = [dice.choice(("drop", "stall", "close")) for _ in range(2)]
            voice.faults += [VoiceFault(kind, dice.randint(1, 40)) for kind in kinds]
        return fakes

    def voice(self, fakes: Vendors) -> Any:
        return fakes.aura if self.aura else fakes.elevenlabs

    def break_for_good(self, fakes: Vendors) -> None:
        match self.seed % 3:
            case 0:
                fakes.llm.faults.extend([ModelFault(status=503)] * 50)
            case 1:
                self.voice(fakes).delay = 1e6
            case 2:
                fakes.flux.key = "another"
                fakes.flux.drop()


def _fault(dice: random.Random) -> ModelFault:
    match dice.randrange(4):
        case 0:
            return ModelFault(status=500)
        case 1:
            return ModelFault(then="drop", after=dice.randint(0, 6))
        case 2:
            return ModelFault(then="stall", after=dice.randint(0, 6))
        case _:
            return ModelFault(ttft=5.0)


# -- who looks on


class Notices(Processor):
    """Some sentences may not be interrupted."""

    @on(Sentence)
    def mark(self, sentence: Sentence) -> Sentence:
        return replace(sentence, protected=sentence.protected or is_notice(sentence.text))


@dataclass(slots=True, eq=False)
class Told:
    """One reply. `codes`: the words that the model gave for it, by their code."""

    draft: bool
    codes: dict[str, list[str]] = field(default_factory=dict)
    died: float | None = None


class Seen:
    """What was seen of every reply, and what should not have been."""

    def __init__(self) -> None:
        self.replies: dict[Reply, Told] = {}
        self.wrong: list[str] = []

    def of(self, reply: Reply | None) -> Told:
        assert reply is not None
        return self.replies.setdefault(reply, Told(reply.state is ReplyState.DRAFT))

    def codes(self) -> dict[str, Reply]:
        return {code: reply for reply, told in self.replies.items() for code in told.codes}

    def given(self) -> dict[str, list[str]]:
        """What the model said, by its code."""
        return {code: said for told in self.replies.values() for code, said in told.codes.items()}


class Witness(Processor):
    """One of each kind stands before the model and behind it."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    @on(Interrupt)
    def cut(self, frame: Interrupt) -> None:
        self.seen.of(frame.dead).died = self.call.loop.time()


class Before(Witness):
    @on(Prompt)
    def asked(self, prompt: Prompt) -> Prompt:
        self.seen.of(prompt.reply)
        return prompt

    @on(Sent)
    def sent(self, frame: Sent) -> None:
        if frame.of is not None and frame.of.state is not ReplyState.LIVE:
            self.seen.wrong.append(f"audio of {frame.of} was sent")


class Behind(Witness):
    @on(Token)
    def said(self, token: Token) -> Token:
        for word in WORD.findall(token.text):
            self.seen.of(token.reply).codes.setdefault(word[:3], []).append(word)
        return token

    @on(ToolStart)
    def began(self, frame: ToolStart) -> None:
        if (tag := tag_of(frame.use)) and tag not in self.seen.codes():
            self.seen.of(frame.of).codes[tag] = []
        if frame.use.effect is not Effect.READ and not frame.of.confirmed:
            self.seen.wrong.append(f"{frame.use.requested} began for {frame.of}")


def tag_of(use: ToolUse) -> str:
    """The code of the answer that asked for it, if its arguments can be read."""
    try:
        return str(json.loads(use.requested.arguments).get("tag", ""))
    except ValueError:
        return ""


# -- the tools


class Desk:
    """The tools, and what they did: (what, tag, when). `ear()` is what was heard so far."""

    def __init__(
        self,
        seen: Seen,
        model: Model,
        ear: Callable[[], list[Heard]],
        replace_stream: Callable[[float], Awaitable[None]],
    ) -> None:
        self.log: list[tuple[str, str, float]] = []
        self._seen, self._model, self._ear, self._replace_stream = seen, model, ear, replace_stream

    def _note(self, what: str, tag: str, call: Call) -> None:
        self.log.append((what, tag, call.loop.time()))

    async def _work(self, name: str, tag: str, seconds: float, how: str, call: Call) -> str:
        self._note(f"{name} begins", tag, call)
        ended = "cancelled"
        try:
            await asyncio.sleep(seconds)
            if how == "fail":
                raise ValueError("it is taken")
            if how == "crash":
                raise KeyError("oops")
            ended = "done"
        except (ValueError, KeyError):
            ended = "failed"
            raise
        finally:
            self._note(f"{name} {ended}", tag, call)
        return f"it is done for {tag}"

    @tool(effect="read", limit=4.0)
    async def look(self, tag: str, seconds: float, how: str, call: Call) -> str:
        """Looks something up."""
        return await self._work("look", tag, seconds, how, call)

    @tool(effect="commit", limit=4.0)
    async def book(self, tag: str, seconds: float, how: str, call: Call) -> str:
        """Books something."""
        self._live(tag, call)
        return await self._work("book", tag, seconds, how, call)

    @tool(effect="commit", limit=20.0)
    async def press(self, tag: str, seconds: float, call: Call) -> str:
        """Presses keys: the stream is taken away for a while."""
        self._live(tag, call)
        self._note("press begins", tag, call)
        try:
            await self._replace_stream(seconds)
        except CallEnded:
            self._note("press failed", tag, call)
            raise
        self._note("press done", tag, call)
        return "the keys were pressed"

    @tool(effect="terminal", limit=4.0)
    async def leave(self, tag: str, how: str, call: Call) -> None:
        """Leaves the call."""
        self._note("leave begins", tag, call)
        said, heard = self._seen.given().get(tag, []), {word.text for word in self._ear()}
        if not heard.issuperset(said):
            self._seen.wrong.append(f"it left, and {said} were said, {heard & set(said)} heard")
        await asyncio.sleep(0.2)
        if how == "fail":
            raise ValueError("nobody answers")
        call.end("left")

    def _live(self, tag: str, call: Call) -> None:
        live = call.turns.live
        whose = self._seen.codes().get(tag)
        mine = whose in (live, None) or tag in self._model.again
        if live is None or live.state is not ReplyState.LIVE or not mine:
            self._seen.wrong.append(f"a commit of {whose} ({tag}) began while {live} was live")


# -- the model


class Model:
    """Answers with words of a code of its own each time; what it does is up to the dice."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.asked: list[tuple[str, float, list[dict[str, Any]]]] = []
        """The code of each request, when it came, and what it said."""
        self.again: set[str] = set()
        """Whose bookings were asked for once more, by a later answer."""
        self._booked: list[dict[str, Any]] = []

    def __call__(self, messages: list[dict[str, Any]]) -> Answer:
        number = len(self.asked)
        code = letters(number + 676, 3).capitalize()
        self.asked.append((code, asyncio.get_running_loop().time(), messages))
        dice = random.Random(f"{self.seed} {number}")
        last = messages[-1]["role"]
        text = self._text(code, dice)
        calls = dice.random() < {"user": 0.4, "tool": 0.2}.get(last, 0.05)
        if not calls:
            return text
        said = text if dice.random() < 0.7 else []
        asked = [self._call(code, dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        return [*said, *asked]

    def _text(self, code: str, dice: random.Random) -> list[str]:
        pieces, left = [], iter(words(code, 30))
        for _ in range(dice.randint(1, 3)):
            sentence = [next(left) for _ in range(dice.randint(1, 7))]
            end = dice.choice((".", ".", ".", "?"))
            pieces += [f"{word} " for word in sentence[:-1]] + [f"{sentence[-1]}{end} "]
        return pieces

    def _call(self, code: str, dice: random.Random) -> ToolCall:
        seconds = dice.choice((0.0, 0.1, 0.8, 2.5, 5.0))
        how = dice.choice(("well", "well", "well", "fail", "crash"))
        about = {"tag": code, "seconds": seconds, "how": how}
        match dice.randrange(20):
            case 0:
                return ToolCall("reserve", json.dumps(about))
            case 1:
                return ToolCall("book", json.dumps(about)[:-4])
            case 2:
                return ToolCall("book", json.dumps({"tag": code, "seconds": "many"}))
            case 3 | 4:
                return ToolCall("collect_keys", json.dumps({"digits": dice.choice((1, 2, 4)), "wait": 3.0}))
            case 5:
                return ToolCall("press", json.dumps({"tag": code, "seconds": dice.choice((0.3, 2.0))}))
            case 6 | 14:
                return ToolCall("leave", json.dumps({"tag": code, "how": dice.choice(("well", "fail"))}))
            case 7 | 15:
                return ToolCall("end_call")
            case 8 | 9 | 10 | 11 | 12:
                return ToolCall("look", json.dumps(about))
            case 13 if self._booked:  # the very same once more
                self.again.add(self._booked[-1]["tag"])
                return ToolCall("book", json.dumps(self._booked[-1]))
            case _:
                self._booked.append(about)
                return ToolCall("book", json.dumps(about))
