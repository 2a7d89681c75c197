"""All fake vendors together: on one server, in memory, and by hand with `python -m tests.vendors`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import numpy as np
import pytest
from openai import AsyncOpenAI

from tests.vendors import espeak as espeak_module
from tests.vendors import spelled
from tests.vendors.aura import FakeAura
from tests.vendors.elevenlabs import FakeElevenLabs
from tests.vendors.espeak import Espeak, find
from tests.vendors.flux import FakeFlux
from tests.vendors.openai import FakeOpenAI
from tests.vendors.reach import within
from tests.vendors.server import Serving, Vendors, precise_loop
from tests.vendors.twilio import FakeTwilio
from tests.vendors.wire import Asked, Due, SocketVendor, VendorLink
from voiceflow.audio import decode
from voiceflow.errors import LinkError, LinkRefused
from voiceflow.line.dialled import connect
from voiceflow.line.link import Link
from voiceflow.services import Services
from voiceflow.testing import run

ROOT = Path(__file__).parents[1]
FLUX = "/v2/listen?model=flux-general-en&encoding=mulaw&sample_rate=8000"
ELEVENLABS = "/v1/text-to-speech/ada/multi-stream-input?model_id=eleven_flash_v2_5&output_format=ulaw_8000"
AURA = "/v1/speak?model=aura-2-thalia-en&encoding=mulaw&sample_rate=8000"


# -- what each vendor is asked, whatever carries it


async def hear(link: Link) -> str:
    """What Flux makes of "hello"."""
    await link.send(spelled.spell("hello") + b"\xff" * 8000)
    while isinstance(message := await link.receive(), str):
        said = json.loads(message)
        if said.get("event") == "EndOfTurn":
            return str(said["transcript"])
    raise AssertionError("it was closed")


async def speak_elevenlabs(link: Link) -> str:
    for message in ({"text": " "}, {"text": "Good day. ", "flush": True}):
        await link.send(json.dumps({"context_id": "c", **message}))
    audio = ""
    while len(audio) < len("Good day."):
        message = await link.receive()
        assert isinstance(message, str)
        audio += spelled.read(b64decode(json.loads(message).get("audio") or ""))
    return audio


async def speak_aura(link: Link) -> str:
    await link.send('{"type": "Speak", "text": "Good night."}')
    await link.send('{"type": "Flush"}')
    audio = b""
    while (message := await link.receive()) is not None:
        if isinstance(message, bytes):
            audio += message
        elif json.loads(message)["type"] == "Flushed":
            return spelled.read(audio)
    raise AssertionError("it was closed")


async def ask(client: AsyncOpenAI, question: str) -> str:
    messages: Any = [{"role": "user", "content": question}]
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])


def headers(environment: dict[str, str]) -> dict[str, dict[str, str]]:
    deepgram = {"Authorization": f"Token {environment['DEEPGRAM_API_KEY']}"}
    return {FLUX: deepgram, AURA: deepgram, ELEVENLABS: {"xi-api-key": environment["ELEVENLABS_API_KEY"]}}


async def use_all(environment: dict[str, str]) -> None:
    """Over real sockets, from nothing but the environment."""
    keys = headers(environment)
    base = {FLUX: "DEEPGRAM_BASE_URL", AURA: "DEEPGRAM_BASE_URL", ELEVENLABS: "ELEVENLABS_BASE_URL"}
    spoken = []
    for path, use in ((FLUX, hear), (ELEVENLABS, speak_elevenlabs), (AURA, speak_aura)):
        link = await connect(environment[base[path]] + path, headers=keys[path], timeout=5)
        spoken.append((await use(link)).strip())
        await link.close()
    assert spoken == ["hello", "Good day.", "Good night."]
    http = httpx2.AsyncClient(trust_env=False)
    async with AsyncOpenAI(
        api_key=environment["OPENAI_API_KEY"],
        base_url=environment["OPENAI_BASE_URL"],
        http_client=http,
        max_retries=0,
    ) as client:
        assert await ask(client, "Are you there?") == await ask(client, "Still?") == "I am."
    account = environment["TWILIO_ACCOUNT_SID"]
    login = b64encode(f"{account}:{environment['TWILIO_AUTH_TOKEN']}".encode()).decode()
    url = f"{environment['TWILIO_BASE_URL']}/2010-04-01/Accounts/{account}"
    call = {"To": "+12025550143", "From": environment["TWILIO_NUMBER"], "Twiml": "<Response/>"}
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {login}"}) as session:
        async with session.post(f"{url}/Calls.json", data=call) as answer:
            assert answer.status == 201
        async with session.get(f"{url}/IncomingPhoneNumbers.json") as answer:
            assert len((await answer.json())["incoming_phone_numbers"]) == 1


def test_one_server_carries_them_all():
    async def main() -> None:
        llm = FakeOpenAI(["I am."], ttft=0.0, gap=0.0, key="sk-any")
        async with Vendors(llm=llm, elevenlabs=FakeElevenLabs(delay=0.0, pace=1000)) as vendors:
            vendors.aura.delay, vendors.aura.pace = 0.0, 1000.0
            await use_all(vendors.environment)
            assert vendors.environment["OPENAI_API_KEY"] == "sk-any"
            assert vendors.connected == {
                "/v2/listen": 1,
                "/v1/text-to-speech/{voice}/multi-stream-input": 1,
                "/v1/speak": 1,
                "/v1/chat/completions": 1,  # twice over one connection
                "/2010-04-01/Accounts/{account}/Calls.json": 1,
                "/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json": 1,
            }
            assert [request.text for request in llm.requests] == ["I am."] * 2
            assert [call.given("To") for call in vendors.twilio.calls] == ["+12025550143"]

    within(main())


async def test_they_are_reached_in_memory_too(virtual_time):
    vendors = Vendors(llm=FakeOpenAI(["I am."], ttft=0.5, gap=0.1))
    services = Services(dial=vendors.dial, transport=vendors.transport)
    environment = vendors.environment
    heard = []
    for path, use in ((FLUX, hear), (ELEVENLABS, speak_elevenlabs), (AURA, speak_aura)):
        url = environment["DEEPGRAM_BASE_URL"] + path
        link = await services.dial(url, headers=headers(environment)[path], timeout=5)
        heard.append((await use(link)).strip())
        await link.close()
    assert heard == ["hello", "Good day.", "Good night."]
    assert services.transport is not None
    began = virtual_time.now
    http = httpx2.AsyncClient(transport=services.transport())
    async with AsyncOpenAI(
        api_key=environment["OPENAI_API_KEY"], base_url=environment["OPENAI_BASE_URL"], http_client=http
    ) as client:
        assert await ask(client, "Are you there?") == "I am."
    assert virtual_time.now - began == pytest.approx(0.5 + 2 * 0.1, abs=0.11)
    with pytest.raises(LinkRefused, match="404"):
        await services.dial("ws://x/v3/listen", headers={}, timeout=1)
    await services.close()


@pytest.mark.parametrize("path", [FLUX, ELEVENLABS, AURA])
def test_they_take_their_own_keys_only(path):
    async def main() -> None:
        async with Vendors() as vendors:
            url = vendors.url.replace("http", "ws") + path
            wrong = {"Authorization": "Token other", "xi-api-key": "other"}
            with pytest.raises(LinkRefused, match="401"):
                await connect(url, headers=wrong, timeout=5)
            await (await connect(url, headers=headers(vendors.environment)[path], timeout=5)).close()

    within(main())


def test_given_fakes_are_used_and_their_keys_told():
    fakes = {
        "flux": FakeFlux(key="a"),
        "elevenlabs": FakeElevenLabs(key="b"),
        "aura": FakeAura(key="a"),
        "twilio": FakeTwilio(auth_token="c", numbers=["+12025550100"]),
        "llm": FakeOpenAI(key="d"),
    }
    vendors = Vendors(**fakes)
    assert all(getattr(vendors, name) is fake for name, fake in fakes.items())
    assert vendors.environment == vendors.environment | {
        "DEEPGRAM_API_KEY": "a",
        "ELEVENLABS_API_KEY": "b",
        "OPENAI_API_KEY": "d",
        "TWILIO_AUTH_TOKEN": "c",
        "TWILIO_NUMBER": "+12025550100",
    }


def test_every_websocket_is_a_connection_of_its_own():
    async def main() -> None:
        async with Serving(flux := FakeFlux()) as serving:
            url = serving.url.replace("http", "ws") + FLUX
            for _ in range(3):
                link = await connect(url, headers={"Authorization": "Token k"}, timeout=5)
                await link.receive()
                await link.close()
            assert serving.connected == {"/v2/listen": 3}
            assert len(flux.connections) == 3

    within(main())


def test_leaving_ends_what_is_still_open():
    async def main() -> None:
        flux, hanging = FakeFlux(), FakeAura()
        hanging.hang = True
        async with Serving(flux, hanging) as serving:
            base = serving.url.replace("http", "ws")
            link = await connect(base + FLUX, headers={"Authorization": "Token k"}, timeout=5)
            waiting = asyncio.create_task(connect(base + AURA, headers={}, timeout=5))
            await link.receive()
        assert await link.receive() is None
        assert link.close_code == 1001
        await asyncio.gather(waiting, return_exceptions=True)
        assert flux.live == 0

    within(main())


def test_leaving_outruns_whoever_dials_again_at_once():
    async def insist(url: str) -> None:
        while True:
            link = await connect(url, headers={"Authorization": "Token k"}, timeout=5)
            while await link.receive() is not None:
                pass

    async def main() -> None:
        async with Serving(flux := FakeFlux()) as serving:
            url = serving.url.replace("http", "ws") + FLUX
            clients = [asyncio.create_task(insist(url)) for _ in range(3)]
            while flux.live < 3:  # noqa: ASYNC110 - a fake has no event for that
                await asyncio.sleep(0.001)
        for ended in await asyncio.gather(*clients, return_exceptions=True):
            assert isinstance(ended, LinkError)
        assert flux.live == 0

    within(main())


class Broken(SocketVendor):
    paths = ("/broken",)

    async def converse(self, link: VendorLink, asked: Asked) -> None:
        await link.receive()
        raise ZeroDivisionError("a mistake in the fake")


@pytest.mark.parametrize("failing", [False, True])
def test_a_mistake_of_a_fake_fails_the_test(failing):
    async def main() -> None:
        async with Serving(Broken()) as serving:
            link = await connect(serving.url.replace("http", "ws") + "/broken", headers={}, timeout=5)
            await link.send("x")
            await link.receive()
            await link.close()
            if failing:
                raise KeyError("the test's own error comes first")

    with pytest.raises(KeyError if failing else ZeroDivisionError):
        within(main())


def test_a_request_that_is_no_upgrade_is_no_mistake():
    async def main() -> None:
        async with Serving(FakeFlux()) as serving, aiohttp.ClientSession() as session:
            key = {"Authorization": "Token k"}
            async with session.get(serving.url + FLUX, headers=key) as answer:
                assert answer.status == 400

    within(main())


def test_somebody_can_watch():
    seen: list[tuple[str, str, str]] = []

    async def main() -> None:
        async with Vendors() as vendors:
            vendors.watch(lambda *what: seen.append(what))
            url = vendors.url.replace("http", "ws") + FLUX
            with pytest.raises(LinkRefused):
                await connect(url, headers={}, timeout=5)
            link = await connect(url, headers=headers(vendors.environment)[FLUX], timeout=5)
            await hear(link)
            await link.close()

    within(main())
    assert [what for _, what, _ in seen] == ["refused", "connected", "speech", "turn", "closed"]
    assert ("flux", "turn", "hello") in seen


# -- what they share


def test_paths_are_recognised():
    vendor = FakeElevenLabs()
    assert vendor.serves("/v1/text-to-speech/any-voice/stream-input")
    assert not vendor.serves("/v1/text-to-speech//stream-input")
    assert not vendor.serves("/v1/text-to-speech/a/b/stream-input")


async def test_things_come_out_at_their_time(virtual_time):
    due: Due[str] = Due(bound=5)
    for item, at in (("late", 2.0), ("soon", 1.0), ("at once", 0.0), ("soon too", 1.0)):
        due.put(item, at)
    got = [(await due.get(), virtual_time.now) for _ in range(4)]
    assert got == [("at once", 0.0), ("soon", 1.0), ("soon too", 1.0), ("late", 2.0)]
    due.put("never", 9.0)
    assert len(due) == 1
    due.clear()
    assert len(due) == 0
    for _ in range(5):
        due.put("x", 99.0)
    with pytest.raises(OverflowError):
        due.put("one too many")
    due.clear()


def test_an_abandoned_dial_leaves_nothing_behind():
    async def main() -> None:
        flux = FakeFlux(handshake=1.0)
        key = {"Authorization": "Token k"}
        dialling = asyncio.create_task(flux.dial(f"ws://x{FLUX}", headers=key, timeout=5))
        await asyncio.sleep(0.5)
        dialling.cancel()
        await asyncio.sleep(5)
        assert flux.connections == []

    run(main())


def test_the_precise_loop_keeps_time():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(0.01)
        assert loop.time() - began >= 0.01 - 1e-3
        async with Vendors() as vendors:
            assert vendors.port

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(main())


# -- a voice for people

ESPEAK = """#!{python}
import sys, time, wave
text = sys.stdin.buffer.read().decode()
{fault}
with wave.open(sys.argv[sys.argv.index("-w") + 1], "wb") as out:
    out.setparams((1, 2, 22050, 0, "NONE", ""))
    out.writeframes((b"\\x00\\x10" * 11 + b"\\x00\\xf0" * 11) * (len(text) * 50))
"""


def espeak(folder: Path, fault: str = "") -> Path:
    """A program that buzzes for 50 ms for each character, at 22 050 Hz."""
    program = folder / "espeak-ng"
    program.write_text(ESPEAK.format(python=sys.executable, fault=fault))
    program.chmod(0o755)
    return program


async def say(link: Link, *messages: dict[str, Any]) -> tuple[bytes, list[tuple[str, float]]]:
    """The audio that comes, to the end, and where its characters begin, in ms."""
    for message in messages:
        await link.send(json.dumps(message))
    audio, characters = b"", []
    while (got := await link.receive()) is not None:
        body = {} if isinstance(got, bytes) else json.loads(got)
        if alignment := body.get("alignment"):
            times = zip(alignment["chars"], alignment["charStartTimesMs"], strict=True)
            characters += [(character, len(audio) / 8 + at) for character, at in times]
        audio += got if isinstance(got, bytes) else b64decode(body.get("audio") or "")
    await link.close()
    return audio, characters


def test_vendors_may_speak_with_a_voice_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program, text = espeak(tmp_path), "Grüß Gott! "

    async def main() -> None:
        async with Vendors() as vendors:
            assert find() == str(program)
            vendors.elevenlabs.flush_race = 0.0
            vendors.elevenlabs.synthesize = vendors.aura.synthesize = Espeak(str(program))
            keys, base = headers(vendors.environment), vendors.url.replace("http", "ws")
            link = await connect(base + AURA, headers=keys[AURA], timeout=5)
            aura, _ = await say(link, {"type": "Speak", "text": text}, {"type": "Flush"}, {"type": "Close"})
            link = await connect(
                f"{base}{ELEVENLABS}&sync_alignment=true", headers=keys[ELEVENLABS], timeout=5
            )
            context = {"context_id": "c"}
            whole = {**context, "text": text, "flush": True}
            audio, characters = await say(link, {**context, "text": " "}, whole, {"close_socket": True})
        assert aura == audio
        assert len(audio) / 8000 == pytest.approx(0.05 * len(text), abs=0.01)
        assert np.abs(decode(audio)).mean() == pytest.approx(0x1000, rel=0.1)
        assert "".join(character for character, _ in characters) == text
        assert [at for _, at in characters] == pytest.approx([50 * n for n in range(len(text))], abs=1.5)
        assert [said.said for said in (*vendors.aura.log, *vendors.elevenlabs.log)] == [text, text]

    within(main())


@pytest.mark.parametrize("fault", ["sys.exit(1)", "time.sleep(60)", "sys.exit(0)"])
def test_a_voice_that_fails_says_nothing(fault, tmp_path, monkeypatch):
    monkeypatch.setattr(espeak_module, "TIMEOUT", 0.3)
    speak = Espeak(str(espeak(tmp_path, fault)))
    assert asyncio.run(speak("hello")) == b""
    assert asyncio.run(Espeak(str(tmp_path / "nothing"))("hello")) == b""


async def test_what_the_voice_cannot_say_is_spelled(virtual_time):
    async def nothing(text: str) -> bytes:
        return b""

    vendors = Vendors()
    vendors.aura.synthesize = nothing
    link = await vendors.dial(f"ws://x{AURA}", headers=headers(vendors.environment)[AURA], timeout=5)
    assert await speak_aura(link) == "Good night."
    await link.close()


# -- by hand


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.vendors", *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it printed; it is killed after 20 s."""
    with process:
        try:
            printed = process.communicate(timeout=20)[0]
        finally:
            process.kill()
        return process.returncode, printed


def test_by_hand(tmp_path):
    env_file = tmp_path / ".env"
    arguments = (
        "--reply",
        "I am.",
        "--first-token",
        "0",
        "--voice-delay",
        "0",
        "--spelled",
        "--buzz",
        "--for",
        "60",
    )
    process = start("--port", "0", "--env-file", str(env_file), *arguments)
    assert process.stdout is not None
    told: dict[str, str] = {}
    for line in process.stdout:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").strip().partition("=")
            told[name] = value
        if "Ctrl-C" in line:
            break
    try:
        within(use_all(told))
    finally:
        process.send_signal(signal.SIGINT)
        code, printed = finish(process)
    assert code == 0
    assert set(told) == {*Vendors().environment, "VOICEFLOW_PUBLIC_URL"}
    assert dict(line.split("=", 1) for line in env_file.read_text().splitlines()[1:]) == told
    happened = [" ".join(line.split()[2:]) for line in printed.splitlines()]
    assert "flux connected /v2/listen" in happened
    assert "flux turn hello" in happened
    assert "elevenlabs generates Good day." in happened
    assert "aura generates Good night." in happened
    assert happened.index("llm prompt Are you there?") < happened.index("llm answered I am.")
    assert "llm prompt Still?" in happened
    assert "twilio request POST Calls.json: HTTP 201" in happened
    assert "twilio call +12025550143 queued" in happened


def test_by_hand_it_writes_over_no_file_of_yours(tmp_path):
    env_file = tmp_path / ".env"
    env_file.write_text("OPENAI_API_KEY=precious\n")
    code, printed = finish(start("--port", "0", "--env-file", str(env_file)))
    assert code == 2
    assert "give another name" in printed
    assert env_file.read_text() == "OPENAI_API_KEY=precious\n"


def test_by_hand_a_port_can_be_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, printed = finish(start("--port", str(taken.getsockname()[1])))
    assert code == 1
    assert "--port" in printed
    assert "Traceback" not in printed


def test_by_hand_there_is_help():
    code, printed = finish(start("--help"))
    assert code == 0
    local = "voiceflow run pipelines/phone_agent.py --host 127.0.0.1"
    for expected in ("python -m tests.vendors --env-file .env", local, "voiceflow dial", "--first-token"):
        assert expected in printed


def test_by_hand_a_file_that_cannot_be_written_is_told_at_once(tmp_path):
    nowhere = tmp_path / "nowhere" / ".env"
    code, printed = finish(start("--port", "0", "--env-file", str(nowhere)))
    assert code == 2
    assert "there is no folder" in printed
    assert "Traceback" not in printed


def test_by_hand_it_says_what_to_type_next(tmp_path):
    env_file = tmp_path / ".env"
    agent = ("--agent", "http://127.0.0.1:8123")
    code, printed = finish(start("--port", "0", "--for", "0", "--env-file", str(env_file), *agent))
    assert code == 0
    commands = [line.split() for line in printed.splitlines() if line.startswith("  ")]
    cd, run_it, dial = commands[0], commands[1], commands[2]
    assert cd == ["cd", str(tmp_path)]
    pipeline = str(ROOT / "pipelines" / "phone_agent.py")
    assert run_it == ["voiceflow", "run", pipeline, "--host", "127.0.0.1", "--port", "8123"]
    assert dial[:3] == ["voiceflow", "dial", "http://127.0.0.1:8123"]
    assert all(Path(word).is_file() for word in dial if word.endswith(".wav") and word != "call.wav")
    assert f"{env_file} still names them" in printed
