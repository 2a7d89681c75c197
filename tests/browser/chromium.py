"""A real Chromium without a screen, driven by its DevTools protocol: as much of it as the tests here need.

    async with Chromium(microphone=WAV) as chromium:
        page = await chromium.open(url)
        await page.click("#talk")
        await page.until("document.body.dataset.state === 'talking'")
        await page.screenshot(path)

Its microphone plays a WAV file over and over, or is refused. A profile of its own lies in a folder that is
removed. Nothing is downloaded; where Chromium is found says `find`.

Source: chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

VARIABLE = "VOICEFLOW_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
START = 30.0
"""Seconds that it may take to start, on a busy machine."""
ANSWER = 20.0
"""Seconds that one command may take."""
COMPLAINTS_BOUND = 200


def find() -> str | None:
    """The program: what VOICEFLOW_CHROMIUM names, what is on the PATH, what playwright has downloaded."""
    if named := os.environ.get(VARIABLE):
        return shutil.which(named)
    for name in NAMES:
        if found := shutil.which(name):
            return found
    cache = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    downloaded = sorted(cache.glob("chromium-*/chrome-linux*/chrome"))
    return str(downloaded[-1]) if downloaded else None


def usable() -> bool:
    """Whether there is one that starts: one that was only downloaded may lack libraries of the system."""
    program = find()
    if program is None:
        return False
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=START, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


class ChromiumError(AssertionError):
    """It did not do what it was told."""


class Page:
    """One tab. `complaints` are its errors and warnings, and what its scripts did not catch."""

    def __init__(self, chromium: Chromium, session: str, target: str) -> None:
        self._chromium = chromium
        self._session = session
        self.target = target
        self.complaints: deque[str] = deque(maxlen=COMPLAINTS_BOUND)

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._chromium.command(method, session=self._session, **params)

    async def run(self, script: str, *, gesture: bool = True) -> Any:
        """The value of an expression of JavaScript; a promise is waited for."""
        answer = await self.command(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=gesture,
        )
        if (thrown := answer.get("exceptionDetails")) is not None:
            raise ChromiumError(str(thrown.get("exception", {}).get("description", thrown))[:500])
        return answer["result"].get("value")

    async def until(self, condition: str, timeout: float = 20.0) -> None:
        """Looks every 20 ms until the expression, or what it promises, is true."""
        try:
            async with asyncio.timeout(timeout):
                while not await self._holds(condition):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.02)
        except TimeoutError:
            shown = await self.run("document.body?.innerText")
            raise ChromiumError(
                f"not within {timeout:g} s: {condition}\nthe page shows: {shown}\n{list(self.complaints)}"
            ) from None

    async def _holds(self, condition: str) -> bool:
        try:
            return bool(await self.run(f"Promise.resolve({condition}).then(Boolean)"))
        except ChromiumError:  # between two pages there is no document
            return False

    async def click(self, selector: str) -> None:
        """A real click of the mouse in the middle of an element."""
        x, y = await self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key: str, text: str = "") -> None:
        """A key of the keyboard: "Escape", or one with a character."""
        down: dict[str, Any] = {"key": key, "code": key}
        if text or len(key) == 1:
            down["text"] = text or key
        await self.command("Input.dispatchKeyEvent", type="keyDown", **down)
        await self.command("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    async def look(
        self, *, dark: bool = False, width: int = 1280, height: int = 900, still: bool = False
    ) -> None:
        """How wide the window is, and what its user likes."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"},
        ]
        await self.command("Emulation.setEmulatedMedia", features=features)

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        taken = await self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(taken["data"]))

    async def close(self) -> None:
        """Closes the tab, as its user would."""
        await self._chromium.command("Target.closeTarget", targetId=self.target)


class Chromium:
    """The program. `microphone` is a WAV file that it hears, `refuse` that its user refuses the microphone,
    `devices` whether there is one at all."""

    def __init__(self, *, microphone: Path | None = None, refuse: bool = False, devices: bool = True) -> None:
        self._arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-default-apps",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
            "--mute-audio",
            "--no-proxy-server",
            "--autoplay-policy=no-user-gesture-required",
            "--remote-debugging-port=0",
        ]
        if devices:
            self._arguments.append("--use-fake-device-for-media-stream")
        if microphone is not None:
            self._arguments.append(f"--use-file-for-fake-audio-capture={microphone}")
        if not refuse:
            self._arguments.append("--use-fake-ui-for-media-stream")
        self._refuse = refuse
        self._process: asyncio.subprocess.Process | None = None
        self._pages: dict[str, Page] = {}
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        program = find()
        assert program is not None, "there is no Chromium here: ask find() first"
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        self._process = await asyncio.create_subprocess_exec(
            program,
            *self._arguments,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._http = aiohttp.ClientSession()
        try:
            self._socket = await self._http.ws_connect(await self._address(), max_msg_size=0)
        except BaseException:
            await self._end()
            raise
        self._reader = asyncio.create_task(self._read(), name="chromium")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await self._socket.close()
        await self._end()

    async def open(self, url: str) -> Page:
        """A new tab with that page."""
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.command("Target.attachToTarget", targetId=target, flatten=True)
        session = attached["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Runtime", "Page", "Log"):
            await page.command(f"{domain}.enable")
        if self._refuse:
            await self.command(
                "Browser.setPermission",
                permission={"name": "microphone"},
                setting="denied",
                origin=url.rstrip("/"),
            )
        await page.look()
        await page.command("Page.navigate", url=url)
        await page.until(
            f"location.href !== 'about:blank' && document.readyState === 'complete' && {json.dumps(url)}"
        )
        return page

    async def command(self, method: str, *, session: str = "", **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        await self._socket.send_str(json.dumps(message))
        try:
            return await asyncio.wait_for(answer, ANSWER)
        except TimeoutError:
            raise ChromiumError(f"{method} was not answered within {ANSWER:g} s") from None
        finally:
            self._answers.pop(number, None)

    # -- inside

    async def _address(self) -> str:
        """Of its DevTools, once it has written it down."""
        file = Path(self._profile) / "DevToolsActivePort"
        async with asyncio.timeout(START):
            while not (file.is_file() and len(lines := file.read_text().split("\n")) >= 2):
                assert self._process is not None
                if self._process.returncode is not None:
                    raise ChromiumError(
                        f"Chromium ended with {self._process.returncode} before it had started"
                    )
                await asyncio.sleep(0.05)
        return f"ws://127.0.0.1:{lines[0]}{lines[1]}"

    async def _read(self) -> None:
        async for message in self._socket:
            body = json.loads(message.data)
            if "id" in body:
                answer = self._answers.get(body["id"])
                if answer is not None and not answer.done():
                    if "error" in body:
                        answer.set_exception(ChromiumError(str(body["error"])))
                    else:
                        answer.set_result(body["result"])
                continue
            page = self._pages.get(body.get("sessionId", ""))
            if page is not None:
                page.complaints.extend(_complaints(body["method"], body["params"]))

    async def _end(self) -> None:
        await self._http.close()
        assert self._process is not None
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, 9)  # its whole family, which is ours alone
            except ProcessLookupError:
                pass
        await self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)


def _complaints(method: str, params: dict[str, Any]) -> list[str]:
    match method:
        case "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            return [details.get("exception", {}).get("description") or details["text"]]
        case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
            return [" ".join(str(a.get("value", a.get("description", ""))) for a in params["args"])]
        case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
            return [f"{params['entry']['text']} {params['entry'].get('url', '')}".strip()]
    return []
