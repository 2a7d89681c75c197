"""A call from prepare to its record: say, hangup, hooks, links, deadline, and every way to end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from engine_calls import Speaker, Turner, phone, settled

from voiceflow.call import Call
from voiceflow.declaration.pipeline import Pipeline
from voiceflow.engine.processor import Processor, on, tap
from voiceflow.errors import CallEnded, DeclarationError, LinkError
from voiceflow.frames import AudioIn, CallEnd, CallStart, Dtmf, Heard, Prompt, ReplyEnd, Sentence
from voiceflow.record import Phase
from voiceflow.services import Services
from voiceflow.testing import Break, Close, ScriptedLink, run
from voiceflow.testing.line import MemoryCodec
from voiceflow.testing.rig import Rig


def now() -> float:
    return asyncio.get_running_loop().time()


# -- say


def test_say_returns_what_was_heard_once_it_was() -> None:
    async def main() -> None:
        async with phone(Speaker(), delay=0.05) as p:
            assert await p.call.say("hello") == "hello"
            assert now() == pytest.approx(0.5 + 0.1, abs=0.02)
            assert [(m.role, m.content) for m in p.call.history.messages] == [("assistant", "hello")]

    run(main())


def test_say_waits_for_the_floor_and_for_its_place_in_the_row() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            said: list[tuple[str, float]] = []

            async def say(text: str) -> None:
                said.append((await p.call.say(text), now()))

            tasks = [asyncio.create_task(say(text)) for text in ("one", "two")]
            await asyncio.sleep(5)
            assert p.carrier.wire == []
            p.turner.turns.ended("a question")
            await asyncio.sleep(1)
            assert p.carrier.wire == [], "the answer to the caller goes first"
            p.turns.stop("no answer comes")
            await asyncio.gather(*tasks)
            assert said == [("one", pytest.approx(6.3, abs=0.05)), ("two", pytest.approx(6.6, abs=0.05))]

    run(main())


def test_say_without_a_speaker_is_a_declaration_error() -> None:
    async def main() -> None:
        async with phone() as p:
            with pytest.raises(DeclarationError, match=r"call.say\(\) needs a sentence aggregator"):
                await p.call.say("hello")

    run(main())


def test_say_that_gives_up_waiting_leaves_the_floor_to_others() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await p.call.say("too late")
            p.turner.turns.ended()
            p.turns.stop("")
            assert await p.call.say("in time") == "in time"

    run(main())


def test_say_cancelled_in_the_tick_of_its_grant_kills_its_own_reply_and_no_other() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            waiting = asyncio.create_task(p.call.say("never"))
            await settled()
            p.turner.turns.ended()
            p.turns.stop("")  # the floor is given to say, in this very instant ...
            p.turner.turns.ended("a question")  # ... taken by the caller, and answered ...
            answer = p.turns.live
            waiting.cancel()  # ... and only now say gives up
            await settled()
            assert p.turns.live is answer
            p.turner.turns.started()
            waiting = asyncio.create_task(p.call.say("never"))
            await settled()
            p.turner.turns.ended()
            p.turns.stop("")
            assert p.turns.live is not None
            waiting.cancel()
            await settled()
            assert p.turns.live is None, "a reply that nobody speaks would block the floor for ever"

    run(main())


@pytest.mark.parametrize("interruptible", [True, False])
def test_say_whose_floor_is_taken_in_the_tick_of_its_grant_is_the_next(interruptible: bool) -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            said: list[str] = []

            async def say(text: str) -> None:
                said.append(await p.call.say(text, interruptible=interruptible))

            tasks = [asyncio.create_task(say(text)) for text in ("one", "two")]
            await settled()
            p.turner.turns.ended()
            p.turns.stop("")  # the floor is given to the first ...
            p.turner.turns.ended("a key, say")  # ... and taken, and nothing was said
            await settled()
            assert said == []
            p.turns.stop("no answer comes")
            await asyncio.gather(*tasks)
            assert said == ["one", "two"]

    run(main())


def test_say_with_a_timeout_does_not_take_the_outcome_from_who_waits_for_it_too() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            saying = asyncio.create_task(p.call.say("a long sentence"))
            await asyncio.sleep(0.2)
            hanging_up = asyncio.create_task(p.call.hangup())
            await asyncio.sleep(0.2)
            saying.cancel()
            await asyncio.sleep(5)
            assert p.call.phase is Phase.OVER
            assert not hanging_up.cancelled()
            assert len(p.carrier.heard) >= 15 * 800

    run(main())


def test_say_when_the_call_ends_first() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            waiting = asyncio.create_task(p.call.say("never"))
            await settled()
            p.call.end("enough")
            with pytest.raises(CallEnded):
                await waiting
            with pytest.raises(CallEnded):
                await p.call.say("after the end")

    run(main())


def test_only_so_many_may_wait_to_say_something() -> None:
    from voiceflow.engine.keeper import WAITING_BOUND

    async def main() -> None:
        async with phone(Speaker()) as p:
            p.turner.turns.started()
            tasks = [asyncio.create_task(p.call.say("x")) for _ in range(WAITING_BOUND)]
            await settled()
            with pytest.raises(CallEnded, match="wait already"):
                await p.call.say("one too many")
            p.call.end("enough")
            assert all(isinstance(e, CallEnded) for e in await asyncio.gather(*tasks, return_exceptions=True))

    run(main())


# -- hangup and the other ways to end


def test_hangup_waits_for_what_is_being_said() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            asyncio.create_task(p.call.say("goodbye")).add_done_callback(lambda t: t.exception())
            await asyncio.sleep(0.1)
            await p.call.hangup("said goodbye")
            assert now() == pytest.approx(0.7, abs=0.03)
        assert p.result.reason == "said goodbye"
        assert p.result.normal
        assert len(p.carrier.heard) == 7 * 800
        assert p.carrier.link.closed is not None

    run(main())


def test_hangup_waits_no_longer_than_it_says(logged: list[str]) -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            asyncio.create_task(p.call.say("goodbye" * 10)).add_done_callback(lambda t: t.exception())
            await asyncio.sleep(0.1)
            await p.call.hangup(wait=2.0)
            assert now() == pytest.approx(2.1)
        assert p.result.reason == "the agent hung up"

    run(main())
    assert any("hung up before the caller had heard everything: 2 s" in m for m in logged)


def test_hangup_with_nothing_to_wait_for_is_immediate() -> None:
    async def main() -> None:
        async with phone(Speaker()) as p:
            await p.call.hangup()
            assert now() == 0.0

    run(main())


def test_the_deadline_ends_the_call() -> None:
    async def main() -> None:
        async with phone(limit=30.0) as p:
            await asyncio.sleep(31)
            assert p.call.phase is Phase.OVER
        assert p.result.reason == "the call reached its limit of 30 s"
        assert p.call.deadline == 30.0
        assert p.result.seconds == pytest.approx(30.0)

    run(main())


@pytest.mark.parametrize(
    ("how", "reason", "normal"),
    [
        ("stop", "the caller hung up", True),
        (Close(1000), "the carrier closed the stream", True),
        (Break("reset by peer"), "the line was lost: ", False),
    ],
)
def test_the_line_ends_the_call(how: Any, reason: str, normal: bool) -> None:
    async def main() -> None:
        async with phone() as p:
            p.link.peer.play([how])
            await asyncio.sleep(1)
            assert p.call.phase is Phase.OVER
        assert p.result.reason.startswith(reason)
        assert (p.result.normal, p.result.fault) == (normal, None)

    run(main())


def test_a_carrier_that_takes_nothing_is_given_up() -> None:
    async def main() -> None:
        async with phone() as p:

            async def stuck(message: Any) -> None:
                await asyncio.sleep(1e6)

            p.call.line.link.send = stuck  # type: ignore[method-assign,union-attr]
            p.call.line.link.send_at_once = lambda message: False  # type: ignore[method-assign,union-attr]
            p.speak(p.answer(), b"\x01" * 8000, end=True)
            await asyncio.sleep(5.01)
        assert "the carrier took no message for 5 s" in p.result.reason
        assert not p.result.normal

    run(main())


def test_the_first_reason_counts() -> None:
    async def main() -> None:
        async with phone() as p:
            p.call.end("first")
            p.call.end("second")
        assert p.result.reason == "first"

    run(main())


def test_the_record_is_complete_when_the_call_died() -> None:
    class Dies(Processor):
        @on(Dtmf)
        def digit(self, frame: Dtmf) -> Dtmf:
            raise RuntimeError("bug")

    async def main() -> None:
        async with phone(Dies(), id="CA1") as p:
            p.speak(p.answer(), b"\x01" * 8000, "one two three four", end=True)
            await asyncio.sleep(0.7)
            p.link.peer.send(b"\xff" * 160)
            p.link.peer.send("digit 5")
            p.link.peer.send("nonsense")
            await asyncio.sleep(1)
            assert p.call.phase is Phase.OVER
        record = p.result
        assert record.id == "CA1"
        assert record.fault == record.reason == "Dies failed in digit: RuntimeError: bug"
        assert not record.normal
        assert record.seconds == pytest.approx(0.7)
        assert record.figures["turns"] == 1
        assert record.figures["packets_in"] == 1
        assert record.figures["underruns"] == 0
        assert [(m.content, m.cut) for m in p.call.history.messages] == [("one two", True)]

    run(main())


def test_evidence_that_comes_while_the_call_is_closing_harms_nobody(logged: list[str]) -> None:
    """The caller goes on speaking, and the line's reader reading, while handlers of CallEnd finish."""

    class Farewell(Processor):
        @on(CallEnd)
        async def end(self, frame: CallEnd) -> None:
            await asyncio.sleep(1)
            turns = self.call.turns
            turns.started()
            turns.stop("late")
            with pytest.raises(CallEnded):
                await self.call.turns.take_floor()

    async def main() -> None:
        async with phone(Farewell()) as p:
            p.speak(p.answer(), b"\x01" * 8000, "one", end=True)
            await asyncio.sleep(0.1)

    run(main())
    assert not [m for m in logged if m.startswith(("WARNING", "ERROR"))]


def test_abandon_closes_a_call_whose_stream_never_came() -> None:
    stopped: list[str] = []

    class Stops(Processor):
        async def start(self) -> None:
            self.spawn(asyncio.sleep(1e6), "forever")  # type: ignore[arg-type]

        async def stop(self) -> None:
            stopped.append(self.name)

    async def main() -> None:
        call = Call(MemoryCodec())
        ended: list[Call] = []
        call.on_end(ended.append)
        call.prepare(Pipeline(Stops(), parts=True))
        await asyncio.sleep(1)
        await call.abandon("nobody came")
        await call.abandon("twice")
        assert stopped == ["Stops"]
        assert ended == [call]
        assert call.phase is Phase.OVER

    run(main())


def test_a_call_that_was_not_prepared_says_so() -> None:
    async def main() -> None:
        call = Call(MemoryCodec())
        with pytest.raises(CallEnded, match="no pipeline yet"):
            await call.say("x")
        with pytest.raises(CallEnded, match="not started yet"):
            _ = call.turns
        await call.abandon("nothing to do")
        call.prepare(Pipeline(Turner(), parts=True))
        with pytest.raises(DeclarationError, match="has a pipeline already"):
            call.prepare(Pipeline(Turner(), parts=True))
        await call.abandon("done")

    run(main())


# -- hooks


def test_hooks_sync_and_async_run_in_their_time() -> None:
    order: list[str] = []

    def prepare(call: Call) -> None:
        @call.on_start
        def first(c: Call) -> None:
            order.append(f"start {c.phase.value} {c.caller} {c.parameters['a']}")

        @call.on_start
        async def greet(c: Call) -> None:
            order.append(await c.say("hello"))

        @call.on_end
        def last(c: Call) -> None:
            order.append(f"end {c.phase.value}")

        @call.on_end
        async def later(c: Call) -> None:
            await asyncio.sleep(1)
            order.append("end, later")

    async def main() -> None:
        async with phone(Speaker(), prepare=prepare, caller="+1", parameters={"a": "b"}):
            await asyncio.sleep(2)
        assert order == ["start live +1 b", "hello", "end closing", "end, later"]

    run(main())


def test_a_failing_start_hook_ends_the_call_and_a_failing_end_hook_does_not_stop_the_others(
    logged: list[str],
) -> None:
    ran: list[str] = []

    def prepare(call: Call) -> None:
        @call.on_start
        async def fails(c: Call) -> None:
            raise ValueError("no such customer")

        @call.on_end
        def fails_too(c: Call) -> None:
            raise ValueError("no disk")

        @call.on_end
        def last(c: Call) -> None:
            ran.append("last")

    async def main() -> None:
        async with phone(prepare=prepare) as p:
            await asyncio.sleep(0.1)
        assert p.result.fault == "the call failed in its task start hook: ValueError: no such customer"
        assert ran == ["last"]

    run(main())
    assert any("an end hook failed: no disk" in m for m in logged)


def test_a_slow_end_hook_is_bounded(logged: list[str]) -> None:
    def prepare(call: Call) -> None:
        @call.on_end
        async def slow(c: Call) -> None:
            await asyncio.sleep(1e6)

    async def main() -> None:
        async with phone(prepare=prepare):
            pass
        assert now() <= 5.1

    run(main())
    assert any("an end hook took more than 5 s" in m for m in logged)


def test_every_processor_sees_the_start_and_the_end() -> None:
    seen: list[Any] = []

    class Sees(Processor):
        @on(CallStart, CallEnd)
        def see(self, frame: Any) -> None:
            seen.append(frame)

    async def main() -> None:
        async with phone(Sees(), caller="+1", called="+2") as p:
            p.call.end("over")
        assert seen == [CallStart("+1", "+2", {}), CallEnd("over")]

    run(main())


# -- what a processor may use


def test_compute_takes_its_cost_in_virtual_time() -> None:
    async def main() -> None:
        async with Rig() as rig:
            assert await rig.call.compute(lambda a, b: a + b, 0.25, 1, b=2) == 3
            assert now() == 0.25
            assert rig.call.now() == 0.25

    run(main())


def test_compute_runs_off_the_loop_when_live() -> None:
    import threading

    async def main() -> None:
        services = Services(workers=1)
        names = await asyncio.gather(
            *(services.compute(lambda: threading.current_thread().name, 0.5) for _ in range(5))
        )
        assert all(name.startswith("voiceflow-compute") for name in names)
        with pytest.raises(ValueError, match="no"):
            await services.compute(_raise, 0.1)
        await services.close()
        await services.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def _raise() -> None:
    raise ValueError("no")


def test_links_come_from_the_scripted_dial_and_are_closed_at_the_end() -> None:
    links: list[ScriptedLink] = []
    dialled: list[tuple[str, Mapping[str, str], float]] = []

    async def dial(url: str, *, headers: Mapping[str, str], timeout: float) -> ScriptedLink:
        if "down" in url:
            raise LinkError("refused")
        dialled.append((url, headers, timeout))
        links.append(ScriptedLink(name=url))
        return links[-1]

    class Vendor(Processor):
        async def start(self) -> None:
            self.link = await self.call.link("wss://a", headers={"k": "v"}, timeout=3.0)

        async def stop(self) -> None:
            assert links[0].closed is None, "it may still say goodbye in stop()"

    async def main() -> None:
        async with Rig(Vendor(), services=Services(dial=dial)) as rig:
            with pytest.raises(LinkError, match="refused"):
                await rig.call.link("wss://down")
            assert links[0].closed is None
        assert dialled == [("wss://a", {"k": "v"}, 3.0)]
        assert links[0].closed == Close(1000)

    run(main())


def test_ids_are_random_but_seeded() -> None:
    def ids(seed: int | None) -> list[str]:
        call = Call(MemoryCodec(), seed=seed)
        return [call.new_id("r-") for _ in range(3)]

    assert ids(5) == ids(5)
    assert ids(5) != ids(6)
    assert ids(None) != ids(None)
    assert len(set(ids(5))) == 3
    assert all(len(i) == 18 for i in ids(5))


def test_state_and_log_belong_to_the_call() -> None:
    from loguru import logger

    async def main() -> None:
        lines: list[Any] = []
        sink = logger.add(lambda m: lines.append((m.record["extra"].get("call"), m.record["message"])))
        try:
            async with phone(id="CA1") as one, phone(id="CA2") as two:
                one.call.state["x"] = 1
                assert two.call.state == {}
                one.call.log.info("from one")
                two.call.log.info("from two")
        finally:
            logger.remove(sink)
        assert ("CA1", "from one") in lines
        assert ("CA2", "from two") in lines

    run(main())


def test_a_spawned_task_that_raises_names_its_owner_and_none_outlives_the_call() -> None:
    class Spawns(Processor):
        async def start(self) -> None:
            self.spawn(self.forever(), "reader")

        async def forever(self) -> None:
            await asyncio.sleep(1e6)

        async def breaks(self) -> None:
            raise KeyError("x")

    async def main() -> None:
        async with Rig(Spawns()) as rig:
            rig.processors[0].spawn(rig.processors[0].breaks(), "writer")  # type: ignore[attr-defined]
            await rig.settled()
            assert rig.fault == "Spawns failed in its task writer: KeyError: 'x'"

    run(main())


def test_caller_audio_is_numbered_by_samples_and_digits_arrive() -> None:
    class Hears(Processor):
        def __init__(self) -> None:
            self.got: list[Any] = []

        @tap(AudioIn, Dtmf)
        def hear(self, frame: Any) -> None:
            self.got.append(frame.at if isinstance(frame, AudioIn) else frame.digit)

    async def main() -> None:
        hears = Hears()
        async with phone(hears) as p:
            p.link.peer.play([b"\xff" * 160, "digit 1", b"\xff" * 100, b"\xff" * 160])
            await settled()
            assert hears.got == [0, "1", 160, 260]

    run(main())


def test_heard_goes_up_and_the_answer_to_a_prompt_comes_from_the_chain() -> None:
    class Answers(Processor):
        emits = (Sentence, ReplyEnd)

        def __init__(self) -> None:
            self.heard: list[Heard] = []

        @on(Prompt, stops=True)
        def answer(self, prompt: Prompt) -> Any:
            yield Sentence(f"you said {prompt.text}")
            yield ReplyEnd()

        @on(Heard)
        def told(self, frame: Heard) -> None:
            self.heard.append(frame)

    async def main() -> None:
        answers = Answers()
        async with phone(answers, Speaker()) as p:
            p.turner.turns.ended("hi")
            await asyncio.sleep(3)
            assert [(h.text, h.final) for h in answers.heard] == [("you said hi", True)]
            assert [m.content for m in p.call.history.messages] == ["hi", "you said hi"]

    run(main())
