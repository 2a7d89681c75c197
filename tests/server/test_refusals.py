"""Whatever a stranger, a proxy or a broken carrier sends: a clear answer, one log line, nobody else hurt.

Every test has another live call on the same server, whose audio must go on flowing.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import asynccontextmanager

import aiohttp
import pytest

from processors.twilio.signature import SIGNATURE_HEADER, sign
from voiceflow.server import admission, server

AUTH_TOKEN = "0123456789abcdef0123456789abcdef"
PUBLIC = "https://agent.example.com"
ONE_TIME = re.compile(r"w\d\.[A-Za-z0-9_-]{20,}")


@pytest.fixture
def attack(site, wire, bystander, run_it, log):
    """`attack(body, **site options)`: runs `body(s, w)` beside a live call; looks at the whole log."""

    def attack(body, *, expect=1, **options):
        async def main():
            async with site(**options) as s, bystander(s), wire(s) as w:
                log.warnings()
                await body(s, w)
                await s.until(lambda: len(s.server.calls) == 1, "only the other call is left")
                warnings = log.warnings()
                assert len(warnings) == expect, warnings
                assert log.errors == []
                for secret in (w.token, s.auth_token, sign(s.auth_token or "x", s.voice)):
                    assert not secret or secret not in log.text
                assert not ONE_TIME.search(log.text)
                attack.warnings = warnings

        run_it(main())
        return attack.warnings

    return attack


def only(warnings: list[str], *words: str) -> None:
    assert len(warnings) == 1
    for word in words:
        assert word in warnings[0], warnings


# -- the webhook's signature ----------------------------------------------------------------------------


def test_webhook_without_signature(attack):
    async def body(s, w):
        status, text = await w.post(headers={})
        assert (status, text) == (403, "it has no X-Twilio-Signature")

    only(
        attack(body, auth_token=AUTH_TOKEN), "/twilio/voice refused", "no X-Twilio-Signature", "--public-url"
    )


@pytest.mark.parametrize("signature", ["AAAA", "é", "x" * 5000, "RSOYDt4T1cUTdK1PDd93/VVr8B8="])
def test_webhook_with_a_wrong_signature(attack, signature):
    async def body(s, w):
        header = signature.encode().decode("latin-1")
        status, text = await w.post(headers={SIGNATURE_HEADER: header})
        assert (status, text) == (403, "its X-Twilio-Signature is wrong")

    only(attack(body, auth_token=AUTH_TOKEN), "X-Twilio-Signature is wrong")


def test_webhook_signed_for_other_words(attack):
    async def body(s, w):
        signed = w.headers(s.voice, w.form())
        assert (await w.post(data={**w.form(), "From": "+15005550006"}, headers=signed))[0] == 403

    only(attack(body, auth_token=AUTH_TOKEN), "wrong")


def test_webhook_signed_with_another_token(attack):
    async def body(s, w):
        signed = {SIGNATURE_HEADER: sign("f" * 32, s.voice, w.form())}
        assert (await w.post(headers=signed))[0] == 403

    only(attack(body, auth_token=AUTH_TOKEN), "wrong")


@pytest.mark.parametrize("settings", ["algorithm=NONE", "algorithm=HMAC_MD5", "algorithm=,key=", "é=1"])
def test_webhook_cannot_choose_a_weak_algorithm(attack, settings):
    async def body(s, w):
        headers = {SIGNATURE_HEADER: "AAAA", "X-Twilio-Webhooks-Signature-Settings": settings}
        assert (await w.post(headers=headers))[0] == 403

    only(attack(body, auth_token=AUTH_TOKEN), "wrong")


@pytest.mark.parametrize(
    ("public", "signed"),
    [
        (PUBLIC, PUBLIC + "/twilio/voice"),
        (PUBLIC + "/", PUBLIC + "/twilio/voice"),
        (PUBLIC, PUBLIC + ":443/twilio/voice"),
        (PUBLIC + ":8443", PUBLIC + ":8443/twilio/voice"),
        (PUBLIC + "/phone", PUBLIC + "/phone/twilio/voice"),
    ],
)
def test_webhook_signed_for_the_public_url(attack, public, signed):
    """The server is reached over plain http behind a proxy that strips its prefix; Twilio signs what it
    calls. The stream in the TwiML is signed as wss."""

    async def body(s, w):
        headers = {SIGNATURE_HEADER: sign(AUTH_TOKEN, signed, w.form())}
        status, twiml = await w.post(headers=headers)
        assert status == 200
        stream = re.search(r'url="(wss://[^"]+)"', twiml)
        assert stream is not None
        base = public.rstrip("/")
        assert stream[1].startswith("wss" + base.removeprefix("https") + "/twilio/ws/")
        assert f'action="{base}/twilio/after/' in twiml
        path = stream[1].partition("/twilio/ws/")
        w.token = path[2]
        socket = await w.open(
            "/twilio/ws/" + w.token, headers={SIGNATURE_HEADER: sign(AUTH_TOKEN, stream[1])}
        )
        await socket.send_str(w.start())
        await s.until(lambda: s.agent.calls[-1].phase.value == "live")
        await socket.close()

    attack(body, auth_token=AUTH_TOKEN, public_url=public, expect=0)


def test_webhook_signed_for_what_the_proxy_says(attack):
    """Forwarded headers and Host are what a stranger writes: only the configured URL counts."""

    async def body(s, w):
        evil = "https://evil.example.com"
        headers = {
            SIGNATURE_HEADER: sign(AUTH_TOKEN, evil + "/twilio/voice", w.form()),
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil.example.com",
            "Host": "evil.example.com",
        }
        assert (await w.post(headers=headers))[0] == 403

    only(attack(body, auth_token=AUTH_TOKEN, public_url=PUBLIC), "wrong", PUBLIC)


# -- the upgrade's signature ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["https", "ws", "http"])
def test_upgrade_signed_over_another_scheme(attack, scheme):
    async def body(s, w):
        headers = {SIGNATURE_HEADER: sign(AUTH_TOKEN, PUBLIC + "/twilio/voice", w.form())}
        _, twiml = await w.post(headers=headers)
        url = re.search(r'url="(wss://[^"]+)"', twiml)[1]
        path = "/twilio/ws/" + url.partition("/twilio/ws/")[2]
        wrong = {SIGNATURE_HEADER: sign(AUTH_TOKEN, scheme + url.removeprefix("wss"))}
        assert await w.refused(path, headers=wrong) == 403
        # It was the signature that was refused, not the token: Twilio itself still gets in.
        right = {SIGNATURE_HEADER: sign(AUTH_TOKEN, url)}
        socket = await w.open(path, headers=right)
        await socket.send_str(w.start())
        await s.until(lambda: s.agent.calls[-1].phase.value == "live")
        await socket.close()

    only(
        attack(body, auth_token=AUTH_TOKEN, public_url=PUBLIC), "/twilio/ws/ refused", "wrong", "wss://agent"
    )


@pytest.mark.parametrize("headers", [{}, {SIGNATURE_HEADER: "AAAA"}])
def test_upgrade_without_signature(attack, headers):
    async def body(s, w):
        path = await w.announce()
        assert await w.refused(path, headers=headers) == 403
        await (await w.open(path)).close()  # the token is still good

    # The second line is of the socket that closed before it had started.
    warnings = attack(body, auth_token=AUTH_TOKEN, expect=2)
    assert "/twilio/ws/ refused: it" in warnings[0]
    assert "closed before it had started" in warnings[1]


def test_action_without_signature(attack):
    async def body(s, w):
        async with w.http.post(s.base + "/twilio/after/w0.guess", data=w.form()) as response:
            assert response.status == 403

    only(attack(body, auth_token=AUTH_TOKEN), "/twilio/after/ refused", "no X-Twilio-Signature")


# -- the webhook's body ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [{}, {"CallSid": ""}, {"callsid": "CA1"}, {"From": "+1"}])
def test_no_call_sid(attack, form):
    async def body(s, w):
        status, text = await w.post(data=form or "x=1", headers=form_type())
        assert (status, text) == (400, "it names no CallSid")

    only(attack(body), "/twilio/voice refused: it names no CallSid")


def form_type(charset: str = "") -> dict[str, str]:
    return {"Content-Type": "application/x-www-form-urlencoded" + charset}


def multipart() -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("CallSid", b"x" * 1000, filename="a.bin")
    return form


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"data": multipart()}, 415),
        ({"data": b"CallSid=CA1", "headers": {"Content-Type": "multipart/form-data"}}, 415),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 415),
        ({"json": {"CallSid": "CA1"}}, 415),
        ({"data": b"CallSid=CA1", "headers": {"Content-Type": "text/plain"}}, 415),
        ({"data": b"CallSid=CA1", "headers": {"Content-Type": "application/octet-stream"}}, 415),
        ({"data": b"CallSid=CA1", "headers": form_type("; charset=klingon")}, 415),
        ({"data": b"CallSid=CA1", "headers": form_type("; charset=rot13")}, 415),
        ({"data": b"CallSid=CA1", "headers": form_type("; charset=utf-7")}, 415),
        ({"data": b"CallSid=CA1", "headers": {"Content-Type": "\xff/\xfe;;;="}}, 415),
        ({"data": b"CallSid=\xff\xfe\x80", "headers": form_type()}, 400),
        ({"data": b"&".join(b"a=1" for _ in range(5000)), "headers": form_type()}, 400),
        ({"data": b"CallSid=CA1", "headers": {**form_type(), "Content-Encoding": "gzip"}}, 400),
        ({"data": b"CallSid=" + b"x" * 70_000, "headers": form_type()}, 413),
        ({"data": b"x" * 1_000_000, "headers": form_type()}, 413),
    ],
)
def test_garbage_in_the_body(attack, options, status):
    async def body(s, w):
        data = {} if "json" in options else {"data": b""}
        assert (await w.post(**{**data, "headers": {}, **options}))[0] == status

    only(attack(body), "refused")


def test_a_zip_bomb_is_a_large_body(attack):
    import zlib

    async def body(s, w):
        bomb = zlib.compress(b"a" * 10_000_000, 9)
        assert len(bomb) < 16_000
        status, _ = await w.post(data=bomb, headers={**form_type(), "Content-Encoding": "deflate"})
        assert status == 413

    only(attack(body), "64 KiB")


def test_a_body_that_never_comes(attack, monkeypatch):
    monkeypatch.setattr("processors.twilio.routes.BODY_TIMEOUT", 0.05)

    async def body(s, w):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(s.base.rpartition(":")[2]))
        head = "POST /twilio/voice HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n"
        writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\nCallSid=".encode())
        assert b"408" in await reader.readline()
        await reader.read()  # the connection is closed after it
        writer.close()
        await writer.wait_closed()

    only(attack(body), "did not come within")


def test_a_body_that_breaks_off(attack, log):
    async def body(s, w):
        _, writer = await asyncio.open_connection("127.0.0.1", int(s.base.rpartition(":")[2]))
        head = "POST /twilio/voice HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n"
        writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\nCallSid=".encode())
        await writer.drain()
        writer.transport.abort()
        await s.until(lambda: "not a form" in log.text)

    only(attack(body), "not a form")


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /twilio/ws/w0.x HTTP/1.1\r\nHost: a\r\nX: \x00\x01\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /twilio/voice HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /twilio/voice HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=range(7),
)
def test_what_is_no_http(site, bystander, run_it, log, raw):
    async def main():
        async with site() as s, bystander(s):
            log.warnings()
            reader, writer = await asyncio.open_connection("127.0.0.1", int(s.base.rpartition(":")[2]))
            writer.write(raw)
            async with asyncio.timeout(5):
                first = await reader.readline()
            assert b" 400 " in first or first == b""
            writer.close()
            await writer.wait_closed()
            assert len(log.warnings()) <= 1
            assert log.errors == []

    run_it(main())


@pytest.mark.parametrize("host", ["evil host", "a/b", "a?b", "[::1", "a#b", 'a"><x>', "a@b", ""])
def test_a_host_that_is_none(attack, host):
    """Without a public URL the TwiML quotes the Host header: a stranger could write anything into it."""

    async def body(s, w):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(s.base.rpartition(":")[2]))
        form = "CallSid=CA1"
        head = f"POST /twilio/voice HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(form)}\r\n"
        writer.write(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode())
        assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()
        assert len(s.server.calls) == 1

    only(attack(body), "Host")


def test_methods_and_paths_that_are_not_ours(attack):
    async def body(s, w):
        assert (await w.get("/twilio/voice"))[0] == 405
        assert (await w.get("/twilio"))[0] == 404
        assert (await w.get("/twilio/ws/"))[0] == 404
        assert (await w.get("/twilio/ws/a/b"))[0] == 404
        assert (await w.get("/twilio/after/w0.x"))[0] == 405

    attack(body, expect=0)


# -- the upgrade ----------------------------------------------------------------------------------------


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.parametrize(
    "change",
    [
        dict.fromkeys(UPGRADE),
        {"Upgrade": "h2c"},
        {"Connection": "close"},
        {"Sec-WebSocket-Version": "1"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": None},
    ],
)
def test_a_get_that_opens_no_websocket(attack, change):
    """It must not use up the token, nor keep the call from its stream."""

    async def body(s, w):
        path = await w.announce()
        headers = {name: value for name, value in {**UPGRADE, **change}.items() if value is not None}
        assert (await w.get(path, **headers))[0] == 426
        assert s.server.admission.waiting == 1
        socket = await w.open(path)
        await socket.send_str(w.start())
        await s.until(lambda: s.agent.calls[-1].phase.value == "live")
        await socket.close()

    only(attack(body), "/twilio/ws/ refused", "WebSocket")


def test_head_on_the_stream(attack):
    async def body(s, w):
        path = await w.announce()
        async with w.http.head(s.base + path, headers=UPGRADE) as response:
            assert response.status == 426
        await (await w.open(path)).close()

    assert "WebSocket" in attack(body, expect=2)[0]


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [
        ("w0.nobody-was-ever-promised", 403, "unknown"),
        ("w0.", 403, "unknown"),
        ("w1.3rTabcdefghijklmnopqrs", 404, "belongs to worker 'w1'"),
        ("no-dot", 404, "belongs to worker"),
        ("%0Anew%20line.x", 404, "belongs to worker '\\nnew line'"),
        ("%FF%FE.x", 404, "belongs to worker"),
        ("a" * 4000, 404, "belongs to worker 'aaaaaaaaaaaaaaaa'"),
    ],
)
def test_a_token_that_is_not_ours(attack, token, status, words):
    async def body(s, w):
        assert await w.refused("/twilio/ws/" + token) == status

    only(attack(body), "/twilio/ws/ refused", words)


def test_a_token_works_once(site, bystander, run_it, log):
    """A second socket is refused while the first lives, and after it; the first one never notices."""

    async def main():
        async with site() as s, bystander(s), s.caller() as caller:
            await caller.wait_for("agent heard")
            log.warnings()
            assert await caller.second_socket() == 403
            only(log.warnings(), "used already")
            heard = caller.report.bytes_received
            await s.until(lambda: caller.report.bytes_received > heard + 1600)
            await caller.hang_up()
            await s.until(lambda: len(s.server.calls) == 1)
            url = caller.stream_url.replace("ws://", "http://")
            async with aiohttp.ClientSession() as http:
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    await http.ws_connect(url)
            assert caught.value.status == 403
            only(log.warnings(), "used already")
            assert not ONE_TIME.search(log.text)
            assert log.errors == []

    run_it(main())


def test_two_sockets_at_the_same_moment(attack):
    async def body(s, w):
        path = await w.announce()
        got = await asyncio.gather(*(w.open(path) for _ in range(8)), return_exceptions=True)
        sockets = [each for each in got if isinstance(each, aiohttp.ClientWebSocketResponse)]
        assert len(sockets) == 1
        await sockets[0].send_str(w.start())
        await s.until(lambda: s.agent.calls[-1].phase.value == "live")
        await sockets[0].close()

    attack(body, expect=7)


def test_a_token_expires(attack, monkeypatch):
    async def body(s, w):
        monkeypatch.setattr(admission, "TOKEN_SECONDS", 0.03)
        path = await w.announce()
        call = s.agent.calls[-1]
        await s.until(lambda: call.phase.value == "over")
        assert await w.refused(path) == 403
        status, twiml = await after(s, w)
        assert status == 200
        assert server.FALLBACK in twiml

    warnings = attack(body, expect=3)
    assert "its stream never came" in warnings[0]
    assert "expired" in warnings[1]
    assert "gets the fallback" in warnings[2]


async def after(s, w) -> tuple[int, str]:
    url = f"{s.base}/twilio/after/{w.token}"
    async with w.http.post(url, data=w.form(), headers=w.headers(url, w.form())) as response:
        return response.status, await response.text()


# -- before `start` -------------------------------------------------------------------------------------


@asynccontextmanager
async def refused_stream(s, w):
    """A stream that the test spoils; then it is closed as refused, and the caller hears the fallback."""
    socket = await w.open()
    call = s.agent.calls[-1]
    yield socket
    code = await w.closed(socket)
    assert code in (1008, 1009), code
    await s.until(lambda: call.phase.value == "over")
    status, twiml = await after(s, w)
    assert status == 200
    assert server.FALLBACK in twiml


def spoiled(warnings: list[str], words: str) -> None:
    assert f"stream refused: {words}" in warnings[-2], warnings
    assert "gets the fallback: its stream was refused" in warnings[-1], warnings


def test_start_of_another_call(attack):
    async def body(s, w):
        async with refused_stream(s, w) as socket:
            await socket.send_str(w.start(callSid="CA" + "8" * 32))

    spoiled(attack(body, expect=2), "it names another call than the webhook did")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"callSid": None}, "ignored bad start"),
        ({"callSid": 7}, "ignored bad start"),
        ({"streamSid": "MZ-other"}, "ignored bad start"),
    ],
)
def test_a_start_that_says_too_little(attack, monkeypatch, overrides, words):
    monkeypatch.setattr(server, "START_TIMEOUT", 0.1)

    async def body(s, w):
        async with refused_stream(s, w) as socket:
            await socket.send_str(w.start(**overrides))

    warnings = attack(body, expect=3)
    assert words in warnings[0]
    spoiled(warnings, "it did not start within 0.1 s")


@pytest.mark.parametrize(
    "media_format",
    [
        {"encoding": "audio/x-alaw", "sampleRate": 8000, "channels": 1},
        {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1},
        {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2},
        None,
        "audio/x-mulaw",
    ],
)
def test_a_format_we_do_not_speak(attack, media_format):
    async def body(s, w):
        async with refused_stream(s, w) as socket:
            await socket.send_str(w.start(mediaFormat=media_format))

    spoiled(attack(body, expect=2), "")


def test_no_start_in_time(attack, monkeypatch):
    monkeypatch.setattr(server, "START_TIMEOUT", 0.05)

    async def body(s, w):
        async with refused_stream(s, w) as socket:
            await socket.ping()

    spoiled(attack(body, expect=2), "it did not start within 0.05 s")


def test_closed_before_start(attack):
    async def body(s, w):
        socket = await w.open()
        await socket.close()
        await s.until(lambda: s.agent.calls[-1].phase.value == "over")

    only(attack(body), "stream refused: it closed before it had started")


def test_cut_before_start(attack):
    async def body(s, w):
        socket = await w.open()
        socket._response.connection.transport.abort()
        await s.until(lambda: s.agent.calls[-1].phase.value == "over")
        await socket.close()

    only(attack(body), "stream refused: it closed before it had started")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\x00\x01", "binary message"),
        ("{", "bad JSON"),
        ("[1]", "not an object"),
        ('"start"', "not an object"),
        ("null", "not an object"),
        ("[" * 60_000, "bad JSON"),
        ('{"event":"media"}', "message before start"),
        ('{"event":{"a":1}}', "message before start"),
        ("{}", "message before start"),
    ],
)
def test_rubbish_instead_of_start(attack, message, words):
    """One line for its kind, however often it comes, and one for the end."""

    async def body(s, w):
        async with refused_stream(s, w) as socket:
            for _ in range(server.MESSAGES_BEFORE_START):
                await send(socket, message)

    warnings = attack(body, expect=3)
    assert f"ignored {words} before the stream started" in warnings[0]
    spoiled(warnings, f"it sent {server.MESSAGES_BEFORE_START} messages and never started")


async def send(socket: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    try:
        await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
    except aiohttp.ClientConnectionResetError:
        pass  # the server has closed already: that is what we want


@pytest.mark.parametrize("message", ["x" * 70_000, b"x" * 70_000])
def test_a_message_over_64_kib_before_start(attack, message):
    async def body(s, w):
        async with refused_stream(s, w) as socket:
            await send(socket, message)

    spoiled(attack(body, expect=2), "a message was larger than allowed")


def test_a_frame_that_breaks_the_websocket_protocol(attack):
    async def body(s, w):
        socket = await w.open()
        call = s.agent.calls[-1]
        socket._response.connection.transport.write(b"\xf7\xff" + b"\x00" * 20)  # reserved bits and opcode
        await w.closed(socket)
        await s.until(lambda: call.phase.value == "over")

    only(attack(body), "stream refused", "WebSocket protocol")


# -- after `start` --------------------------------------------------------------------------------------


RUBBISH = [
    (b"\x00\x01", "binary message"),
    ("{", "bad JSON"),
    ("\ud83d".encode("utf-8", "replace").decode(), "bad JSON"),
    ("[" * 60_000, "bad JSON"),
    ("[1]", "not an object"),
    ("1e999", "not an object"),
    ('{"event":"media","streamSid":"MZ-other","media":{"payload":"AAAA"}}', "wrong streamSid"),
    ('{"event":"stop"}', "wrong streamSid"),
    ('{"event":"launch","streamSid":"SID"}', "unknown event"),
    ('{"event":["media"],"streamSid":"SID"}', "unknown event"),
    ('{"event":"start","streamSid":"SID"}', "second start"),
    ('{"event":"connected","streamSid":"SID"}', "second connected"),
    ('{"event":"media","streamSid":"SID"}', "bad media"),
    ('{"event":"media","streamSid":"SID","media":{"payload":"%%%"}}', "bad media"),
    ('{"event":"media","streamSid":"SID","media":{"payload":7}}', "bad media"),
    ('{"event":"media","streamSid":"SID","media":"x"}', "bad media"),
    ('{"event":"mark","streamSid":"SID","mark":{"name":7}}', "bad mark"),
    ('{"event":"dtmf","streamSid":"SID","dtmf":{"digit":"evil\\nline"}}', "bad digit"),
]


@pytest.mark.parametrize(("message", "words"), RUBBISH, ids=range(len(RUBBISH)))
def test_rubbish_in_a_live_stream_is_ignored(attack, message, words):
    """Its own call goes on as well: good audio before and after it is heard, and the agent speaks."""

    async def body(s, w):
        socket = await w.started()
        call = s.agent.calls[-1]
        await socket.send_str(w.media(0))
        text = message.replace("SID", w.stream_sid) if isinstance(message, str) else message
        for _ in range(3):
            await send(socket, text)
        await socket.send_str(w.media(1))
        source = call._pipeline.source
        await s.until(lambda: source.packets == 2)
        assert source.faults == {words: 3}
        async with asyncio.timeout(5):
            assert json.loads((await socket.receive()).data)["event"] == "media"
        await socket.close()

    only(attack(body), f"line: ignored {words}")


def test_a_thousand_bad_messages_end_the_call(attack):
    async def body(s, w):
        socket = await w.started()
        call = s.agent.calls[-1]
        for number in range(1100):
            await send(socket, "{" if number % 2 else "[]")
        assert await w.closed(socket) == 1000
        await s.until(lambda: call.phase.value == "over")
        assert s.finished[-1].normal is False
        assert server.FALLBACK in (await after(s, w))[1]

    warnings = attack(body, expect=4)
    assert "ignored not an object" in warnings[0]
    assert "ignored bad JSON" in warnings[1]
    assert "1000 messages broke the protocol" in warnings[2]
    assert "gets the fallback" in warnings[3]


@pytest.mark.parametrize("message", ["x" * 70_000, b"x" * 70_000])
def test_a_message_over_64_kib_in_a_live_stream(attack, message):
    async def body(s, w):
        socket = await w.started()
        call = s.agent.calls[-1]
        await s.until(lambda: call.phase.value == "live")
        await send(socket, message)
        assert await w.closed(socket) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await s.until(lambda: call.phase.value == "over")
        assert s.finished[-1].normal is False

    only(attack(body), "a message was larger than allowed")


def test_a_large_message_in_many_small_fragments(attack):
    async def body(s, w):
        socket = await w.started()
        call = s.agent.calls[-1]
        await s.until(lambda: call.phase.value == "live")
        transport = socket._response.connection.transport
        mask = b"\x00\x00\x00\x00"
        transport.write(b"\x01\xfd" + mask + b"x" * 125)
        for _ in range(700):
            transport.write(b"\x00\xfd" + mask + b"x" * 125)
        assert await w.closed(socket) == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
        await s.until(lambda: call.phase.value == "over")

    only(attack(body), "a message was larger than allowed")


def test_audio_with_absurd_numbers(attack):
    """Timestamps that jump, run backwards, or are no numbers; packets of one byte and of 40,000."""

    async def body(s, w):
        socket = await w.started()
        call = s.agent.calls[-1]
        stamps = ["99999999999999", "0", "-5", "x" * 50, "9" * 5000, 12.5, None, True, [1], "20"]
        for stamp in stamps:
            media = {"track": "inbound", "payload": "/w==", "timestamp": stamp}
            await socket.send_str(json.dumps({"event": "media", "streamSid": w.stream_sid, "media": media}))
        await socket.send_str(w.media(1, b"\xff" * 40_000))
        source = call._pipeline.source
        await s.until(lambda: source.packets == len(stamps) + 1)
        await socket.close()

    only(attack(body), "bad timestamp")


def test_a_webhook_that_is_not_twilio_cannot_exhaust_the_lines(site, wire, run_it, log, monkeypatch):
    """Announced calls whose stream never comes hold a line only until their token expires."""
    monkeypatch.setattr(admission, "TOKEN_SECONDS", 0.2)

    async def main():
        async with site(max_calls=3) as s, wire(s) as w:
            for number in range(3):
                w.call_sid = f"CA{number:032d}"
                await w.announce()
            w.call_sid = f"CA{3:032d}"
            status, twiml = await w.post()
            assert status == 200
            assert "All our lines are busy" in twiml
            await s.empty()
            await w.announce()
            assert log.errors == []

    run_it(main())


def test_a_call_that_is_announced_twice_holds_one_line(site, wire, run_it, log):
    """A carrier that lost our answer asks again: the first token is void, and holds no line."""

    async def main():
        async with site(max_calls=1) as s, wire(s) as w:
            await w.announce()
            await w.announce()
            assert len(s.server.calls) == 1
            assert s.server.admission.waiting == 1
            assert log.errors == []

    run_it(main())


def test_nothing_listens_to_strangers_by_their_answers(attack):
    """What a refusal says holds no secret, and is plain text."""

    async def body(s, w):
        async with w.http.post(s.voice, data=w.form()) as response:
            assert response.content_type == "text/plain"
            assert AUTH_TOKEN not in await response.text()

    attack(body, auth_token=AUTH_TOKEN)
