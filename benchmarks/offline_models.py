"""The models of the offline agent: how well they hear, how long they take, and what that costs other callers.

    accuracy   word error rate of MoonshineSTT's model on recordings of people: as they are, and through a
               phone line (8 kHz, mu-law). Words are compared in lower case, numbers spelled out
    stages     ms from asking to the answer, through the model process, one job at a time: a recording to its
               text, a sentence to the first of its audio
    lag        how late a timer of 20 ms fires on the event loop that asks, while `callers` have a recording
               transcribed and a sentence spoken (an answer) over and over without a pause: in the model
               process; in the pool of threads that `Services.compute` has; the same with a switch interval of
               0.5 ms instead of 5; and with nothing to do, for what the machine does by itself. Callers who
               also listen and think ask ten times less

`--recordings FOLDER` adds those of PocketSphinx (Debian: pocketsphinx-testdata, in
/usr/share/pocketsphinx/test/data) to the ones that are in this repository and in the package moonshine-voice.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inflect
import numpy as np

from benchmarks.chain import finish, target
from benchmarks.measure import default_loop, new_loop, summary
from processors.hibari import HibariTTS
from processors.hibari.model import Hibari
from processors.moonshine import MoonshineSTT
from processors.moonshine.model import RATE, Moonshine
from voiceflow.assets import speech
from voiceflow.audio import Samples, decode, encode, read_wav, resample
from voiceflow.models import ModelHost
from voiceflow.services import Services

ERRORS = {"wide": 0.016, "phone": 0.039}
"""Word error rates that were measured on twelve other recordings."""
TICK = 0.02
LAG_MS = 10.0
"""Aimed at, 99 of 100 times."""
SENTENCES = (
    "Hello.",
    "Thanks for calling, how can I help you?",
    "We are open from eight in the morning until six in the evening, Monday to Friday.",
)
BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
HERE = {
    "go_forward_ten_meters": "go forward ten meters",
    "ten_of_clubs": "ten of clubs",
    "three_cards": "eight of spades four of clubs seven of hearts",
}
SPOKEN_NUMBERS = inflect.engine()


@dataclass(frozen=True)
class Recording:
    """What somebody said, at 16 kHz."""

    name: str
    samples: Samples
    said: str


def recordings(folder: Path | None) -> Iterator[Recording]:
    from moonshine_voice.utils import get_assets_path

    yield Recording("beckett", read_wav(get_assets_path() / "beckett.wav", RATE), BECKETT)
    if folder is None:
        for name, said in HERE.items():
            yield Recording(name, read_wav(speech(name), RATE), said)
        return
    raw = {"goforward": HERE["go_forward_ten_meters"], "tidigits/dhd.2934z": "two nine three four zero"}
    for name, said in raw.items():
        yield Recording(name, np.fromfile(folder / f"{name}.raw", "<i2").astype(np.int16), said)
    lines = (folder / "cards/cards.transcription").read_text().splitlines()
    lines += (folder / "librivox/transcription").read_text().splitlines()
    for line in lines:
        if found := re.match(r"(?:<s>)?\s*(.*?)\s*(?:</s>)?\s*\((\S+)\)", line):
            said, name = found.groups()
            for path in (folder / f"cards/{name}.wav", folder / f"librivox/{name}.wav"):
                if path.is_file():
                    yield Recording(name, read_wav(path, RATE), said)


# -- accuracy


def words(text: str) -> list[str]:
    """Its words, in lower case, numbers spelled."""
    spelled = re.sub(r"\d+", lambda number: _spelled(number[0]), text.lower())
    spelled = spelled.replace("mr.", "mister")
    return re.findall(r"[a-z']+", spelled)


def _spelled(number: str) -> str:
    return str(SPOKEN_NUMBERS.number_to_words(number, andword="")).replace("-", " ")


def errors(said: list[str], heard: list[str]) -> int:
    """Words to be changed, left out or put in."""
    row = list(range(len(heard) + 1))
    for count, word in enumerate(said, 1):
        previous, row = row, [count]
        for index, other in enumerate(heard, 1):
            row.append(min(previous[index] + 1, row[-1] + 1, previous[index - 1] + (word != other)))
    return row[-1]


def accuracy(model: Moonshine, samples: list[Recording]) -> dict[str, Any]:
    wrong, total, each = {"wide": 0, "phone": 0}, 0, []
    for recording in samples:
        said = words(recording.said)
        total += len(said)
        phone = decode(encode(resample(recording.samples, RATE, 8000)))
        heard = {
            "wide": model.transcribe(recording.samples.tobytes(), RATE),
            "phone": model.transcribe(phone.tobytes(), 8000),
        }
        for line, text in heard.items():
            wrong[line] += errors(said, words(text))
        each.append({"recording": recording.name, "said": recording.said, **heard})
    return {
        "recordings": len(samples),
        "words": total,
        "word_error_rate": {line: round(count / total, 3) for line, count in wrong.items()},
        "measured_elsewhere": ERRORS,
        "each": each,
    }


# -- stages


async def stages(samples: list[Recording], rounds: int) -> dict[str, Any]:
    services = Services()
    host = ModelHost.of(services)
    began = time.perf_counter()
    await host.load(MoonshineSTT.model)
    await host.load(HibariTTS.model)
    loaded = time.perf_counter() - began
    heard: dict[str, list[float]] = {}
    spoken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for recording in samples:
            seconds = await _timed(_hear(host, recording))
            heard.setdefault(f"{len(recording.samples) / RATE:.1f} s", []).append(seconds)
        for text in SENTENCES:
            spoken.setdefault(f"{len(text)} characters", []).append(await _timed(_speak(host, text)))
    await services.close()
    return {
        "load_both_s": round(loaded, 2),
        "transcribe": {length: summary(times) for length, times in sorted(heard.items())},
        "speak": {length: summary(times) for length, times in spoken.items()},
    }


async def _timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def _hear(host: ModelHost, recording: Recording) -> None:
    phone = resample(recording.samples, RATE, 8000).tobytes()
    await host.ask(MoonshineSTT.model, "transcribe", phone, 8000, cost=0, deadline=60.0)


async def _speak(host: ModelHost, text: str) -> None:
    async with aclosing(host.stream(HibariTTS.model, "speak", text, cost=0, deadline=60.0)) as pieces:
        async for _ in pieces:
            return


# -- lag


async def lag(work: Callable[[], Awaitable[object]] | None, callers: int, seconds: float) -> dict[str, Any]:
    """How late timers are while `callers` do this over and over."""
    answers: list[float] = []

    async def caller() -> None:
        assert work is not None
        while True:
            answers.append(await _timed(work()))

    tasks = [asyncio.create_task(caller()) for _ in range(callers)] if work is not None else []
    late = []
    due = time.perf_counter() + TICK
    for _ in range(round(seconds / TICK)):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        late.append(max(0.0, time.perf_counter() - due))
        due = max(due + TICK, time.perf_counter())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"late": summary(late), "answer": summary(answers)}


async def lags(samples: list[Recording], callers: list[int], seconds: float) -> dict[str, Any]:
    phone = resample(min(samples, key=lambda each: abs(len(each.samples) - 2.5 * RATE)).samples, RATE, 8000)
    audio = phone.tobytes()
    services = Services()
    host = ModelHost.of(services)
    await host.load(MoonshineSTT.model)
    await host.load(HibariTTS.model)
    ears, mouth = await services.compute(Moonshine, 0), await services.compute(Hibari, 0)

    async def in_process() -> None:
        await host.ask(MoonshineSTT.model, "transcribe", audio, 8000, cost=0, deadline=60.0)
        await _speak(host, SENTENCES[-1])

    async def in_thread() -> None:
        await services.compute(ears.transcribe, 0, audio, 8000)
        await services.compute(lambda: list(mouth.speak(SENTENCES[-1])), 0)

    found: dict[str, Any] = {"nothing to do": await lag(None, 0, seconds)}
    interval = sys.getswitchinterval()
    for count in callers:
        found[f"process, {count} callers"] = await lag(in_process, count, seconds)
    for count in callers:
        found[f"threads, {count} callers"] = await lag(in_thread, count, seconds)
    sys.setswitchinterval(0.0005)
    for count in callers:
        found[f"threads, short switch interval, {count} callers"] = await lag(in_thread, count, seconds)
    sys.setswitchinterval(interval)
    await services.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline_models")
    parser.add_argument("--quick", action="store_true", help="a few seconds for each figure")
    parser.add_argument("--recordings", type=Path, metavar="FOLDER", help="of pocketsphinx-testdata")
    options = parser.parse_args()
    samples = list(recordings(options.recordings))
    callers = [1, 4, 8]
    rounds, seconds = (3, 3.0) if options.quick else (10, 10.0)

    async def measured() -> dict[str, Any]:
        return {
            "stages": await stages(samples, rounds),
            "lag_ms": await lags(samples, callers, seconds),
        }

    loop = default_loop()
    with asyncio.Runner(loop_factory=lambda: new_loop(loop)) as runner:
        result = runner.run(measured())
    result["accuracy"] = accuracy(Moonshine(), samples)
    late = result["lag_ms"][f"process, {callers[-1]} callers"]["late"]["p99"]
    rates = result["accuracy"]["word_error_rate"]
    result["targets"] = [
        target(f"lag of the event loop, {callers[-1]} callers, p99", late, LAG_MS, "ms"),
        *(target(f"word error rate, {line}", rates[line], bound, "") for line, bound in ERRORS.items()),
    ]
    finish(result)


if __name__ == "__main__":
    main()
