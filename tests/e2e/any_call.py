"""A random call: a caller who speaks, pauses, coughs, interrupts, presses keys, falls silent and hangs up as
the dice say, and what was seen of it all.

    phone = Phone(Traits(17), folder)
    await play(phone)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from processors.keypad import Keypad
from processors.twilio.codec import TwilioCodec
from processors.twilio.simulated.carrier import CarrierCodec
from processors.twilio.simulated.handset import Handset
from processors.twilio.simulated.report import CallReport, Event
from processors.twilio.simulated.stream import Line, MediaStream, StreamClock
from tests.e2e.agents import COUGH
from tests.e2e.any_agent import Before, Behind, Desk, Model, Seen, Traits
from tests.e2e.any_words import CALLERS, HELLO, NOTICE, RATE, WORD, Heard, heard_in, letters, line
from tests.e2e.conversation import _Socket
from tests.vendors import spelled
from tests.vendors.server import Vendors
from voiceflow.call import Call
from voiceflow.errors import CallEnded
from voiceflow.line.codec import LineStarted
from voiceflow.record import CallResult, Phase
from voiceflow.services import Services
from voiceflow.testing import pair
from voiceflow.tools.use import ToolUse

LISTENING = ("Uh-huh.", "Okay.", "Mhm.")
WAIT = 8.0
"""Seconds for which a caller waits for the agent to speak, or to be silent, at most."""


class Said(NamedTuple):
    """What the caller did, from and to which second of the call: words, a "noise", "listening", a "key"."""

    what: str
    begins: float
    ends: float


@dataclass(slots=True)
class Program:
    """What the program says: `heard` is what it was told, None while it waits."""

    code: str
    kind: str
    heard: str | None = None
    over: bool = False
    """The call ended before it could be said, or while it was."""


class Phone:
    """The caller's side of one call, its streams, and what was seen."""

    def __init__(self, traits: Traits, folder: Path) -> None:
        self.traits, self.wav = traits, folder / "call.wav"
        self.dice = random.Random(f"caller {traits.seed}")
        self.wire = Line(delay_out=traits.delay_out, delay_in=traits.delay_in, announce=False)
        self.seen, self.model, self.keypad = (
            Seen(),
            Model(traits.seed),
            Keypad(interrupts=self.dice.random() < 0.8),
        )
        self.desk = Desk(self.seen, self.model, self.ear, self.replace_stream)
        self.says: list[Said] = []
        self.program: list[Program] = []
        self.handset, self.report = Handset(), CallReport("CA0")
        self.streams: list[MediaStream] = []
        self.away: list[tuple[float, float]] = []
        """From and to when there was no stream: what is said then is lost, as on a phone."""
        self.call: Call
        self.result: CallResult | None = None
        """None when the server stopped."""
        self.broken = False
        """A vendor has been down for good."""
        self.hung_up = self.over = 0.0
        """When the caller hung up, or found that the agent had; when the call had closed."""
        self.waiting_keys = ""
        """Pressed, and not told to the model when the call ended."""
        self.tasks: list[asyncio.Task[Any]] = []
        self._replacing = asyncio.Lock()
        self._words = count()

    def prepare(self, services: Services) -> Call:
        """The call, with its pipeline."""
        notice, asks = self.traits.greets()
        call = self.call = Call(TwilioCodec(), id="any", services=services, seed=self.traits.seed)

        @call.on_start
        async def greet(call: Call) -> None:
            if notice:
                await call.say(NOTICE, interruptible=False)
            if asks:
                await call.say(HELLO)

        @call.on_end
        def look(call: Call) -> None:
            self.waiting_keys = "".join([*self.keypad._ahead, *self.keypad._entries])

        witnesses = [Before(self.seen), Behind(self.seen)]
        call.prepare(self.traits.pipeline(call, self.desk, self.keypad, witnesses, self.wav))
        return call

    # -- streams

    def open_stream(self) -> tuple[Any, TwilioCodec, LineStarted]:
        name = f"MZ{len(self.streams)}"
        ours, theirs = pair(name="twilio", bound=10_000)
        carrier = CarrierCodec(stream=name, call="CA0", account="AC0", parameters={})
        codec = TwilioCodec()
        list(codec.parse(carrier.start()))  # the codec learns the stream's name

        def tell(kind: Any, at: float, detail: str) -> None:
            self.report.add(Event(at, kind, detail))

        offset = round(asyncio.get_running_loop().time() * RATE)
        stream = MediaStream(
            _Socket(theirs), carrier, self.handset, self.report, tell, self.wire, StreamClock(), offset
        )  # type: ignore[arg-type]
        self.streams.append(stream)
        self.tasks.append(asyncio.create_task(stream.run(), name="twilio"))
        return ours, codec, LineStarted(name, "CA0", codec.format)

    async def replace_stream(self, seconds: float) -> None:
        """As `LiveCall.press` does it."""
        async with self._replacing:
            line, loop, before = self.call.line, self.call.loop, len(self.streams)
            line.expect(20.0)
            self.away.append((loop.time() - 0.02, float("inf")))
            self.streams[-1].hang_up()
            await self._until(lambda: line.link is None)
            await asyncio.sleep(seconds)
            if self.call.phase is not Phase.LIVE or self.hung_up:
                line.unexpect()
                raise CallEnded("the call is over")
            link, codec, started = self.open_stream()
            self.away[-1] = self.away[-1][0], loop.time()
            self.tasks.append(asyncio.create_task(self.call.follow(codec, link, started)))
            await self._until(lambda: line.stream == f"MZ{before}")

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            if self.call.phase is not Phase.LIVE:
                raise CallEnded("the call is over")
            await asyncio.sleep(0.01)

    # -- the caller

    def speak(self, text: str) -> Said:
        first, last = self.handset.speak(spelled.spell(text), self._now)
        said = Said(text, first / RATE, last / RATE)
        self.says.append(said)
        return said

    def sentence(self, number: int) -> str:
        return " ".join(f"v{letters(next(self._words), 3, 16)}" for _ in range(number))

    async def acts(self) -> None:
        """One thing that callers do."""
        dice = self.dice
        match dice.randrange(3 if self.traits.patience < 1 else 2):
            case 0:
                await self._agent(speaks=True)
                await asyncio.sleep(dice.choice((0.0, 0.1, dice.uniform(0, 3))))
            case 1:
                await self._agent(speaks=False)
                await asyncio.sleep(dice.choice((0.0, 0.1, dice.uniform(0, 1))))
        match dice.randrange(16):
            case 0 | 1 | 2 | 3:
                await self._ended(self.speak(self.sentence(dice.randint(1, 4)) + "."))
            case 4 | 5:  # pauses in the middle of it
                await self._ended(self.speak(self.sentence(dice.randint(1, 3))))
                await asyncio.sleep(dice.choice((0.15, 0.25, 0.35, 0.6, 0.9 * self.traits.end)))
                await self._ended(self.speak(" " + self.sentence(dice.randint(1, 3)) + "."))
            case 6 | 7:
                first, last = self.handset.speak(COUGH * round(dice.uniform(0.04, 1.2) * 200), self._now)
                self.says.append(Said("noise", first / RATE, last / RATE))
            case 8 | 9:
                await self._ended(self.speak(dice.choice(LISTENING)))
            case 10:
                for number in range(dice.randint(1, 4)):
                    at = self._now + int(number * 0.2 * RATE)
                    key = dice.choice("123456789")
                    self.handset.press(key, at)
                    self.says.append(Said(f"key {key}", at / RATE, at / RATE))
            case 11:
                await asyncio.sleep(dice.uniform(4, 16))
            case 12:
                self._program_speaks(dice)
            case _:
                await asyncio.sleep(dice.uniform(0, 3))
        await asyncio.sleep(self.traits.patience * dice.choice((0.0, 0.05, 0.5, dice.uniform(0, 3))))

    def _program_speaks(self, dice: random.Random) -> None:
        code = f"Y{letters(len(self.program), 2)}"
        kind = dice.choice(("say", "protected", "cue"))
        program = Program(code, kind)
        self.program.append(program)

        async def talk() -> None:
            try:
                if kind == "cue":
                    program.heard = (await self.call.prompt("say something")).text
                else:
                    program.heard = await self.call.say(line(code, 5), interruptible=kind == "say")
            except CallEnded:
                pass
            program.over = self.call.phase is not Phase.LIVE

        if self.call.phase is Phase.LIVE:
            self.call.spawn(talk(), name="program")

    async def _agent(self, speaks: bool) -> None:
        """Waits until the agent is heard, or is silent."""
        loop, limit = asyncio.get_running_loop(), asyncio.get_running_loop().time() + 8.0
        while not self.is_over and loop.time() < limit:
            playing = self.streams[-1]._playout.buffered > 0
            if playing is speaks:
                return
            await asyncio.sleep(0.02)

    async def _ended(self, said: Said) -> None:
        while self._now < said.ends * RATE and not self.is_over:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    @property
    def _now(self) -> int:
        return round(asyncio.get_running_loop().time() * RATE)

    def lost(self, said: Said) -> bool:
        """There was no stream for (a part of) it."""
        return any(begins < said.ends + 0.1 and said.begins - 0.1 < ends for begins, ends in self.away)

    @property
    def is_over(self) -> bool:
        return self.call._over is None or self.call._over.done()

    # -- what was heard

    def tracks(self) -> Iterator[tuple[float, bytes, bytes]]:
        """Each stream's beginning in seconds of the call, what the caller sent and what was played."""
        for stream in self.streams:
            stream._follow(stream._playout.advance(stream._sample()))
            sent, played = stream.tracks()
            yield stream.offset / RATE, sent, played

    def ear(self) -> list[Heard]:
        """The agent's words, as the ear received them."""
        return [word for offset, _, played in self.tracks() for word in heard_in(played, offset)]

    def held(self) -> set[str]:
        """The codes of replies that were held, or taken away with their stream."""
        numbers = {event.reply for event in self.call.trace.events if event.kind == "held"}
        cut = len(self.streams) > 1
        return {
            c
            for reply, told in self.seen.replies.items()
            for c in told.codes
            if cut or reply.number in numbers
        }

    def uses(self) -> list[ToolUse]:
        return [entry for entry in self.call.history.messages if isinstance(entry, ToolUse)]

    def words_by(self, role: str) -> list[list[str]]:
        pattern = WORD if role == "assistant" else CALLERS
        return [pattern.findall(m.content) for m in self.call.history.messages if m.role == role]


async def play(phone: Phone, fakes: Vendors) -> None:
    """The whole call, from the first ring to the last task."""
    loop, traits = asyncio.get_running_loop(), phone.traits
    services = Services(dial=fakes.dial, transport=fakes.transport)
    call = phone.prepare(services)
    link, codec, started = phone.open_stream()
    call.line.codec = codec
    running = asyncio.create_task(call.run(link, started), name="call")
    acting = asyncio.create_task(_acting(phone, fakes), name="caller")
    phone.tasks.append(acting)
    while loop.time() < traits.seconds and not phone.is_over:
        await asyncio.sleep(0.05)
        if traits.ending == "broken" and not phone.broken and loop.time() > traits.seconds * 0.6:
            phone.broken = True
            traits.break_for_good(fakes)
    phone.hung_up = loop.time()
    acting.cancel()
    if traits.ending == "stop" and not phone.is_over:
        running.cancel()
        await asyncio.wait([running])
    else:
        phone.streams[-1].hang_up()
        phone.result = await running
    phone.over = loop.time()
    for ended in await asyncio.gather(*phone.tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended
    await services.close()


async def _acting(phone: Phone, fakes: Vendors) -> None:
    while not phone.is_over:
        await phone.acts()
        if phone.traits.troubled and phone.dice.random() < 0.05:
            fakes.flux.drop()
