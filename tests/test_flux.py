"""FluxSTT against a fake Flux that really hears: turns, words, silence, settings, changes during the call."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest
from flux_calls import KEY, PACKET, SILENCE, Caller, flux_rig, logged, stt, transcripts, turns, until

from processors.flux import FluxSTT
from tests.vendors import spelled
from tests.vendors.flux import FakeFlux, refusal, turn_info
from tests.vendors.server import Serving
from voiceflow.errors import DeclarationError, LinkError, LinkRefused, VoiceflowError
from voiceflow.frames import (
    AudioFormat,
    AudioIn,
    DraftEnd,
    DraftResumed,
    Interrupt,
    Transcript,
    TurnEnd,
    TurnStart,
)
from voiceflow.line.link import Link
from voiceflow.services import Services
from voiceflow.testing import Rig, ScriptedLink, check_processor

# -- a call that goes well -----------------------------------------------------------------------


async def test_two_turns(virtual_time):
    flux = FakeFlux(key=KEY)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.quiet(0.5)
        await caller.say("hello there my friend", pause=1)
        await caller.say("one more thing", pause=3)
        assert turns(rig) == ["hello there my friend", "one more thing"]
        assert transcripts(rig, final=True) == turns(rig)
        growing = ["hello", "hello there", "hello there my", "one", "one more"]
        assert [text for text in transcripts(rig, final=False) if text in growing] == growing
        kinds = [type(frame) for frame in rig.out if isinstance(frame, Transcript | TurnStart | TurnEnd)]
        assert kinds[:2] == [TurnStart, Transcript]
        assert kinds[-2:] == [Transcript, TurnEnd]
        assert stt(rig).figures() == {
            "reconnects": 0,
            "unknown_messages": 0,
            "audio_dropped_ms": 0,
            "audio_replayed_ms": 0,
            "silence_fed_ms": 0,
            "longest_quiet_s": pytest.approx(0.25, abs=0.1),
        }
        assert caller.at - stt(rig)._feed.oldest < 4 * 8000  # the rest is not needed any more
    assert list(flux.wrongs) == []
    assert set(flux.chunks) == {4 * PACKET}


async def test_the_audio_arrives_as_it_came(virtual_time):
    flux = FakeFlux()
    said = spelled.spell("to the letter") + SILENCE * 4
    async with flux_rig(flux) as rig:
        await Caller(rig).hear(said)
        await rig.settled()
    assert bytes(flux.sessions[0].audio) == said[: len(said) // 640 * 640]


async def test_a_draft_that_was_right_and_one_that_was_not(virtual_time):
    flux = FakeFlux(eager_silence=0.12, eot_silence=0.5)
    async with flux_rig(flux, eager_eot_threshold=0.4) as rig:
        caller = Caller(rig)
        await caller.say("i would like", pause=0.3)
        await caller.say("two tables", pause=1)
        drafts = [frame.text for frame in rig.got(DraftEnd)]
        assert drafts == ["i would like", "i would like two tables"]
        assert len(rig.got(DraftResumed)) == 1
        assert turns(rig) == ["i would like two tables"]
        assert [frame.reason for frame in rig.got(Interrupt)] == ["the caller went on"]
        assert rig.call.turns.live is not None  # the second draft is the answer


@pytest.mark.parametrize("word_times", [True, False])
async def test_the_answer_is_measured_from_the_end_of_the_last_word(virtual_time, word_times):
    flux = FakeFlux(word_times=word_times, delay=0.05)
    async with flux_rig(flux) as rig:
        seen = []
        watch = rig.call.turns._watch
        watch.evidence = seen.append  # type: ignore[method-assign]
        caller = Caller(rig)
        await caller.quiet(1)
        await caller.say("goodbye")
        ended = caller.at
        await caller.quiet(1)
        assert len(seen) == 1
        assert seen[0] == pytest.approx(ended, abs=8 if word_times else 0.3 * 8000)


async def test_words_said_before_the_connection_exists(virtual_time):
    flux = FakeFlux(handshake=4.0)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("hello can you hear me", pause=2)
        assert turns(rig) == []
        await caller.quiet(1.5)
        assert turns(rig) == ["hello can you hear me"]


async def test_start_does_not_wait_for_the_connection(virtual_time):
    flux = FakeFlux(handshake=3.0)
    async with flux_rig(flux):
        assert virtual_time.now == 0.0
        await asyncio.sleep(3.1)
        assert len(flux.connections) == 1


async def test_what_was_missed_is_sent_in_bursts(virtual_time):
    flux = FakeFlux(handshake=4.0)
    async with flux_rig(flux) as rig:
        await Caller(rig).quiet(6)
        times = [at for at, _ in flux.sessions[0].chunks]
        assert sum(at < 4.01 for at in times) == 12  # a second of audio at once
        late = [n for n, at in enumerate(times) if at > n * 0.08 + 0.2]
        assert times[late[-1]] < 4.5  # caught up


async def test_a_barge_in_takes_no_detour(virtual_time):
    link = ScriptedLink()
    link.on(lambda message: isinstance(message, bytes), [])

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        link.peer.send('{"type":"Connected","request_id":"r","sequence_id":0}')
        return link

    processor = FluxSTT(api_key=KEY, base_url="ws://flux.test")
    async with Rig(processor, services=Services(dial=dial)) as rig:
        rig.call.turns.ended("hello")
        live = rig.call.turns.live
        assert live is not None
        message = turn_info("StartOfTurn", "wait", start=0.0, end=0.1)
        link.peer.send(json.dumps({"request_id": "r", "sequence_id": 1, **message}))
        await asyncio.sleep(0)  # the reader wakes up
        assert live.dead
        assert rig.call.turns.live is None


def test_real_sockets():
    async def scenario() -> None:
        flux = FakeFlux(key=KEY)
        async with Serving(flux) as serving:
            processor = FluxSTT(api_key=KEY, base_url=serving.url, eager_eot_threshold=0.4)
            async with Rig(processor) as rig:
                caller = Caller(rig)
                for text in ("over a real socket", "and again"):
                    audio = spelled.spell(text) + SILENCE * 50
                    for first in range(0, len(audio), PACKET):  # faster than anybody speaks
                        caller.packet(audio[first : first + PACKET])
                await until(lambda: len(turns(rig)) == 2)
                assert turns(rig) == ["over a real socket", "and again"]
            await until(lambda: not flux.live)
            assert list(flux.wrongs) == []
            assert len(flux.connections) == 1

    asyncio.run(asyncio.wait_for(scenario(), 10))


# -- silence and gaps ----------------------------------------------------------------------------


async def test_a_transport_that_goes_mute_after_the_start_still_ends_the_turn(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("are you the")
        assert len(rig.got(TurnStart)) == 1
        muted = virtual_time.now
        await until(lambda: turns(rig) != [])
        assert turns(rig) == ["are you the"]
        assert virtual_time.now - muted == pytest.approx(0.5 + 0.26, abs=0.1)
        assert stt(rig).figures()["silence_fed_ms"] > 200


async def test_audio_that_comes_back_after_silence_was_fed(virtual_time):
    """The words' samples are those of the caller's stream, however much silence was put between them."""
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        seen = []
        rig.call.turns._watch.evidence = seen.append  # type: ignore[method-assign]
        caller = Caller(rig)
        await caller.say("one")
        await asyncio.sleep(4)  # nothing comes, and the stream stands still
        await caller.say("two")
        ended = caller.at
        await caller.quiet(1)
        assert turns(rig) == ["one", "two"]
        assert seen[1] == pytest.approx(ended, abs=8)
        caller.at += 5 * 8000  # packets were lost, and the stream's clock went on
        await asyncio.sleep(5)
        await caller.say("three")
        ended = caller.at
        await caller.quiet(1)
        assert turns(rig) == ["one", "two", "three"]
        assert seen[2] == pytest.approx(ended, abs=8)
        sent = len(flux.sessions[0].audio) / 8000
        assert sent == pytest.approx(virtual_time.now, abs=1.1)  # the lost packets did not count twice


async def test_a_short_loss_is_filled_so_that_audio_time_stays_true(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.quiet(0.08)
        caller.at += 800
        await caller.say("ok", pause=0.4)
        await rig.settled()
        audio = bytes(flux.sessions[0].audio)
        assert audio[:1440] == b"\xff" * 1440
        assert audio[1440:2400] == spelled.spell("ok")


async def test_a_silent_line_does_not_meet_the_idle_limit(virtual_time):
    flux = FakeFlux(idle_limit=2.0)
    async with flux_rig(flux) as rig:
        await asyncio.sleep(30)
        assert len(flux.connections) == 1
        sent = stt(rig).figures()["silence_fed_ms"]
        assert sent == pytest.approx(29_500, abs=200)  # in real time, no faster
        caller = Caller(rig)
        await caller.say("now", pause=1)
        assert turns(rig) == ["now"]


# -- other lines ---------------------------------------------------------------------------------


async def test_linear_audio_of_another_line(virtual_time):
    flux = FakeFlux(mode="energy", lines=["hello from a browser"])
    wide = AudioFormat("pcm16", 16000)
    processor = FluxSTT(api_key=KEY, base_url="ws://flux.test")
    loud = (b"\x00\x40" * 20 + b"\x00\xc0" * 20) * 8
    async with Rig(processor, services=Services(dial=flux.dial), format=wide) as rig:
        for n in range(150):
            rig.push(AudioIn(loud if n < 60 else b"\0\0" * 320, n * 320, wide))
            await asyncio.sleep(0.02)
        assert turns(rig) == ["hello from a browser"]
    assert flux.connections[0].one("encoding") == "linear16"
    assert flux.connections[0].one("sample_rate") == "16000"
    assert set(flux.chunks) == {2560}


async def test_a_line_that_flux_cannot_hear(virtual_time):
    processor = FluxSTT(api_key=KEY, base_url="ws://flux.test")
    async with Rig(
        processor, services=Services(dial=FakeFlux().dial), format=AudioFormat("mulaw", 11025)
    ) as rig:
        assert rig.fault is not None
        assert "FluxSTT hears mulaw and pcm16 at 8000" in rig.fault


# -- settings ------------------------------------------------------------------------------------


async def asked(**options: object) -> dict[str, list[str]]:
    flux = FakeFlux()
    async with flux_rig(flux, **options):
        pass
    assert flux.refused == 0
    return flux.connections[0].query


async def test_nothing_is_asked_that_was_not_given(virtual_time):
    assert await asked() == {"model": ["flux-general-en"], "encoding": ["mulaw"], "sample_rate": ["8000"]}


async def test_everything_that_can_be_asked(virtual_time):
    query = await asked(
        model="flux-general-multi",
        eot_threshold=0.8,
        eager_eot_threshold=0.5,
        eot_timeout_ms=3000,
        keyterms=["Twilio", "a b&c"],
        language_hints=["en", "de"],
        tags=("one",),
        mip_opt_out=True,
        numerals=False,
        profanity_filter=True,
        redact="numbers",
    )
    assert query == {
        "model": ["flux-general-multi"],
        "encoding": ["mulaw"],
        "sample_rate": ["8000"],
        "eot_threshold": ["0.8"],
        "eager_eot_threshold": ["0.5"],
        "eot_timeout_ms": ["3000"],
        "keyterm": ["Twilio", "a b&c"],
        "language_hint": ["en", "de"],
        "tag": ["one"],
        "mip_opt_out": ["true"],
        "numerals": ["false"],
        "profanity_filter": ["true"],
        "redact": ["numbers"],
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": "nova-3"}, "nova-3"),
        ({"eot_threshold": 0.4}, "eot_threshold=0.4"),
        ({"eot_threshold": True}, "eot_threshold=True"),
        ({"eager_eot_threshold": 0.95}, "from 0.3 to 0.9"),
        ({"eager_eot_threshold": 0.8}, "at most eot_threshold, which is 0.7"),
        ({"eager_eot_threshold": 0.6, "eot_threshold": 0.5}, "which is 0.5"),
        ({"eot_timeout_ms": 100}, "from 500 to 60000"),
        ({"keyterms": "Twilio"}, "a list of texts"),
        ({"keyterms": [" "]}, "a list of texts"),
        ({"keyterms": ["x"] * 101}, "100 at most, not 101"),
        ({"language_hints": ["en"]}, "flux-general-multi"),
        ({"tags": ["x" * 129]}, "128"),
        ({"redact": "names"}, "aggressive_numbers"),
        ({"region": "us"}, "eu, au, in"),
        ({"region": "eu", "base_url": "wss://x"}, "not both"),
        ({"base_url": "nonsense"}, "DEEPGRAM_BASE_URL"),
    ],
)
def test_what_cannot_work_is_told_when_it_is_made(options, told):
    with pytest.raises(DeclarationError) as caught:
        FluxSTT(api_key=KEY, **options)
    assert told in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "options", "address"),
    [
        ("", {}, "wss://api.deepgram.com/v2/listen"),
        ("", {"region": "eu"}, "wss://api.eu.deepgram.com/v2/listen"),
        ("https://api.au.deepgram.com/", {}, "wss://api.au.deepgram.com/v2/listen"),
        ("wss://elsewhere", {"base_url": "http://127.0.0.1:1"}, "ws://127.0.0.1:1/v2/listen"),
        ("wss://elsewhere", {"region": "in"}, "wss://api.in.deepgram.com/v2/listen"),
    ],
)
def test_where_it_connects(virtual_time, monkeypatch, environment, options, address):
    monkeypatch.setenv("DEEPGRAM_BASE_URL", environment)
    monkeypatch.setenv("DEEPGRAM_API_KEY", KEY)
    dialled = []

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        dialled.append((url.partition("?")[0], dict(headers)))
        return ScriptedLink()

    async def scenario() -> None:
        async with Rig(FluxSTT(**options), services=Services(dial=dial)):
            pass

    virtual_time.run(scenario())
    assert dialled == [(address, {"Authorization": f"Token {KEY}"})]


def test_a_missing_key_is_told_before_the_call(monkeypatch):
    (key,) = FluxSTT().keys
    assert (key.variable, bool(key)) == ("DEEPGRAM_API_KEY", False)
    assert KEY not in repr(FluxSTT(api_key=KEY).keys)


# -- changes during the call ---------------------------------------------------------------------


async def test_configure(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux, keyterms=["old"]) as rig:
        await stt(rig).configure(
            eot_threshold=0.9, eager_eot_threshold=0.6, keyterms=["new", "newer"], numerals=True
        )
        assert flux.sessions[0].configures == [
            {
                "type": "Configure",
                "thresholds": {"eot_threshold": 0.9, "eager_eot_threshold": 0.6},
                "keyterms": ["new", "newer"],
                "numerals": True,
            }
        ]
        await stt(rig).configure(keyterms=[])
        assert flux.sessions[0].configures[1] == {"type": "Configure", "keyterms": []}
        await stt(rig).configure()
        assert len(flux.sessions[0].configures) == 2
        flux.drop()
        await asyncio.sleep(0.5)
        query = flux.connections[1].query
        assert query["eot_threshold"] == ["0.9"]
        assert query["numerals"] == ["true"]
        assert "keyterm" not in query


async def test_configures_wait_for_each_other(virtual_time):
    flux = FakeFlux(configure_delay=1.0)
    async with flux_rig(flux) as rig:
        await asyncio.gather(*(stt(rig).configure(eot_timeout_ms=1000 + n) for n in range(3)))
        assert [message["thresholds"]["eot_timeout_ms"] for message in flux.sessions[0].configures] == [
            1000,
            1001,
            1002,
        ]
        assert stt(rig).settings.eot_timeout_ms == 1002
    assert list(flux.wrongs) == []


async def test_a_configure_that_is_refused_changes_nothing(virtual_time):
    flux = FakeFlux()
    flux.configures.append(False)
    async with flux_rig(flux) as rig:
        with pytest.raises(VoiceflowError, match="INVALID_CONFIGURE The fake was told to refuse it"):
            await stt(rig).configure(eot_threshold=0.9)
        assert stt(rig).settings.eot_threshold is None
        await stt(rig).configure(eot_threshold=0.8)
        assert stt(rig).settings.eot_threshold == 0.8


async def test_a_configure_out_of_range_is_not_sent(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        with pytest.raises(VoiceflowError, match="language_hints"):
            await stt(rig).configure(language_hints=["de"])
        with pytest.raises(VoiceflowError, match=r"from 0\.5 to 1"):
            await stt(rig).configure(eot_threshold=2)
        assert flux.sessions[0].configures == []


async def test_a_configure_without_an_answer(virtual_time):
    """What comes late is not taken for the answer to the next one."""
    flux = FakeFlux(configure_delay=5.2)
    async with flux_rig(flux) as rig:
        began = virtual_time.now
        with pytest.raises(VoiceflowError, match="did not answer a Configure in 5 s"):
            await stt(rig).configure(eot_threshold=0.9)
        assert virtual_time.now == began + 5
        flux.configure_delay = 0.5
        flux.configures.append(False)
        with pytest.raises(VoiceflowError, match="refused"):
            await stt(rig).configure(eot_threshold=0.8)
        assert stt(rig).settings.eot_threshold is None


async def test_configures_that_are_never_answered_are_not_piled_up(virtual_time):
    flux = FakeFlux()
    flux.configures.extend([None] * 9)
    async with flux_rig(flux) as rig:
        for _ in range(4):
            with pytest.raises(VoiceflowError, match="did not answer"):
                await stt(rig).configure(eot_threshold=0.9)
        with pytest.raises(VoiceflowError, match="has not answered the last 4"):
            await stt(rig).configure(eot_threshold=0.9)
        assert len(flux.sessions[0].configures) == 4


async def test_a_configure_survives_the_connection_it_was_sent_on(virtual_time):
    flux = FakeFlux(configure_delay=1.0)
    async with flux_rig(flux) as rig:
        changing = asyncio.ensure_future(stt(rig).configure(eot_threshold=0.9))
        await asyncio.sleep(0.5)
        flux.drop()
        await changing
        assert [len(session.configures) for session in flux.sessions] == [1, 1]
        assert stt(rig).settings.eot_threshold == 0.9


async def test_nothing_can_be_asked_when_the_call_is_over(virtual_time):
    flux = FakeFlux(handshake=2)
    async with flux_rig(flux) as rig:
        processor = stt(rig)
        waiting = asyncio.ensure_future(processor.force_end_turn())
        await asyncio.sleep(1)
    with pytest.raises(VoiceflowError, match="the call is over"):
        await waiting
    with pytest.raises(VoiceflowError, match="the call is over"):
        await processor.configure(eot_threshold=0.9)


async def test_force_end_turn(virtual_time):
    flux = FakeFlux()
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("my number is one", pause=0.1)
        await stt(rig).force_end_turn()
        await rig.settled()
        assert turns(rig) == ["my number is one"]
        with logged() as lines:
            await stt(rig).force_end_turn()
            await rig.settled()
        assert turns(rig) == ["my number is one"]
        assert any("FORCE_END_TURN_NO_ACTIVE_TURN" in line for line in lines)


async def test_force_end_turn_comes_after_the_audio_of_before(virtual_time):
    flux = FakeFlux(handshake=1.5)
    async with flux_rig(flux) as rig:
        caller = Caller(rig)
        await caller.say("one two three", pause=0.1)
        await stt(rig).force_end_turn()
        await rig.settled()
        assert turns(rig) == ["one two three"]


async def test_force_end_turn_without_a_connection(virtual_time):
    flux = FakeFlux()
    flux.hang = True
    async with flux_rig(flux) as rig:
        with pytest.raises(LinkError, match="no connection to Flux for 5 s"):
            await stt(rig).force_end_turn()


# -- its life ------------------------------------------------------------------------------------


async def test_it_says_goodbye(virtual_time):
    link = ScriptedLink()

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        link.peer.send('{"type":"Connected","request_id":"r","sequence_id":0}')
        return link

    async with Rig(FluxSTT(api_key=KEY), services=Services(dial=dial)) as rig:
        await Caller(rig).quiet(0.2)
    assert json.loads(link.sent[-1][1]) == {"type": "CloseStream"}
    assert link.peer.closed is not None


async def test_goodbye_is_bounded(virtual_time):
    class Stuck(ScriptedLink):
        async def send(self, message: str | bytes) -> None:
            await asyncio.Event().wait()

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        link = Stuck()
        link.peer.send('{"type":"Connected","request_id":"r","sequence_id":0}')
        return link

    async with Rig(FluxSTT(api_key=KEY), services=Services(dial=dial)):
        await asyncio.sleep(0.1)
    assert virtual_time.now == pytest.approx(1.1)


def test_it_conforms():
    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> Link:
        fake = FakeFlux(mode="energy", lines=["Hello there"])
        return await fake.dial(url, headers=headers, timeout=timeout)

    report = check_processor(
        lambda: FluxSTT(api_key=KEY, base_url="ws://flux.test"), services=Services(dial=dial)
    )
    assert report.never_seen == ()
    assert report.emitted["Transcript"] > 10


def test_importing_it_imports_no_sdk():
    code = (
        "import sys, processors.flux; "
        "print([m for m in ('deepgram', 'openai', 'websockets', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_warm_imports_the_sdk():
    code = (
        "import sys; import processors.flux.client; "
        "print([m for m in ('deepgram', 'openai') if m in sys.modules])"
    )
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['deepgram']"


async def test_warming_up_tells_of_a_key_that_is_refused(virtual_time):
    flux = FakeFlux(key=KEY)
    async with flux_rig(flux, api_key="another") as rig:
        with pytest.raises(LinkRefused, match="DEEPGRAM_API_KEY is not valid"):
            await stt(rig).warm()
        assert "DEEPGRAM_API_KEY" in str(rig.fault)


@pytest.mark.parametrize("refused", [[], [refusal(429)]])
async def test_warming_up_is_no_condition(virtual_time, refused):
    flux = FakeFlux(key=KEY)
    async with flux_rig(flux) as rig:
        await asyncio.sleep(1)
        flux.refusals.extend(refused)
        await stt(rig).warm()
        assert len(flux.connections) == 2 - len(refused)
