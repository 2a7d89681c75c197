"""The page in a real Chromium, with a recorded voice as its microphone. Screenshots are left in
tests/browser/screenshots."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_page import site
from chromium import Chromium, Page

from pipelines import vad_only
from processors.browser.access import Access
from tests.e2e import agents
from tests.e2e.agents import ANSWERS, GREETING, environment, spoken
from tests.vendors.flux import FakeFlux
from tests.vendors.server import DEEPGRAM_KEY
from voiceflow.assets import speech
from voiceflow.audio import Samples, read_wav, write_wav

pytestmark = pytest.mark.chromium

SHOTS = Path(__file__).parent / "screenshots"
RATE = 16_000
QUESTION = "When do you open"


@pytest.fixture(autouse=True)
def _screenshots(monkeypatch: pytest.MonkeyPatch) -> None:
    SHOTS.mkdir(exist_ok=True)
    monkeypatch.setattr("voiceflow.server.admission.QUESTION_WAIT", 0.05)


def silence(seconds: float) -> Samples:
    return np.zeros(int(RATE * seconds), np.int16)


@pytest.fixture
def microphone(tmp_path: Path) -> Path:
    """Somebody asks, waits for 2.4 s, asks again, and is silent for 8 s. It begins anew then."""
    voice = read_wav(speech("ten_of_clubs"), RATE)
    file = tmp_path / "microphone.wav"
    write_wav(file, [np.concatenate([silence(1.0), voice, silence(2.4), voice, silence(8.0)])], RATE)
    return file


def state(name: str) -> str:
    return f"document.body.dataset.state === {name!r}"


def shown(text: str) -> str:
    return f"document.body.innerText.includes({text!r})"


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(90):
            await main

    asyncio.run(bounded())


async def fits(page: Page) -> None:
    """Nothing is wider than the window."""
    wide = await page.run(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.hidden') &&"
        " e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert await page.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_conversation(microphone: Path) -> None:
    """Talk is pressed; a question; an answer, cut by the next one; the waterfall; recording and trace."""

    async def main() -> None:
        async with site(vad_only.pipeline) as s, Chromium(microphone=microphone) as chromium:
            page = await chromium.open(s.url + "/")
            await page.until(state("idle"))
            assert await page.run("document.activeElement === document.body")
            await page.screenshot(SHOTS / "1-idle.png")
            await page.press(" ")
            await page.until(state("talking"))
            await page.until("document.querySelector('#you.on')")
            await page.until("document.querySelector('#agent.on')")
            await page.until("document.querySelector('#transcript .agent .ahead')")
            await page.screenshot(SHOTS / "2-talking.png")
            # The second question cuts the first answer.
            await page.until("document.querySelector('#transcript .agent s')")
            await page.until("!document.querySelector('#agent.on')")
            heard = await page.run(
                "document.querySelector('#transcript .agent .text').firstChild.textContent"
            )
            (call,) = s.calls
            (first,) = [m for m in call.history.messages if m.role == "assistant"][:1]
            assert first.cut
            assert heard.strip() == first.content
            assert vad_only.ANSWER.startswith(first.content)
            assert len(await page.run("window.voiceflow.figures.clears")) == 1
            await page.until("document.querySelectorAll('#turns .turn output').length === 2")
            await page.until("document.querySelectorAll('#transcript .agent').length === 2")
            assert await page.run("document.querySelector('#turns .bar').getAttribute('aria-label')")
            await page.screenshot(SHOTS / "3-cut.png")
            await page.press("5")
            await page.press("Escape")
            await page.until(state("idle"))
            await page.until("!document.querySelector('#after').hidden")
            await page.until("document.querySelector('audio').duration > 4")
            assert s.results[0].reason == "the caller hung up"
            assert s.results[0].figures["line_faults"] == 0
            assert await page.run("document.querySelector('#live').textContent.includes('cut off')")
            trace = await page.run(
                "fetch(document.querySelector('#links a[target]').href).then(r => r.text())"
            )
            assert "From the caller" in trace
            for name, look in {
                "4-light": {},
                "5-dark": {"dark": True},
                "6-narrow": {"width": 360, "height": 740},
                "7-narrow-dark": {"width": 360, "height": 740, "dark": True, "still": True},
            }.items():
                await page.look(**look)
                await fits(page)
                await page.screenshot(SHOTS / f"{name}.png")
            assert list(page.complaints) == []

    run(main())


def test_an_agent_with_words(microphone: Path) -> None:
    """The fake vendors' agent: words as they are recognised, sentences as they are heard."""
    flux = FakeFlux(key=DEEPGRAM_KEY, mode="energy", lines=[QUESTION])

    async def main() -> None:
        async with agents.vendors(flux=flux) as vendors:
            with environment(vendors):
                async with site(spoken()) as s, Chromium(microphone=microphone) as chromium:
                    page = await chromium.open(s.url + "/")
                    await page.until(state("idle"))
                    await page.click("#talk")
                    await page.until(shown(GREETING))
                    await page.until(shown(QUESTION))
                    await page.until(shown("We open at nine."))
                    await page.until("document.querySelector('#transcript .agent s')")
                    await page.until(shown(ANSWERS[1].split()[0]))
                    await page.look(width=360, height=740)
                    await fits(page)
                    await page.screenshot(SHOTS / "8-words-narrow.png")
                    await page.look()
                    await page.screenshot(SHOTS / "9-words.png")
                    await page.click("#talk")
                    await page.until(state("idle"))
                    assert s.results[0].fault is None
                    assert list(page.complaints) == []

    run(main())


def test_two_tabs_and_one_that_is_closed(microphone: Path) -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, Chromium(microphone=microphone) as chromium:
            one, two = await chromium.open(s.url + "/"), await chromium.open(s.url + "/")
            for page in (one, two):
                await page.until(state("idle"))
            await one.click("#talk")
            await one.until(state("talking"))
            await two.click("#talk")
            await two.until(shown("You are talking in another tab"))
            await two.screenshot(SHOTS / "10-second-tab.png")
            assert len(s.calls) == 1
            await one.until("document.querySelector('#agent.on')")
            await one.close()  # in the middle of a sentence
            await s.until(lambda: s.results, "its call is over")
            assert not s.server.calls
            await two.until("navigator.locks.query().then(locks => !locks.held.length)")
            await two.click("#talk")
            await two.until(state("talking"))
            assert list(two.complaints) == []

    run(main())


def test_a_server_that_is_started_again(microphone: Path) -> None:
    async def main() -> None:
        async with Chromium(microphone=microphone) as chromium:
            async with site(vad_only.pipeline) as s:
                port = s.listener.port
                page = await chromium.open(s.url + "/")
                await page.until(state("idle"))
                await page.click("#talk")
                await page.until(state("talking"))
            await page.until(state("away"))
            await page.until(
                shown("The server does not answer") + " || " + shown("the server is shutting down")
            )
            await page.screenshot(SHOTS / "11-away.png")
            async with site(vad_only.pipeline, port=port) as s:
                await page.until(shown("The server was started again. Press Talk."))
                await page.click("#talk")
                await page.until(state("talking"))
                await s.until(lambda: s.calls, "it is called again")

    run(main())


@pytest.mark.parametrize(
    ("settings", "message", "name"),
    [
        ({"refuse": True}, "The microphone was refused.", "12-refused"),
        ({"devices": False}, "There is no microphone.", "13-none"),
    ],
)
def test_no_microphone(settings: dict[str, bool], message: str, name: str) -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, Chromium(**settings) as chromium:
            page = await chromium.open(s.url + "/")
            await page.until(state("idle"))
            await page.click("#talk")
            await page.until(shown(message))
            assert await page.run(state("idle"))
            await page.screenshot(SHOTS / f"{name}.png")
            assert not s.calls
            assert list(page.complaints) == []

    run(main())


def test_a_password_and_the_resampler() -> None:
    async def main() -> None:
        access = Access(password="correct horse")
        async with site(vad_only.pipeline, access=access) as s, Chromium() as chromium:
            page = await chromium.open(s.url + "/")
            await page.screenshot(SHOTS / "14-login.png")
            await log_in(page, "wrong guess")
            await page.until(shown("That is not the password."))
            await log_in(page, "correct horse")
            await page.until(state("idle"))
            await resampler(page)
            await page.click("#logout")
            await page.until("document.querySelector('#password')")

    async def log_in(page: Page, password: str) -> None:
        await page.run(f"document.querySelector('#password').value = {password!r}")
        await page.click("#login button")

    async def resampler(page: Page) -> None:
        """A tone keeps its pitch and loudness, one above the band is gone, in pieces of a worklet's size."""
        for source, target in ((48_000, 16_000), (44_100, 16_000), (16_000, 48_000), (8_000, 16_000)):
            for hertz, loud in ((440, 1.0), (3000, 1.0), (11_000, 0.0)):
                if hertz > source / 2:
                    continue
                samples = await page.run(RESAMPLED % (source, target, hertz, source))
                tone = np.array(samples[400:-400])
                assert len(samples) == pytest.approx(target, abs=60)
                assert np.sqrt(2 * np.mean(tone**2)) == pytest.approx(loud, abs=0.02)
                if loud:
                    pitch = np.argmax(np.abs(np.fft.rfft(tone))) * target / len(tone)
                    assert pitch == pytest.approx(hertz, rel=0.01)

    run(main())


RESAMPLED = """
import('/browser/resampler.js').then(({ Resampler }) => {
  const [from, to, hertz, samples] = [%d, %d, %d, %d];
  const resampler = new Resampler(from, to);
  const out = [];
  for (let at = 0; at < samples; at += 128) {
    const piece = new Float32Array(Math.min(128, samples - at));
    for (let i = 0; i < piece.length; i++) piece[i] = Math.sin((2 * Math.PI * hertz * (at + i)) / from);
    out.push(...resampler.process(piece));
  }
  return out;
})
"""
"""Of a second of a tone: from, to, Hz, samples."""
