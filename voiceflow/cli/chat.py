"""`voiceflow chat`: types with a pipeline, from the end of the turn on, without audio.

keyboard ─▶ TypedTurns ─▶ model, tools, sentences ─▶ Typewriter ─▶ LineSink ─▶ terminal
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from voiceflow.call import Call
from voiceflow.cli.call import parameters_of
from voiceflow.cli.keyboard import Keyboard
from voiceflow.cli.logs import configure
from voiceflow.cli.paper import Paper
from voiceflow.cli.run import run_async
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, handler_for
from voiceflow.engine.turns import Floor
from voiceflow.errors import CallError, VoiceflowError
from voiceflow.frames import (
    AudioIn,
    AudioOut,
    Cleared,
    Dtmf,
    Frame,
    Overlap,
    Prompt,
    Sent,
    Sentence,
    Token,
    VoiceStart,
    VoiceStop,
)
from voiceflow.line.codec import LineStarted
from voiceflow.line.sink import LineSink
from voiceflow.line.source import LineSource
from voiceflow.line.typed import AT_ONCE, TypedCodec, TypedLink, TypedTurns, Typewriter
from voiceflow.models import without_packages
from voiceflow.server.listener import warm
from voiceflow.server.loader import PipelineFile, load
from voiceflow.server.server import Server

SOUND: tuple[type[Frame], ...] = (AudioIn, VoiceStart, VoiceStop, Overlap, Sent, Cleared)
"""Audio, what is heard in it, and when it plays: who handles one of these has nothing to do here."""
PACE = 50
"""Letters a second at a terminal: three times as fast as one speaks, and slow enough to interrupt."""
QUIET = 0.15
"""Seconds in which nothing happens, after which the next line of a script is said."""
KEYS_WAIT = 2.0
"""Seconds that keys may take to become a turn."""
LONGEST_ANSWER = 90.0
"""Seconds after which an answer that is not over yet ends the script."""
LOOK = 0.01
KEYS = frozenset("0123456789*#ABCD")
HUNG_UP = "the caller hung up"

File = Annotated[
    Path, typer.Argument(help="A Python file with [b]def pipeline(call)[/b].", show_default=False)
]


def chat(
    file: File,
    as_json: Annotated[
        bool, typer.Option("--json", help="Prints what happens as JSON, an object a line, for programs.")
    ] = False,
    pace: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=AT_ONCE,
            help=f"Letters a second of the agent; 0: at once. Otherwise {PACE} at a terminal, else at once.",
            show_default=False,
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for call.parameters; may be repeated.")
    ] = None,
    from_number: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+12025550143",
    to_number: Annotated[str, typer.Option("--to", help="The number called.")] = "+12025550199",
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = "WARNING",
) -> None:
    """Type with an agent: its prompts and tools, without audio, without a recogniser and a voice.

    What needs audio is left out, and so are its keys and models. A line is a turn. An empty line or Ctrl-C
    interrupts what the agent says; so does a line. /keys 123# presses keys; /quit, Ctrl-D, and Ctrl-C when
    the agent is silent hang up.

      voiceflow chat pipelines/offline.py

      voiceflow chat pipelines/reminder.py --param name=Ada --param when="Tuesday at three"

      printf 'When are you open?\\nGoodbye\\n' | voiceflow chat pipelines/offline.py --json

    Lines that do not come from a terminal are said one after another, each when the agent has answered the
    one before. Exit code 0, 1 when the call broke, 2 when FILE cannot be used.
    """
    configure(log_level)
    parameters = parameters_of(param or [])
    agent = TypedAgent(load(file))
    keyboard = Keyboard(sys.stdin)
    rate = (PACE if keyboard.is_terminal and not as_json else 0) if pace is None else pace
    chatting = Chat(agent, keyboard, Paper(as_json=as_json, typed=keyboard.is_terminal), rate or AT_ONCE)
    run_async(chatting.run(from_number, to_number, parameters))


class TypedAgent:
    """A pipeline file, and those of its processors that need no audio."""

    def __init__(self, file: PipelineFile) -> None:
        self.file = file
        self.left_out: tuple[str, ...] = ()
        self.turns = TypedTurns()
        """Of the pipeline made last, as the others."""
        self.takes_keys = False

    def make(self, call: Call) -> Pipeline:
        """VoiceflowError when nothing that is left answers in words."""
        with without_packages():
            whole = self.file.make(call).chain
        kept = [processor for processor in whole if not needs_audio(processor)]
        # A letter at a time, and none ahead of what the ledger counts as heard.
        letter = max(1 / call.line.format.rate, 1e-3)
        self.turns = TypedTurns()
        self.left_out = tuple(type(each).__name__ for each in whole if each not in kept)
        self.takes_keys = any(Dtmf in handles.types for each in kept for handles in type(each).handles)
        answering = [
            each for each in kept if handler_for(type(each), Prompt, tap=False) and _gives_words(each)
        ]
        if not answering:
            there = ", ".join(type(each).__name__ for each in kept) or "nothing"
            raise VoiceflowError(
                f"{self.file.path}: nothing in it answers a turn in words (without audio there is {there})"
            )
        return Pipeline(
            self.turns,
            *kept,
            *_sentences(kept),
            Typewriter(),
            LineSink(call.line, lead=letter, chunk=letter),
            parts=True,
        )


def needs_audio(processor: Processor) -> bool:
    """Whether it has no place on a typed line: the ends, whoever decides turns by ear, hears, or speaks."""
    cls = type(processor)
    if isinstance(processor, LineSource | LineSink) or cls.takes_turns:
        return True
    handled = [frame for handles in cls.handles for frame in handles.types]
    if any(issubclass(frame, SOUND) for frame in (*handled, *cls.needs)):
        return True
    given = (*cls.emits, *cls.pushes)
    return AudioOut in given and Sentence not in given


def _gives_words(processor: Processor) -> bool:
    given = (*type(processor).emits, *type(processor).pushes)
    return any(issubclass(frame, Token | Sentence) for frame in given)


def _sentences(kept: Sequence[Processor]) -> list[Processor]:
    """What makes sentences, if nothing in the chain does."""
    if any(handler_for(type(each), Token, tap=False) and Sentence in type(each).emits for each in kept):
        return []
    from processors.sentences import SentenceAggregator

    return [SentenceAggregator()]


class Chat:
    """One typed call. `rate` in letters a second."""

    def __init__(self, agent: TypedAgent, keyboard: Keyboard, paper: Paper, rate: int) -> None:
        self._agent, self._keyboard, self._paper, self._rate = agent, keyboard, paper, rate

    async def run(self, caller: str, called: str, parameters: dict[str, str]) -> None:
        """The whole call. typer.Exit when it broke; raises as `warm` what the user can mend."""
        server = Server(self._agent)
        try:
            await warm(self._agent, TypedCodec(self._rate), server)
            call = Call(
                TypedCodec(self._rate),
                id="chat",
                caller=caller,
                called=called,
                parameters=parameters,
                services=server.services,
            )
            call.prepare(self._agent.make(call))
            self._paper.left_out(self._agent.left_out)
            call.trace.listeners.append(self._paper.tell)
            call.on_start(self._converse)
            link = TypedLink(self._paper.says)
            with _interrupts(self._stop, call):
                result = await call.run(link, LineStarted("typed", call.id, call.line.format))
        finally:
            await server.close()
        self._paper.over(result.reason)
        if not result.normal:
            raise typer.Exit(1)

    def _stop(self, call: Call) -> None:
        if not self._agent.turns.interrupt():
            call.end(HUNG_UP)

    async def _converse(self, call: Call) -> None:
        """Says what is typed, until there is no more."""
        turns = self._agent.turns
        await self._answered(call)
        self._ask(call)
        async for line in self._keyboard.lines():
            command, _, rest = line.partition(" ")
            match command:
                case "":
                    turns.interrupt()
                case "/quit":
                    break
                case "/keys" if not self._agent.takes_keys:
                    self._paper.hint("nothing in this pipeline takes keys")
                case "/keys" if (keys := rest.replace(" ", "").upper()) and KEYS.issuperset(keys):
                    before = turns.turns.state.turn
                    turns.press(keys)
                    await self._answered(call, after=before)
                case _ if command.startswith("/"):
                    self._paper.hint("there is /keys 0-9*#, and /quit; anything else is said")
                case _:
                    turns.say(line)
                    await self._answered(call)
            self._ask(call)
        call.end(HUNG_UP)

    def _ask(self, call: Call) -> None:
        if call.turns.live is None:  # else when that is over
            self._paper.ask()

    async def _answered(self, call: Call, *, after: int | None = None) -> None:
        """Waits until the agent has answered, for a script: whoever types sees when that is. `after`: the
        number of a turn, if another may be about to begin."""
        if self._keyboard.is_terminal:
            return
        loop, state = call.loop, call.turns
        began = busy = loop.time()
        while (now := loop.time()) < busy + QUIET or (
            after is not None and state.state.turn == after and now < began + KEYS_WAIT
        ):
            if state.live is not None or state.state.floor is not Floor.FREE:
                busy = now
            if now > began + LONGEST_ANSWER:
                raise CallError(f"the agent has not finished its answer after {LONGEST_ANSWER:g} s")
            await asyncio.sleep(LOOK)


@contextmanager
def _interrupts(act: Callable[[Call], None], call: Call) -> Iterator[None]:
    """Ctrl-C does that, where signals can be had: not in a thread."""
    loop = asyncio.get_running_loop()
    with suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, act, call)
    try:
        yield
    finally:
        with suppress(ValueError, RuntimeError, NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
