"""SentenceAggregator: where text is cut, on which token, how long anything waits; nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.sentences import SentenceAggregator
from processors.sentences.splitter import FASTEST_VOICE, Splitter
from processors.sentences.stops import CLOSERS, HARD, MAYBE, NEVER, SOFT
from voiceflow.engine.processor import Processor, on
from voiceflow.errors import DeclarationError
from voiceflow.frames import AudioOut, Interrupt, ReplyEnd, Sentence, Token
from voiceflow.testing import Rig, check_processor

# -- where text is cut ---------------------------------------------------------------------------

PIECES = [
    ["Hello there.", "How are you?", "Fine!"],
    ["Really?!", "Yes!!", "No?", "Stop!?"],
    # titles, initials, abbreviations
    ["Dr. Smith will see you at nine.", "Please wait."],
    ["Ask Mr. Jones, Mrs. Jones or Ms. Hill.", "They know."],
    ["DR. WHO CALLED.", "OK."],
    ["I met Prof. Li on Mt. Rainier.", "It was fun."],
    ["Go to St. Mary's in St. Paul.", "It is close."],
    ["J. R. R. Tolkien wrote it.", "You know that."],
    ["So am I.", "We agree."],
    ["We have tea, coffee, etc. and cake.", "Come in."],
    ["We have tea, coffee, etc.", "Come in."],
    ["We open at 9 a.m. and close at 5 p.m. on weekdays.", "Call us."],
    ["We open at 9 a.m.", "We close at five."],
    ["He works for Acme Inc. in Boston.", "He likes it."],
    ["He works for Acme Inc.", "He likes it."],
    ["Acme Corp. is big.", "Baker Ltd.", "Is small."],
    ["Use fruit, e.g. apples, i.e. something sweet.", "Then stir."],
    ["It is cats vs. Dogs.", "Dogs win."],
    ["She lives in the U.S. and works there.", "It is far."],
    ["The U.S. Government said so.", "We heard it."],
    ["She has a Ph.D. in physics.", "Ask her."],
    ["Room No. 5 is free.", "Take it."],
    ["No.", "That is wrong."],
    ["He said no.", "That is wrong."],
    ["It is on Nov. 22 in the evening.", "Come early."],
    ["We meet on Mon. at nine.", "Be there."],
    ["It weighs 5 lbs. or so.", "That is light."],
    # numbers
    ["It costs $3.50.", "That is cheap."],
    ["It costs $3.", "That is cheap."],
    ["Pi is 3.14159 or so.", "Nice."],
    ["Version 2.0.1 is out.", "Get version 3."],
    ["The address is 192.168.0.1.", "Try it."],
    ["It was 1999.", "It was 20.", "It was .5 percent."],
    ["That is 1,234.56 in all.", "Pay now."],
    ["The call is at 10:30.", "Do not be late."],
    ["Call 555-0100.", "Ask for Ann."],
    ["It is up by 50%.", "Good."],
    ["She came 1st.", "He came 22nd."],
    # addresses
    ["Visit example.com today.", "It is new."],
    ["Visit www.example.co.uk.", "It is new."],
    ["See https://example.com/a.b?c=d&e=1.5 for more.", "Thanks."],
    ["Write to joe.smith@mail.example.com.", "Thanks."],
    ["Node.js and ASP.NET are tools.", "So is C++."],
    ["Is it example.com/?q=1?", "Yes."],
    # quotes and brackets
    ['He said "Hello there."', "Then he left."],
    ['"Hello there.', 'How are you?"', "She smiled."],
    ["“It works.”", "“Good.”"],
    ["(We are closed.)", "Call later."],
    ["We close (on Sundays).", "Call later."],
    ['"(Really?)"', "Yes."],
    ["[Open.](https://example.com/a) is a link.", "Click it."],
    ["It is **great.**", "Use `it.`", "_Really._"],
    # ellipses
    ["Well... and then it stopped.", "Yes."],
    ["Well...", "I see."],
    ["Hm…", "Let me look."],
    ["Hm… maybe.", "Let me look."],
    ["Wait...what?", "Oh."],
    ["How many?", "3.", "Or maybe 4."],
    ["It is 42.", "I think."],
    # other scripts
    ["你好。", "今天天气很好！", "是吗？", "是的。"],
    ["「是的。」", "他说。"],
    ["هل أنت بخير؟", "نعم۔"],
    ["नमस्ते।", "आप कैसे हैं?"],
    ["¿Qué tal?", "¡Muy bien!"],
    ["Vraiment ?", "Oui !", "Bon."],
    # other things
    ["Great!", "😀 How are you?"],
    ["Look 👩‍👩‍👧 at us.", "We smile 😀."],
    ["and/or.", "A/B.", "24/7.", "COVID-19."],
    ["That is it .", "Yes ."],
]
LINES = [
    ["One line", "and the next"],
    ["1. Open the app.", "2. Press start.", "10. Done."],
    ["Steps:", "1. Open the app", "2. Press start"],
    ["- tea", "- coffee, black", "* cake"],
    ["# Menu", "Tea and coffee."],
    ["Dr.", "Smith"],
    ["It was etc.", "and so on"],
    ["| Tea | $3.50 |", "| Coffee | $4.00 |"],
]
JOINED = {
    "Ça va. Très bien.": ["Ça va.", "Très bien."],
    "Great! 😀": ["Great!", "😀"],
    "It works.How nice.": ["It works.", "How nice."],
    "It works.how nice.": ["It works.how nice."],
    "Hello.\n\n\nThere.": ["Hello.", "There."],
    "Hello\r\nthere": ["Hello", "there"],
    "   Hello.   ": ["Hello."],
    "你好。今天！「是。」他说。": ["你好。", "今天！", "「是。」", "他说。"],
    "a.m.-5 p.m. is fine. Ok.": ["a.m.-5 p.m. is fine.", "Ok."],
    "Tea, etc., and cake. Ok.": ["Tea, etc., and cake.", "Ok."],
    "---\nOne.": ["---\nOne."],
    "...": ["..."],
    "Hi! ... !": ["Hi!", "... !"],
    '"': ['"'],
    "![a cat](cat.png) is cute. Yes.": ["![a cat](cat.png) is cute.", "Yes."],
    "5. 6.": ["5. 6."],
    "": [],
    " \n ": [],
}
CASES = {
    **{" ".join(pieces): pieces for pieces in PIECES},
    **{"\n".join(pieces): pieces for pieces in LINES},
    **JOINED,
}


def split(tokens: list[str], **options: object) -> list[str]:
    """The pieces of all tokens, while no time passes, first clauses off."""
    splitter = Splitter(**{"first_clause": 0, **options})
    pieces = [piece for token in tokens for piece in splitter.feed(token, 0.0)]
    return pieces + splitter.flush()


def model_tokens(text: str) -> list[str]:
    """As the models of today part text before they look into their vocabulary: a word takes one character
    before it along, a stop those that follow it, digits come by three."""
    pattern = r"(?:[^\r\n\w]|_)?[^\W\d_]+|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return re.findall(pattern, text)


@pytest.mark.parametrize("text", CASES)
def test_golden_pieces(text):
    assert split([text]) == CASES[text]
    assert split(model_tokens(text)) == CASES[text]


def test_no_abbreviation_is_two_things():
    assert not NEVER & MAYBE


def test_own_abbreviations():
    text = "Frau Abt. Müller und Sra. Pérez. Gut."
    assert split([text]) == ["Frau Abt.", "Müller und Sra.", "Pérez.", "Gut."]
    assert split([text], never=NEVER | {"Abt", "Sra"}) == ["Frau Abt. Müller und Sra. Pérez.", "Gut."]


# -- on which token ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens",
    [
        ["Hello", " there", ".*", " How", " are", " you", "?*"],
        ["Yes", "!*"],
        ["Hello there.*", " Yes!*", " No?*"],
        ["It", " costs", " $", "3", ".", "50", ".*"],
        ["It", " was", " ", "3", ".", "50", ".", " And*", " so"],
        ["It", " is", " ", "5", ".", " Good*", ".*"],
        ["It", " is", " ", "5", ".", " *", "Good", ".*"],
        ["In", " ", "202", "6", ".", "\n*"],
        ["At", " ", "10", ":", "30", ".*"],
        ["Call", " ", "555", "-", "010", "0", ".*"],
        ["It", " is", " ", "50", "%", ".*"],
        ["Dr", ".", " Smith", " is", " in", ".*"],
        ["e", ".g", ".", " tea", ".*"],
        ["The", " U", ".S", ".", " is", " big", ".*"],
        ["The", " U", ".", "S", ".", " is", " big", ".*"],
        ["At", " ", "9", " a", ".m", ".", " We*", " open", ".*"],
        ["At", " ", "9", " a", ".m", ".", " ", "We*", " open", ".*"],
        ["No", ".", " I*", " cannot", ".*"],
        ["No", ".", " ", "5", ".", " Yes*"],
        ["Hm", "...", " I*", " see", ".*"],
        ["Hm", "…", " and", " so", " on", ".*"],
        ["Really", "?*", " Yes", ".*"],
        ["Is", " it", " example", ".com", "?", " Yes*"],
        ["Go", " to", " example", ".com", ".", " Then*", " come", ".*"],
        ["1", ".", " Tea", ".*", "\n", "2", ".", " Coffee", "\n*"],
        ['"', "Hello", ".", '"*', " she", " said", ".*"],
        ['"', "Hello", '."*', " she", " said", ".*"],
        ["(", "Hello", ".", ")*", " Well", ".*"],
        ['"', "Hello", ".", " How*", " are", " you", '?"*'],
        ["你好", "。*", "今天", "！*"],
        ["One", "\n*", "Two", "\n\n*"],
        ["Hello", ".*", ".."],
    ],
)
def test_a_piece_comes_on_the_very_token(tokens):
    """A star marks the tokens that complete a piece."""
    splitter = Splitter(first_clause=0)
    given = [
        token + "*" * bool(splitter.feed(token, 0.0)) for token in (token.rstrip("*") for token in tokens)
    ]
    assert given == tokens


# -- what depends on how the text was cut into tokens -----------------------------------------------

FRAGMENTS = [
    *[
        "Hello",
        "there",
        "The",
        "and",
        "I",
        "J",
        "x",
        "No",
        "Dr",
        "Mr",
        "e.g",
        "U.S",
        "a.m",
        "etc",
        "你好",
        "é",
    ],
    *[" ", " ", " ", "  ", "\n", ". ", ".", " .", "! ", "?", "...", "…", "?!", "。", "！", "؟", "।"],
    *[
        '"',
        "“",
        "”",
        "(",
        ")",
        "[",
        "]",
        "「",
        "」",
        "'",
        "**",
        "`",
        "-",
        "/",
        "%",
        "$",
        ",",
        ", ",
        "; ",
        ": ",
        "—",
    ],
    *["3", "50", "2026", "1. ", "* ", "example.com", "joe@x.org", "https://a.b/c?d=e", "😀", "👩‍👩‍👧"],
    " word word word word word",
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join) | st.text(max_size=60)
TOUCHY = frozenset(SOFT + HARD + CLOSERS + "\"'’*_`")


def never_matters(text: str, at: int) -> bool:
    """Whether a token may end at `at` without a difference: not between a stop (or what closes after it) and
    text that follows without a space, unless both sides of it are digits."""
    before, after = text[at - 1], text[at]
    if before not in TOUCHY or after.isspace():
        return True
    return before == "." and text[at - 2 : at - 1].isdigit() and after.isdigit()


def tokens_of(text: str, cuts: list[int]) -> list[str]:
    ends = [0, *cuts, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends)]


def assert_kept(pieces: list[str], text: str) -> None:
    """The pieces are the text, but for whitespace between them."""
    at = 0
    for piece in pieces:
        assert piece
        assert piece == piece.strip()
        while text[at].isspace():
            at += 1
        assert text.startswith(piece, at)
        at += len(piece)
    assert not text[at:].strip()


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.data(), st.sampled_from([20, 60, 200]))
def test_tokens_do_not_matter(text, data, max_chars):
    whole = split([text], max_chars=max_chars)
    assert_kept(whole, text)
    safe = [at for at in range(1, len(text)) if never_matters(text, at)]
    assert split(tokens_of(text, safe), max_chars=max_chars) == whole
    some = sorted(data.draw(st.sets(st.sampled_from(safe)))) if safe else []
    assert split(tokens_of(text, some), max_chars=max_chars) == whole


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.data())
def test_nothing_is_lost_or_doubled_whatever_happens(text, data):
    """Any tokens, any pauses, every parameter."""
    splitter = Splitter(
        first_clause=data.draw(st.sampled_from([0, 1, 5, 20])),
        longest_wait=data.draw(st.sampled_from([None, 0.1, 1.5])),
        max_chars=data.draw(st.sampled_from([20, 60, 200])),
    )
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)))))
    pieces: list[str] = []
    now = 0.0
    for token in tokens_of(text, cuts):
        pieces += splitter.feed(token, now)
        now += data.draw(st.sampled_from([0.0, 0.01, 0.05, 0.2, 2.0]))
        while (due := splitter.deadline) is not None and due <= now:
            pieces += splitter.expire(due)
            assert splitter.deadline != due  # or the timer would ring for ever
    assert_kept(pieces + splitter.flush(), text)
    assert splitter.flush() == []


@settings(deadline=None)
@given(TEXTS)
def test_a_first_clause_is_one_more_cut_and_no_other(text):
    tokens = model_tokens(text)
    plain, clauses = (split(tokens, first_clause=n, max_chars=10_000) for n in (0, 5))
    assert_kept(clauses, text)
    if clauses != plain and any(map(str.isalnum, plain[0][len(clauses[0]) :])):
        assert len(clauses) == len(plain) + 1
        assert clauses[2:] == plain[1:]
        assert plain[0].startswith(clauses[0])
        assert plain[0].endswith(clauses[1])


# -- long texts ------------------------------------------------------------------------------------


def test_a_run_without_a_stop_is_cut_between_words():
    pieces = split([" " + "word" * (n % 3 + 1) for n in range(400)], max_chars=80)
    assert all(40 < len(piece) <= 80 for piece in pieces[:-1])
    assert {word for piece in pieces for word in piece.split()} == {"word", "wordword", "wordwordword"}


def test_a_long_run_is_cut_after_a_clause_if_there_is_one():
    pieces = split(["ten letters " * 5 + "and then, " + "after that " * 5], max_chars=80)
    assert [piece[-9:] for piece in pieces] == ["and then,", "fter that"]


@pytest.mark.parametrize("text", ["字" * 950, "x" * 950, "👩‍👩‍👧" * 190, "é" * 475, "あ、" * 475])
def test_what_has_no_spaces_is_cut_all_the_same(text):
    pieces = split(list(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 200
    assert not any(piece.startswith(("\u200d", "\ufe0f", "\u0301", "、")) for piece in pieces)
    assert not any(piece.endswith("\u200d") for piece in pieces)


@pytest.mark.parametrize(
    "token", [" ", "\n", ".", "etc. ", " word", "x", '"', "(", "...", "。", "a.", "1. ", "!?"]
)
def test_what_is_held_is_bounded(token):
    splitter = Splitter(longest_wait=None)
    splitter.feed("etc.", 0.0)
    given = 0
    for _ in range(20_000 // len(token)):
        given += sum(map(len, splitter.feed(token, 0.0)))
        assert len(splitter._text) <= 4 * 200 + len(token)
    assert len("".join(splitter.flush())) <= 4 * 200 + len(token)


# -- the first clause ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        (["Thanks for calling Acme", ",", " how", " can I help?"], "Thanks for calling Acme,"),
        (["Thanks for calling Acme,", " how can I help?"], "Thanks for calling Acme,"),
        (["Thanks for calling Acme, how can I help?"], "Thanks for calling Acme, how can I help?"),
        (["Sure,", " one moment, please", ",", " I will look."], "Sure, one moment, please,"),
        (["Here is what we have today", ":", " tea."], "Here is what we have today:"),
        (["I could not find your order", " —", " what was it?"], "I could not find your order —"),
        (["I could not find it at all; sorry, ", "what was it?"], "I could not find it at all; sorry,"),
        (["The total for today is $1", ",", "250", " in all."], "The total for today is $1,250 in all."),
        (["We are open on weekdays 9", "–", "5", " and so on."], "We are open on weekdays 9–5 and so on."),
        (["The next train goes at 10", ":", "30", "."], "The next train goes at 10:30."),
        (
            ["You can read it on https", "://", "example", ".com", " now."],
            "You can read it on https://example.com now.",
        ),
        (
            ["We have tea (black, green, white", ",", " red) too."],
            "We have tea (black, green, white, red) too.",
        ),
        (["感谢您的来电，", "请问有什么可以帮您？"], "感谢您的来电，请问有什么可以帮您？"),
        (
            ["感谢您的来电，我是您今天的客户服务代表小王，", "请问？"],
            "感谢您的来电，我是您今天的客户服务代表小王，",
        ),
    ],
)
def test_first_clause(tokens, first):
    splitter = Splitter()
    pieces = [piece for token in tokens for piece in splitter.feed(token, 0.0)]
    assert (pieces + splitter.flush())[0] == first


def test_only_the_first_piece_is_a_clause():
    tokens = model_tokens(
        "I have found your order, it is on its way, and it comes today. If you like, I can, say, call."
    )
    assert split(tokens, first_clause=20) == [
        "I have found your order,",
        "it is on its way, and it comes today.",
        "If you like, I can, say, call.",
    ]
    assert len(split(tokens, first_clause=0)) == 2


# -- time, with the timers of a loop ---------------------------------------------------------------


class Clocked(Processor):
    """Remembers when each text came out."""

    def __init__(self) -> None:
        self.texts: list[tuple[float, str]] = []

    @on(Sentence)
    def sentence(self, sentence: Sentence) -> Sentence:
        self.texts.append((round(self.call.loop.time(), 6), sentence.text))
        return sentence


async def spoken(*script: str | float, **options: object) -> list[tuple[float, str]]:
    """What comes out when, of tokens and pauses in seconds; the reply is not ended."""
    clocked = Clocked()
    async with Rig(SentenceAggregator(**options), clocked) as rig:
        begun, reply = rig.call.loop.time(), rig.reply()
        for step in script:
            if isinstance(step, str):
                rig.push(Token(step, reply=reply))
            else:
                await asyncio.sleep(step)
    return [(round(at - begun, 6), text) for at, text in clocked.texts]


async def test_an_undecidable_stop_waits_for_its_patience_exactly(virtual_time):
    assert await spoken("It costs $3.", 1.0) == [(0.06, "It costs $3.")]
    assert await spoken("It costs $3", 0.5, ".", 1.0, patience=0.2) == [(0.7, "It costs $3.")]
    assert await spoken("Hello there.", 1.0) == [(0.0, "Hello there.")]


async def test_or_for_one_more_token(virtual_time):
    assert await spoken("It costs $3.", 0.059, "50", 0.02, ".", 1.0) == [(0.079, "It costs $3.50.")]
    assert await spoken("It costs $3.", 0.02, " Fine", 1.0) == [(0.02, "It costs $3.")]
    assert await spoken("It costs $3.", 0.07, "50.", 1.0) == [(0.06, "It costs $3."), (0.13, "50.")]


async def test_a_token_that_tells_nothing_does_not_prolong_the_wait(virtual_time):
    assert await spoken("At 9 a.m", ".", 0.04, " ", 0.01, "", 0.5) == [(0.06, "At 9 a.m.")]


async def test_a_title_is_never_the_end_however_slow_the_model(virtual_time):
    assert await spoken("Ask Dr.", 0.3, " Smith.", 1.0) == [(0.3, "Ask Dr. Smith.")]


async def test_a_stalled_model_does_not_leave_the_caller_in_silence(virtual_time):
    said = await spoken("I will now", " look that", " up for yo", 5.0, "u today.", 1.0)
    assert said == [(1.5, "I will now look that up for"), (5.0, "you today.")]
    said = await spoken("I will now look,", 5.0)
    assert said == [(1.5, "I will now look,")]
    assert await spoken("I will now look that up", 60.0, longest_wait=None) == []
    assert await spoken("请稍等我帮您查一下", 5.0) == [(1.5, "请稍等我帮您查一下")]


async def test_a_word_or_two_are_not_worth_it(virtual_time):
    assert await spoken("I will", 5.0, " now", 1.0, " look", 1.0) == [(6.0, "I will now")]


async def test_a_model_that_dribbles_is_no_excuse_either(virtual_time):
    said = await spoken(*[step for word in range(9) for step in (f" word{word}", 0.4)])
    assert said == [(1.5, "word0 word1 word2"), (3.0, "word3 word4 word5 word6")]


async def test_nothing_is_cut_while_the_caller_still_listens(virtual_time):
    first = "This is a sentence of sixty characters, which takes a while."
    rest = " And this one comes with a"
    lasts = len(first) / FASTEST_VOICE
    assert lasts == 3.0
    assert await spoken(first, rest, 9.0) == [(0.0, first), (lasts, "And this one comes with")]
    assert await spoken(first, 2.0, rest, 9.0) == [(0.0, first), (3.5, "And this one comes with")]
    said = await spoken(first, rest, 2.9, " delay.", 1.0)
    assert said == [(0.0, first), (2.9, "And this one comes with a delay.")]


# -- replies ---------------------------------------------------------------------------------------


async def test_the_rest_comes_before_the_end(virtual_time):
    async with Rig(SentenceAggregator()) as rig:
        reply, end = rig.reply(), ReplyEnd()
        end.reply = reply
        rig.push(Token("Hello there. How", reply=reply), Token(" are", reply=reply), end)
        assert rig.texts() == ["Hello there.", "How are"]
        assert rig.out[-1] is end
        assert all(frame.reply is reply for frame in rig.out[-3:])
        await asyncio.sleep(5)
        assert len(rig.got(Sentence)) == 2


async def test_a_draft_and_a_live_reply_are_kept_apart(virtual_time):
    async with Rig(SentenceAggregator()) as rig:
        live, draft = rig.reply(), rig.reply()
        for one, other in zip(["It", " is", " ", "3", "."], ["He", " said", ' "', "Yes", "."], strict=True):
            rig.push(Token(one, reply=live), Token(other, reply=draft))
        rig.push(Token("50 now.", reply=live), Token('"', reply=draft))
        assert {(s.reply, s.text) for s in rig.got(Sentence)} == {
            (live, "It is 3.50 now."),
            (draft, 'He said "Yes."'),
        }
        rig.push(ReplyEnd(reply=draft), ReplyEnd(reply=live))
        assert [type(frame) for frame in rig.out[-2:]] == [ReplyEnd, ReplyEnd]
        assert rig.processors[0]._replies == {}


async def test_nothing_of_a_dead_reply_comes_and_nothing_of_it_is_kept(virtual_time):
    async with Rig(SentenceAggregator()) as rig:
        aggregator = rig.processors[0]
        first, second, third = rig.reply(), rig.reply(), rig.reply()
        rig.push(Token("It costs $3.", reply=first), Token("It costs $4.", reply=second))
        rig.kill(first)
        rig.push(Token("50", reply=first), Interrupt(first))
        assert list(aggregator._replies) == [second]
        rig.kill(second)  # without an Interrupt: its timer finds out
        await asyncio.sleep(0.1)
        assert aggregator._replies == {}
        rig.push(Token("I will look that up", reply=third))
        rig.kill(third)
        fourth = rig.reply()
        rig.push(Token("Hello.", reply=fourth))  # and if that comes late, the next reply does
        assert list(aggregator._replies) == [fourth]
        await asyncio.sleep(5)
        assert rig.texts() == ["Hello."]


async def test_what_somebody_else_says_in_the_reply_comes_after_the_tokens_before_it(virtual_time):
    async with Rig(SentenceAggregator()) as rig:
        reply = rig.reply()
        rig.push(Token("One mom", reply=reply), Sentence("Sorry, I lost it.", reply=reply))
        rig.push(Token("Now it", reply=reply), AudioOut(b"\xff" * 160, reply=reply), ReplyEnd(reply=reply))
        assert [(type(f), getattr(f, "text", "")) for f in rig.out if hasattr(f, "reply")] == [
            (Sentence, "One mom"),
            (Sentence, "Sorry, I lost it."),
            (Sentence, "Now it"),
            (AudioOut, ""),
            (ReplyEnd, ""),
        ]


async def test_the_end_does_not_overtake_what_a_timer_gave(virtual_time):
    class Slow(Processor):
        @on(Sentence)
        async def sentence(self, sentence: Sentence) -> Sentence:
            await asyncio.sleep(1)
            return sentence

    async with Rig(SentenceAggregator(), Slow()) as rig:
        reply = rig.reply()
        rig.push(Token("It costs $3.", reply=reply))
        await asyncio.sleep(0.07)
        rig.push(Token("50", reply=reply), ReplyEnd(reply=reply))
        await asyncio.sleep(5)
        assert rig.texts() == ["It costs $3.", "50"]
        assert isinstance(rig.out[-1], ReplyEnd)


async def test_no_timer_is_left_when_the_call_ends(virtual_time):
    async with Rig(SentenceAggregator(longest_wait=1000.0)) as rig:
        rig.push(Token("It costs", reply=rig.reply()), Token("It costs $3.", reply=rig.reply()))
    before = virtual_time.now
    await asyncio.sleep(2000)
    assert virtual_time.now == before + 2000
    assert rig.got(Sentence) == []


# -- the class -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames",
    [
        None,
        [
            Token(t)
            for t in [
                "It costs",
                " $",
                "3",
                ".",
                "50",
                ". Thanks",
                " a lot, I mean",
                " it",
                ".",
                " And",
                " one",
            ]
        ],
        [Token("I live in the U.S"), Token("."), Token(" Do you"), Token("?"), Sentence("Hm."), Token("...")],
    ],
)
def test_it_conforms(frames):
    report = check_processor(SentenceAggregator, frames=frames)
    assert report.never_seen == ()
    assert report.emitted["Sentence"] > report.calls


def test_whole_sentences_only():
    for off in (0, None):
        aggregator = SentenceAggregator(first_clause=off)
        assert aggregator._first_clause == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": -1},
        {"first_clause": -1},
        {"longest_wait": 0},
        {"max_chars": 5},
        {"abbreviations": "Sra."},
    ],
)
def test_parameters_that_make_no_sense(wrong):
    with pytest.raises(DeclarationError, match=f"SentenceAggregator.*{next(iter(wrong))}="):
        SentenceAggregator(**wrong)


async def test_abbreviations_with_or_without_their_stop(virtual_time):
    assert await spoken("Hola Sra.", " Pérez.", abbreviations=("Sra.",)) == [(0.0, "Hola Sra. Pérez.")]
    assert await spoken("Hola Sra.", " Pérez.", abbreviations=["Sra"]) == [(0.0, "Hola Sra. Pérez.")]
