"""Processors for tests of check_processor: some that conform, and for every rule some that break it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace

from voiceflow.engine.processor import Processor, on, tap
from voiceflow.engine.reply import Reply
from voiceflow.errors import LinkError
from voiceflow.frames import (
    AgentFrame,
    AudioIn,
    AudioOut,
    Dtmf,
    Frame,
    Heard,
    Interrupt,
    Prompt,
    ReplyEnd,
    Sentence,
    Token,
    Transcript,
    TurnEnd,
)
from voiceflow.services import Services
from voiceflow.testing import ScriptedLink

# -- a vendor in memory --------------------------------------------------------------------------


def vendor(message: str | bytes) -> list[tuple[float, str]]:
    """Speaks `say|context|text` in two pieces, after 30 and 50 ms; confirms `flush|context|` after 60."""
    kind, context, text = str(message).split("|")
    if kind == "flush":
        return [(0.06, f"done|{context}|")]
    return [(0.03, f"audio|{context}|{text}"), (0.05, f"audio|{context}|")]


def speaking() -> Services:
    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> ScriptedLink:
        link = ScriptedLink(name=url)
        link.on(vendor)
        return link

    return Services(dial=dial)


class SocketTTS(Processor):
    """Speaks through a socket: what comes back is matched to its reply by a context."""

    pushes = (AudioOut, ReplyEnd)

    def __init__(self) -> None:
        self.contexts: dict[str, Reply] = {}

    async def start(self) -> None:
        self.link = await self.call.link("wss://voice.example")
        self.spawn(self.read(), "reader")

    async def read(self) -> None:
        while (message := await self.link.receive()) is not None:
            kind, context, text = str(message).split("|")
            if (reply := self.contexts.get(context)) is None:
                continue
            if kind == "done":
                await self.put(ReplyEnd(reply=reply))
                del self.contexts[context]
            else:
                await self.put(AudioOut(b"\x55" * 160, text, reply=reply))

    @on(Sentence, stops=True)
    async def say(self, sentence: Sentence) -> None:
        await self.link.send(f"say|{self.context(sentence.reply)}|{sentence.text}")

    @on(ReplyEnd, stops=True)
    async def flush(self, end: ReplyEnd) -> None:
        await self.link.send(f"flush|{self.context(end.reply)}|")

    @on(Interrupt)
    def forget(self, interrupt: Interrupt) -> None:
        self.contexts.pop(str(interrupt.dead.number), None)

    def context(self, reply: Reply | None) -> str:
        assert reply is not None
        self.contexts[str(reply.number)] = reply
        return str(reply.number)


# -- processors that conform ---------------------------------------------------------------------


class Redact(Processor):
    """A plain handler."""

    @on(Token)
    def redact(self, token: Token) -> Token:
        return replace(token, text=token.text.replace("4111", "[number]"))


class Sentences(Processor):
    """A generator with state, kept for each reply."""

    emits = (Sentence,)

    def __init__(self) -> None:
        self.text: dict[Reply | None, str] = {}

    @on(Token)
    def token(self, token: Token) -> Iterator[Sentence]:
        text = self.text.get(token.reply, "") + token.text
        while "." in text:
            sentence, text = text.split(".", 1)
            yield Sentence(sentence.strip() + ".")
        self.text[token.reply] = text

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[Frame]:
        if rest := self.text.pop(end.reply, ""):
            yield Sentence(rest.strip())
        yield end

    @on(Interrupt)
    def interrupted(self, interrupt: Interrupt) -> None:
        self.text.pop(interrupt.dead, None)


class Slowly(Processor):
    """An async handler."""

    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        await asyncio.sleep(0.05)
        return replace(sentence, text=sentence.text.upper())


class Model(Processor):
    """An async generator that answers Prompts, with a clean-up that takes a while."""

    needs = (Prompt,)
    emits = (Token, ReplyEnd)

    @on(Prompt)
    async def answer(self, prompt: Prompt) -> AsyncIterator[Token | ReplyEnd]:
        try:
            for word in ("You", " said", f" {prompt.text}"):
                await asyncio.sleep(0.02)
                yield Token(word)
            yield ReplyEnd()
        finally:
            await asyncio.sleep(0.3)


class Count(Processor):
    """Taps, one of them async, and a frame that comes up from below."""

    def __init__(self) -> None:
        self.tokens = 0
        self.heard = ""

    @tap(Token)
    def count(self, token: Token) -> None:
        self.tokens += 1

    @tap(AudioIn)
    async def audio(self, frame: AudioIn) -> None:
        await asyncio.sleep(0.005)

    @on(Heard)
    def keep(self, heard: Heard) -> None:
        self.heard = heard.text


class Everything(Processor):
    """A handler for all frames, in line."""

    @on(Frame)
    def look(self, frame: Frame) -> Frame:
        return frame


class Idle(Processor):
    """Asks whether anybody is there, while its ticker goes on for ever."""

    async def start(self) -> None:
        self.spawn(self.tick(), "ticker")

    async def tick(self) -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0.1)

    @tap(TurnEnd)
    def turn(self, frame: TurnEnd) -> None:
        pass


class Recogniser(Processor):
    """The turn's authority by its own evidence, which comes later than the audio it is from."""

    emits = (Transcript,)
    takes_turns = True

    def __init__(self) -> None:
        self.pieces = 0

    @tap(AudioIn)
    async def listen(self, audio: AudioIn) -> None:
        await asyncio.sleep(0.01)
        self.pieces += 1
        match self.pieces % 50:
            case 10:
                self.turns.started()
                self.push(Transcript("hello"))
            case 30:
                self.turns.may_be_over("hello")
            case 40:
                self.turns.ended("hello")


class Counting(Processor):
    """Stateful by design: it numbers the sentences of the call."""

    def __init__(self) -> None:
        self.count = 0

    @on(Sentence)
    def number(self, sentence: Sentence) -> Sentence:
        self.count += 1
        return replace(sentence, text=f"{self.count}: {sentence.text}")


# -- one broken processor for each rule ----------------------------------------------------------


class Undeclared(Processor):
    @on(Token)
    def token(self, token: Token) -> Sentence:
        return Sentence(token.text)


class EndOvertakes(Processor):
    """`pushes` that the chain's own check refuses."""

    pushes = (AudioOut,)


class SaysTwice(Processor):
    emits = (Token,)

    @tap(Token)
    def token(self, token: Token) -> None:
        self.push(token)


class InPlace(Processor):
    @on(Token)
    def token(self, token: Token) -> Token:
        token.text = token.text.upper()
        return token


class InPlaceTap(Processor):
    @tap(Dtmf)
    def key(self, key: Dtmf) -> None:
        key.digit = "*"


class Spawns(Processor):
    """A task for each sentence: ReplyEnd does not wait for them."""

    emits = (Sentence,)

    @on(Token, stops=True)
    def token(self, token: Token) -> None:
        self.spawn(self.work(token), "work")

    async def work(self, token: Token) -> None:
        await asyncio.sleep(0.05)
        self.push(Sentence(token.text, reply=token.reply))


class Swaps(Processor):
    def __init__(self) -> None:
        self.held: Token | None = None

    @on(Token, ReplyEnd)
    def token(self, frame: AgentFrame) -> Iterator[AgentFrame]:
        if isinstance(frame, Token) and self.held is None:
            self.held = frame
            return
        yield frame
        if self.held is not None:
            yield self.held
            self.held = None


class SwapsCopies(Processor):
    """Swaps what the caller said."""

    def __init__(self) -> None:
        self.held: list[Transcript] = []

    @on(Transcript)
    def words(self, frame: Transcript) -> Iterator[Transcript]:
        self.held.append(replace(frame))
        if len(self.held) == 2:
            yield from reversed(self.held)
            self.held = []


class EndsTwice(Processor):
    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[ReplyEnd]:
        yield end
        yield ReplyEnd()


class NeverEnds(Processor):
    emits = (Token, ReplyEnd)

    @on(Prompt)
    def answer(self, prompt: Prompt) -> Iterator[Token]:
        yield Token("Hello")


class Foreign(Processor):
    @on(Token)
    def token(self, token: Token) -> Token:
        return replace(token, reply=Reply(7))


class Remembers(Processor):
    """Its text goes on into the next reply when the one before was finished, and so into any."""

    emits = (Sentence,)

    def __init__(self) -> None:
        self.text = ""

    @on(Token, stops=True)
    def token(self, token: Token) -> None:
        self.text += token.text

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[Frame]:
        yield Sentence(self.text)
        yield end


class Forgetful(Remembers):
    """It begins afresh after ReplyEnd, but a reply that is cut off leaves its text behind."""

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[Frame]:
        yield Sentence(self.text)
        self.text = ""
        yield end


class StampsTheLatest(SocketTTS):
    """Its reader takes the reply of the latest sentence for the one that the audio is of."""

    latest: Reply | None = None

    def context(self, reply: Reply | None) -> str:
        self.latest = reply
        return super().context(reply)

    @on(Interrupt)
    def forget(self, interrupt: Interrupt) -> None:
        pass

    async def read(self) -> None:
        while (message := await self.link.receive()) is not None:
            kind, _, text = str(message).split("|")
            if kind == "done":
                await self.put(ReplyEnd(reply=self.latest))
            else:
                await self.put(AudioOut(b"\x55" * 160, text, reply=self.latest))


class KeepsTheLock(Processor):
    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        await self.lock.acquire()
        await asyncio.sleep(0.05)
        self.lock.release()
        return sentence


class IgnoresCancel(Processor):
    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        end = self.call.loop.time() + 6.0
        while (left := end - self.call.loop.time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                pass
        return sentence


class RaisesWhenCancelled(Processor):
    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            raise ValueError("it was in the middle of it") from None
        return sentence


class RaisesAtInterrupt(Processor):
    @on(Interrupt)
    def interrupted(self, interrupt: Interrupt) -> None:
        raise ValueError("nobody expects it")

    @on(Token)
    def token(self, token: Token) -> Token:
        return token


class DeafAfterwards(Processor):
    """It takes the Interrupt for a reason to stop listening."""

    deaf = False

    @on(Dtmf)
    def key(self, key: Dtmf) -> Dtmf | None:
        return None if self.deaf else key

    @on(Sentence)
    def sentence(self, sentence: Sentence) -> Sentence:
        return sentence

    @on(Interrupt)
    def interrupted(self, interrupt: Interrupt) -> None:
        self.deaf = True


class SharedLock(Processor):
    """Audio waits while a sentence is worked on."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()

    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        async with self.lock:
            await asyncio.sleep(0.05)
        return sentence

    @on(AudioIn)
    async def audio(self, audio: AudioIn) -> AudioIn:
        async with self.lock:
            return audio


class MutesTheCaller(Processor):
    """Drops keys for two seconds after a sentence."""

    until = 0.0

    @on(Sentence)
    def sentence(self, sentence: Sentence) -> Sentence:
        self.until = self.call.loop.time() + 2.0
        return sentence

    @on(Dtmf)
    def key(self, key: Dtmf) -> Dtmf | None:
        if self.call.loop.time() < self.until:
            return None
        return key

    @on(Interrupt)
    def interrupted(self, interrupt: Interrupt) -> None:
        self.until = 0.0


class StopNeedsStart(SocketTTS):
    async def stop(self) -> None:
        await self.link.close()


class StopHangs(Processor):
    async def stop(self) -> None:
        await asyncio.Event().wait()


class StopWaitsForWork(Processor):
    """Hangs only when it is stopped in the middle of a sentence."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()

    @on(Sentence)
    async def sentence(self, sentence: Sentence) -> Sentence:
        self.idle.clear()
        await asyncio.sleep(0.05)
        self.idle.set()
        return sentence

    async def stop(self) -> None:
        await self.idle.wait()


class StopRaises(Processor):
    async def stop(self) -> None:
        raise KeyError("session")


class LeaksATask(Processor):
    async def start(self) -> None:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")


class PushesAfterTheEnd(Processor):
    emits = (Dtmf,)

    async def start(self) -> None:
        self.call.loop.call_later(60.0, self.push, Dtmf("1"))


class OneForAll(Processor):
    """Its list belongs to the class."""

    emits = (Sentence,)
    tokens: list[str] = []  # noqa: RUF012

    @on(Token, stops=True)
    def token(self, token: Token) -> None:
        self.tokens.append(token.text)

    @on(ReplyEnd)
    def end(self, end: ReplyEnd) -> Iterator[Frame]:
        yield Sentence("".join(self.tokens))
        self.tokens.clear()
        yield end

    @on(Interrupt)
    def interrupted(self, interrupt: Interrupt) -> None:
        self.tokens.clear()


class Raises(Processor):
    @on(Token)
    def token(self, token: Token) -> Token:
        if token.text.isascii():
            raise ValueError("no such word")
        return token


class RaisesInStart(Processor):
    async def start(self) -> None:
        raise LinkError("the vendor refused the key")


class RaisesInATask(Processor):
    @tap(Dtmf)
    def key(self, key: Dtmf) -> None:
        self.spawn(self.work(), "work")

    async def work(self) -> None:
        raise ValueError("late")


class HangsInStart(Processor):
    async def start(self) -> None:
        await asyncio.Event().wait()


class Polls(Processor):
    @tap(Token)
    async def token(self, token: Token) -> None:
        for _ in range(1_000_000):
            await asyncio.sleep(0)


BROKEN = [
    (Undeclared, "declares what it emits", "gave a Sentence, which it does not declare"),
    (EndOvertakes, "declares what it emits", "pushes AudioOut from a background task"),
    (SaysTwice, "passes what it does not handle", "Token 'Hello' came out 2 times, not once"),
    (InPlace, "changes no frame in place", "Token.text was 'Hello' and became 'HELLO'"),
    (InPlaceTap, "changes no frame in place", "Dtmf.digit was '5' and became '*'"),
    (Spawns, "keeps order", "Sentence 'Hello' came out after ReplyEnd"),
    (Swaps, "keeps order", "Token 'Hello' went in before Token ' there.' and came out after it"),
    (SwapsCopies, "keeps order", "Transcript 'My card' went in before Transcript 'My card is 4111 1111'"),
    (EndsTwice, "keeps order", "ReplyEnd came out 2 times"),
    (NeverEnds, "keeps order", "no ReplyEnd came out in 5 s"),
    (Foreign, "keeps frames with their reply", "Token 'Hello' came out with <reply 7 live>"),
    (Remembers, "begins every reply afresh", "the second of two equal replies had Sentence 'Hello there."),
    (Forgetful, "survives an interrupt", "the reply after it had Sentence"),
    (StampsTheLatest, "survives an interrupt", "the reply after it"),
    (KeepsTheLock, "survives an interrupt", "did not come out in 5 s\n  do     it waits behind a handler"),
    (IgnoresCancel, "survives an interrupt", "a cancelled handler still runs after 5 s"),
    (RaisesWhenCancelled, "survives an interrupt", "it was in the middle of it"),
    (RaisesAtInterrupt, "survives an interrupt", "interrupted raised ValueError: nobody expects it"),
    (DeafAfterwards, "survives an interrupt", "what came out of the caller's frames"),
    (SharedLock, "does not delay the caller", "came out 0.050 s later than without agent frames"),
    (MutesTheCaller, "does not delay the caller", "no Dtmf"),
    (
        StopNeedsStart,
        "stops cleanly",
        "given up before start() was done\n  seen   stop() raised AttributeError",
    ),
    (StopHangs, "stops cleanly", "stop() was not done after 5 s"),
    (StopWaitsForWork, "stops cleanly", "stop() was not done after 5 s"),
    (StopRaises, "stops cleanly", "stop() raised KeyError: 'session'"),
    (LeaksATask, "leaves nothing behind", "forgotten"),
    (PushesAfterTheEnd, "leaves nothing behind", "it pushed Dtmf after the call was over"),
    (OneForAll, "works side by side", "a reply"),
    (Raises, "does not fail", "token raised ValueError: no such word"),
    (RaisesInStart, "does not fail", "start raised LinkError: the vendor refused the key"),
    (RaisesInATask, "does not fail", "its task work raised ValueError: late"),
    (HangsInStart, "does not fail", "start raised TimeoutError: it was not ready after 10 s"),
    (Polls, "does not fail", "callbacks ran at"),
]
