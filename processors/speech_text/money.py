"""Money: "$3.50", "€5", "£3.5 million", "$10-20", "5 €", "50¢"."""

from __future__ import annotations

import re

from processors.speech_text.rules import DASH, NUMBER, Rule, rule
from processors.speech_text.words import quantity

_NAMES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_MARKS = "".join(_NAMES)
_SYMBOL = f"([{_MARKS}])"
_COUNTRIES = {"US": "US", "CA": "Canadian", "AU": "Australian", "NZ": "New Zealand"}
_CODES = {"USD": "$", "EUR": "€", "GBP": "£"}
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}
_SCALE = r"(?:\s?(thousand|million|billion|trillion)\b|([kKmMbB]|mn|bn)\b)?"
_AMOUNT = rf"({NUMBER}){_SCALE}"
_ARTICLE = re.compile(r"\b[Aa]n?\s$")
_NOUN = re.compile(r" [A-Za-z]")


def rules() -> tuple[Rule, ...]:
    """Amounts with a symbol."""
    return (
        rule(rf"(?<![^\s(])-\s?(?={_SYMBOL}\s?[0-9])", "minus ", _MARKS),
        rule(rf"\b(USD|EUR|GBP)\s?({NUMBER})(?![\w-])", lambda found: money(_CODES[found[1]], found[2])),
        rule(rf"(?<![\w.,-])({NUMBER})\s?(USD|EUR|GBP)\b", lambda found: money(_CODES[found[2]], found[1])),
        rule(rf"{_SYMBOL}\s?{_AMOUNT}\s?{DASH}\s?{_SYMBOL}?\s?{_AMOUNT}(?![\w-]|\.[0-9])", _range, _MARKS),
        rule(rf"(?:(?<![A-Za-z])(US|CA|AU|NZ)(?=\$))?{_SYMBOL}\s?{_AMOUNT}", _amount, _MARKS),
        rule(r"(?<![\w.,])([0-9]+),([0-9]{2})\s?€", lambda found: money("€", f"{found[1]}.{found[2]}"), "€"),
        rule(rf"(?<![\w.,])({NUMBER})\s?([€£])", lambda found: money(found[2], found[1]), "€£"),
        rule(rf"(?<![\w.,])({NUMBER})\s?¢", lambda found: _counted(found[1], "cent", "cents"), "¢"),
    )


def money(symbol: str, number: str, scale: str = "") -> str:
    """An amount in words: three dollars and fifty cents; three point five million dollars."""
    one, many, one_cent, many_cents = _NAMES[symbol]
    whole, _, fraction = number.partition(".")
    if scale:
        return f"{quantity(number)} {scale} {many}"
    if len(fraction) > 2:
        return f"{quantity(number)} {many}"
    cents = str(int((fraction or "0").ljust(2, "0")))
    if cents == "0":
        return _counted(whole, one, many)
    small = _counted(cents, one_cent, many_cents)
    return small if not whole.strip("0") else f"{_counted(whole, one, many)} and {small}"


def _counted(number: str, one: str, many: str) -> str:
    return f"{quantity(number)} {one if number == '1' else many}"


def _amount(found: re.Match[str]) -> str:
    country, symbol, number, word, letter = found.groups()
    words = money(symbol, number, _scale(word, letter))
    one, many = _NAMES[symbol][:2]
    if _ARTICLE.search(found.string[: found.start()][-4:]) and _NOUN.match(found.string, found.end()):
        words = re.sub(rf"{many}$", one, words)  # a twenty dollar bill
    return re.sub(rf"\b{one}", f"{_COUNTRIES[country]} {one}", words, count=1) if country else words


def _range(found: re.Match[str]) -> str:
    symbol, low, low_word, low_letter, other, high, high_word, high_letter = found.groups()
    if other and other != symbol:
        return found[0]
    low_scale, high_scale = _scale(low_word, low_letter), _scale(high_word, high_letter)
    to = money(symbol, high, high_scale)
    if low_scale or (not high_scale and "." in low + high):
        return f"{money(symbol, low, low_scale)} to {to}"
    return f"{quantity(low)} to {to}"


def _scale(word: str | None, letter: str | None) -> str:
    return _SCALES[letter.lower()] if letter else word or ""
