"""`protected` on its way from a Sentence to the audio that says it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from processors.sentences import SentenceAggregator
from processors.speech_text import SpeechText
from tests.speech_booth import Booth, until
from voiceflow.engine.processor import Processor, on
from voiceflow.frames import ReplyEnd, Sentence, Token
from voiceflow.speech.utterance import LONGEST
from voiceflow.testing import Rig, run

NOTICE = "The law says this: " + "we have to tell you so, " * 20


class Marks(Processor):
    @on(Sentence)
    def mark(self, sentence: Sentence) -> Sentence:
        return replace(sentence, protected="law" in sentence.text)


def test_texts_keep_it() -> None:
    async def main() -> None:
        async with Rig(SentenceAggregator(), Marks(), SpeechText()) as rig:
            reply = rig.reply()
            for token in ("It is fine. ", "The law of 1999 is **clear**. ", "Bye."):
                rig.push(Token(token, reply=reply))
            rig.push(ReplyEnd(reply=reply))
            await rig.settled()
            said = [(s.text, s.protected) for s in rig.got(Sentence)]
            assert [protected for _, protected in said] == [False, True, False]
            assert "nineteen ninety-nine" in said[1][0]

    run(main())


@pytest.mark.parametrize("voice", ["elevenlabs", "aura"])
def test_the_audio_of_all_pieces_of_a_notice_has_it_and_no_other(voice: str) -> None:
    async def main() -> None:
        assert len(NOTICE) > LONGEST
        booth = Booth(voice)
        async with booth.rig() as rig:
            reply = rig.reply()
            rig.push(Sentence("Good day.", reply=reply))
            await until(lambda: booth.heard(reply))
            rig.push(Sentence(NOTICE, protected=True, reply=reply))
            await until(lambda: len([f for f in booth.heard(reply) if f.text]) >= 3, 60)
            rig.push(Sentence("How are you?", reply=reply))
            rig.push(ReplyEnd(reply=reply))
            await until(lambda: booth.ended(reply), 120)
            begins = [(f.text, f.protected) for f in booth.heard(reply) if f.text]
            assert len(begins) >= 4
            assert begins[0] == ("Good day.", False)
            assert begins[-1] == ("How are you?", False)
            assert all(protected for _, protected in begins[1:-1])

    run(main())
