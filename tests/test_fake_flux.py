"""The fake Flux, over real sockets and in memory: what it hears, when it says so, and how it fails."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vendors.flux import GARBAGE, NO_CODE, UNKNOWN, FakeFlux, refusal, turn_info
from tests.vendors.reach import within
from tests.vendors.server import Serving
from tests.vendors.spelled import seconds, spell
from voiceflow.audio import decode, encode, read_wav, resample
from voiceflow.errors import LinkError, LinkRefused
from voiceflow.line.dialled import connect
from voiceflow.line.link import Link
from voiceflow.testing import run

with warnings.catch_warnings():  # the SDK imports a deprecated part of websockets for a type annotation
    warnings.simplefilter("ignore", DeprecationWarning)
    from deepgram.listen.v2.socket_client import AsyncV2SocketClient
    from deepgram.listen.v2.types import ListenV2Configure, ListenV2ConfigureThresholds

CHUNK = 640
"""80 ms of mu-law."""
KEY = {"Authorization": "Token k"}
HELLO = "hello there. "
END = object()
Message = dict[str, Any]


def silence(length: float) -> bytes:
    return b"\xff" * round(length * 8000)


def query(**parameters: Any) -> str:
    usual = {"model": "flux-general-en", "encoding": "mulaw", "sample_rate": 8000}
    asked = {name: value for name, value in {**usual, **parameters}.items() if value is not None}
    return f"/v2/listen?{urlencode(asked, doseq=True)}"


class Client:
    """One connection. `got` is every message that came."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.got: list[Any] = []

    async def audio(self, *pieces: bytes, chunk: int = CHUNK) -> None:
        audio = b"".join(pieces)
        for at in range(0, len(audio), chunk):
            await self.link.send(audio[at : at + chunk])

    async def say(self, kind: str, **more: Any) -> None:
        await self.link.send(json.dumps({"type": kind, **more}))

    async def next(self) -> Any:
        """The next message; END at the end, however it came."""
        try:
            message = await self.link.receive()
        except LinkError:
            return END
        if message is None:
            return END
        try:
            self.got.append(json.loads(message))
        except ValueError:
            self.got.append(message)
        return self.got[-1]

    async def until(self, kind: str) -> Message:
        while (message := await self.next()) is not END:
            if isinstance(message, dict) and kind in (message.get("event"), message.get("type")):
                return message
        raise AssertionError(f"no {kind} came, but {kinds(self.got)}")

    async def to_the_end(self) -> list[Any]:
        while await self.next() is not END:
            pass
        return self.got

    async def finish(self) -> list[Any]:
        await self.say("CloseStream")
        return await self.to_the_end()

    def close_code(self) -> int | None:
        if hasattr(self.link, "close_code"):
            return self.link.close_code
        closed = self.link._incoming.closed  # type: ignore[attr-defined]
        return closed.code if closed is not None else 1006


Opening = Callable[..., Awaitable[Client]]
Script = Callable[[Opening], Awaitable[Any]]


def over_socket(flux: FakeFlux, script: Script) -> Any:
    async def main() -> Any:
        clients: list[Client] = []
        async with Serving(flux) as serving:

            async def open(path: str = "", headers: dict[str, str] = KEY, timeout: float = 5.0) -> Client:
                url = serving.url.replace("http", "ws") + (path or query())
                clients.append(Client(await connect(url, headers=headers, timeout=timeout)))
                return clients[-1]

            result = await script(open)
            for client in clients:
                await client.link.close()
        return result

    return within(main())


def in_memory(flux: FakeFlux, script: Script) -> Any:
    async def main() -> Any:
        async def open(path: str = "", headers: dict[str, str] = KEY, timeout: float = 5.0) -> Client:
            return Client(
                await flux.dial(f"ws://flux.test{path or query()}", headers=headers, timeout=timeout)
            )

        result = await script(open)
        await flux.close()
        return result

    return run(main())


@pytest.fixture(params=[over_socket, in_memory], ids=["socket", "memory"])
def play(request: pytest.FixtureRequest) -> Callable[[FakeFlux, Script], Any]:
    """Runs a script against a fake; every test that takes it runs both ways."""
    return request.param


def kinds(messages: list[Any]) -> list[str]:
    return [m.get("event", m.get("type")) if isinstance(m, dict) else repr(m) for m in messages]


def events(messages: list[Message]) -> list[tuple[str, str]]:
    """Turn events with their transcripts, Updates left out."""
    turns = [m for m in messages if m.get("type") == "TurnInfo" and m["event"] != "Update"]
    return [(m["event"], m["transcript"]) for m in turns]


# -- what it hears


def test_it_reads_what_was_spelled(play):
    async def script(open):
        client = await open()
        await client.audio(silence(0.4), spell(HELLO), silence(0.4), spell("2nd turn"), silence(0.4))
        return await client.finish()

    flux = FakeFlux()
    got = play(flux, script)
    assert got[0]["type"] == "Connected"
    assert [m["sequence_id"] for m in got] == list(range(len(got)))
    assert len({m["request_id"] for m in got}) == 1
    assert events(got) == [
        ("StartOfTurn", "hello"),
        ("EndOfTurn", "hello there."),
        ("StartOfTurn", "2nd"),
        ("EndOfTurn", "2nd turn"),
    ]
    start, first, _, second = [m for m in got if m.get("event") not in (None, "Update")]
    assert [m["turn_index"] for m in (start, first, second)] == [0, 0, 1]
    assert [m.get("trigger") for m in (start, first, second)] == [None, "model", "model"]
    assert start["audio_window_end"] == pytest.approx(0.4 + seconds("hello") + 0.03, abs=0.011)
    assert first["audio_window_end"] == pytest.approx(0.4 + seconds(HELLO) + 0.26, abs=0.011)
    assert second["audio_window_start"] == first["audio_window_end"]
    assert [(word["word"], word["start"], word["end"]) for word in first["words"]] == [
        ("hello", 0.4, 0.4 + seconds("hello")),
        ("there.", 0.4 + seconds("hello "), 0.4 + seconds("hello there.")),
    ]
    assert flux.turns == ["hello there.", "2nd turn"]
    assert flux.wrongs == type(flux.wrongs)()
    assert sum(flux.chunks.values()) == len(flux.sessions[0].chunks)
    assert flux.chunks.most_common(1)[0][0] == CHUNK


def test_an_update_comes_each_quarter_second_of_audio(play):
    async def script(open):
        client = await open()
        await client.audio(silence(1.0), spell("one two three four five"))
        return await client.finish()

    updates = [m for m in play(FakeFlux(), script) if m.get("event") == "Update"]
    ends = [m["audio_window_end"] for m in updates[:-1]]
    assert ends == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25]
    said = [len(m["transcript"].split()) for m in updates]
    assert said == [0, 0, 0, 0, 1, 2, 2, 3, 4, 5]
    assert updates[-1]["transcript"] == "one two three four five"


def test_word_times_can_be_absent():
    async def script(open):
        client = await open()
        await client.audio(spell("hello"), silence(0.3))
        return await client.until("EndOfTurn")

    assert in_memory(FakeFlux(word_times=False), script)["words"] == [{"word": "hello", "confidence": 0.99}]


def test_nothing_comes_while_no_audio_does():
    async def script(open):
        client = await open()
        await client.audio(spell("hello there "))
        await client.until("StartOfTurn")
        await client.until("Update")
        await asyncio.sleep(3600)

    in_memory(flux := FakeFlux(), script)
    assert flux.messages("EndOfTurn") == []
    assert flux.log[-1].at == 0.0


def test_eager_ends_resume_and_keep_their_word(play):
    async def script(open):
        client = await open(query(eager_eot_threshold=0.4))
        await client.audio(spell("one "), silence(0.2), spell("two"), silence(0.4))
        return await client.finish()

    got = play(FakeFlux(), script)
    assert events(got) == [
        ("StartOfTurn", "one"),
        ("EagerEndOfTurn", "one"),
        ("TurnResumed", "one"),
        ("EagerEndOfTurn", "one two"),
        ("EndOfTurn", "one two"),
    ]
    assert [m["end_of_turn_confidence"] for m in got if m.get("event") == "EagerEndOfTurn"] == [0.4, 0.4]


def test_the_end_may_take_longer_than_the_guess():
    async def script(open):
        client = await open(query(eager_eot_threshold=0.4))
        await client.audio(spell("one "), silence(0.4))
        await client.until("EndOfTurn")
        return await client.finish()

    in_memory(flux := FakeFlux(delay=0.05, end_delay=0.2), script)
    due = {entry.message.get("event"): entry.due for entry in flux.log if isinstance(entry.message, dict)}
    assert due["EagerEndOfTurn"] == pytest.approx(0.05)
    assert due["EndOfTurn"] == pytest.approx(0.25)


def test_without_their_threshold_there_are_no_eager_ends():
    async def script(open):
        client = await open()
        await client.audio(spell("one "), silence(0.2), spell("two"), silence(0.4))
        return await client.finish()

    got = in_memory(FakeFlux(), script)
    assert events(got) == [("StartOfTurn", "one"), ("EndOfTurn", "one two")]


def test_a_forced_end_supersedes_an_eager_one(play):
    async def script(open):
        client = await open(query(eager_eot_threshold=0.4))
        await client.audio(spell("one "), silence(0.2))
        await client.until("EagerEndOfTurn")
        await client.say("ForceEndTurn")
        await client.until("EndOfTurn")
        await client.audio(spell("two"), silence(0.4))
        return await client.finish()

    got = play(FakeFlux(), script)
    assert [event for event, _ in events(got)] == [
        *("StartOfTurn", "EagerEndOfTurn", "EndOfTurn"),
        *("StartOfTurn", "EagerEndOfTurn", "EndOfTurn"),
    ]
    assert [m["trigger"] for m in got if m.get("event") == "EndOfTurn"] == ["manual", "model"]


def test_a_forced_end_has_the_words_so_far():
    async def script(open):
        client = await open()
        await client.say("ForceEndTurn")
        warning = await client.until("Warning")
        await client.audio(spell("one tw"))
        await client.until("StartOfTurn")
        await client.say("ForceEndTurn")
        await client.until("EndOfTurn")
        await client.audio(spell("o"), silence(0.4))
        return warning, await client.finish()

    warning, got = in_memory(FakeFlux(), script)
    assert warning["code"] == "FORCE_END_TURN_NO_ACTIVE_TURN"
    assert events(got) == [
        ("StartOfTurn", "one"),
        ("EndOfTurn", "one"),
        ("StartOfTurn", "two"),
        ("EndOfTurn", "two"),
    ]


def test_a_turn_can_end_by_timeout_only():
    async def script(open):
        client = await open(query(eot_threshold=1.0, eot_timeout_ms=500))
        await client.audio(spell("well"), silence(0.4), spell("yes"), silence(0.6))
        return await client.finish()

    got = in_memory(FakeFlux(), script)
    assert events(got) == [("StartOfTurn", "well"), ("EndOfTurn", "well yes")]
    end = next(m for m in got if m.get("event") == "EndOfTurn")
    assert end["trigger"] == "timeout"
    assert end["audio_window_end"] == pytest.approx(seconds("wellyes") + 0.4 + 0.5, abs=0.011)


def test_closing_gives_the_rest_and_no_end_of_turn(play):
    async def script(open):
        client = await open()
        await client.audio(spell("one two"))
        got = await client.finish()
        return got, client.close_code()

    got, code = play(FakeFlux(), script)
    assert got[-1]["event"] == "Update"
    assert got[-1]["transcript"] == "one two"
    assert "EndOfTurn" not in kinds(got)
    assert code == NO_CODE


def test_what_is_lost_or_played_again_shows(play):
    audio = spell("abcdefghij klm")

    async def script(open):
        client = await open()
        await client.audio(audio[: 5 * 480], audio[8 * 480 :], silence(0.3))
        lost = await client.until("EndOfTurn")
        await client.audio(audio, audio[: 6 * 480], silence(0.3))
        twice = await client.until("EndOfTurn")
        return lost["transcript"], twice["transcript"]

    assert play(FakeFlux(), script) == ("abcdeij klm", "abcdefghij klmabcdef")


def test_a_gap_in_the_middle_of_a_character_makes_no_second_one():
    audio = spell("all of it")

    async def script(open):
        client = await open()
        await client.audio(audio[:900], silence(0.04), audio[900:], silence(0.3))
        return await client.until("EndOfTurn")

    assert in_memory(FakeFlux(), script)["transcript"] == "all of it"


def test_noise_is_no_speech():
    clicks = np.random.default_rng(1).integers(0, 256, 8000, dtype=np.uint8).tobytes()

    async def script(open):
        client = await open()
        await client.audio(clicks, bytes(8000))
        return await client.finish()

    assert events(in_memory(FakeFlux(), script)) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_it_does_not_matter_how_the_audio_is_cut(sizes):
    audio = silence(0.3) + spell("so be it ") + silence(0.15) + spell("then") + silence(0.5)

    async def script(open):
        client = await open(query(eager_eot_threshold=0.5))
        rest = audio
        for size in sizes:
            if rest:
                await client.link.send(rest[:size])
            rest = rest[size:]
        await client.audio(rest)
        return await client.finish()

    async def whole(open):
        client = await open(query(eager_eot_threshold=0.5))
        await client.link.send(audio)
        return await client.finish()

    assert in_memory(FakeFlux(), script) == in_memory(FakeFlux(), whole)


def test_the_same_script_gives_the_same_messages_both_ways():
    async def script(open):
        client = await open(query(model="flux-general-multi", language_hint=["en", "es"], eot_timeout_ms=600))
        await client.audio(silence(0.3), spell("hello my friend"), silence(0.5), chunk=160)
        await client.say("Configure", thresholds={"eager_eot_threshold": 0.6}, language_hints=[])
        await client.until("ConfigureSuccess")
        await client.say("Configure", keyterms="wrong")
        await client.until("ConfigureFailure")
        await client.audio(spell("Yes, "), silence(0.2), spell("two tables."), silence(0.5), chunk=1000)
        await client.say("ForceEndTurn")
        await client.until("Warning")
        return await client.finish()

    one, other = FakeFlux(languages=["es", "en"]), FakeFlux(languages=["es", "en"])
    got = over_socket(one, script)
    assert got == in_memory(other, script)
    assert [entry.message for entry in one.log] == [entry.message for entry in other.log]
    first, second = (m for m in got if m.get("event") == "EndOfTurn")
    assert (first["languages"], first["languages_hinted"]) == (["es", "en"], ["en", "es"])
    assert "languages_hinted" not in second
    assert "languages" not in got[1]  # nothing was said yet


def test_linear_audio_is_read_too():
    async def script(open):
        client = await open(query(encoding="linear16"))
        linear = decode(spell("linear") + silence(0.3)).astype("<i2").tobytes()
        await client.audio(linear[:801], linear[801:])
        return await client.until("EndOfTurn")

    assert in_memory(FakeFlux(), script)["transcript"] == "linear"


# -- any voice, by its loudness


def voice(length: float, rate: int = 8000) -> bytes:
    """A 200 Hz tone at -20 dBFS, 16-bit."""
    samples = 3276 * 1.414 * np.sin(2 * np.pi * 200 * np.arange(round(length * rate)) / rate)
    return samples.astype("<i2").tobytes()


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_any_voice_says_the_next_line(play, rate):
    def quiet(length: float) -> bytes:
        return bytes(2 * round(length * rate))

    async def script(open):
        client = await open(query(encoding="linear16", sample_rate=rate))
        await client.audio(
            quiet(0.3), voice(0.05, rate), quiet(0.5), voice(0.95, rate), quiet(0.3), chunk=CHUNK
        )
        await client.audio(voice(0.25, rate), quiet(0.5), voice(0.4, rate), quiet(0.5), chunk=1001)
        return await client.finish()

    got = play(FakeFlux(mode="energy", lines=["one two three four five", "again"]), script)
    assert events(got) == [
        ("StartOfTurn", "one"),
        ("EndOfTurn", "one two three four five"),
        ("StartOfTurn", "again"),
        ("EndOfTurn", "again"),
        ("StartOfTurn", "one"),
        ("EndOfTurn", "one two three four five"),
    ]
    updates = [m["transcript"] for m in got if m.get("event") == "Update"]
    assert "one two" in updates
    words = next(m for m in got if m.get("event") == "EndOfTurn")["words"]
    assert words[0]["start"] == pytest.approx(0.85, abs=0.011)
    assert words[-1]["end"] == pytest.approx(1.8, abs=0.011)


@pytest.mark.parametrize("length", [0.4, 3.0])
def test_the_last_word_ends_with_the_voice(length):
    """However long the line takes to say: clients reckon from it when the caller stopped."""

    async def script(open):
        client = await open()
        await client.audio(silence(0.2), encode(np.frombuffer(voice(length), np.int16)), silence(0.5))
        return (await client.until("EndOfTurn"))["words"]

    words = in_memory(FakeFlux(mode="energy", lines=["one two three"]), script)
    assert [word["word"] for word in words] == ["one", "two", "three"]
    assert words[-1]["end"] == pytest.approx(0.2 + length, abs=0.011)


def test_speech_that_is_played_again_is_the_same_line():
    mulaw = spell("a voice of any kind, here a loud buzz")

    async def script(open):
        first = await open()
        await first.audio(mulaw[:8000])
        assert (await first.until("StartOfTurn"))["transcript"] == "it"
        await first.link.close()
        second = await open()
        await second.audio(mulaw, silence(0.3))
        return (await second.until("EndOfTurn"))["transcript"]

    assert in_memory(FakeFlux(mode="energy", lines=["it is me", "no"]), script) == "it is me"


def test_recorded_speech_is_a_voice():
    from voiceflow.assets import speech

    async def script(open):
        client = await open()
        await client.audio(encode(read_wav(speech("go_forward_ten_meters"))), silence(1.0))
        return await client.finish()

    got = in_memory(FakeFlux(mode="energy", lines=["go forward ten meters"], eot_silence=0.6), script)
    assert events(got) == [("StartOfTurn", "go"), ("EndOfTurn", "go forward ten meters")]


def test_resampled_audio_is_not_read_but_refused():
    async def script(open):
        with pytest.raises(LinkRefused) as refused:
            await open(query(encoding="linear16", sample_rate=16_000))
        return refused.value.headers["dg-error"]

    assert "8000 Hz" in in_memory(FakeFlux(), script)
    assert len(resample(decode(spell("a")), 8000, 16_000)) == 960


# -- Configure


def test_configure_is_applied_or_not_at_all(play):
    async def script(open):
        client = await open(query(keyterm=["Twilio", "Flux"]))
        await client.say("Configure", thresholds={"eot_threshold": 0.8, "eager_eot_threshold": 0.5})
        success = await client.until("ConfigureSuccess")
        await client.say("Configure", thresholds={"eot_threshold": 0.6, "eot_timeout_ms": 100}, keyterms=[])
        failure = await client.until("ConfigureFailure")
        await client.say("Configure", keyterms=["x"], numerals=True)
        second = await client.until("ConfigureSuccess")
        await client.audio(spell("one"), silence(0.4))
        await client.until("EagerEndOfTurn")
        return success, failure, second

    flux = FakeFlux()
    success, failure, second = play(flux, script)
    thresholds = {"eot_threshold": 0.8, "eager_eot_threshold": 0.5, "eot_timeout_ms": 5000}
    assert success["thresholds"] == second["thresholds"] == thresholds
    assert (success["keyterms"], second["keyterms"]) == (["Twilio", "Flux"], ["x"])
    assert (success["numerals"], second["numerals"]) == (False, True)
    assert failure["description"] == "eot_timeout_ms must be from 500 to 60000"
    assert len(flux.sessions[0].configures) == 3
    assert not flux.wrongs


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"thresholds": {"eot_threshold": 0.4}}, "eot_threshold must be from 0.5 to 1"),
        ({"thresholds": {"eager_eot_threshold": 0.8}}, "eager_eot_threshold must not exceed eot_threshold"),
        ({"thresholds": {"eot_threshold": "0.8"}}, "eot_threshold must be a number"),
        ({"thresholds": {"patience": 1}}, "thresholds may have"),
        ({"numerals": "true"}, "numerals must be true or false"),
        ({"keyterms": ["x"] * 101}, "at most 100 keyterms"),
        ({"language_hints": ["en"]}, "needs the model flux-general-multi"),
        ({"language_hints": None}, "language_hints must be a list of strings"),
        ({"model": "flux-general-multi"}, "unknown field: model"),
    ],
)
def test_a_wrong_configure_fails(asked, reason):
    async def script(open):
        client = await open()
        await client.say("Configure", **asked)
        return await client.until("ConfigureFailure")

    assert reason in in_memory(FakeFlux(), script)["description"]


def test_configures_are_answered_as_told():
    async def script(open):
        client = await open()
        await client.say("Configure", keyterms=["a"])
        await client.until("ConfigureFailure")
        await client.say("Configure", keyterms=["b"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await client.next()
        await client.say("Configure", keyterms=["c"])
        return await client.until("ConfigureSuccess")

    flux = FakeFlux()
    flux.configures.extend([False, None])
    assert in_memory(flux, script)["keyterms"] == ["c"]
    assert not flux.wrongs


def test_a_configure_before_the_answer_to_the_last_is_wrong():
    async def script(open):
        client = await open()
        await client.say("Configure", keyterms=["a"])
        await client.say("Configure", keyterms=["b"])
        await client.until("ConfigureSuccess")
        assert (await client.until("ConfigureSuccess"))["keyterms"] == ["b"]
        return asyncio.get_running_loop().time()

    flux = FakeFlux(configure_delay=0.5)
    assert in_memory(flux, script) == 0.5
    assert [what for _, what in flux.wrongs] == ["sent a Configure before the last one was answered"]


# -- refusals


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ({"model": None}, 400, "model is required"),
        ({"model": "nova-3"}, 403, "INSUFFICIENT_PERMISSIONS"),
        ({"encoding": "mp3"}, 400, "unsupported encoding"),
        ({"sample_rate": None}, 400, "needs a sample_rate"),
        ({"encoding": None}, 400, "sample_rate needs an encoding"),
        ({"sample_rate": 11_025}, 400, "unsupported sample_rate"),
        ({"eot_threshold": 0.4}, 400, "eot_threshold must be from 0.5 to 1"),
        ({"eager_eot_threshold": 0.95}, 400, "eager_eot_threshold must be from 0.3 to 0.9"),
        ({"eager_eot_threshold": 0.8}, 400, "must not exceed"),
        ({"eot_timeout_ms": 100}, 400, "eot_timeout_ms must be from 500 to 60000"),
        ({"eot_timeout_ms": "soon"}, 400, "must be a number"),
        ({"language_hint": "en"}, 400, "needs the model flux-general-multi"),
        ({"numerals": "True"}, 400, "numerals must be true or false"),
        ({"tag": "x" * 129}, 400, "a tag has at most 128 characters"),
        ({"redact": "names"}, 400, "redact is numbers"),
        ({"interim_results": "true"}, 400, "unknown parameter: interim_results"),
        ({"eot_threshold": ["0.6", "0.7"]}, 400, "given twice"),
    ],
)
def test_a_wrong_query_is_refused(play, asked, status, reason):
    async def script(open):
        with pytest.raises(LinkRefused) as refused:
            await open(query(**asked))
        return refused.value

    error = play(flux := FakeFlux(), script)
    assert error.status == status
    assert reason in error.headers["dg-error"]
    assert error.headers["dg-request-id"]
    assert reason in json.loads(error.body)["err_msg"]
    assert (flux.refused, flux.connections) == (1, [])


@pytest.mark.parametrize("header", ["", "k", "Bearer k", "Token other", "Token ", "token k"])
def test_a_wrong_key_is_refused(play, header):
    async def script(open):
        with pytest.raises(LinkRefused) as refused:
            await open(headers={"Authorization": header} if header else {})
        await open()
        return refused.value

    error = play(flux := FakeFlux(key="k"), script)
    assert (error.status, error.headers["dg-error"]) == (401, "Invalid credentials.")
    assert len(flux.connections) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429, 503])
def test_refusals_are_used_up(play, status):
    async def script(open):
        with pytest.raises(LinkRefused) as refused:
            await open()
        await open()
        with pytest.raises(LinkRefused):
            await open()
        await open()
        return refused.value

    flux = FakeFlux()
    flux.refusals.extend([refusal(status), None, refusal(500)])
    error = play(flux, script)
    assert error.status == status
    assert error.headers["dg-error"] == json.loads(error.body)["err_msg"]
    assert (flux.refused, len(flux.connections)) == (2, 2)


def test_an_upgrade_can_take_time_or_never_come(play):
    async def script(open):
        with pytest.raises(LinkError, match=r"did not answer within 0\.05 s"):
            await open(timeout=0.05)
        flux.hang, flux.handshake = False, 0.01
        return await (await open()).next()

    flux = FakeFlux()
    flux.hang = True
    assert play(flux, script)["type"] == "Connected"
    assert flux.connections[0].opened >= flux.connections[0].at + 0.01


# -- time


def test_a_message_comes_exactly_so_late_as_was_asked():
    async def script(open):
        loop = asyncio.get_running_loop()
        client = await open()
        sent: list[tuple[float, float]] = []  # seconds of audio, and when they were all sent

        async def feed() -> None:
            audio = silence(2.0) + (spell(HELLO) + silence(0.5)) * 5
            for at in range(0, len(audio), CHUNK):
                await client.link.send(audio[at : at + CHUNK])
                sent.append(((at + CHUNK) / 8000, loop.time()))
                await asyncio.sleep(0.08)

        feeding = asyncio.create_task(feed())
        await client.next()
        late = []
        while len(late) < 30:
            message = await client.next()
            heard = next(at for audio, at in sent if audio >= message["audio_window_end"])
            late.append(loop.time() - heard)
        await feeding
        return late

    late = in_memory(flux := FakeFlux(delay=0.3), script)
    assert late == pytest.approx([0.3] * 30, abs=1e-9)
    assert all(entry.at == pytest.approx(entry.due, abs=1e-9) for entry in flux.log)


def test_a_message_is_never_early_on_a_real_loop():
    async def script(open):
        client = await open()
        await client.audio(spell(HELLO), silence(0.3))
        return await client.until("EndOfTurn")

    over_socket(flux := FakeFlux(delay=0.05), script)
    arrived = flux.sessions[0].chunks[-1][0]
    end = next(entry for entry in flux.log if entry.message.get("event") == "EndOfTurn")
    assert end.at >= arrived + 0.05 - 1e-6 >= end.due - 0.05
    assert [entry.message["sequence_id"] for entry in flux.log] == list(range(len(flux.log)))


# -- what goes wrong


async def talk(client: Client) -> list[Any]:
    """A second and a half of audio, in real chunks, then whatever comes."""
    try:
        await client.audio(silence(0.5), spell("hello there "), silence(0.3))
    except LinkError:
        pass
    return await client.to_the_end()


def test_an_error_then_a_close(play):
    async def script(open):
        client = await open()
        got = await talk(client)
        second = await open()
        await second.audio(spell("again"), silence(0.3))
        return got, client.close_code(), await second.until("EndOfTurn")

    flux = FakeFlux()
    flux.error_after = 0.6
    got, code, again = play(flux, script)
    assert kinds(got) == ["Connected", "Update", "Update", "Error"]
    assert (got[-1]["code"], got[-1]["sequence_id"]) == ("INTERNAL_SERVER_ERROR", 3)
    assert code == 1011
    assert again["transcript"] == "again"
    assert flux.error_after is None


def test_a_connection_breaks(play):
    async def script(open):
        client = await open()
        await client.next()
        await client.audio(silence(0.4))
        await client.next()
        await client.audio(silence(0.4))
        await client.to_the_end()
        return client.close_code()

    flux = FakeFlux()
    flux.drop_after = 0.6
    assert play(flux, script) == 1006
    assert flux.live == 0


def test_a_connection_breaks_now(play):
    async def script(open):
        client = await open()
        await client.next()
        flux.drop()
        await client.to_the_end()
        return client.close_code()

    flux = FakeFlux()
    assert play(flux, script) == 1006


@pytest.mark.parametrize("code", [1008, 1011, NO_CODE])
def test_a_connection_is_closed(play, code):
    async def script(open):
        client = await open()
        await talk(client)
        one = client.close_code()
        client = await open()
        await client.next()
        flux.shut(code)
        await client.to_the_end()
        return one, client.close_code()

    flux = FakeFlux()
    flux.close_after, flux.close_code = 0.3, code
    assert play(flux, script) == (code, code)


def test_a_fault_can_befall_every_connection():
    async def script(open):
        return [kinds(await talk(await open())) for _ in range(3)]

    flux = FakeFlux()
    flux.close_after, flux.repeat = 0.3, True
    assert in_memory(flux, script) == [["Connected", "Update"]] * 3


def test_it_stalls_and_still_answers_pings():
    async def main() -> None:
        async with Serving(flux) as serving:
            url = serving.url.replace("http", "ws") + query()
            async with websockets.connect(url, additional_headers=KEY, proxy=None) as socket:
                await socket.send(silence(0.3) + spell("hello there ") + silence(0.5))
                got = [json.loads(await socket.recv()) for _ in range(2)]
                assert kinds(got) == ["Connected", "Update"]
                for _ in range(3):
                    await (await socket.ping())
                await socket.send('{"type": "Configure"}')
                await (await socket.ping())
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await socket.recv()
            async with websockets.connect(url, additional_headers=KEY, proxy=None) as socket:
                await socket.recv()
                flux.stall()
                await socket.send(silence(1.0))
                await (await socket.ping())
                flux.shut(1011)
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.recv()

    flux = FakeFlux(configure_delay=0.0)
    flux.stall_after = 0.26
    within(main())
    assert flux.sessions[0].configures == [{"type": "Configure"}]


def test_it_stalls_in_memory():
    async def script(open):
        client = await open()
        await client.audio(silence(0.3), spell(HELLO), silence(1.0))
        await client.until("StartOfTurn")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(600):
                await client.next()

    flux = FakeFlux()
    flux.stall_after = 0.73
    in_memory(flux, script)


def test_unknown_messages_and_garbage(play):
    async def script(open):
        client = await open()
        await client.audio(spell("hello"), silence(0.3))
        await client.until("EndOfTurn")
        return client.got

    flux = FakeFlux()
    flux.inject = (*UNKNOWN, *GARBAGE)
    got = play(flux, script)
    assert events([m for m in got if isinstance(m, dict)]) == [
        ("SpeakerChanged", ""),
        ("StartOfTurn", "hello"),
        ("SpeakerChanged", ""),
        ("EndOfTurn", "hello"),
    ]
    assert kinds(got).count("SomethingNew") == 2
    assert len([m for m in got if not isinstance(m, dict)]) == 2 * len(GARBAGE)
    numbers = [m["sequence_id"] for m in got if isinstance(m, dict)]
    assert numbers == list(range(len(numbers)))


def test_it_reads_slowly():
    async def script(open):
        client = await open()
        for _ in range(50):
            await client.audio(silence(0.08))
        await client.until("Update")
        return asyncio.get_running_loop().time()

    flux = FakeFlux()
    flux.read_delay = 0.5
    assert in_memory(flux, script) == pytest.approx(4 * 0.5)  # 0.25 s are in the fourth


def test_it_hangs_up_on_silence_of_the_wire(play):
    async def script(open):
        client = await open()
        for _ in range(4):
            await client.audio(silence(0.08))
            await asyncio.sleep(0.05)
        await client.to_the_end()
        return client.close_code()

    flux = FakeFlux(idle_limit=0.15)
    assert play(flux, script) == 1011
    last = flux.sessions[0].chunks[-1][0]
    assert flux.log[-1].at - last == pytest.approx(0.15, abs=1e-6) or flux.log[-1].at - last > 0.15
    assert len(flux.sessions[0].chunks) == 4


@pytest.mark.parametrize("text", ['{"type": "KeepAlive"}', "hello", "[1]", '{"typ": "Configure"}'])
def test_it_does_not_take_what_it_does_not_know(play, text):
    async def script(open):
        client = await open()
        await client.link.send(text)
        await client.to_the_end()
        return client.got[-1]["code"], client.close_code()

    flux = FakeFlux()
    assert play(flux, script) == ("UNPARSABLE_CLIENT_MESSAGE", 1008)
    assert text in flux.wrongs[0][1]


def test_audio_it_cannot_decode(play):
    async def script(open):
        client = await open(query(encoding=None, sample_rate=None))
        await client.audio(silence(0.1))
        await client.to_the_end()
        return client.close_code()

    assert play(FakeFlux(mode="energy"), script) == 1008


def test_more_that_clients_do_wrong():
    async def script(open):
        client = await open()
        await client.link.send(b"")
        await client.say("CloseStream")
        await client.audio(silence(0.1))
        await client.to_the_end()

    flux = FakeFlux(delay=1.0)
    in_memory(flux, script)
    assert [what for _, what in flux.wrongs] == [
        "sent an empty chunk of audio",
        "sent something after CloseStream",
        "sent something after CloseStream",
    ]


# -- in the hands of a test


def test_a_script_says_exactly_what_it_is_told(play):
    async def script(open):
        client, other = await open(), await open(query(encoding="opus", sample_rate=48_000))
        await client.next()
        await other.next()
        await client.audio(spell("it does not listen"), silence(1.0))
        await client.say("ForceEndTurn")
        flux.say(turn_info("StartOfTurn", "Hello"))
        flux.say({"type": "TurnInfo", "event": "EndOfTurn", "sequence_id": 99, "transcript": "x"})
        flux.say("no JSON")
        flux.fail("MADE_UP")
        return await client.to_the_end(), await other.to_the_end()

    flux = FakeFlux(mode="script")
    got, other = play(flux, script)
    assert kinds(got) == kinds(other) == ["Connected", "StartOfTurn", "EndOfTurn", "'no JSON'", "Error"]
    assert [m["sequence_id"] for m in got if isinstance(m, dict)] == [0, 1, 99, 3]
    assert got[1]["words"] == [{"word": "Hello", "confidence": 0.99}]
    assert got[1]["request_id"] != other[1]["request_id"]
    assert got[-1]["code"] == "MADE_UP"


# -- the SDK's client


class Socket:
    """A link as the SDK wants it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.send = link.send

    async def recv(self) -> str | bytes | None:
        return await self._link.receive()

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while (message := await self._link.receive()) is not None:
            yield message


async def sdk_script(socket: Any) -> list[tuple[str, str | None]]:
    client = AsyncV2SocketClient(websocket=socket)
    got = [await client.recv()]
    audio = spell("Hi there, ") + silence(0.2) + spell("Bob.") + silence(0.4)
    for at in range(0, len(audio), CHUNK):
        await client.send_media(audio[at : at + CHUNK])
    thresholds = ListenV2ConfigureThresholds(eot_threshold=0.8)
    await client.send_configure(ListenV2Configure(type="Configure", thresholds=thresholds))
    while type(got[-1]).__name__ != "ListenV2ConfigureSuccess":
        got.append(await client.recv())
    await client.send_force_end_turn()
    await client.send_media(spell("tail"))
    await client.send_close_stream()
    got += [message async for message in client]
    names = [(type(m).__name__, getattr(m, "event", None)) for m in got]
    return [name for name in names if name[1] != "Update"]


def test_the_sdk_understands_it():
    expected = [
        ("ListenV2Connected", None),
        ("ListenV2TurnInfo", "StartOfTurn"),
        ("ListenV2TurnInfo", "EagerEndOfTurn"),
        ("ListenV2TurnInfo", "TurnResumed"),
        ("ListenV2TurnInfo", "EagerEndOfTurn"),
        ("ListenV2TurnInfo", "EndOfTurn"),
        ("ListenV2ConfigureSuccess", None),
        ("ListenV2Warning", None),
    ]
    path = query(eager_eot_threshold=0.4)

    async def over_a_socket() -> list[tuple[str, str | None]]:
        async with Serving(FakeFlux()) as serving:
            url = serving.url.replace("http", "ws") + path
            async with websockets.connect(url, additional_headers=KEY, proxy=None) as socket:
                return await sdk_script(socket)

    async def memory() -> list[tuple[str, str | None]]:
        return await sdk_script(Socket(await FakeFlux().dial(f"ws://x{path}", headers=KEY, timeout=1)))

    assert within(over_a_socket()) == expected
    assert run(memory()) == expected


def test_the_sdk_sees_the_error():
    async def main() -> list[str]:
        flux = FakeFlux()
        client = AsyncV2SocketClient(
            websocket=Socket(await flux.dial(f"ws://x{query()}", headers=KEY, timeout=1))
        )
        flux.inject = UNKNOWN
        await client.send_media(spell("hi ") + silence(0.1))
        await asyncio.sleep(0.1)
        flux.fail()
        return [type(message).__name__ for message in [m async for m in client]]

    assert run(main()) == [
        *("ListenV2Connected", "NoneType", "ListenV2TurnInfo", "ListenV2TurnInfo", "ListenV2TurnInfo"),
        "ListenV2FatalError",
    ]


def test_virtual_time_is_not_needed_for_memory():
    async def script(open):
        client = await open()
        await client.audio(spell("hello"), silence(0.3))
        return await client.until("EndOfTurn")

    async def main() -> Any:
        client = Client(await (flux := FakeFlux()).dial(f"ws://x{query()}", headers=KEY, timeout=1))

        async def open() -> Client:
            return client

        found = await script(open)
        await flux.close()
        return found

    assert within(main())["transcript"] == "hello"
