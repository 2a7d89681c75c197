"""FluxSTT when things go wrong: dead and silent connections, refusals, nonsense. No word is lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from flux_calls import KEY, SILENCE, Caller, flux_rig, logged, stt, transcripts, turns, until

from processors.flux import FluxSTT
from tests.vendors import spelled
from tests.vendors.flux import GARBAGE, UNKNOWN, FakeFlux, refusal, turn_info
from tests.vendors.server import Serving
from voiceflow.frames import DraftEnd, Interrupt, TurnEnd, TurnStart, VoiceStart, VoiceStop
from voiceflow.line.link import Link
from voiceflow.services import Services
from voiceflow.testing import Break, Rig, ScriptedLink

SAID = ["hello there my friend", "can you hear"]
CONNECTED = '{"type":"Connected","request_id":"r","sequence_id":0}'
DEATHS = {"drop": "drop", "stall": "stall", "error": "fail", "close": "shut"}


async def conversation(flux: FakeFlux, fault: str, at: float, **options: Any) -> Rig:
    """Two turns, in the middle of which a fault happens."""
    async with flux_rig(flux, **options) as rig:
        asyncio.get_running_loop().call_at(at, getattr(flux, fault))
        caller = Caller(rig)
        for text in SAID:
            await caller.say(text, pause=1)
        await caller.quiet(4)
        assert rig.fault is None
        return rig


# -- the connection is replaced --------------------------------------------------------------------


@pytest.mark.parametrize("word_times", [True, False])
@pytest.mark.parametrize("fault", DEATHS.values(), ids=DEATHS)
def test_no_letter_is_lost_or_doubled(virtual_time, fault, word_times):
    """A fault at any moment: before a turn, in the middle of a word, in the pause, after the end."""

    async def scenario() -> None:
        for step in range(24):
            flux = FakeFlux(word_times=word_times, delay=0.05)
            rig = await conversation(flux, fault, at=0.03 + step * 0.13)
            assert turns(rig) == SAID
            assert transcripts(rig, final=True) == SAID
            assert len(flux.connections) == 2
            assert rig.result is not None
            assert rig.result.figures["FluxSTT.reconnects"] == 1

    virtual_time.run(scenario())


def test_a_replayed_turn_does_not_start_twice(virtual_time):
    async def scenario() -> None:
        for step in range(12):
            flux = FakeFlux()
            rig = await conversation(flux, "drop", at=0.35 + step * 0.08)
            assert turns(rig) == SAID
            assert len(rig.got(TurnStart)) == 2
            assert [frame.reason for frame in rig.got(Interrupt)] == ["barge-in"]  # by the second turn
            before = ""
            for text in transcripts(rig, final=False):  # they never get shorter
                assert text.startswith(before) or text == "can"
                before = text

    virtual_time.run(scenario())


@pytest.mark.parametrize("seed", range(16))
async def test_any_words_with_any_faults(virtual_time, seed):
    """Delays, thresholds, nonsense, up to three faults and a refusal or two at each."""
    chance = random.Random(seed)
    flux = FakeFlux(
        word_times=chance.random() < 0.6,
        delay=chance.choice([0, 0.05, 0.3]),
        handshake=chance.choice([0, 0, 0.3]),
        eot_silence=chance.choice([0.26, 0.6]),
        eager_silence=chance.choice([0.12, 0.2]),
    )
    flux.inject = chance.choice([(), GARBAGE, UNKNOWN])
    said = [
        " ".join("".join(chance.choices("abcdefghij", k=chance.randint(1, 9))) for _ in range(words))
        for words in chance.choices(range(1, 9), k=3)
    ]

    async def trouble() -> None:
        for _ in range(chance.randint(1, 3)):
            await asyncio.sleep(chance.uniform(0, 6))
            flux.refusals.extend([refusal(503)] * chance.choice([0, 0, 1, 2]))
            getattr(flux, chance.choice(list(DEATHS.values())))()

    eager = chance.choice([None, 0.4])
    async with flux_rig(flux, eager_eot_threshold=eager) as rig:
        going_wrong = asyncio.ensure_future(trouble())
        caller = Caller(rig)
        for text in said:
            await caller.say(text, pause=chance.choice([1.0, 2.5]))
        await going_wrong
        await caller.quiet(12)
        assert turns(rig) == transcripts(rig, final=True) == said
    assert list(flux.wrongs) == []


async def test_what_had_ended_is_not_heard_again(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        for text in ("one", "two", "three"):
            await caller.say(text, pause=0.5)
            flux.drop()
            await caller.quiet(0.4)
        assert turns(rig) == ["one", "two", "three"]
        for session in flux.sessions[1:]:
            heard = spelled.read(bytes(session.audio))
            assert heard in ("", "two", "three")
        assert stt(rig).figures()["audio_replayed_ms"] < 3 * 600


async def test_many_deaths_in_one_turn(virtual_time):
    flux = FakeFlux()
    text = "there are many words in what i say and each of them counts"
    async with flux_rig(flux) as rig:
        for at in (0.5, 1.1, 2.4):
            asyncio.get_running_loop().call_at(at, flux.drop)
        await Caller(rig).say(text, pause=1)
        assert turns(rig) == [text]
        assert stt(rig).figures()["reconnects"] == 3


async def test_a_draft_survives(virtual_time):
    """The connection dies between the eager end and the end. The draft is the answer, prompted once."""
    flux = FakeFlux(eager_silence=0.1, eot_silence=0.6)
    async with flux_rig(flux, eager_eot_threshold=0.4) as rig:
        caller = Caller(rig)
        await caller.say("a table for two", pause=0.3)
        assert [frame.text for frame in rig.got(DraftEnd)] == ["a table for two"]
        flux.drop()
        await caller.quiet(1.5)
        assert turns(rig) == ["a table for two"]
        assert len(rig.got(DraftEnd)) == 1
        assert rig.got(Interrupt) == []


async def test_a_pause_that_is_heard_again_does_not_end_the_turn(virtual_time):
    """What the first connection took for a pause looks like an end to the second, which is impatient."""
    flux = FakeFlux(eot_silence=0.6)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("i want", pause=0.4)
        await caller.say("two of ", pause=0)
        flux.eot_silence = 0.26
        flux.drop()
        await caller.say("these", pause=1)
        assert turns(rig) == ["i want two of these"]


async def test_an_end_in_a_silence_that_is_heard_again(virtual_time):
    """The caller said nothing more, so the end that the new connection finds early is the end."""
    flux = FakeFlux(eot_silence=5.0)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("that is all", pause=1.5)
        flux.eot_silence = 0.26
        flux.drop()
        await caller.quiet(0.4)
        assert turns(rig) == ["that is all"]


async def test_a_turn_that_the_new_connection_does_not_hear_is_ended(virtual_time):
    flux = FakeFlux(eot_silence=0.6)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("so be it", pause=0.4)
        assert len(rig.got(TurnStart)) == 1
        flux.mode, flux.lines.lines = "energy", [""]  # it hears speech, and knows none of the words
        flux.drop()
        died = virtual_time.now
        await until(lambda: rig.got(TurnEnd) != [])
        assert turns(rig) == ["so be it"]
        assert virtual_time.now - died < 3.5


@pytest.mark.parametrize("word_times", [True, False])
async def test_a_turn_longer_than_what_is_kept(virtual_time, word_times):
    """Its first words are carried over as text. Without their times, the word that was being said when the
    connection died is heard in part, or not."""
    flux = FakeFlux(word_times=word_times)
    text = " ".join(f"word{n:03d}" for n in range(80))  # 38 s
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say(text[: 73 * 8])
        flux.drop()
        await caller.say(text[73 * 8 :], pause=1)
        words = turns(rig)[0].split()
        if word_times:
            assert words == text.split()
        else:
            assert words[:72] == text.split()[:72]
            assert words[-6:] == text.split()[-6:]
        replayed = stt(rig).figures()["audio_replayed_ms"]
        assert replayed <= 30_000
        assert (replayed > 28_000) is word_times
        assert stt(rig).figures()["audio_dropped_ms"] == 0


async def test_an_outage_longer_than_the_ring(virtual_time):
    """Half a minute is kept; what had to go is counted. Here the line brings a minute at once."""
    flux = FakeFlux(handshake=1)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        for _ in range(50 * 60):
            caller.packet()
        await asyncio.sleep(5)
        assert stt(rig).figures()["audio_dropped_ms"] == 30_000
        assert len(flux.sessions[0].audio) >= 30 * 8000


async def test_a_stall_is_noticed_in_three_seconds(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("hello")
        flux.stall()
        stalled = virtual_time.now
        await caller.quiet(4)
        assert flux.connections[1].opened - stalled == pytest.approx(3, abs=0.2)
        assert turns(rig) == ["hello"]
        assert stt(rig).figures()["longest_quiet_s"] == pytest.approx(3, abs=0.1)


async def test_audio_that_cannot_be_sent(virtual_time):
    """The peer does not read. Its link does not even close in time; nobody waits for that."""
    flux = FakeFlux()
    stuck: list[ScriptedLink] = []

    class Stuck(ScriptedLink):
        async def send(self, message: str | bytes) -> None:
            await asyncio.Event().wait()

        async def close(self, code: int = 1000, reason: str = "") -> None:
            await asyncio.sleep(3)
            await super().close(code, reason)

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        if stuck:
            return await flux.dial(url, headers=headers, timeout=timeout)
        stuck.append(Stuck())
        stuck[0].peer.send(CONNECTED)
        return stuck[0]

    processor = FluxSTT(api_key=KEY, base_url="ws://flux.test")
    async with Rig(processor, services=Services(dial=dial)) as rig:
        caller = Caller(rig)
        await caller.say("hello", pause=6)
        assert flux.connections[0].opened == pytest.approx(2.0, abs=0.4)
        assert turns(rig) == ["hello"]
        assert stuck[0].closed is not None


async def test_voice_in_which_flux_hears_nothing(virtual_time):
    """Progress while there is voice: at most one replacement in 30 s."""
    flux = FakeFlux(mode="script")  # hears nothing; says nothing either, so an Update comes from here

    async def updates() -> None:
        while True:
            await asyncio.sleep(0.25)
            flux.say(turn_info("Update"))

    async with flux_rig(flux) as rig:
        saying = asyncio.ensure_future(updates())
        caller = Caller(rig)
        await caller.quiet(10)
        assert len(flux.connections) == 1
        rig.push(VoiceStart(caller.at, caller.at))
        await caller.quiet(3.8)
        assert len(flux.connections) == 1
        await caller.quiet(0.4)
        assert len(flux.connections) == 2
        await caller.quiet(29)
        assert len(flux.connections) == 2
        await caller.quiet(2)
        assert len(flux.connections) == 3
        rig.push(VoiceStop(caller.at, caller.at))
        await caller.quiet(40)
        assert len(flux.connections) == 3
        saying.cancel()


async def test_a_long_noise_is_sent_again_from_its_beginning(virtual_time):
    """A first word longer than the look-back: the detector knows where it began."""
    flux = FakeFlux(character=16000, eot_silence=1.5)  # two seconds each
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.quiet(1)
        rig.push(VoiceStart(caller.at, caller.at))
        await caller.hear(spelled.spell("abcd", 16000)[:56000])
        flux.drop()
        await caller.hear(spelled.spell("abcd", 16000)[56000:])
        await caller.quiet(4)
        assert turns(rig) == ["abcd"]


# -- it cannot connect ---------------------------------------------------------------------------


async def failed(flux: FakeFlux, **options: Any) -> tuple[str, float]:
    """What the call ended with, and when."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with flux_rig(flux, **options) as rig:
        await until(lambda: rig.call.fault is not None)
        ended = loop.time()
        assert rig.fault is not None
        return rig.fault, ended - began


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "a parameter is not valid"),
        (401, "DEEPGRAM_API_KEY is not valid: get one at https://console.deepgram.com"),
        (402, "no credit left"),
        (403, "may not use this model"),
        (404, "base URL"),
    ],
)
async def test_refusals_that_need_a_change_end_the_call_at_once(virtual_time, status, told):
    flux = FakeFlux()
    flux.refusals.append(refusal(status))
    fault, seconds = await failed(flux)
    assert seconds < 0.1
    assert fault.startswith(f"FluxSTT failed in its task connection: Deepgram refused (HTTP {status}): ")
    assert told in fault


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_refusals_that_pass_are_tried_again(virtual_time, status):
    flux = FakeFlux()
    flux.refusals.extend([refusal(status)] * 4)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("still there", pause=4)
        assert turns(rig) == ["still there"]
        assert flux.connections[0].opened == pytest.approx(0.25 + 0.5 + 1 + 2)


async def test_refusals_that_do_not_pass(virtual_time):
    flux = FakeFlux()
    flux.refusals.extend([refusal(429)] * 100)
    fault, seconds = await failed(flux)
    assert 8 < seconds <= 10
    assert "HTTP 429" in fault
    assert "ask Deepgram for a higher limit" in fault


async def test_a_host_that_never_answers(virtual_time):
    flux = FakeFlux()
    flux.hang = True
    fault, seconds = await failed(flux)
    assert seconds == pytest.approx(10, abs=0.3)
    assert "flux.test did not answer" in fault
    assert "check the network and DEEPGRAM_BASE_URL" in fault


async def test_a_host_that_takes_the_connection_and_says_nothing(virtual_time):
    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        return ScriptedLink()

    async with Rig(FluxSTT(api_key=KEY), services=Services(dial=dial)) as rig:
        await until(lambda: rig.call.fault is not None)
        assert "was silent for 5 s" in (rig.fault or "")
        assert virtual_time.now < 15


async def test_the_trouble_of_before_does_not_count_for_ever(virtual_time):
    flux = FakeFlux(handshake=1)
    async with flux_rig(flux) as rig:
        for n in range(20):
            await asyncio.sleep(5)
            (flux.drop, flux.fail)[n % 2]()
        await asyncio.sleep(5)
        assert rig.fault is None
        assert stt(rig).figures()["reconnects"] == 20


async def test_connections_that_all_die_at_once_end_the_call(virtual_time):
    flux = FakeFlux()
    flux.drop_after, flux.repeat = 0.1, True
    fault, seconds = await failed(flux)
    assert 8 < seconds < 20
    assert "tried for 10 s" in fault


async def test_connections_that_all_fall_silent_end_the_call(virtual_time):
    flux = FakeFlux()
    flux.stall_after, flux.repeat = 0.1, True
    fault, seconds = await failed(flux)
    assert 9 < seconds < 14
    assert "it said nothing for 3 s" in fault


async def test_a_call_that_ends_while_a_dead_connection_is_being_closed(virtual_time):
    dialled: list[Slow] = []
    closed: list[float] = []

    class Slow(ScriptedLink):
        async def close(self, code: int = 1000, reason: str = "") -> None:
            await asyncio.sleep(2.5 if self is dialled[0] else 0.1)
            closed.append(asyncio.get_running_loop().time())

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        dialled.append(Slow.playing([CONNECTED, (1.0, Break())]))
        return dialled[-1]

    async with Rig(FluxSTT(api_key=KEY), services=Services(dial=dial)):
        await asyncio.sleep(1.9)  # the first has died, the second is up
    assert closed == [pytest.approx(2.0), pytest.approx(3.5)]


# -- what it says ----------------------------------------------------------------------------------


async def test_a_few_errors_are_worth_another_connection(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        for n in range(3):
            flux.error_after = 0.5
            await caller.say(f"number {n}", pause=1)
        assert turns(rig) == ["number 0", "number 1", "number 2"]


async def test_errors_without_end(virtual_time):
    flux = FakeFlux()
    flux.error_after, flux.repeat = 0.3, True
    fault, seconds = await failed(flux)
    assert len(flux.connections) == 4
    assert seconds < 10
    assert "INTERNAL_SERVER_ERROR (The fake was told to fail.): it has a problem of its own" in fault


async def test_an_error_that_is_our_own_ends_the_call_at_once(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        await Caller(rig).quiet(1)
        flux.fail("UNPARSABLE_CLIENT_MESSAGE")
        await rig.settled()
        assert "another version of deepgram-sdk" in (rig.fault or "")
        assert len(flux.connections) == 1


@pytest.mark.parametrize(("before", "connections"), [(0.0, 1), (1.0, 2)])
async def test_an_error_nobody_knows(virtual_time, before, connections):
    """As the first thing it ends the call; after the connection has worked it is worth another."""
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        await Caller(rig).quiet(before)
        flux.fail("SOMETHING_NEW")
        await asyncio.sleep(1)
        assert len(flux.connections) == connections
        assert ("SOMETHING_NEW" in (rig.fault or "")) is (connections == 1)


async def test_nonsense_is_counted_and_not_fatal(virtual_time):
    flux = FakeFlux()
    flux.inject = [*UNKNOWN, *GARBAGE]
    with logged() as lines:
        async with flux_rig(flux, eager_eot_threshold=0.4) as rig:
            caller = Caller(rig)
            for text in SAID:
                await caller.say(text, pause=1)
            assert turns(rig) == SAID
            assert stt(rig).figures()["unknown_messages"] == 7 * 6  # start, eager and end of two turns
            assert len(flux.connections) == 1
    ignored = [line for line in lines if "Flux sent" in line]
    assert len(ignored) == 4  # one for each kind
    assert any("SpeakerChanged" in line for line in ignored)


@pytest.mark.parametrize(
    "nonsense",
    [
        {"type": "TurnInfo"},
        {"type": "TurnInfo", "event": ["x"]},
        {"type": "TurnInfo", "event": "EndOfTurn"},
        {"type": "TurnInfo", "event": "EagerEndOfTurn", "transcript": None},
        {"type": "TurnInfo", "event": "TurnResumed", "audio_window_end": "soon"},
        {"type": "TurnInfo", "event": "Update", "transcript": 5, "words": {}, "audio_window_end": -3},
        {"type": "TurnInfo", "event": "Update", "transcript": "x", "words": [7]},
        {"type": "Connected"},
        {"type": "ConfigureSuccess"},
        {"type": "ConfigureFailure", "code": 7},
        {"type": "Warning"},
        {"type": 3},
        "[" * 100_000,
        '{"type":"TurnInfo","event":"Update","audio_window_end":NaN,"transcript":"","words":[]}',
        '{"type":"TurnInfo","event":"Update","audio_window_end":1e999,"transcript":"","words":[]}',
    ],
    ids=lambda nonsense: str(nonsense)[:60],
)
async def test_messages_without_what_they_need(virtual_time, nonsense):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.quiet(0.5)
        flux.say(nonsense if isinstance(nonsense, str) else json.dumps(nonsense))
        await caller.say("as if nothing were", pause=1)
        assert turns(rig) == ["as if nothing were"]
        assert len(flux.connections) == 1


async def test_times_that_are_not_given(virtual_time):
    """A server that says nothing about its audio, after one that did: it is taken to have heard all."""
    flux = FakeFlux(mode="script")
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.quiet(1)
        flux.say(turn_info("StartOfTurn", "well", end=0.9))
        await caller.quiet(0.5)
        flux.drop()
        await caller.quiet(0.5)
        for event, text in (("StartOfTurn", "well"), ("Update", "well then"), ("EndOfTurn", "well then")):
            message = turn_info(event, text)
            del message["audio_window_end"], message["words"]
            flux.say(message)
        await rig.settled()
        assert turns(rig) == ["well then"]


# -- secrets ---------------------------------------------------------------------------------------


async def test_the_key_and_the_words_are_in_no_log_and_no_error(virtual_time):
    def echo(status: int) -> Any:
        return refusal(status, f"the key {KEY} is not good")

    flux = FakeFlux()
    with logged() as lines:
        flux.refusals.extend([echo(503), echo(429)])
        async with flux_rig(flux) as rig:
            caller = Caller(rig)
            await caller.say("confidential matters", pause=1)
            flux.say({"type": "Warning", "code": "W", "description": f"your key {KEY}"})
            flux.say({"type": "Error", "code": "INTERNAL_SERVER_ERROR", "description": f"key {KEY}"})
            await caller.say("confidential matters", pause=1)
            flux.refusals.append(echo(401))
            flux.drop()
            await until(lambda: rig.call.fault is not None)
            fault = rig.fault or ""
            notes = [event for event in rig.call.trace.events if event.kind == "note"]
            text = " ".join([*lines, fault, repr(stt(rig).keys), repr(stt(rig).settings), *map(str, notes)])
            assert "***" in fault
            assert len(notes) >= 4
        text += " ".join(lines)
    assert len(turns(rig)) == 2
    assert KEY not in text
    assert "confidential" not in text


# -- over real sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drop", "fail", "shut"])
def test_a_death_over_a_real_socket(fault):
    async def scenario() -> None:
        flux = FakeFlux(key=KEY)
        async with Serving(flux) as serving:
            async with Rig(FluxSTT(api_key=KEY, base_url=serving.url)) as rig:
                caller = Caller(rig)
                audio = spelled.spell("nothing of this is lost") + SILENCE * 40
                half = 5000
                for first in range(0, half, 160):
                    caller.packet(audio[first : min(first + 160, half)])
                await until(lambda: rig.got(TurnStart) != [])
                getattr(flux, fault)()
                await until(lambda: len(flux.connections) == 2)
                for first in range(half, len(audio), 160):
                    caller.packet(audio[first : first + 160])
                await until(lambda: rig.got(TurnEnd) != [])
                assert turns(rig) == ["nothing of this is lost"]
            await until(lambda: not flux.live)

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_refusal_over_a_real_socket():
    async def scenario() -> str:
        async with Serving(FakeFlux(key="another")) as serving:
            processor = FluxSTT(api_key=KEY, base_url=serving.url)
            async with Rig(processor) as rig:
                await until(lambda: rig.call.fault is not None)
                return rig.fault or ""

    fault = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert "HTTP 401): DEEPGRAM_API_KEY is not valid" in fault
    assert "Invalid credentials" in fault
    assert KEY not in fault
