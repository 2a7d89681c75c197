"""Who may open the page, and who may talk: hosts, origins, passwords."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from browser_page import client, site

from pipelines import vad_only
from processors.browser.access import COOKIE, SESSIONS_BOUND, TRIES, Access, dashboard
from processors.browser.routes import FILES
from voiceflow.errors import VoiceflowError

PASSWORD = "correct horse"
PUBLIC = "https://agent.example.com"
PATHS = ["/", "/browser/state", "/browser/talk.js", "/browser/calls/x/trace", "/browser/calls/x/audio"]


# -- this machine only ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_another_host_is_refused(path: str) -> None:
    """A page of a stranger whose name leads to this machine (DNS rebinding) has its own name in Host."""

    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]", "[", ""):
                status, _ = await c.get(path, Host=host)
                assert status in (400, 403), host
            for host in ("127.0.0.1", "localhost:9", "[::1]:8080", "LOCALHOST"):
                assert (await c.get(path, Host=host))[0] in (200, 404), host

    asyncio.run(main())


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "CF-Connecting-IP"])
def test_a_proxy_needs_a_password(header: str) -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            status, text = await c.get("/", **{header: "192.0.2.7"})
            assert status == 403
            assert "--dashboard with a password" in text

    asyncio.run(main())


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://localhost:1", "file://", "https://127.0.0.1"]
)
def test_another_origin_cannot_call(origin: str) -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            right = c.origin
            offer = await c.offer()
            c.origin = origin
            status, _ = await c.post("/browser/calls")
            assert status == 403
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await c.socket(offer["token"])
            assert refused.value.status == 403
            c.origin = right
            await (await c.socket(offer["token"])).close()  # the token was not used up

    asyncio.run(main())


def test_a_form_of_a_stranger_is_no_call() -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            for kind in ("text/plain", "application/x-www-form-urlencoded"):
                async with c.http.post(
                    s.url + "/browser/calls",
                    data="{}",
                    headers={"Origin": c.origin, "Content-Type": kind},
                ) as response:
                    assert response.status == 415
            for body in ("{", "[]", "[" * 50_000):
                async with c.http.post(
                    s.url + "/browser/calls",
                    data=body,
                    headers={"Origin": c.origin, "Content-Type": "application/json"},
                ) as response:
                    assert response.status == 400
            assert not s.server.calls

    asyncio.run(main())


def test_the_page_brings_all_it_needs_and_allows_nothing_else() -> None:
    async def main() -> None:
        async with site(vad_only.pipeline) as s, client(s) as c:
            async with c.http.get(s.url + "/") as response:
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
            for path in ("/browser/talk.html", "/browser/..%2frouts.py", "/browser/nothing.js"):
                assert (await c.get(path))[0] == 404
            for name in [path.name for path in FILES.iterdir() if path.suffix != ".html"]:
                assert (await c.get(f"/browser/{name}"))[0] == 200

    asyncio.run(main())
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text.replace("http://127", "")
        assert "//cdn" not in text
        if path.suffix == ".html":
            assert "<style" not in text
            assert " style=" not in text
            assert "onclick" not in text


# -- with a password --------------------------------------------------------------------------------------


def test_without_the_password_there_is_only_the_login() -> None:
    async def main() -> None:
        async with site(vad_only.pipeline, access=Access(password=PASSWORD)) as s, client(s) as c:
            status, text = await c.get("/")
            assert (status, "Password" in text) == (200, True)
            for path in ("/browser/state", "/browser/calls/x/trace", "/browser/calls/x/audio"):
                assert (await c.get(path))[0] == 401
            assert (await c.post("/browser/calls"))[0] == 401
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await c.socket("w0.x")
            assert refused.value.status == 401
            for cookie in ("", "guess", "x" * 4000):
                assert (await c.get("/browser/state", Cookie=f"{COOKIE}={cookie}"))[0] == 401

    asyncio.run(main())


def test_the_password_gives_a_cookie() -> None:
    async def main() -> None:
        access = Access(password=PASSWORD, public_url=PUBLIC)
        async with site(vad_only.pipeline, access=access) as s, client(s) as c:
            c.origin = PUBLIC  # a proxy put its own name for us into Host
            async with c.http.post(
                s.url + "/browser/login", json={"password": PASSWORD}, headers={"Origin": PUBLIC}
            ) as response:
                assert response.status == 200
                cookie = response.cookies[COOKIE]
                assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Strict", True)
            with_cookie = {"Cookie": f"{COOKIE}={cookie.value}"}
            state = json.loads((await c.get("/browser/state?quick", **with_cookie))[1])
            assert state["login"] is True
            assert "Password" not in (await c.get("/", **with_cookie))[1]
            assert (await c.post("/browser/calls", **with_cookie))[0] == 200
            c.origin = "https://evil.example"
            assert (await c.post("/browser/calls", **with_cookie))[0] == 403
            c.origin = PUBLIC
            assert (await c.post("/browser/logout", **with_cookie))[0] == 200
            assert (await c.get("/browser/state", **with_cookie))[0] == 401

    asyncio.run(main())


def test_wrong_passwords_become_slow_and_who_is_in_stays_in() -> None:
    async def main() -> None:
        async with site(vad_only.pipeline, access=Access(password=PASSWORD)) as s, client(s) as c:
            for wrong in ("", "x", PASSWORD + " ", None, 7)[:TRIES]:
                status, body = await c.post("/browser/login", {"password": wrong})
                assert (status, body["error"]) == (403, "That is not the password.")
            status, body = await c.post("/browser/login", {"password": PASSWORD})
            assert status == 429
            assert "wait 3 s" in body["error"]

    asyncio.run(main())


def test_tries_come_back_and_sessions_end() -> None:
    now = [0.0]
    access = Access(password=PASSWORD, clock=lambda: now[0])
    first, _ = access.log_in(PASSWORD)
    for _ in range(TRIES):
        assert access.log_in("wrong guess") == (None, 0.0)
    assert access.log_in(PASSWORD) == (None, 3.0)
    now[0] += 3
    again, wait = access.log_in(PASSWORD)
    assert (bool(again), wait) == (True, 0.0)
    assert first != again
    for _ in range(SESSIONS_BOUND + 5):
        now[0] += 3
        access.log_in(PASSWORD)
    assert len(access._sessions) == SESSIONS_BOUND
    assert all(PASSWORD not in kept and str(again) not in kept for kept in access._sessions)


# -- whether there is a page --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "password", "host", "public_url", "page"),
    [
        (None, "", "127.0.0.1", "", True),
        (None, "", "::1", "", True),
        (None, "", "localhost", "http://127.0.0.1:8080", True),
        (None, "", "0.0.0.0", "", False),
        (None, "", "0.0.0.0", PUBLIC, False),
        (None, "", "127.0.0.1", PUBLIC, False),
        (None, PASSWORD, "0.0.0.0", PUBLIC, False),
        (False, "", "127.0.0.1", "", False),
        (True, "", "127.0.0.1", "", True),
        (True, PASSWORD, "0.0.0.0", PUBLIC, True),
        (True, PASSWORD, "127.0.0.1", PUBLIC, True),
    ],
)
def test_where_there_is_a_page(wanted, password, host, public_url, page) -> None:
    access = dashboard(wanted=wanted, password=password, host=host, public_url=public_url)
    assert (access is not None) == page
    if access is not None:
        assert access.wants_password == bool(password)


@pytest.mark.parametrize(("host", "public_url"), [("0.0.0.0", ""), ("127.0.0.1", PUBLIC)])
def test_in_public_it_wants_a_password(host: str, public_url: str) -> None:
    with pytest.raises(VoiceflowError, match="set a password with VOICEFLOW_DASHBOARD_PASSWORD"):
        dashboard(wanted=True, password="", host=host, public_url=public_url)


def test_a_short_password_is_none() -> None:
    with pytest.raises(VoiceflowError, match="7 characters: use at least 8"):
        dashboard(wanted=True, password="1234567", host="0.0.0.0", public_url="")
