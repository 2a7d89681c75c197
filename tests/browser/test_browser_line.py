"""Calls over the browser's line, on real sockets: what is heard, what the page is told, and bad manners."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import wave
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest
from browser_page import RATE, client, site

from pipelines import vad_only
from processors.browser import link as page_link
from processors.browser import shelf
from processors.browser.codec import WIDEBAND
from processors.recording import Recording
from tests.e2e import agents
from tests.e2e.agents import GREETING, environment, spoken
from tests.vendors import spelled
from tests.vendors.flux import FakeFlux
from tests.vendors.server import DEEPGRAM_KEY
from tests.vendors.voice import from_format
from voiceflow.assets import speech
from voiceflow.audio import encode, read_wav
from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioIn, AudioOut, Dtmf, Prompt, ReplyEnd, Transcript

TONE = encode((8000 * np.sin(np.arange(1600) * 2 * np.pi * 0.025)).astype(np.int16), WIDEBAND)
"""100 ms of 400 Hz at 16 kHz."""


@pytest.fixture(autouse=True)
def _nobody_asks_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tab that was closed asks nothing, and does not say that it will not."""
    monkeypatch.setattr("voiceflow.server.admission.QUESTION_WAIT", 0.05)


class Ears(Processor):
    """The floor is the agent's with the first packet; a key takes it, and gives it back."""

    needs = (AudioIn,)
    emits = (Transcript,)
    takes_turns = True

    def __init__(self) -> None:
        self.packets = 0
        self.keys: list[str] = []

    @tap(AudioIn)
    def hear(self, frame: AudioIn) -> None:
        self.packets += 1
        if self.packets == 1:
            self.turns.started()
            self.turns.ended("hello")

    @tap(Dtmf)
    def key(self, frame: Dtmf) -> None:
        self.keys.append(frame.digit)
        self.turns.started()
        self.push(Transcript(f"I press {frame.digit}"))
        self.turns.ended(f"I press {frame.digit}")


class Babble(Processor):
    """Speaks without end."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    async def babble(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        for number in itertools.count():
            yield AudioOut(TONE, f"Word{number}.")
            await asyncio.sleep(0.05)
        yield ReplyEnd()


class Brief(Processor):
    """Says two sentences of half a second."""

    emits = (AudioOut, ReplyEnd)

    @on(Prompt)
    async def speak(self, prompt: Prompt) -> AsyncIterator[AudioOut | ReplyEnd]:
        yield AudioOut(TONE * 5, "One sentence.")
        yield AudioOut(TONE * 5, "And another.")
        yield ReplyEnd()


def babbling(call: Call) -> Pipeline:
    return Pipeline(call.source(), Ears(), Babble(), call.sink())


def brief(call: Call) -> Pipeline:
    return Pipeline(call.source(), Ears(), Brief(), call.sink())


# -- a call ---------------------------------------------------------------------------------------------


def test_a_reply_that_is_heard_to_its_end() -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            tab = await c.talk(called="+12025550199")
            await s.until(lambda: tab.events("said"), "it was said")
            (call,) = s.calls
            assert (call.caller, call.called) == ("browser", "+12025550199")
            (entry,) = [m for m in call.history.messages if m.role == "assistant"]
            assert (entry.content, entry.cut) == ("One sentence. And another.", False)
            assert np.frombuffer(tab.heard, "<i2").size == 16_000
            assert tab.heard == TONE * 10
            # What the page was told: what was said, as it was heard, and where the time went.
            assert [e["words"] for e in tab.events("caller done")] == ["hello"]
            heard = [m["text"] for m in tab.shown if m["type"] == "heard"]
            assert "One sentence." in heard
            assert heard == sorted(heard, key=len)
            path = [m for m in tab.shown if m["type"] == "path"][-1]
            assert [p["step"] for p in path["parts"]] == ["first audio", "on the wire", "heard"]
            assert path["gap_ms"] == pytest.approx(sum(p["ms"] for p in path["parts"]), abs=0.2)
            await tab.hang_up()
            assert tab.last is not None
            assert (tab.last["reason"], tab.last["normal"]) == ("the caller hung up", True)
            (result,) = s.results
            assert result.figures["marks_heard"] >= 3
            assert result.figures["line_faults"] == 0
            assert not s.server.calls

    asyncio.run(main())


def test_an_interruption_cuts_what_is_buffered() -> None:
    async def main() -> None:
        async with site(babbling) as s, client(s) as c:
            tab = await c.talk()
            await s.until(lambda: len(tab.heard) > RATE, "half a second was heard")
            await tab.send(type="key", key="5")
            await s.until(lambda: tab.events("cut"), "cut")
            assert tab.clears == 1
            (cut,) = tab.events("cut")
            said = next(m for m in s.calls[0].history.messages if m.role == "assistant")
            assert said.cut
            assert cut["words"] == said.content
            # What the ledger says was heard is what the loudspeaker played, to a word of 0.1 s.
            played = len(tab.heard) / 2 / RATE
            words = len(said.content.split())
            assert 0 < words <= played * 10 + 1
            assert {"type": "words", "text": "I press 5"} in tab.shown
            lost = [m for m in tab.shown if m["type"] == "path" and m["cut"]][-1]
            assert lost["lost"].startswith(f"Word{words}.")
            await s.until(lambda: s.results or len(tab.events("first audio")) == 2, "the next reply")
            await tab.hang_up()
            assert s.results[0].figures["marks_cleared"] >= 1

    asyncio.run(main())


def test_recording_and_trace_are_there_afterwards() -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            tab = await c.talk()
            tab.say(TONE * 3)
            await s.until(lambda: tab.events("said"), "it was said")
            await tab.hang_up()
            assert tab.last is not None
            status, page = await c.get(tab.last["trace"])
            assert status == 200
            assert "One sentence. And another." in page
            async with c.http.get(s.url + tab.last["audio"]) as response:
                assert response.content_type == "audio/wav"
                with wave.open(io.BytesIO(await response.read())) as file:
                    assert (file.getnchannels(), file.getframerate()) == (2, RATE)
                    both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
            assert np.abs(both[:, 0]).max() > 7000
            assert np.count_nonzero(both[:, 1]) > 15_000
            assert (await c.get("/browser/calls/guess/trace"))[0] == 404
            assert (await c.get("/browser/calls/guess/audio"))[0] == 404
            folder = s.routes._shelf._folder
            assert folder is not None
            assert folder.stat().st_mode & 0o077 == 0
        assert not folder.exists()

    asyncio.run(main())


def test_redacted_nothing_is_recorded_and_no_words_are_kept() -> None:
    async def main() -> None:
        async with site(brief, redact=True) as s, client(s) as c:
            tab = await c.talk()
            await s.until(lambda: tab.events("said"), "it was said")
            await tab.hang_up()
            assert tab.last is not None
            assert "audio" not in tab.last
            _, page = await c.get(tab.last["trace"])
            assert "[4 words]" in page
            assert "another" not in page

    asyncio.run(main())


def test_a_recording_of_the_chain_is_the_one_that_is_shown(tmp_path) -> None:
    def make(call: Call) -> Pipeline:
        return Pipeline(call.source(), Ears(), Brief(), Recording(tmp_path), call.sink())

    async def main() -> None:
        async with site(make) as s, client(s) as c:
            tab = await c.talk()
            await s.until(lambda: tab.events("heard"), "it is heard")
            await tab.hang_up()
            (file,) = tmp_path.glob("*.wav")
            assert tab.last is not None
            async with c.http.get(s.url + tab.last["audio"]) as response:
                assert await response.read() == file.read_bytes()
            assert s.routes._shelf._folder is None
        assert file.exists()

    asyncio.run(main())


def test_the_whole_agent_on_16_khz() -> None:
    """Flux, the model and ElevenLabs (fakes), as on the phone but with twice the rate."""
    flux = FakeFlux(key=DEEPGRAM_KEY, mode="energy", lines=["when do you open"])

    async def main() -> None:
        async with agents.vendors(flux=flux) as vendors:
            with environment(vendors):
                async with site(spoken()) as s, client(s) as c:
                    status, state = await c.get("/browser/state")
                    assert status == 200
                    assert json.loads(state)["error"] == ""
                    tab = await c.talk()

                    def ear() -> str:
                        return spelled.read(from_format(tab.heard, WIDEBAND))

                    await s.until(lambda: GREETING in ear(), "the greeting is heard")
                    tab.say(encode(read_wav(speech("ten_of_clubs"), RATE), WIDEBAND))
                    await s.until(lambda: "We open at nine." in ear(), "the answer is heard")
                    assert tab.events("caller done")[-1]["words"] == "when do you open"
                    words = [m["text"] for m in tab.shown if m["type"] == "words"]
                    assert "when do" in words, words
                    path = [m for m in tab.shown if m["type"] == "path" and m["turn"] == 1][-1]
                    assert [p["owner"] for p in path["parts"]][:3] == [
                        "FluxSTT",
                        "ChatLLM",
                        "SentenceAggregator",
                    ]
                    await tab.hang_up()
                    assert s.results[0].fault is None

    asyncio.run(main())


def test_the_demo_s_chain_hears_at_16_khz() -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            status, state = await c.get("/browser/state")
            assert (status, json.loads(state)["error"]) == (200, "")
            assert json.loads(state)["chain"] == ["LineSource", "SileroVAD", "VADTurns", "Play", "LineSink"]
            assert json.loads(state)["authority"] == 2
            tab = await c.talk()
            tab.say(encode(read_wav(speech("ten_of_clubs"), RATE), WIDEBAND))
            await s.until(lambda: tab.events("heard"), "it answers")
            await s.until(lambda: len(tab.heard) > 4000, "it is heard")
            await tab.hang_up()

    asyncio.run(main())


# -- what the page is told before a call ------------------------------------------------------------------


def test_a_chain_that_cannot_run_here_says_so() -> None:
    class Narrow(Processor):
        needs = (AudioIn,)
        emits = (AudioOut,)
        takes_turns = True

        async def warm(self) -> None:
            raise DeclarationError("Narrow speaks mulaw at 8000 Hz only")

        @tap(AudioIn)
        def hear(self, frame: AudioIn) -> None: ...

    def make(call: Call) -> Pipeline:
        return Pipeline(call.source(), Narrow(), call.sink())

    def broken(call: Call) -> Pipeline:
        raise DeclarationError("nothing makes Sentences")

    async def main() -> None:
        async with site(make) as s, client(s) as c:
            state = json.loads((await c.get("/browser/state"))[1])
            assert state["error"] == "Narrow speaks mulaw at 8000 Hz only"
            assert state["chain"] == ["LineSource", "Narrow", "LineSink"]
        async with site(broken) as s, client(s) as c:
            assert json.loads((await c.get("/browser/state"))[1])["error"] == "nothing makes Sentences"
            status, body = await c.post("/browser/calls")
            assert (status, body["error"]) == (503, "nothing makes Sentences")

    asyncio.run(main())


def test_the_state_names_the_process_and_whether_there_is_room() -> None:
    async def main() -> None:
        async with site(babbling, max_calls=1) as s, client(s) as c:
            before = json.loads((await c.get("/browser/state?quick"))[1])
            assert (before["ready"], before["login"], "chain" in before) == (None, False, False)
            tab = await c.talk()
            assert json.loads((await c.get("/browser/state?quick"))[1])["ready"] == "full"
            status, body = await c.post("/browser/calls")
            assert (status, body["error"]) == (503, "all 1 lines are busy")
            await tab.hang_up()
        async with site(babbling) as s, client(s) as c:
            assert json.loads((await c.get("/browser/state?quick"))[1])["boot"] != before["boot"]

    asyncio.run(main())


# -- manners ------------------------------------------------------------------------------------------------


def test_a_tab_that_is_closed_in_the_middle_of_a_sentence() -> None:
    async def main() -> None:
        async with site(babbling) as s, client(s) as c:
            tab, other = await c.talk(), await c.talk()
            await s.until(lambda: tab.events("heard") and other.events("heard"), "both hear it")
            await tab.leave()
            await s.until(lambda: len(s.results) == 1, "its call is over")
            assert s.results[0].reason == "the carrier closed the stream"
            assert len(s.server.calls) == 1
            before = len(other.heard)
            await s.until(lambda: len(other.heard) > before + RATE, "the other goes on")
            await other.hang_up()

    asyncio.run(main())


def test_two_tabs_are_two_calls() -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            one, two = await c.talk(), await c.talk()
            await s.until(lambda: one.events("said") and two.events("said"), "both are said")
            assert one.heard == two.heard == TONE * 10
            await one.hang_up()
            await two.hang_up()
            assert one.last is not None
            assert two.last is not None
            assert one.last["trace"] != two.last["trace"]

    asyncio.run(main())


def test_bad_messages_are_counted_and_harm_nothing() -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            tab = await c.talk()
            for message in (
                "{",
                "[]",
                '{"type":"mark","name":"never sent"}',
                '{"type":"dance"}',
                "x" * 60_000,
            ):
                await tab.socket.send_str(message)
            await tab.socket.send_bytes(b"\0\0\0")
            await s.until(lambda: tab.events("said"), "it was said")
            await tab.hang_up()
            assert s.results[0].figures["line_faults"] == 5
            assert s.results[0].normal

    asyncio.run(main())


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ({"type": "start", "call": "another", "rate": RATE}, "it names another call"),
        ({"type": "start", "rate": 8000, "call": "another"}, "only 16000 Hz"),
    ],
)
def test_a_line_that_does_not_start(start, reason) -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            offer = await c.offer()
            socket = await c.socket(offer["token"])
            await socket.send_str(json.dumps(start))
            async with asyncio.timeout(5):
                said = [json.loads(message.data) async for message in socket]
            assert reason in said[-1]["reason"]
            assert socket.close_code == 1008
            await s.until(lambda: not s.server.calls, "no call is left")

    asyncio.run(main())


def test_a_message_that_is_too_large_ends_the_call() -> None:
    async def main() -> None:
        async with site(babbling) as s, client(s) as c:
            tab = await c.talk()
            await tab.socket.send_bytes(bytes(70_000))
            await tab.over()
            await s.until(lambda: s.results, "the call is over")
            assert "larger than allowed" in s.results[0].reason

    asyncio.run(main())


def test_a_token_works_once() -> None:
    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            offer = await c.offer()
            socket = await c.socket(offer["token"])
            for token in (offer["token"], "w0.guess", "w7.guess"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await c.socket(token)
                assert refused.value.status in (403, 404)
            await socket.close()

    asyncio.run(main())


def test_a_page_that_does_not_read_loses_what_it_is_shown() -> None:
    class Stuck:
        is_open = True

        async def send(self, message: str | bytes) -> None:
            await asyncio.Event().wait()

        def send_at_once(self, message: str | bytes) -> bool:
            return False

        async def receive(self) -> None:
            return None

        async def close(self, code: int = 1000, reason: str = "") -> None:
            self.code = code

    async def main() -> None:
        stuck = Stuck()
        link = page_link.PageLink(stuck)
        writer = asyncio.create_task(link.write())
        for number in range(2000):
            link.tell({"type": "event", "number": number})
        await asyncio.sleep(0)
        assert link.dropped == 2000 - page_link.SHOWN_BOUND
        await link.close()
        assert not link.is_open
        link_closing = asyncio.create_task(link.finish(writer))
        await link_closing
        assert stuck.code == 1000

    from voiceflow.testing import run

    run(main())


# -- the server's end ---------------------------------------------------------------------------------------


def test_a_server_that_drains() -> None:
    async def main() -> None:
        async with site(babbling, drain=0.3) as s, client(s) as c:
            tab = await c.talk()
            await s.until(lambda: tab.events("heard"), "it is heard")
            draining = asyncio.create_task(s.server.drain())
            await asyncio.sleep(0)
            status, body = await c.post("/browser/calls")
            assert (status, body["error"]) == (503, "the server is shutting down")
            assert json.loads((await c.get("/browser/state?quick"))[1])["ready"] == "draining"
            await tab.over()
            await draining
            assert tab.last is not None
            assert tab.last["reason"] == "the server is shutting down"
            assert not tab.last["normal"]
            assert tab.last["fallback"].startswith("I am sorry")

    asyncio.run(main())


def test_a_processor_that_fails_is_named() -> None:
    class Fragile(Processor):
        @tap(Dtmf)
        def key(self, frame: Dtmf) -> None:
            raise RuntimeError("broken")

    def make(call: Call) -> Pipeline:
        return Pipeline(call.source(), Fragile(), Ears(), Babble(), call.sink())

    async def main() -> None:
        async with site(make) as s, client(s) as c:
            tab = await c.talk()
            await s.until(lambda: tab.events("heard"), "it is heard")
            await tab.send(type="key", key="1")
            await tab.over()
            assert tab.last is not None
            assert "Fragile" in tab.last["reason"]
            assert tab.last["fallback"]
            assert [m for m in tab.shown if m["type"] == "closing"]

    asyncio.run(main())


def test_the_shelf_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "CALLS_KEPT", 2)

    async def main() -> None:
        async with site(brief) as s, client(s) as c:
            links: list[str] = []
            for _ in range(4):
                tab = await c.talk()
                await s.until(lambda tab=tab: tab.events("first audio"), "it speaks")
                await tab.hang_up()
                assert tab.last is not None
                links.append(tab.last["trace"])
            assert [(await c.get(link))[0] for link in links] == [404, 404, 200, 200]
            assert s.routes._shelf._folder is not None
            assert len(list(s.routes._shelf._folder.iterdir())) == 2
            monkeypatch.setattr(shelf, "BYTES_KEPT", 1)
            tab = await c.talk()
            await s.until(lambda: tab.events("first audio"), "it speaks")
            await tab.hang_up()
            assert [(await c.get(link))[0] for link in links] == [404] * 4
            assert tab.last is not None
            assert (await c.get(tab.last["trace"]))[0] == 200  # the newest is there whatever its size

    asyncio.run(main())
