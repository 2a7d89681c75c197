"""SpeechText: what is not read aloud goes, what is written in digits is said in words, the rest stays."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText, words
from voiceflow.frames import ReplyEnd, Sentence, Token
from voiceflow.testing import Rig, check_processor

UNCHANGED = """
Hello there.
Thanks for calling Acme, my name is Ada!
I said "hello there" (twice), didn't I?
“Good,” she said – and left…
A/B testing, and/or something.
C++ and C# are languages.
Rock'n'roll, AT&T, R&D.
Ça va? ¿Qué tal? Grüße!
你好。今天天气很好！
नमस्ते।
Dr. Smith lives in the U.S. with Ph.D. students, e.g. me.
Come in.It is open.
No. I cannot.
May I ask who is calling?
I am here, March on!
It is a well-known twenty-two-year-old.
Node.js is here.
#sale
a | b
""".strip().splitlines()

MARKUP = {
    "**Bold** and *italic*.": "Bold and italic.",
    "__Bold__ and _italic_.": "Bold and italic.",
    "***Both*** of ~~them~~.": "Both of them.",
    "It is **great.": "It is great.",
    "Call back.**": "Call back.",
    "** How are you?": "How are you?",
    "Type `help` or ``more``.": "Type help or more.",
    "```python": "",
    "```python\nprint(x)\n```": "print(x)",
    "~~~\ncode\n~~~": "code",
    "# Opening hours": "Opening hours.",
    "### Who are you?": "Who are you?",
    "## Menu\n- tea\n- coffee, black": "Menu. tea. coffee, black.",
    "- tea": "tea.",
    "* tea": "tea.",
    "+ tea!": "tea!",
    "• tea": "tea.",
    "- [x] done": "done.",
    "1. Open the app": "one. Open the app.",
    "2) Press start.": "two. Press start.",
    "> as he said": "as he said.",
    "> - nested": "nested.",
    "---": "",
    "***": "",
    "| Tea | Coffee |": "Tea, Coffee.",
    "|---|:--:|": "",
    "| Tea | Price |\n|---|---|\n| Green | $3 |": "Tea, Price. Green, three dollars.",
    "See [our page](https://example.com/a_b?c=d).": "See our page.",
    'See [our page](https://example.com "Home").': "See our page.",
    "See [the docs][1] now.": "See the docs now.",
    "It is so.[^note]": "It is so.",
    "![a cat](cat.png) is cute.": "a cat is cute.",
    "<b>Hi</b> there<br/>you.": "Hi there you.",
    "H<sub>2</sub>O is water.": "H two O is water.",
    "<p>One</p><p>Two</p>": "One Two",
    "<!-- hidden -->Hello.": "Hello.",
    "you &amp; me": "you and me",
    "salt & pepper": "salt and pepper",
    "a &lt; b": "a < b",
    r"It is \*not\* bold.": "It is not bold.",
    "snake_case and other_long_name": "snake case and other long name",
    "Settings → Wi-Fi -> On": "Settings, Wi-Fi, On",
    "Great 😀!": "Great!",
    "😀 Hello.": "Hello.",
    "I ❤️ you 👍🏽.": "I you.",
    "A family 👩‍👩‍👧 came.": "A family came.",
    "🇩🇪🇫🇷": "",
    "1️⃣ Open, 2️⃣ close": "one Open, two close",
    "✅ Done ✔": "Done",
    "Soft\u00adware\u200b.": "Software.",
    '" How are you?': "How are you?",
    ") And so on.": "And so on.",
    "!": "",
    "...": "",
    '"': "",
    "  Hello   there. ": "Hello there.",
    "One\ntwo": "One two",
}

ADDRESSES = {
    "Visit https://www.example.com/a/b.html?c=d#e.": "Visit example dot com.",
    "Visit http://example.com:8080/, please.": "Visit example dot com, please.",
    "Visit www.example.co.uk.": "Visit example dot co dot uk.",
    "Visit example.com today.": "Visit example dot com today.",
    "Visit my-shop.example.org/cart!": "Visit my dash shop dot example dot org!",
    "(see <https://example.com/x>)": "(see example dot com)",
    "Write to ann@example.com.": "Write to ann at example dot com.",
    "Write to joe_a.smith-1@example.co!": "Write to joe underscore a dot smith dash one at example dot co!",
    "mailto:ann@example.com": "ann at example dot com",
    "Ask @ann.": "Ask at ann.",
    "Ping 192.168.0.1 now.": "Ping one nine two dot one six eight dot zero dot one now.",
    "It is http://10.0.0.1:8080/x.": "It is one zero dot zero dot zero dot one.",
}

NUMBERS = {
    "You have 5 messages.": "You have five messages.",
    "There are 21 of them.": "There are twenty-one of them.",
    "That is 101 in all.": "That is one hundred one in all.",
    "It is 1,234,567.": "It is one million two hundred thirty-four thousand five hundred sixty-seven.",
    "About 20,000 people.": "About twenty thousand people.",
    "All 1000000 of them.": "All one million of them.",
    "It takes 12500 steps.": "It takes twelve thousand five hundred steps.",
    "0 of 1": "zero of one",
    "Pi is 3.14159.": "Pi is three point one four one five nine.",
    "It is .5 or 0.5.": "It is point five or zero point five.",
    "It is version 2.0.": "It is version two point zero.",
    "Version 2.0.1 and v3.11.": "Version two point zero point one and version three point one one.",
    "It is -5 degrees.": "It is minus five degrees.",
    "It is −5.5°C.": "It is minus five point five degrees Celsius.",
    "It is 98.6°F, or 1°.": "It is ninety-eight point six degrees Fahrenheit, or one degree.",
    "It is 50% off.": "It is fifty percent off.",
    "It is 3.5 % up.": "It is three point five percent up.",
    "5-10% or 5%-10%": "five to ten percent or five percent to ten percent",
    "It is 3x faster.": "It is three times faster.",
    "A 2x4, 1920x1080": "A two by four, nineteen twenty by one thousand eighty",
    "2+2=4, 3 * 4": "two plus two equals four, three times four",
    "5+ years, <5, > 10, ~20": "five plus years, less than five, more than ten, about twenty",
    "+3 or ±3": "plus three or plus or minus three",
    "x² is here": "x squared is here",
    "１２ and H₂O and ①": "twelve and H two O and one",
    # beside letters
    "COVID-19 is over.": "COVID-nineteen is over.",
    "A 5-year plan, 2-for-1": "A five-year plan, two-for-one",
    "4K, 5G, MP3, B12": "four K, five G, MP three, B twelve",
    "Flight UA482": "Flight UA four eight two",
    "I-95, 7-Eleven, Route 66": "I-ninety-five, seven-Eleven, Route sixty-six",
    "My 401k and 401(k)": "My four oh one k and four oh one k",
    # ordinals and years
    "The 1st, 2nd, 3rd and 4th.": "The first, second, third and fourth.",
    "The 21st, the 112th.": "The twenty-first, the one hundred twelfth.",
    "A 1st-class 22ND": "A first-class twenty-second",
    "It was 1999.": "It was nineteen ninety-nine.",
    "In 1905, 2005 and 2026.": "In nineteen oh five, two thousand five and twenty twenty-six.",
    "It was 2000 or 1900.": "It was two thousand or nineteen hundred.",
    "The 1990s and the 2000s.": "The nineteen nineties and the two thousands.",
    "The '90s, 80s and 1800s.": "The nineties, eighties and eighteen hundreds.",
    "From 2019-2020.": "From twenty nineteen to twenty twenty.",
    "1990–95 was good.": "nineteen ninety to ninety-five was good.",
    # ranges, fractions, slashes
    "We are open 9-5.": "We are open nine to five.",
    "It takes 5-10 minutes, 5–10 at most.": "It takes five to ten minutes, five to ten at most.",
    "1,000-2,000 people": "one thousand to two thousand people",
    "500-1500 calories": "five hundred to fifteen hundred calories",
    "They won 3-2 and 21-14.": "They won three to two and twenty-one fourteen.",
    "20 - 15": "twenty minus fifteen",
    "We are open 24/7.": "We are open twenty-four seven.",
    "Add 1/2 cup.": "Add one half cup.",
    "Add 1 1/2 cups and 2½ eggs.": "Add one and a half cups and two and a half eggs.",
    "¾ of it, 2 1/3 of them": "three quarters of it, two and one third of them",
    "2/3 of it, 5/8 inch": "two thirds of it, five eighths inch",
    "Rated 4/5 or 9/10.": "Rated four out of five or nine out of ten.",
    "It is 120/80, 50/50.": "It is one hundred twenty over eighty, fifty fifty.",
    "The ratio is 16:9.": "The ratio is sixteen to nine.",
    "3x/day, 5/week": "three times per day, five per week",
    # units
    "10km, 5 kg, 1 lb": "ten kilometers, five kilograms, one pound",
    "60mph, 1 km/h": "sixty miles per hour, one kilometer per hour",
    "In 5 min. we go.": "In five minutes we go.",
    "2h 30m, 24h, 100m": "two hours thirty minutes, twenty-four hours, one hundred meters",
    "16 GB, 2.4GHz": "sixteen gigabytes, two point four gigahertz",
    "He is 5'10\".": "He is five foot ten.",
    "6 ft 2 in, 1 ft, 20 ft": "six foot two, one foot, twenty feet",
    "800 sq ft": "eight hundred square feet",
    # numbers that are names
    "You are #1.": "You are number one.",
    "Room No. 5 is free.": "Room number five is free.",
    "Nos. 5 and 6": "number five and six",
    "Order #4821.": "Order number four eight two one.",
    "Your PIN is 4821.": "Your PIN is four eight two one.",
    "The code: 007123": "The code: zero zero seven, one two three",
    "A card ending in 4242": "A card ending in four two four two",
    "Your number is 123456789.": "Your number is one two three, four five six, seven eight nine.",
    "ZIP code 90210, or 12345": "ZIP code nine zero two one zero, or one two three four five",
    "Room 101, flight 1204": "Room one zero one, flight one two zero four",
    "Agent 007": "Agent zero zero seven",
    "Card 4242 4242 4242.": "Card four two four two, four two four two, four two four two.",
    "SSN 123-45-6789": "SSN one two three, four five, six seven eight nine",
    # phones
    "Call 555-0100.": "Call five five five, zero one zero zero.",
    "Call (555) 010-0123.": "Call five five five, zero one zero, zero one two three.",
    "Call 555.010.0123.": "Call five five five, zero one zero, zero one two three.",
    "Call +1 555-010-0123.": "Call plus one, five five five, zero one zero, zero one two three.",
    "1-800-555-0199 ext. 12": "one, eight zero zero, five five five, zero one nine nine, extension one two",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    "Call 5550100123.": "Call five five five, zero one zero, zero one two three.",
    "Call 1-800-FLOWERS.": "Call one, eight zero zero, FLOWERS.",
    "Call 911, dial 988 now.": "Call nine one one, dial nine eight eight now.",
    "Press 1 for sales, 2 for help.": "Press one for sales, two for help.",
    # money
    "It is $1.": "It is one dollar.",
    "It is $3.50.": "It is three dollars and fifty cents.",
    "It is $0.99 or $0.01.": "It is ninety-nine cents or one cent.",
    "It is $1,234.56.": "It is one thousand two hundred thirty-four dollars and fifty-six cents.",
    "$3.5 million, $5k, $2B": "three point five million dollars, five thousand dollars, two billion dollars",
    "$3.999 a gallon": "three point nine nine nine dollars a gallon",
    "-$5": "minus five dollars",
    "There is a $25 late fee.": "There is a twenty-five dollar late fee.",
    "$10-$20, $10-20": "ten to twenty dollars, ten to twenty dollars",
    "$1.50-$2": "one dollar and fifty cents to two dollars",
    "$1-2 million": "one to two million dollars",
    "$3.50/month": "three dollars and fifty cents per month",
    "€5, 5 €, 5,50 €": "five euros, five euros, five euros and fifty cents",
    "£3.20 or £0.01": "three pounds and twenty pence or one penny",
    "¥500, ₹1, 50¢": "five hundred yen, one rupee, fifty cents",
    "US$20, 50 EUR": "twenty US dollars, fifty euros",
    # dates
    "On 11/22/2026.": "On November twenty-second, twenty twenty-six.",
    "On 2026-11-22.": "On November twenty-second, twenty twenty-six.",
    "At 2026-11-22T14:30:00Z.": "At November twenty-second, twenty twenty-six at fourteen thirty.",
    "On 22.11.2026 or 22/11/2026.": "On November twenty-second, twenty twenty-six or November twenty-second, "
    "twenty twenty-six.",
    "It ends 12/31/26.": "It ends December thirty-first, twenty twenty-six.",
    "On 11/3, Monday 3/4.": "On November third, Monday March fourth.",
    "Due by 11/22.": "Due by November twenty-second.",
    "On Nov 22.": "On November twenty-second.",
    "On Nov. 22, 2026 at nine.": "On November twenty-second, twenty twenty-six at nine.",
    "On November 3rd.": "On November third.",
    "June 5-7": "June fifth to seventh",
    "On 5 May.": "On the fifth of May.",
    "The 5th of May 2026.": "The fifth of May, twenty twenty-six.",
    "In May 2026.": "In May twenty twenty-six.",
    "March 40": "March forty",
    "13/13/2026 is none.": "thirteen/thirteen/twenty twenty-six is none.",
    # times
    "At 2:30 pm.": "At two thirty p.m.",
    "At 9am, 9 AM or 9 a.m. sharp.": "At nine a.m., nine a.m. or nine a.m. sharp.",
    "At 14:30.": "At fourteen thirty.",
    "At 9:05 we go.": "At nine oh five we go.",
    "At 9:00, 14:00, 00:00.": "At nine o'clock, fourteen hundred, midnight.",
    "At 9:00 o'clock.": "At nine o'clock.",
    "At 7.30 pm.": "At seven thirty p.m.",
    "10:30-11:00": "ten thirty to eleven",
    "9am-5pm, 9-5pm": "nine a.m. to five p.m., nine to five p.m.",
    "1:00–2:30pm": "one to two thirty p.m.",
    "It took 1:15:30.": "It took one fifteen and thirty seconds.",
    "At 7 p.m. We go.": "At seven p.m. We go.",
    # lists without spaces
    "1,2,3 go": "one, two, three go",
    "1-2-3 go": "one, two, three go",
}


@pytest.fixture(scope="module")
def speech() -> SpeechText:
    words.load()
    return SpeechText()


@pytest.mark.parametrize(("written", "spoken"), [*MARKUP.items(), *ADDRESSES.items(), *NUMBERS.items()])
def test_golden(speech, written, spoken):
    assert speech.spoken(written) == spoken


@pytest.mark.parametrize("text", UNCHANGED)
def test_ordinary_text_stays_as_it_is(speech, text):
    assert speech.spoken(text) == text


# -- what may be switched off -----------------------------------------------------------------------

WRITTEN = "**It** is $5 😀 on 11/12/2026, see www.example.com"


@pytest.mark.parametrize(
    ("options", "spoken"),
    [
        ({}, "It is five dollars on November twelfth, twenty twenty-six, see example dot com"),
        (
            {"day_first": True},
            "It is five dollars on December eleventh, twenty twenty-six, see example dot com",
        ),
        ({"numbers": False}, "It is $5 on 11/12/2026, see example dot com"),
        ({"markup": False, "numbers": False}, "**It** is $5 on 11/12/2026, see example dot com"),
        ({"emoji": False, "numbers": False}, "It is $5 😀 on 11/12/2026, see example dot com"),
        ({"links": False, "numbers": False}, "It is $5 on 11/12/2026, see www.example.com"),
        ({"markup": False, "emoji": False, "links": False, "numbers": False}, WRITTEN),
    ],
)
def test_parts_can_be_switched_off(speech, options, spoken):
    assert SpeechText(**options).spoken(WRITTEN) == spoken


def test_day_first_and_what_cannot_be_otherwise(speech):
    day_first = SpeechText(day_first=True)
    assert day_first.spoken("On 3/4.") == "On April third."
    assert day_first.spoken("On 11/22/2026.") == "On November twenty-second, twenty twenty-six."
    assert speech.spoken("On 22/11/2026.") == "On November twenty-second, twenty twenty-six."


# -- any text at all -----------------------------------------------------------------------------

FRAGMENTS = [
    *[
        "Hello",
        "there",
        "a ",
        "am",
        "pm",
        "a.m.",
        "Nov",
        "May",
        "No. ",
        "on ",
        "by ",
        "million",
        "B12",
        "é",
        "你好",
    ],
    *[
        "1",
        "2",
        "5",
        "12",
        "22",
        "2026",
        "1990",
        "0",
        "00",
        "05",
        "123",
        "555",
        "0100",
        "1,234",
        "3.50",
        "10:30",
    ],
    *[
        "#",
        "$",
        "€",
        "£",
        "¢",
        "%",
        "°",
        "°C",
        "km",
        "h",
        "m",
        "k",
        "x",
        "st",
        "th",
        "s",
        "USD",
        "½",
        "²",
        "①",
        "−",
    ],
    *[
        "/",
        "-",
        "–",
        ":",
        ".",
        ",",
        " ",
        " ",
        "  ",
        "\n",
        "+",
        "=",
        "&",
        "&amp;",
        "@",
        '"',
        "'",
        "!",
        "?",
        "…",
    ],
    *[
        "*",
        "**",
        "_",
        "`",
        "```",
        "~~",
        "<",
        ">",
        "<b>",
        "</b>",
        "[",
        "](",
        ")",
        "![",
        "|",
        "---",
        "- ",
        "# ",
        "1. ",
    ],
    *["http://", "www.", "example.com", "😀", "👩‍👩‍👧", "\ufe0f", "→", "->", "\\", "\u00a0", "<!--", "-->"],
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join) | st.text(max_size=60)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.booleans())
def test_any_text_is_said_without_digits_and_saying_it_again_changes_nothing(text, day_first):
    speech = SpeechText(day_first=day_first)
    spoken = speech.spoken(text)
    assert not re.search(r"[0-9\n]|  ", spoken)
    assert spoken == spoken.strip()
    assert speech.spoken(spoken) == spoken


@settings(deadline=None)
@given(TEXTS, st.tuples(*[st.booleans()] * 4))
def test_any_choice_of_parts_takes_any_text(text, on):
    markup, emoji, links, numbers = on
    spoken = SpeechText(markup=markup, emoji=emoji, links=links, numbers=numbers).spoken(text)
    assert spoken == spoken.strip()


WORDS = st.sampled_from(["Hello", "there", "how", "Ça", "we'll", "A/B", "C++", "example", "No"])


@settings(deadline=None)
@given(st.lists(WORDS, min_size=1).map(" ".join))
def test_words_are_never_touched(text):
    assert SpeechText().spoken(f"{text}, so.") == f"{text}, so."


@pytest.mark.parametrize(
    "piece", ["1", "1,", "1-", "1/", "1:", "$1", "*", "[a](", "<a ", "<!--", "a@", "a.", " ", "- "]
)
def test_long_texts_take_no_longer_than_their_length_asks(speech, piece):
    assert not re.search("[0-9]", speech.spoken(piece * 2000))


# -- numbers by themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "number", "spoken"),
    [
        (words.cardinal, "0", "zero"),
        (words.cardinal, "1,000", "one thousand"),
        (words.cardinal, "1" * 16, " ".join(["one"] * 16)),
        (words.ordinal, "100", "one hundredth"),
        (words.year, "1100", "eleven hundred"),
        (words.year, "2099", "twenty ninety-nine"),
        (words.groups, "12345", "one two, three four five"),
        (words.groups, "1234567", "one two three, four five six seven"),
        (words.groups, "12345678", "one two, three four five, six seven eight"),
        (words.groups, "5550100123", "five five five, zero one zero, zero one two three"),
        (words.plain, "3000", "three thousand"),
        (words.plain, "0", "zero"),
        (words.plain, "2099", "twenty ninety-nine"),
        (words.plain, "2100", "two thousand one hundred"),
    ],
)
def test_words(function, number, spoken):
    assert function(number) == spoken


# -- in a chain ------------------------------------------------------------------------------------


async def test_it_hears_the_aggregator_and_drops_what_is_silent(virtual_time):
    async with Rig(SentenceAggregator(first_clause=0), SpeechText()) as rig:
        reply = rig.reply()
        for token in [
            "## Menu",
            "\n\n",
            "- **Tea**",
            ": $3",
            ".",
            "50",
            "\n",
            "---",
            "\n",
            "😀",
            "\n",
            "Bye",
            "!",
        ]:
            rig.push(Token(token, reply=reply))
        rig.push(Token(" 👋", reply=reply), ReplyEnd(reply=reply))
        assert rig.texts() == ["Menu.", "Tea: three dollars and fifty cents.", "Bye!"]
        assert all(frame.reply is reply for frame in rig.got(Sentence))
        assert isinstance(rig.out[-1], ReplyEnd)


async def test_a_sentence_that_stays_is_the_same_frame(virtual_time):
    async with Rig(SpeechText()) as rig:
        plain, marked = Sentence("Hello.", reply=rig.reply()), Sentence("*Hello.*", reply=rig.reply())
        rig.push(plain, marked)
        assert rig.got(Sentence)[0] is plain
        assert rig.texts() == ["Hello.", "Hello."]
        assert marked.text == "*Hello.*"


def test_it_conforms():
    report = check_processor(
        SpeechText, frames=[Sentence("Hello."), Sentence("It is *$5*."), Sentence("---"), Sentence("Bye 👋")]
    )
    assert report.emitted["Sentence"] > report.calls
    check_processor(SpeechText)


def test_a_call_without_numbers_never_loads_inflect():
    """In a process of its own: importing, and all parts but numbers, leave inflect alone; warm loads it."""
    code = """
import asyncio, sys
from processors.speech_text import SpeechText
from voiceflow.testing import Rig

async def main(processor):
    async with Rig(processor):
        pass

assert SpeechText(numbers=False).spoken("*5* is 5") == "5 is 5"
asyncio.run(main(SpeechText(numbers=False)))
assert "inflect" not in sys.modules
asyncio.run(main(SpeechText()))
assert "inflect" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_works_on_a_live_loop():

    async def main() -> None:
        async with Rig(SpeechText()) as rig:
            rig.push(Sentence("5", reply=rig.reply()))
            await rig.settled()
            assert rig.texts() == ["five"]

    asyncio.run(asyncio.wait_for(main(), 10))
