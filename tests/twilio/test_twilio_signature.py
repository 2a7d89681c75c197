"""Signatures: values computed once with Twilio's own library (9.13.0), and every way to be wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.twilio.signature import sign, valid

TOKEN = "12345"
URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
GOLDEN = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
SHA256 = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
GOLDEN_SHA256 = "033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s="


def test_the_documented_example() -> None:
    assert sign(TOKEN, URL, FORM) == GOLDEN
    assert valid(TOKEN, URL, FORM, GOLDEN)


def test_the_order_of_the_form_does_not_matter() -> None:
    assert sign(TOKEN, URL, list(reversed(FORM.items()))) == GOLDEN


def test_sha256_when_the_settings_header_says_so() -> None:
    assert sign(TOKEN, URL, FORM, settings=SHA256) == GOLDEN_SHA256
    assert valid(TOKEN, URL, FORM, GOLDEN_SHA256, settings=SHA256)
    assert valid(TOKEN, URL, FORM, GOLDEN_SHA256, settings="algorithm = hmac_sha256 , key=k")
    assert not valid(TOKEN, URL, FORM, GOLDEN_SHA256)
    assert not valid(TOKEN, URL, FORM, GOLDEN, settings=SHA256)
    assert valid(TOKEN, URL, FORM, GOLDEN, settings="key=only")


def test_an_unknown_algorithm_is_refused() -> None:
    assert not valid(TOKEN, URL, FORM, GOLDEN, settings="key=k,algorithm=NONE")
    with pytest.raises(ValueError, match="NONE"):
        sign(TOKEN, URL, FORM, settings="algorithm=NONE")


class MultiDict(Mapping[str, str]):
    """A form as web frameworks give it: `items` repeats a name, `[]` gives its first value."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> str:
        return next(value for known, value in self._pairs if known == name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._pairs))

    def __len__(self) -> int:
        return len(dict(self._pairs))

    def items(self):  # type: ignore[no-untyped-def]
        return self._pairs


def test_what_is_signed_is_the_url_and_the_sorted_fields() -> None:
    values = list("hgfedcbahh")
    fields = "A1" + "".join(f"Z{value}" for value in "abcdefgh")
    assert sign(TOKEN, URL, {"Z": values, "A": "1"}) == sign(TOKEN, URL + fields)


def test_repeated_names_are_signed_with_unique_sorted_values() -> None:
    golden = "ZOD/1rYB/ggPf01hMQu067SkyA0="
    pairs = [("Z", "b"), ("A", "1"), ("Z", "a"), ("Z", "b"), ("é", "ü")]
    assert sign(TOKEN, URL, pairs) == golden
    assert sign(TOKEN, URL, MultiDict(pairs)) == golden
    assert sign(TOKEN, URL, {"Z": ["b", "a", "b"], "A": "1", "é": ["ü"]}) == golden


@pytest.mark.parametrize(
    ("token", "url", "form", "signature"),
    [
        ("54321", URL, FORM, GOLDEN),
        (TOKEN, URL.replace("https", "http"), FORM, GOLDEN),
        (TOKEN, URL + "&x=1", FORM, GOLDEN),
        (TOKEN, URL.replace("myapp", "other"), FORM, GOLDEN),
        (TOKEN, URL, {**FORM, "Digits": "1235"}, GOLDEN),
        (TOKEN, URL, {**FORM, "More": ""}, GOLDEN),
        (TOKEN, URL, {}, GOLDEN),
        (TOKEN, URL, FORM, ""),
        (TOKEN, URL, FORM, GOLDEN[:-1]),
        (TOKEN, URL, FORM, GOLDEN + " "),
        (TOKEN, URL, FORM, "Grüße \udc80"),
    ],
)
def test_anything_else_is_not_valid(token: str, url: str, form: dict[str, str], signature: str) -> None:
    assert not valid(token, url, form, signature)


def test_an_empty_token_is_an_error_and_not_a_key() -> None:
    with pytest.raises(ValueError, match="auth token"):
        sign("", URL, FORM)
    with pytest.raises(ValueError, match="auth token"):
        valid("", URL, FORM, GOLDEN)


@pytest.mark.parametrize(
    ("ours", "signed"),
    [
        ("https://h.example/v", "https://h.example:443/v"),
        ("https://h.example:443/v", "https://h.example/v"),
        ("https://h.example:8443/v?a=1", "https://h.example/v?a=1"),
        ("http://h.example/v", "http://h.example:80/v"),
        ("https://[::1]/v", "https://[::1]:443/v"),
        ("https://[::1]:443/v", "https://[::1]/v"),
        ("https://user:pass@h.example/v", "https://user:pass@h.example:443/v"),
    ],
)
def test_with_and_without_the_port(ours: str, signed: str) -> None:
    assert valid(TOKEN, ours, FORM, sign(TOKEN, signed, FORM))


def test_a_slash_at_the_end_matters_for_webhooks() -> None:
    assert not valid(TOKEN, "https://h.example/v", FORM, sign(TOKEN, "https://h.example/v/", FORM))


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("port", ["", ":443"])
@pytest.mark.parametrize("ours", ["wss://h.example/ws/T", "wss://h.example:443/ws/T/"])
def test_the_upgrade_is_valid_in_all_four_spellings(ours: str, port: str, slash: str) -> None:
    assert valid(TOKEN, ours, {}, sign(TOKEN, f"wss://h.example{port}/ws/T{slash}"))


def test_the_upgrade_as_twilios_library_signs_it() -> None:
    for golden in (
        "wQu7eOsIPICZKF4lgb7ZM57/RfY=",
        "Glr/YzwHENS/bWayzOhwJK39GVU=",
        "RrXEEgG4Yxzn9bzAUX0HWq7VxM8=",
    ):
        assert valid(TOKEN, "wss://h.example/ws/T", {}, golden)


@pytest.mark.parametrize(
    "signed",
    ["https://h.example/ws/T", "wss://h.example/ws/U", "wss://h.example/ws", "wss://h.example:80/ws/T"],
)
def test_the_upgrade_is_bound_to_scheme_path_and_port(signed: str) -> None:
    assert not valid(TOKEN, "wss://h.example/ws/T", {}, sign(TOKEN, signed))


def test_a_json_body_is_covered_by_its_digest() -> None:
    body = b'{"a":1}'
    url = f"https://h.example/j?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = "/cLsugLAHAjP952Mk6kJIb+dunc="
    assert valid(TOKEN, url, {}, signature, body=body)
    assert not valid(TOKEN, url, {}, signature, body=b'{"a":2}')
    assert not valid(TOKEN, url, {}, GOLDEN, body=body)


def test_a_body_without_a_digest_is_refused() -> None:
    url = "https://h.example/j"
    assert not valid(TOKEN, url, {}, sign(TOKEN, url), body=b"{}")
    assert not valid(TOKEN, url + "?bodySHA256=", {}, sign(TOKEN, url + "?bodySHA256="), body=b"{}")


@given(
    url=st.text()
    | st.text().map(lambda tail: "wss://" + tail)
    | st.text().map(lambda tail: "https://" + tail),
    form=st.dictionaries(st.text(), st.text(), max_size=3),
    signature=st.text(st.characters()),
    body=st.none() | st.binary(),
    settings=st.text(),
)
def test_a_stranger_cannot_make_it_raise(
    url: str, form: dict[str, str], signature: str, body: bytes | None, settings: str
) -> None:
    assert valid(TOKEN, url, form, signature, body=body, settings=settings) is False


@given(
    path=st.text("abc/-_.~%20", max_size=10),
    query=st.text("a=&1", max_size=5),
    form=st.dictionaries(st.text(), st.text()),
)
def test_what_is_signed_is_valid(path: str, query: str, form: dict[str, str]) -> None:
    url = f"https://h.example/{path}?{query}"
    assert valid(TOKEN, url, form, sign(TOKEN, url, form))
