"""Signatures against vectors from elsewhere, addresses and secrets, when to try again, what is kept."""

from __future__ import annotations

import asyncio
import base64
import random
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from voiceflow.errors import DeclarationError, VoiceflowError
from voiceflow.webhook import WebhookRejected, new_secret, verify
from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.post import attempt
from voiceflow.webhook.retry import RETRY_AFTER_MOST, Answer, Retry, advice, retry_after
from voiceflow.webhook.signature import PREFIX, Secret, headers
from voiceflow.webhook.spool import Spool, kept

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "https://example.com/calls/9f8e7d6c"
NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)

VECTORS = [
    # The test of the Standard Webhooks project's own libraries.
    (SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}',
     "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    # printf '%s' ID.TIMESTAMP.BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:KEY -binary | base64
    (OTHER, "msg_0123", 1795370000, '{"type":"call.ended","text":"Grüß Gott"}'.encode(),
     "v1,ALQO9PZCrCm6O7gFNz9CnUIK47OnYtSlxUZjMzWLWf4="),
    (OTHER, "msg_0123", 1795370000, b"", "v1,nVcYBXKNZUnmJKQIBLlfUcS3vn7pn6mrojhtqmOqsxo="),
    ("whsec_" + "/" * 85 + "w==", "msg_0123", 0, b"\x00\xff",
     "v1,uVYDHzYRd/6A+YZsby42B5oy+g6IW+IXd5Tm0COpCNg="),
]  # fmt: skip


# -- signatures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("secret", "id", "at", "body", "signature"), VECTORS)
def test_signatures_of_others(secret: str, id: str, at: int, body: bytes, signature: str) -> None:
    assert headers([Secret.of(secret)], id, at, body) == {
        "webhook-id": id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }
    assert Secret.of(secret.removeprefix(PREFIX)) == Secret.of(secret)
    given = {"Webhook-Id": id, "WEBHOOK-TIMESTAMP": str(at), "webhook-signature": signature}
    assert verify(secret, given, body, now=at + 299.0) == id


def signed(secret: str = SECRET, id: str = "msg_1", at: int = 1000, body: bytes = b"{}") -> dict[str, str]:
    return headers([Secret.of(secret)], id, at, body)


def test_verify_takes_text_too_and_the_clock_of_the_system() -> None:
    at = int(datetime.now(UTC).timestamp())
    assert verify(SECRET, signed(at=at, body='{"a": "ä"}'.encode()), '{"a": "ä"}') == "msg_1"
    with pytest.raises(WebhookRejected, match="old"):
        verify(SECRET, signed(at=at - 400), b"{}")


def test_a_secret_is_replaced_without_losing_anything() -> None:
    both = headers([Secret.of(OTHER), Secret.of(SECRET)], "msg_1", 1000, b"{}")
    assert len(both["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER, [SECRET, OTHER]):
        assert verify(secret, both, b"{}", now=1000) == "msg_1"
    assert verify([OTHER, SECRET], signed(), b"{}", now=1000) == "msg_1"  # a receiver that knows both


@pytest.mark.parametrize(
    ("changed", "body", "words"),
    [
        ({"webhook-id": "msg_2"}, b"{}", "no signature of it is right"),
        ({"webhook-timestamp": "1001"}, b"{}", "no signature of it is right"),
        ({}, b"{ }", "no signature of it is right"),
        ({"webhook-signature": "v1,"}, b"{}", "no signature of it is right"),
        ({"webhook-signature": "v1,g0hM9SsE"}, b"{}", "no signature of it is right"),
        ({"webhook-signature": "v1,ä"}, b"{}", "no signature of it is right"),
        ({"webhook-signature": "v1,\udcff"}, b"{}", "no signature of it is right"),
        ({"webhook-id": "\udcff"}, "\udcff", "no signature of it is right"),
        ({"webhook-signature": signed()["webhook-signature"].replace("v1,", "v2,")}, b"{}", "no signature"),
        ({"webhook-signature": signed()["webhook-signature"][:-1]}, b"{}", "no signature of it is right"),
        ({"webhook-signature": signed(OTHER)["webhook-signature"]}, b"{}", "no signature of it is right"),
        ({"webhook-signature": ""}, b"{}", "it has no webhook-signature"),
        ({"webhook-id": ""}, b"{}", "it has no webhook-id"),
        ({"webhook-timestamp": ""}, b"{}", "it has no webhook-timestamp"),
        ({"webhook-timestamp": "1e3"}, b"{}", "no number of seconds"),
        ({"webhook-timestamp": "-1000"}, b"{}", "no number of seconds"),
        ({"webhook-timestamp": "²"}, b"{}", "no number of seconds"),
        ({"webhook-timestamp": "9" * 5000}, b"{}", "no number of seconds"),
    ],
)
def test_what_is_not_genuine(changed: dict[str, str], body: bytes | str, words: str) -> None:
    with pytest.raises(WebhookRejected, match=words):
        verify(SECRET, {**signed(), **changed}, body, now=1000)


def test_what_is_too_old_or_from_the_future() -> None:
    for age in (-300, 0, 300):
        verify(SECRET, signed(at=10_000), b"{}", now=10_000 + age)
    with pytest.raises(WebhookRejected, match="301 s old"):
        verify(SECRET, signed(at=10_000), b"{}", now=10_301)
    with pytest.raises(WebhookRejected, match="301 s in the future"):
        verify(SECRET, signed(at=10_000), b"{}", now=9_699)
    with pytest.raises(WebhookRejected):
        verify(SECRET, signed(at=10_000), b"{}", now=float("nan"))
    verify(SECRET, signed(at=10_000), b"{}", now=20_000, tolerance=10_000)


def test_secrets() -> None:
    fresh = {new_secret() for _ in range(10)}
    assert len(fresh) == 10
    for each in fresh:
        assert each.startswith(PREFIX)
        assert len(Secret.of(each).key) == 32
    for wrong in ("", "whsec_", "whsec_no base64!", "whsec_" + "A" * 28, "whsec_" + "A" * 88, "ä"):
        with pytest.raises(DeclarationError, match="voiceflow webhook secret"):
            Secret.of(wrong)
    with pytest.raises(DeclarationError) as refused:
        Secret.of("whsec_abcdef")
    assert "abcdef" not in str(refused.value)
    assert "MfKQ" not in repr(Secret.of(SECRET))
    with pytest.raises(DeclarationError, match="no webhook secret"):
        verify([], signed(), b"{}", now=1000)


# -- the address ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (URL, "example.com"),
        ("https://example.com:8443/x?key=9f8e7d6c", "example.com:8443"),
        ("http://127.0.0.1:9/x", "127.0.0.1:9"),
        ("http://localhost/x", "localhost"),
        ("http://[::1]:80", "[::1]:80"),
    ],
)
def test_an_address(url: str, host: str) -> None:
    endpoint = Endpoint.of(url, SECRET)
    assert endpoint.host == host
    assert "9f8e7d6c" not in repr(endpoint)
    assert "MfKQ" not in repr(endpoint)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("example.com/9f8e7d6c", "write it like https://"),
        ("ftp://example.com/9f8e7d6c", "write it like https://"),
        ("https://", "write it like https://"),
        ("https://[::1/9f8e7d6c", "write it like https://"),
        ("https://example.com:port/9f8e7d6c", "write it like https://"),
        ("https://example.com/9f8e7d6c x", "write it like https://"),
        ("https://example.com/9f8e7d6c\nHost: x", "write it like https://"),
        ("http://example.com/9f8e7d6c", "must be https://"),
        ("http://127.0.0.1.example.com/9f8e7d6c", "must be https://"),
        ("http://10.0.0.1/9f8e7d6c", "must be https://"),
        ("https://me:9f8e7d6c@example.com", "a user name"),
        ("https://example.com/#9f8e7d6c", "a user name or a fragment"),
        ("", "VOICEFLOW_WEBHOOK_URL"),
    ],
)
def test_an_address_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(DeclarationError, match=words) as refused:
        Endpoint.of(url, SECRET)
    assert "9f8e7d6c" not in str(refused.value)


def test_address_and_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DeclarationError, match=r"VOICEFLOW_WEBHOOK_SECRET is not set: .* `voiceflow webhook secret`"
    ):
        Endpoint.of(URL)
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_URL", URL)
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_SECRET", f" {OTHER}  {SECRET} ")
    assert Endpoint.of() == Endpoint(URL, "example.com", (Secret.of(OTHER), Secret.of(SECRET)))
    monkeypatch.setenv("VOICEFLOW_WEBHOOK_SECRET", f"{OTHER},{SECRET}")
    with pytest.raises(DeclarationError) as refused:
        Endpoint.of()
    assert "MfKQ" not in str(refused.value)


# -- when to try again ------------------------------------------------------------------------------------


def test_pauses_grow_and_are_bounded() -> None:
    retry = Retry()
    chance = random.Random(1)
    for tried, exact in enumerate([1, 3, 9, 27, 81, 243, 300, 300, 300], 1):
        pauses = [retry.pause(tried, chance) for _ in range(200)]
        assert exact / 2 <= min(pauses) < exact * 0.6 < exact * 0.9 < max(pauses) <= exact
    assert retry.pause(10**6, chance) <= 300
    assert [retry.pause(3, random.Random(5)) for _ in range(2)] == [retry.pause(3, random.Random(5))] * 2


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("0", 0),
        ("86400", RETRY_AFTER_MOST),
        ("9" * 5000, RETRY_AFTER_MOST),
        ("", 0),
        ("-5", 0),
        ("1.5", 0),
        ("²", 0),
        ("soon", 0),
        (format_datetime(NOW + timedelta(seconds=30), usegmt=True), 30),
        (format_datetime(NOW - timedelta(seconds=30), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=30), usegmt=True), RETRY_AFTER_MOST),
        ("Sun, 22 Nov 2026 15:31:00 -0000", 60),
        ("Sun, 99 Nov 2026 15:31:00 GMT", 0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert retry_after(header, NOW) == seconds


def test_which_answers_are_final() -> None:
    assert [s for s in range(100, 600) if Answer(s).taken] == list(range(200, 300))
    again = [s for s in range(100, 600) if Answer(s).temporary]
    assert again == [408, 425, 429, *range(500, 600)]
    for status in (301, 307, 400, 401, 404, 410, 413, 422):
        assert advice(status)


# -- what is kept -----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_keep_anything(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(VoiceflowError, match="webhooks cannot be kept in"):
        Spool(file / "x")


def test_what_is_kept_is_private_and_what_is_no_event_is_told(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool")
    path = spool.keep("msg_0123456789abcdef", "w0/../1", NOW, b'{"type": "call.ended"}')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.path.stat().st_mode) == 0o700
    assert path == spool.path / "20261122T153000Z-w0_.._1-89abcdef.webhook"
    (spool.path / "other.json").write_text("{}")
    (spool.path / "a.webhook").write_bytes(b"\xff")
    (spool.path / "b.webhook").mkdir()
    found = list(kept(spool.path))
    assert all(isinstance(each, VoiceflowError) for each in found)
    assert [str(each).count(str(spool.path)) for each in found] == [1, 1, 1]


def test_a_try_signs_anew() -> None:
    stamps: list[str] = []

    async def send(url: str, given: Mapping[str, str], body: bytes) -> Answer:
        verify(SECRET, given, body, now=float(given["webhook-timestamp"]))
        stamps.append(given["webhook-timestamp"])
        return Answer(503, "12")

    async def main() -> None:
        endpoint = Endpoint.of(URL, SECRET)
        for later in (0, 600):
            now = NOW + timedelta(seconds=later)
            tried = await attempt(send, endpoint, "msg_1", b"{}", now.replace)
            assert (tried.final, tried.asked) == (False, 12)
            assert tried.problem == "example.com answered HTTP 503"

    asyncio.run(main())
    assert int(stamps[1]) - int(stamps[0]) == 600
