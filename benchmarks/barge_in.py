"""From the frame that completes Silero's decision to Twilio's `clear` on the wire, over a real socket.

The agent is `benchmarks.agent`, in a process of its own, on the default event loop: voiceflow's server, its
Twilio routes, and the chain of `pipelines/vad_only.py` with a shorter pause and the 6.2 s answer. The
caller is `benchmarks.clear_driver`, in this process, the same as for the peer: it asks the webhook for the
stream's URL, then talks and is quiet in turn, in real time, for `rounds` rounds of 1.1 s.

Which message completes the decision comes from the same SileroVAD arithmetic over the same audio beforehand
(256-sample windows, two of them at 0.5 or more): it counts samples, not the clock. `onset_delay_ms` is that
decision's own delay after the caller began to speak, in audio; it is not in the latency.

In the time measured: the loopback, the agent's waking up, the WebSocket library, JSON and mu-law decoding,
the routes to the VAD, Silero, the turn's start, the seven steps of Interrupt, and the write of `clear`. Not
in it: most of the driver's own waking up (`benchmarks.precise`).

The first round has no decision here: nothing is being said yet, so there is nothing to clear.

`others`: the same while so many other callers do the same thing with the same agent, out of step, from a
third process. That makes three busy processes; on a machine with two cores the driver's own reading waits
for a core too, and that waiting is in the figures. `pacing_lag_ms` of driver and load says how much they
waited.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

import numpy as np

from benchmarks.agent import running
from benchmarks.chain import finish, ours, target
from benchmarks.clear_driver import FRAME, caller_audio, report
from benchmarks.load import others
from benchmarks.measure import default_loop
from benchmarks.precise import drive_precisely
from processors.silero.hysteresis import Hysteresis, Started
from processors.silero.model import WINDOW, SileroModel
from voiceflow.audio import decode
from voiceflow.frames import PHONE

MEDIAN_AT_MOST_MS, P99_AT_MOST_MS = 1.0, 3.0
SETTLE = 1.0


def decisions(payloads: list[bytes]) -> list[int]:
    """Indices of the messages on which SileroVAD decides that the caller has begun to speak."""
    model, window = SileroModel.shared(), WINDOW[PHONE.rate]
    state, hysteresis = model.state(PHONE.rate), Hysteresis()
    pcm = np.frombuffer(decode(b"".join(payloads), PHONE), np.int16)
    found = []
    for end in range(window, len(pcm) + 1, window):
        if isinstance(hysteresis.feed(model.step(state, pcm[end - window : end]), end), Started):
            found.append((end - 1) // FRAME)
        if hysteresis.take_reset():
            model.reset(state)
    return found


def run(
    rounds: int = 151, loads: tuple[int, ...] = (0, 10, 30), loaded_rounds: int = 46, loop: str | None = None
) -> dict[str, Any]:
    """`rounds` rounds alone and `loaded_rounds` with so many other callers, as a dict for JSON. About 5 min.

    `loop` is the agent's event loop, "asyncio" or "uvloop" (default: uvloop if there).
    """
    loop = loop or default_loop()
    setups = {}
    for others_count in loads:
        turns = rounds if others_count == 0 else loaded_rounds
        name = "alone" if others_count == 0 else f"with {others_count} other calls"
        setups[name] = asyncio.run(_measure(turns, others_count, loop))
    targets = []
    for name, figures in setups.items():
        latency = figures["decision_to_clear_ms"]
        targets += [
            target(f"decision to clear, median, {name}", latency.get("median"), MEDIAN_AT_MOST_MS, "ms"),
            target(f"decision to clear, p99, {name}", latency.get("p99"), P99_AT_MOST_MS, "ms"),
            target(f"clear missing or followed by audio, {name}", _wrong(figures), 0, "calls"),
        ]
    return {
        "benchmark": "vad_to_clear",
        "ours": ours(),
        "event_loop": loop,
        "rounds": rounds,
        "setups": setups,
        "targets": targets,
    }


async def _measure(rounds: int, others_count: int, loop: str) -> dict[str, Any]:
    payloads = caller_audio(rounds)
    deciding = decisions(payloads)
    async with running(loop=loop) as agent:
        places = [await agent.dial(f"CA{number:032x}") for number in range(1, others_count + 1)]
        async with others(places, rounds + 4) as load:
            await asyncio.sleep(SETTLE if places else 0.0)
            url, start = await agent.dial("CA" + "f" * 32)
            wire = await asyncio.to_thread(drive_precisely, url, payloads, start=start)
    return {**report(wire, deciding[1:]), "others": load.report}


def _wrong(figures: dict[str, Any]) -> int:
    return int(figures["missing"] + figures["unexpected"] + figures["clears_followed_by_media"])


def main() -> None:
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--rounds", type=int, default=151)
    parser.add_argument("--loads", type=int, nargs="*", default=[0, 10, 30])
    parser.add_argument("--loaded-rounds", type=int, default=46)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default=default_loop())
    options = parser.parse_args()
    result = run(options.rounds, tuple(options.loads), options.loaded_rounds, options.loop)
    finish(result, options.loop)


if __name__ == "__main__":
    main()
