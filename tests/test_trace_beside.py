"""Tools, holds, and words that were no turn: read from a record's events, and shown where they belong."""

from __future__ import annotations

from voiceflow.trace.beside import Aside, Held, ToolRun, asides, holds, spoken_over, tool_runs
from voiceflow.trace.file import CallRecord, Said, TurnRecord, from_json, to_json
from voiceflow.trace.page import page
from voiceflow.trace.path import Step
from voiceflow.trace.recorder import Event, Outcome
from voiceflow.trace.table import turn_table
from voiceflow.trace.waterfall import Look, transcript


def heard(reply: int, begin: float, over: float | None, cut: str = "") -> TurnRecord:
    return TurnRecord(
        reply, reply, begin, Step.END_OF_TURN, begin, 0.0, [], asked="Hm?", heard="Yes.", cut=cut, over=over
    )


def tool(at: float, name: str, reply: int, state: str, words: str, took: float | None = None) -> Event:
    return Event(at, "tool", name, None, reply, words, state, {"took": took} if took is not None else {})


def record(*events: Event, turns: list[TurnRecord] | None = None) -> CallRecord:
    turns = turns if turns is not None else [heard(1, 1.0, 4.0), heard(2, 6.0, 9.0, "barge-in")]
    said = [Said(1.0, "agent", "Yes.", 1)]
    return CallRecord("w0-1", "", 10.0, "", "", [], Outcome(""), turns, said, list(events))


def test_a_use_of_a_tool_is_its_beginning_and_its_end() -> None:
    found = tool_runs(
        record(
            tool(2.0, "look", 1, "running", '{"day": 1}'),
            tool(2.1, "look", 1, "running", '{"day": 2}'),
            tool(2.2, "boook", 1, "refused", "There is no tool boook."),
            tool(2.5, "look", 1, "done", "free", 0.5),
            tool(3.0, "look", 1, "failed", "It failed.", 0.9),
            tool(6.0, "book", 2, "running", "{}"),
            tool(7.0, "end_call", 2, "cancelled", "The caller spoke."),
        )
    )
    assert found == [
        ToolRun(2.0, "look", 1, "done", '{"day": 1}', "free", 0.5),
        ToolRun(2.1, "look", 1, "failed", '{"day": 2}', "It failed.", 0.9),
        ToolRun(2.2, "boook", 1, "refused", result="There is no tool boook."),
        ToolRun(6.0, "book", 2, "running", "{}"),
        ToolRun(7.0, "end_call", 2, "cancelled", result="The caller spoke."),
    ]


def test_an_end_whose_beginning_is_lost_is_a_use_too() -> None:
    assert tool_runs(record(tool(2.5, "look", 1, "done", "free", 0.5))) == [
        ToolRun(2.5, "look", 1, "done", result="free")
    ]


def test_holds() -> None:
    found = holds(
        record(
            Event(1.5, "held", reply=1),
            Event(2.0, "goes on", reply=1),
            Event(3.0, "held", reply=1),
            Event(7.0, "held", reply=2),
        )
    )
    assert found == [Held(1, 1.5, 2.0, True), Held(1, 3.0, 4.0, False), Held(2, 7.0, 9.0, False)]


def test_a_hold_at_the_end_of_a_record_that_ends_too_early() -> None:
    cut_short = record(Event(7.0, "held", reply=9), Event(7.1, "goes on", reply=8))
    assert holds(cut_short) == [Held(9, 7.0, 10.0, False)]


def test_words_that_were_no_turn() -> None:
    found = record(
        Event(2.0, "backchannel", words="uh-huh"),
        Event(3.0, "backchannel"),
        Event(8.0, "kept", words="what time?"),
    )
    assert asides(found) == [Aside(2.0, "uh-huh", False), Aside(8.0, "what time?", True)]
    over = [spoken_over(found, at) for at in (2.0, 5.0, 8.0)]
    assert [turn.reply if turn is not None else None for turn in over] == [1, None, 2]
    assert spoken_over(record(turns=[heard(1, 1.0, None)]), 9.9) is not None


def busy() -> CallRecord:
    return record(
        tool(1.5, "look", 1, "running", '{"day": "<b>"}'),
        Event(2.0, "held", reply=1),
        Event(2.5, "goes on", reply=1),
        Event(2.6, "backchannel", words="uh-huh"),
        tool(3.0, "look", 1, "done", "free & open", 1.5),
        Event(8.0, "kept", words="what time?"),
    )


def test_the_page_shows_them_at_their_replies() -> None:
    shown = page(from_json(to_json(busy()).encode()))
    assert "<b>look</b> <bdi>{&quot;day&quot;: &quot;&lt;b&gt;&quot;}</bdi>" in shown
    assert "done 1500 ms</span> → " in shown
    assert "free &amp; open" in shown
    assert "(held once for a voice, 0.5 s)" in shown
    assert 'class="held" style="left:20.000%;width:5.000%" href="#r1"' in shown
    assert shown.index("uh-huh") < shown.index("(only listens)") < shown.index("(is answered later)")


def test_the_words_show_them_in_order() -> None:
    lines = [line.plain for line in transcript(busy(), Look(80))]
    assert lines == [
        "   1.00 s  agent  Yes.",
        '   1.50 s  tool   look {"day": "<b>"}  done 1500 ms  → free & open',
        "   2.60 s  caller uh-huh  (only listens)",
        "   8.00 s  caller what time?  (is answered later)",
    ]
    assert all(line.plain.isascii() for line in transcript(busy(), Look(80, ascii=True)))


def test_tools_that_do_not_fit_beside_have_a_line_of_their_own() -> None:
    wide, narrow = turn_table(busy(), 100), turn_table(busy(), 24)
    assert [str(cell) for cell in wide.columns[-1]._cells] == [
        "heard  look 1500 ms",
        "cut by the caller after 3.0 s",
        "of 2",
    ]
    assert [str(cell) for cell in narrow.columns[-1]._cells][:2] == ["heard", "look 1500 ms"]
