"""The fake ElevenLabs has the habits of the real one, and every fault it can be asked for."""

from __future__ import annotations

import asyncio
import base64
import math
from typing import Any

import pytest

from tests.vendors import spelled
from tests.vendors.elevenlabs import FORMATS, OTHER_SPELLING, FakeElevenLabs
from tests.vendors.reach import Client, InMemory, OverSockets, Wire, both_ways
from tests.vendors.speaking import Fault
from tests.vendors.voice import from_format
from voiceflow.errors import LinkRefused

SETTINGS = {"stability": 0.5, "similarity_boost": 0.8}
TEXT = "Hello there. "


def multi(**query: str) -> str:
    return _url("multi-stream-input", query)


def single(**query: str) -> str:
    return _url("stream-input", query)


def _url(endpoint: str, query: dict[str, str]) -> str:
    query = {"output_format": "ulaw_8000", **query}
    return f"/v1/text-to-speech/v1/{endpoint}?" + "&".join(f"{k}={v}" for k, v in query.items() if v)


def quick(**options: Any) -> FakeElevenLabs:
    """Without delays, for tests over sockets too."""
    return FakeElevenLabs(
        **{"delay": 0.0, "pace": math.inf, "final_after": 0.0, "flush_race": 0.0, **options}
    )


async def begin(client: Client, context: str = "c1", **more: Any) -> None:
    await client.send({"text": " ", "context_id": context, **more})


async def say(client: Client, text: str = TEXT, context: str = "c1", **more: Any) -> None:
    await client.send({"text": text, "context_id": context, **more})


async def flush(client: Client, context: str = "c1") -> None:
    await client.send({"context_id": context, "flush": True})


async def close(client: Client, context: str = "c1") -> None:
    await client.send({"context_id": context, "close_context": True})


async def until_final(client: Client, context: str = "c1") -> list[dict[str, Any]]:
    """Everything up to the isFinal of `context`, which comes last."""
    messages = []
    while not messages or not (messages[-1].get("isFinal") and messages[-1].get("contextId") == context):
        messages += await client.take(1)
    return messages


def heard(messages: list[Any], format: str = "ulaw_8000") -> str:
    audio = b"".join(base64.b64decode(m["audio"]) for m in messages if m.get("audio"))
    return spelled.read(from_format(audio, FORMATS[format]))


def by_itself(main: Any) -> None:
    InMemory().run(main)


def now() -> float:
    return asyncio.get_running_loop().time()


# -- speaking


@both_ways
def test_a_reply_from_first_text_to_isfinal(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(key="secret")
        async with wire.serving(fake) as dial:
            client = await dial(multi(model_id="eleven_flash_v2_5"), {"xi-api-key": "secret"})
            await begin(client, voice_settings=SETTINGS)
            await say(client, "Hello ")
            await say(client, "there. ", flush=True)
            messages = await client.take(1)
            await close(client)
            messages += await until_final(client)

            assert heard(messages) == TEXT
            assert [m["contextId"] for m in messages] == ["c1"] * len(messages)
            assert [m["isFinal"] for m in messages] == [None] * (len(messages) - 1) + [True]
            assert messages[-1] == {"isFinal": True, "contextId": "c1"}
            assert len(messages) == 5  # 0.78 s in messages of 0.25 s, and the end
        (said,) = fake.log
        assert (said.text, said.said, said.cancelled) == (TEXT, TEXT, "")
        assert said.settings == SETTINGS
        assert said.characters == 13
        assert said.audio == pytest.approx(0.78)
        assert said.opened <= said.flushes[0] <= said.first_audio <= said.closed <= said.finished
        assert not fake.wrongs
        assert fake.connections[0].one("model_id") == "eleven_flash_v2_5"

    wire.run(main())


def test_the_same_script_gives_the_same_messages_on_both_wires() -> None:
    seen: list[list[Any]] = []

    async def main(wire: Wire) -> None:
        fake = quick(spelling={"isFinal": "is_final"})
        async with wire.serving(fake) as dial:
            client = await dial(multi(sync_alignment="true"))
            for context in ("a", "b"):
                await begin(client, context)
                await say(client, f"This is {context}. ", context, flush=True)
                messages = await client.take(1)
                await close(client, context)
                while not messages[-1]["is_final"]:
                    messages += await client.take(1)
                seen.append(messages)
            await flush(client, "a")
            await begin(client, "a", voice_settings=SETTINGS)
            seen.append(await client.rest())
            seen.append([client.code, client.reason, [what for _, what in fake.wrongs]])

    for wire in (InMemory(), OverSockets()):
        wire.run(main(wire))
    assert seen[:4] == seen[4:]
    assert len(seen[0]) == 4
    assert seen[3][0] == 1008


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi(output_format=name))
            await begin(client)
            await say(client, flush=True)
            await close(client)
            messages = await until_final(client)
        assert heard(messages, name) == TEXT
        bytes_a_second = FORMATS[name].rate * FORMATS[name].sample_bytes
        assert len(base64.b64decode(messages[0]["audio"])) == bytes_a_second // 4

    by_itself(main())


def test_without_a_format_it_is_mp3() -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi(output_format=""))
            await begin(client)
            await say(client, flush=True)
            (message,) = await client.take(1)
        assert base64.b64decode(message["audio"]).startswith(b"ID3")
        assert heard([message]) == ""

    by_itself(main())


async def test_messages_keep_their_absolute_times(virtual_time: Any) -> None:
    fake = FakeElevenLabs(delay=0.2, pace=5.0, chunk=0.25)
    async with InMemory().serving(fake) as dial:
        client = await dial(multi())
        await begin(client)
        await asyncio.sleep(3.0)
        await say(client, "Ten chars.")  # 0.6 s of audio
        await asyncio.sleep(1.0)
        await flush(client)
        times = []
        for _ in range(3):
            await client.take(1)
            times.append(now())
        assert times == [4.2, 4.25, 4.3]
        assert (fake.log[0].first_audio, fake.log[0].last_audio) == (4.2, 4.3)
        await say(client, "More.", flush=True)  # the delay counts from the text that starts it
        await client.take(1)
        assert now() == 4.5


async def test_all_at_once_when_the_pace_is_infinite(virtual_time: Any) -> None:
    async with InMemory().serving(FakeElevenLabs(delay=0.3, pace=math.inf)) as dial:
        client = await dial(multi())
        await begin(client)
        await say(client, "x" * 100, flush=True)
        await client.take(24)
        assert now() == 0.3


def test_nothing_is_said_before_a_flush_or_the_schedule() -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi())
            await begin(client, generation_config={"chunk_length_schedule": [50, 80]})
            await say(client, "x" * 49)
            await _silent(client, 10.0)
            await say(client, "y")
            assert heard(await client.take(12)) == "x" * 49 + "y"
            await say(client, "z" * 79)
            await _silent(client, 10.0)
            await say(client, "z" * 81)
            assert len(heard(await client.take(39))) == 160

    by_itself(main())


def test_auto_mode_speaks_each_text_at_once() -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi(auto_mode="true"))
            await begin(client)
            await say(client, "One. ")
            assert heard(await client.take(2)) == "One. "
            await say(client, "Two.")
            assert heard(await client.take(1)) == "Two."

    by_itself(main())


def test_any_text_can_be_spoken() -> None:
    async def main() -> None:
        async with InMemory().serving(quick(chunk=5.0)) as dial:
            client = await dial(multi(sync_alignment="true"))
            await begin(client)
            await say(client, "Zürich\n\U0001f600 5€", flush=True)
            (message,) = await client.take(1)
        assert heard([message]) == "Z?rich ? 5?"
        assert "".join(message["alignment"]["chars"]) == "Zürich\n\U0001f600 5€"

    by_itself(main())


# -- alignment


@pytest.mark.parametrize("chunk", [0.25, 0.05, 0.31])
def test_alignment_is_relative_to_its_own_message(chunk: float) -> None:
    async def main() -> None:
        async with InMemory().serving(quick(chunk=chunk)) as dial:
            client = await dial(multi(sync_alignment="true"))
            await begin(client)
            await say(client, flush=True)
            await close(client)
            messages = await until_final(client)
        chars, starts, offset = [], [], 0.0
        for message in messages[:-1]:
            assert message["alignment"] == message["normalizedAlignment"]
            if message["alignment"] is not None:
                assert set(message["alignment"]) == {"chars", "charStartTimesMs", "charDurationsMs"}
                chars += message["alignment"]["chars"]
                starts += [offset + start for start in message["alignment"]["charStartTimesMs"]]
                assert set(message["alignment"]["charDurationsMs"]) == {60}
            offset += len(base64.b64decode(message["audio"])) / 8
        assert "".join(chars) == TEXT
        assert starts == [60.0 * i for i in range(len(TEXT))]

    by_itself(main())


@pytest.mark.parametrize(
    ("asked", "options", "aligned"),
    [
        ("true", {}, [True, True, True, True]),
        ("true", {"alignments": False}, [False] * 4),
        ("true", {"unaligned": {0, 2}}, [False, True, False, True]),
        ("false", {}, [False] * 4),
    ],
)
def test_alignments_can_be_missing(asked: str, options: dict[str, Any], aligned: list[bool]) -> None:
    async def main() -> None:
        async with InMemory().serving(quick(chunk=0.2, **options)) as dial:
            client = await dial(multi(sync_alignment=asked))
            await begin(client)
            await say(client, flush=True)
            messages = await client.take(4)
        assert [message["alignment"] is not None for message in messages] == aligned

    by_itself(main())


def test_other_spellings() -> None:
    async def main() -> None:
        async with InMemory().serving(quick(spelling=OTHER_SPELLING, chunk=5.0)) as dial:
            client = await dial(multi(sync_alignment="true"))
            await begin(client)
            await say(client, flush=True)
            await close(client)
            audio, final = await client.take(2)
        assert (audio["context_id"], audio["is_final"]) == ("c1", None)
        assert "charsDurationsMs" in audio["alignment"]
        assert not {"contextId", "isFinal"} & set(audio)
        assert final == {"is_final": True, "context_id": "c1"}

    by_itself(main())


# -- what it refuses


@both_ways
@pytest.mark.parametrize("headers", [{}, {"xi-api-key": "wrong"}])
def test_a_wrong_key_is_refused_at_the_upgrade(wire: Wire, headers: dict[str, str]) -> None:
    async def main() -> None:
        fake = quick(key="secret")
        async with wire.serving(fake) as dial:
            with pytest.raises(LinkRefused) as refused:
                await dial(multi(), headers)
        assert refused.value.status == 401
        assert "invalid_api_key" in refused.value.body
        assert "secret" not in refused.value.body
        assert (fake.refused, fake.connections) == (1, [])

    wire.run(main())


@pytest.mark.parametrize("query", [{"output_format": "opus_48000_32"}, {"model_id": "eleven_v3"}])
def test_what_it_cannot_do_is_refused_at_the_upgrade(query: dict[str, str]) -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            with pytest.raises(LinkRefused) as refused:
                await dial(multi(**query))
        assert refused.value.status == 400

    by_itself(main())


@both_ways
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ([{"text": "Hello. ", "context_id": "c1"}], "invalid_first_message"),
        (
            [
                {"text": " ", "context_id": "c1"},
                {"text": "a", "context_id": "c1", "voice_settings": SETTINGS},
            ],
            "policy_violation",
        ),
        (
            # a keepalive that came too early: the context has no settings, and may not get any
            [{"text": "", "context_id": "c1"}, {"text": " ", "context_id": "c1", "voice_settings": SETTINGS}],
            "policy_violation",
        ),
        (['{"text": '], "invalid_message"),
        (["[]"], "invalid_message"),
        ([b"\xff\xfe"], "invalid_message"),
        ([{"text": 5, "context_id": "c1"}], "invalid_message"),
    ],
)
def test_violations_end_the_connection(wire: Wire, script: list[Any], error: str) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            for message in script:
                await client.send(message)
            (answer,) = await client.rest()
        assert (answer["error"], answer["code"]) == (error, 1008)
        assert (client.code, client.reason) == (1008, answer["message"])
        assert fake.wrongs

    wire.run(main())


def test_settings_belong_to_a_context() -> None:
    async def main() -> None:
        fake = quick()
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            await begin(client, "c1", voice_settings=SETTINGS)
            await begin(client, "c2", voice_settings={"speed": 1.1})
            await begin(client, "c3")
            await asyncio.sleep(1)
        assert [said.settings for said in fake.log] == [SETTINGS, {"speed": 1.1}, None]
        assert not fake.wrongs

    by_itself(main())


# -- contexts


@both_ways
def test_five_contexts_and_no_more(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            for number in range(6):
                await begin(client, f"c{number}")
            (answer,) = await client.rest()
        assert answer["error"] == "max_active_conversations"
        assert client.code == 1008
        assert fake.peak_contexts == 5
        assert len(fake.log) == 5

    wire.run(main())


@pytest.mark.parametrize("phantom", [{"flush": True}, {"text": ""}, {"text": "", "flush": True}])
def test_a_flush_or_keepalive_for_no_context_makes_a_phantom(phantom: dict[str, Any]) -> None:
    async def main() -> None:
        fake = quick()
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            await client.send({"context_id": "never opened", **phantom})
            for number in range(4):
                await begin(client, f"c{number}")
            await asyncio.sleep(1)
            assert [said.phantom for said in fake.log] == [True] + [False] * 4
            assert len(fake.wrongs) == 1
            await begin(client, "one too many")
            assert (await client.rest())[0]["error"] == "max_active_conversations"

    by_itself(main())


def test_a_keepalive_without_a_context_makes_none() -> None:
    async def main() -> None:
        fake = quick()
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            for _ in range(3):
                await asyncio.sleep(15)
                await client.send({"text": ""})
            await begin(client)
            await asyncio.sleep(1)
            assert len(fake.log) == 1
        assert not fake.wrongs

    by_itself(main())


def test_text_without_a_context_goes_to_a_default_one() -> None:
    async def main() -> None:
        async with InMemory().serving(quick(chunk=5.0)) as dial:
            client = await dial(multi())
            await client.send({"text": " "})
            await client.send({"text": TEXT, "flush": True})
            (message,) = await client.take(1)
        assert (message["contextId"], heard([message])) == ("default", TEXT)

    by_itself(main())


async def test_a_slot_is_free_only_after_isfinal(virtual_time: Any) -> None:
    fake = quick(final_after=0.4)
    async with InMemory().serving(fake) as dial:
        for wait, free in ((0.0, False), (0.3, False), (0.5, True)):
            client = await dial(multi())
            for number in range(5):
                await begin(client, f"c{number}")
            closed = now()
            await close(client, "c0")
            await asyncio.sleep(wait)
            await begin(client, "c5")
            if free:
                assert await client.take(1) == [{"isFinal": True, "contextId": "c0"}]
                assert fake.log[-5].finished == closed + 0.4
                await close(client, "c5")
                assert await client.take(1) == [{"isFinal": True, "contextId": "c5"}]
            else:
                assert (await client.rest())[-1]["error"] == "max_active_conversations"


def test_a_name_can_be_used_again_after_isfinal() -> None:
    async def main() -> None:
        fake = quick(chunk=5.0)
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            for text in ("One. ", "Two. "):
                await begin(client, voice_settings=SETTINGS)
                await say(client, text, flush=True)
                await close(client)
                assert heard(await until_final(client)) == text
        assert [said.text for said in fake.log] == ["One. ", "Two. "]
        assert not fake.wrongs

    by_itself(main())


def test_what_comes_for_a_closed_context_is_lost() -> None:
    async def main() -> None:
        fake = quick(final_after=1.0)
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await close(client)
            await say(client, "Too late. ", flush=True)
            await close(client)
            await close(client, "c9")
            assert await client.take(1) == [{"isFinal": True, "contextId": "c1"}]
        assert fake.log[0].cancelled == "Too late. "
        assert [what for _, what in fake.wrongs] == [
            "text for c1, which is closed",
            "a flush for c1, which is closed",
            "close_context for c9, which is not open",
        ]
        assert len(fake.log) == 1

    by_itself(main())


# -- ends


async def test_flush_alone_never_gives_isfinal_and_a_close_gives_one(virtual_time: Any) -> None:
    async with InMemory().serving(quick()) as dial:
        client = await dial(multi(inactivity_timeout="180"))
        await begin(client)
        await say(client, flush=True)
        assert heard(await client.take(4)) == TEXT
        await _silent(client, 100.0)
        await close(client)
        assert await client.take(1) == [{"isFinal": True, "contextId": "c1"}]
        await _silent(client, 60.0)


@both_ways
def test_close_context_discards_what_was_not_flushed(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, "Never spoken. ")
            await close(client)
            assert await client.take(1) == [{"isFinal": True, "contextId": "c1"}]
        assert (fake.log[0].cancelled, fake.log[0].audio) == ("Never spoken. ", 0.0)

    wire.run(main())


def test_in_auto_mode_nothing_is_discarded() -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi(auto_mode="true"))
            await begin(client)
            await say(client)
            await close(client)
            assert heard(await until_final(client)) == TEXT

    by_itself(main())


@both_ways
@pytest.mark.parametrize("mode", ["true", "false"])
def test_a_close_right_after_the_flush_gives_silence(wire: Wire, mode: str) -> None:
    async def main() -> None:
        fake = quick(delay=5.0, flush_race=5.0)
        async with wire.serving(fake) as dial:
            client = await dial(multi(auto_mode=mode))
            await begin(client)
            await say(client, flush=True)
            await close(client)
            assert await until_final(client) == [{"isFinal": True, "contextId": "c1"}]
        assert fake.log[0].cancelled == TEXT

    wire.run(main())


@pytest.mark.parametrize(("wait", "said"), [(0.0, ""), (0.001, ""), (0.003, TEXT)])
def test_how_soon_is_right_after_the_flush(wait: float, said: str) -> None:
    async def main() -> None:
        fake = FakeElevenLabs()
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            await asyncio.sleep(wait)
            await close(client)
            assert heard(await until_final(client)) == said

    by_itself(main())


def test_the_race_takes_only_what_was_flushed_last() -> None:
    async def main() -> None:
        async with InMemory().serving(FakeElevenLabs()) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, "One. ", flush=True)
            await asyncio.sleep(1)
            await say(client, "Two. ", flush=True)
            await close(client)
            assert heard(await until_final(client)) == "One. "

    by_itself(main())


def test_flushing_every_token_loses_text() -> None:
    async def main() -> None:
        fake = quick()
        async with InMemory().serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            for token in ("Hello ", "there. "):
                await say(client, token, flush=True)
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)
            await say(client, "Bye.", flush=True)
            await asyncio.sleep(1)
            await close(client)
            assert heard(await until_final(client)) == "Hello Bye."
        assert fake.log[0].cancelled == "there. "
        assert [what for _, what in fake.wrongs] == ["c1 was flushed again too soon"]

    by_itself(main())


def test_texts_are_joined_as_they_come() -> None:
    async def main() -> None:
        async with InMemory().serving(quick()) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, "Hello.")
            await say(client, " ")  # keeps it alive, and is no text
            await say(client, "Bye.", flush=True)
            await close(client)
            assert heard(await until_final(client)) == "Hello.Bye."

    by_itself(main())


# -- barge-in


@pytest.mark.parametrize(("late", "after"), [(0, 0), (2, 2), (None, 11)])
def test_late_audio_after_close_context(late: int | None, after: int) -> None:
    async def main() -> None:
        fake = FakeElevenLabs(late=late, delay=0.1, pace=5.0)
        async with InMemory().serving(fake) as dial:
            client = await dial(multi(auto_mode="true"))
            await begin(client)
            await say(client, "x" * 50)  # 3 s: 12 messages
            await say(client, "y" * 50)
            await client.take(13 if late is None else 1)
            began = now()
            await close(client)
            messages = await until_final(client)
            assert len(messages) == after + 1
            assert now() - began == pytest.approx(after * 0.05 + 0.05)
            await begin(client, "c2")  # a new context speaks undisturbed
            await say(client, "New. ", "c2", flush=True)
            await asyncio.sleep(0.2)
            await close(client, "c2")
            assert heard(await until_final(client, "c2")) == "New. "
        cut = fake.log[0]
        assert cut.late == pytest.approx(after * 0.25)
        assert cut.said + cut.cancelled == "x" * 50 + "y" * 50
        if late is not None:
            assert len(cut.said) == (1 + after) * 2000 // 480

    by_itself(main())


async def test_flushed_text_is_spoken_to_its_end_whatever_late_says(virtual_time: Any) -> None:
    fake = FakeElevenLabs(late=0)
    async with InMemory().serving(fake) as dial:
        client = await dial(multi())
        await begin(client)
        await say(client, flush=True)
        messages = await client.take(1)
        await close(client)
        messages += await until_final(client)
    assert heard(messages) == TEXT
    assert fake.log[0].cancelled == ""


async def test_close_before_the_first_audio_can_still_bring_late_audio(virtual_time: Any) -> None:
    fake = FakeElevenLabs(late=1)
    async with InMemory().serving(fake) as dial:
        client = await dial(multi(auto_mode="true"))
        await begin(client)
        await say(client, "x" * 50)
        await asyncio.sleep(0.05)
        await close(client)
        messages = await until_final(client)
    assert len(messages) == 2
    assert (fake.log[0].late, fake.log[0].characters) == (0.25, 50)


# -- inactivity


@pytest.mark.parametrize(("asked", "seconds"), [("", 20.0), ("5", 5.0), ("180", 180.0), ("600", 180.0)])
async def test_an_idle_socket_is_closed(virtual_time: Any, asked: str, seconds: float) -> None:
    async with InMemory().serving(FakeElevenLabs()) as dial:
        client = await dial(multi(inactivity_timeout=asked))
        await asyncio.sleep(4)
        await begin(client)
        await asyncio.sleep(1)
        await client.send({"text": ""})
        (answer,) = await client.rest()
        assert (answer["error"], client.code) == ("input_timeout_exceeded", 1008)
        assert now() == 5 + seconds


def test_an_idle_socket_is_closed_over_sockets() -> None:
    async def main() -> None:
        async with OverSockets().serving(FakeElevenLabs()) as dial:
            client = await dial(multi(inactivity_timeout="0.05"))
            (answer,) = await client.rest()
            assert (answer["error"], client.code) == ("input_timeout_exceeded", 1008)

    OverSockets().run(main())


async def test_or_an_idle_context_is(virtual_time: Any) -> None:
    fake = FakeElevenLabs(idle_ends="context")
    async with InMemory().serving(fake) as dial:
        client = await dial(multi())
        await asyncio.sleep(50)  # a socket may be idle for ever
        await begin(client, "c1")
        await begin(client, "c2")
        await asyncio.sleep(10)
        await client.send({"text": "", "context_id": "c2"})
        (answer,) = await client.take(1)
        assert now() == 70
        assert (answer["error"], answer["contextId"]) == ("input_timeout_exceeded", "c1")
        (answer,) = await client.take(1)
        assert (now(), answer["contextId"]) == (80, "c2")
        await begin(client, "c1", voice_settings=SETTINGS)  # its slot is free, the socket still open
        await close(client, "c1")
        assert await client.take(1) == [{"isFinal": True, "contextId": "c1"}]
    assert [said.failed for said in fake.log] == ["input_timeout_exceeded"] * 2 + [""]


# -- closing the socket


@both_ways
def test_close_socket_ends_all_contexts(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client, "c1")
            await say(client, flush=True)
            await begin(client, "c2")
            await say(client, "Not flushed. ", "c2")
            await client.send({"close_socket": True})
            messages = await client.rest()
        assert client.code == 1000
        assert heard(messages) == TEXT
        assert {m["contextId"] for m in messages if m["isFinal"]} == {"c1", "c2"}
        assert fake.log[1].cancelled == "Not flushed. "

    wire.run(main())


@both_ways
def test_close_socket_without_a_context(wire: Wire) -> None:
    async def main() -> None:
        async with wire.serving(quick()) as dial:
            client = await dial(multi())
            await client.send({"close_socket": True})
            assert await client.rest() == []
            assert client.code == 1000

    wire.run(main())


@both_ways
def test_a_client_that_leaves(wire: Wire) -> None:
    async def main() -> None:
        fake = quick(delay=60.0)
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            while not fake.generating:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await client.close()
        assert fake.live == 0
        assert fake.generating == 0
        assert fake.log[0].finished is None

    wire.run(main())


# -- stream-input


@both_ways
def test_one_generation(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        async with wire.serving(fake) as dial:
            client = await dial(single())
            await client.send({"text": " ", "voice_settings": SETTINGS})
            await client.send({"text": "Hello "})
            await client.send({"text": "there. ", "flush": True})
            first = await client.take(1)
            await client.send({"text": "Bye."})
            await client.send({"text": ""})
            messages = first + await client.rest()
        assert heard(messages) == "Hello there. Bye."
        assert messages[-1] == {"audio": None, "isFinal": True}
        assert all("contextId" not in message for message in messages)
        assert client.code == 1000

    wire.run(main())


# -- faults


@both_ways
@pytest.mark.parametrize("after", [0, 2])
def test_sudden_death(wire: Wire, after: int) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("drop", after=after))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            messages = await client.rest()
            assert client.code == 1006
            if isinstance(wire, OverSockets):  # in memory a broken link forgets what was not read
                assert len(messages) == after
            assert fake.log[0].audio == pytest.approx(after * 0.25)
            assert len(fake.log[0].said + fake.log[0].cancelled) == len(TEXT)

            again = await dial(multi())  # it happens once
            await begin(again)
            await say(again, flush=True)
            assert heard(await again.take(4)) == TEXT

    wire.run(main())


@both_ways
def test_death_at_the_first_message(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("drop", after=None))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            assert await client.rest() == []
            assert client.code == 1006
        assert not fake.log

    wire.run(main())


@pytest.mark.parametrize("after", [None, 0, 2])
async def test_a_stall(virtual_time: Any, after: int | None) -> None:
    fake = quick()
    fake.faults.append(Fault("stall", after=after))
    async with InMemory().serving(fake) as dial:
        client = await dial(multi())
        await begin(client)
        await say(client, flush=True)
        await client.take(after or 0)
        await _silent(client, 300.0)  # not even the inactivity timeout
        await close(client)
        await client.send("no JSON")
        await _silent(client, 300.0)
        assert fake.live == 1
        await client.close()
        await asyncio.sleep(1)
        assert fake.live == 0
        assert len(fake.connections[0].received) == 4


def test_a_stall_over_sockets_leaves_the_connection_open() -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("stall", after=2))
        async with OverSockets().serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            await client.take(2)
            await close(client)
            pong = await client._socket.ping()
            reading = asyncio.ensure_future(client.receive())
            await pong
            assert not reading.done()
            assert fake.live == 1
            await client.close()
            assert await reading is None

    OverSockets().run(main())


@both_ways
@pytest.mark.parametrize(("code", "reason"), [(1011, "internal error"), (1001, "")])
def test_a_close_from_its_side(wire: Wire, code: int, reason: str) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("close", after=1, code=code, message=reason))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            assert len(await client.rest()) == 1
            assert (client.code, client.reason) == (code, reason)

    wire.run(main())


@both_ways
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("refuse"), "quota_exceeded"),
        (Fault("refuse", after=None), "quota_exceeded"),
        (Fault("refuse", after=1, error="invalid_api_key", message="Invalid API key"), "invalid_api_key"),
    ],
)
def test_quota_and_key_errors(wire: Wire, fault: Fault, error: str) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(fault)
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            messages = await client.rest()
        assert (messages[-1]["error"], messages[-1]["code"]) == (error, 1008)
        assert len(messages) == 1 + (fault.after or 0)
        assert client.code == 1008

    wire.run(main())


@both_ways
def test_garbage_between_the_audio(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("garbage", after=1))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            messages = await client.take(5)
        assert isinstance(messages[1], str)
        assert heard([m for m in messages if isinstance(m, dict)]) == TEXT

    wire.run(main())


@both_ways
def test_an_error_ends_one_context_and_no_other(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("error", after=1, error="text_invalid", message="No."))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client, "c1")
            await begin(client, "c2")
            await say(client, context="c1", flush=True)
            audio, error = await client.take(2)
            assert audio["contextId"] == "c1"
            assert error == {"message": "No.", "error": "text_invalid", "code": 1008, "contextId": "c1"}
            await say(client, context="c2", flush=True)
            first = await client.take(1)
            await close(client, "c2")
            assert heard(first + await until_final(client, "c2")) == TEXT
            for number in range(5):  # the slot is free again
                await begin(client, f"d{number}")
            await close(client, "d0")
            await until_final(client, "d0")
        failed = fake.log[0]
        assert (failed.failed, failed.finished) == ("text_invalid", None)
        assert (failed.said, failed.cancelled) == ("Hell", "o there. ")

    wire.run(main())


@both_ways
def test_a_message_larger_than_most_clients_take(wire: Wire) -> None:
    async def main() -> None:
        fake = quick()
        fake.faults.append(Fault("large", after=1))
        async with wire.serving(fake) as dial:
            client = await dial(multi())
            await begin(client)
            await say(client, flush=True)
            sizes = [len(await client._receive()) for _ in range(4)]  # type: ignore[arg-type]
            assert [size > 2**20 for size in sizes] == [False, True, False, False]
        assert fake.log[0].said == TEXT

    wire.run(main())


# -- what it counts


async def test_concurrency(virtual_time: Any) -> None:
    fake = FakeElevenLabs(delay=0.1)
    async with InMemory().serving(fake) as dial:
        one, two = await dial(multi()), await dial(multi())
        for client, context in ((one, "a"), (one, "b"), (two, "c")):
            await begin(client, context)
            await say(client, context=context, flush=True)
        await asyncio.sleep(10)
        assert (fake.generating, fake.peak, fake.peak_contexts) == (0, 3, 2)
        await begin(one, "d")
        await say(one, context="d", flush=True)
        await asyncio.sleep(0.05)
        assert (fake.generating, fake.peak, fake.peak_contexts) == (1, 3, 3)
    assert {(said.connection, said.name) for said in fake.log} == {(0, "a"), (0, "b"), (1, "c"), (0, "d")}


async def test_every_message_of_the_client_is_kept(virtual_time: Any) -> None:
    fake = quick()
    async with InMemory().serving(fake) as dial:
        client = await dial(multi())
        await asyncio.sleep(2)
        await begin(client)
        await asyncio.sleep(1)
    assert fake.connections[0].received == [(2.0, '{"text": " ", "context_id": "c1"}')]


async def _silent(client: Client, seconds: float) -> None:
    """Nothing comes for so long."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.receive(), seconds)
