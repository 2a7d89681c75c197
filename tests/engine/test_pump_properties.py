"""Random chains, random frames, random Interrupts: the laws of the pump hold in every life."""

from __future__ import annotations

from engine_laws import (
    ASYNC_GENERATOR,
    COROUTINE,
    GENERATOR,
    KINDS,
    OPS,
    PLAIN,
    A,
    B,
    Behaviour,
    Block,
    C,
    D,
    Life,
    check_life,
    live,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiceflow.testing import run

BOUNDED = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

DELAYS = st.sampled_from([0.0, 0.0, 0.001, 0.02, 0.3])
OF_AGENT = st.builds(
    Behaviour,
    kind=st.sampled_from(KINDS),
    op=st.sampled_from(OPS),
    width=st.integers(0, 3),
    before=DELAYS,
    between=DELAYS,
    cleanup=DELAYS,
    stops_reply_at=st.sampled_from([-1, -1, -1, 3]),
)
OF_CALLER = st.builds(
    Behaviour,
    kind=st.sampled_from(KINDS),
    op=st.sampled_from(OPS),
    width=st.integers(0, 3),
    before=DELAYS,
    between=DELAYS,
)
AT_ONCE = st.builds(Behaviour, kind=st.sampled_from(KINDS), op=st.sampled_from(OPS), width=st.integers(0, 3))


def chosen(*entries: st.SearchStrategy[tuple[type, Behaviour]]) -> st.SearchStrategy[tuple]:
    return st.lists(st.one_of(*entries), max_size=3, unique_by=lambda e: e[0]).map(tuple)


def blocks(of_caller: st.SearchStrategy[Behaviour]) -> st.SearchStrategy[tuple[Block, ...]]:
    agent = [st.tuples(st.just(t), OF_AGENT) for t in (A, B)]
    caller = [st.tuples(st.just(t), of_caller) for t in (C, D)]
    block = st.builds(
        Block,
        handles=chosen(*agent, *caller),
        taps=chosen(*agent, *caller),
        control=st.sampled_from([None, None, PLAIN, COROUTINE]),
        mark=st.sampled_from([1, 2, 256]),
    )
    socket = st.builds(
        Block,
        handles=chosen(*caller),
        socket=st.sampled_from([0.0, 0.01]),
        mark=st.sampled_from([1, 256]),
    )
    return st.lists(st.one_of(block, block, block, socket), min_size=1, max_size=6).map(tuple)


STEPS = st.tuples(
    st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.021, 0.5]),
    st.sampled_from(
        ["speak"] * 8
        + ["caller"] * 3
        + ["ended"] * 3
        + ["finish", "started", "may_be_over", "resumed", "stop", "hold", "unhold", "ping", "middle"]
    ),
    st.integers(1, 12),
)
SCRIPTS = st.lists(STEPS, min_size=1, max_size=25).map(lambda s: ((0.0, "ended", 0), *s))
TICKS = st.sampled_from([1, 2, 7, 256])


def lives(of_caller: st.SearchStrategy[Behaviour] = OF_CALLER) -> st.SearchStrategy[Life]:
    return st.builds(
        Life, blocks=blocks(of_caller), script=SCRIPTS, tick=TICKS, turn=st.sampled_from([1, 3, 64])
    )


@BOUNDED
@given(lives())
def test_any_life_keeps_every_law(life: Life) -> None:
    check_life(run(live(life)))


@BOUNDED
@given(lives(AT_ONCE))
def test_the_caller_never_waits_for_the_agent(life: Life) -> None:
    """Handlers of caller frames that take no time: then no caller frame takes any, whatever agents do."""
    check_life(run(live(life)))


@BOUNDED
@given(blocks(OF_CALLER), st.integers(1, 300), TICKS)
def test_a_whole_reply_arrives_in_order_with_its_end_last(
    chain: tuple[Block, ...], frames: int, tick: int
) -> None:
    """No Interrupt at all: nothing may be lost, in bursts that are larger than what a tick moves."""
    chain = tuple(_calm(block, widens=place == 0) for place, block in enumerate(chain))
    script = ((0.0, "ended", 0), (0.0, "speak", frames), (0.0, "caller", 10), (0.0, "finish", 0))
    check_life(run(live(Life(chain, script, tick=tick))))


def _calm(block: Block, *, widens: bool) -> Block:
    """Short delays, nothing that stops the reply; only one block of a chain makes more frames of one."""
    handles = tuple(
        (
            t,
            Behaviour(
                b.kind, b.op if widens or b.op != "push" else "copy", b.width if widens else 1, b.before / 100
            ),
        )
        for t, b in block.handles
    )
    return Block(handles, (), block.socket, block.control, block.mark)


SLOW = Behaviour(ASYNC_GENERATOR, "copy", before=0.1, cleanup=0.3)


@BOUNDED
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4), SCRIPTS)
def test_slow_clean_ups_delay_nobody(kinds: list[str], script: tuple[tuple[float, str, int], ...]) -> None:
    chain = tuple(
        Block(((A, SLOW), (C, Behaviour(kind))), control=COROUTINE if kind == GENERATOR else None)
        for kind in kinds
    )
    check_life(run(live(Life(chain, script))))
