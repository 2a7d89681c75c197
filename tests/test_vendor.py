"""What all vendors share: keys, addresses, advice; and the proxies between them and us."""

from __future__ import annotations

import pytest

from voiceflow.errors import DeclarationError, LinkError, LinkRefused
from voiceflow.line.proxies import proxy_for
from voiceflow.vendor import Key, MissingKeys, base_url, explained, quote

KEY = Key("X_API_KEY", "https://x.example/keys", "sk-secret")


@pytest.mark.parametrize(
    ("given", "web_socket", "found"),
    [
        (None, False, "https://api.x.example"),
        (None, True, "wss://api.x.example"),
        ("http://127.0.0.1:80/v1/", False, "http://127.0.0.1:80/v1"),
        ("http://127.0.0.1:80", True, "ws://127.0.0.1:80"),
        ("wss://eu.x.example", False, "https://eu.x.example"),
        ("  ", False, "https://api.x.example"),
    ],
)
def test_an_address_serves_both_kinds_of_connection(given: str | None, web_socket: bool, found: str) -> None:
    assert base_url("X_BASE_URL", given, "https://api.x.example", web_socket=web_socket) == found


@pytest.mark.parametrize(
    "given", ["api.x.example", "ftp://x.example", "http://", "http://[bad", "https:///v1"]
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(DeclarationError, match="X_BASE_URL is no address: it should look like https://x"):
        base_url("X_BASE_URL", given, "https://x.example")


def test_the_environment_is_asked_and_parameters_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X_API_KEY", " from-environment ")
    monkeypatch.setenv("X_BASE_URL", "ws://here")
    assert Key.of("X_API_KEY", None, "").value == "from-environment"
    assert Key.of("X_API_KEY", "given", "").value == "given"
    assert not Key.of("Y_API_KEY", None, "")
    assert base_url("X_BASE_URL", None, "https://x.example") == "http://here"


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 418, 429, 500, 503])
def test_a_refusal_says_what_to_do_and_shows_no_key(status: int) -> None:
    error = explained(LinkRefused("h", status, f"bad key {KEY.value}\nreally", {}), "X", KEY)
    assert isinstance(error, LinkRefused)
    assert error.status == status
    assert str(error).startswith(f"X refused (HTTP {status}): ")
    assert str(error).endswith("(bad key *** really)")
    assert KEY.value not in repr(error)
    assert str(explained(LinkError(f"h quotes {KEY.value}"), "X", KEY)) == "X: h quotes ***"


def test_quotes_are_short() -> None:
    assert quote("x" * 500) == f" ({'x' * 160}...)"
    assert quote("  \n ") == ""


def test_all_missing_keys_are_told_at_once() -> None:
    error = MissingKeys([Key("A_KEY", "https://a"), Key("B_KEY", "https://b")])
    assert str(error).splitlines() == [
        "A_KEY is not set: get one at https://a",
        "B_KEY is not set: get one at https://b",
        "Put them into .env or the environment (see .env.example)",
    ]


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert proxy_for("wss://api.x.example/v1") == "http://proxy:3128"
    assert proxy_for("https://api.x.example") == "http://proxy:3128"
    assert proxy_for("https://inside.example") is None
    assert [proxy_for(f"https://{host}") for host in ("localhost", "127.0.0.1:443", "[::1]")] == [None] * 3
