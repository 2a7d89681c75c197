"""`voiceflow number`: whom a Twilio number asks, before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.vendors.server import Serving
from tests.vendors.twilio import FakeTwilio, Problem
from voiceflow.cli import app
from voiceflow.errors import VoiceflowError
from voiceflow.vendor import MissingKeys

ACCOUNT = "AC" + "a1" * 16
TOKEN = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
ME = "+12025550199"
PUBLIC = "https://agent.example.com"
HOOK = f"{PUBLIC}/twilio/voice"
DEMO = "https://demo.twilio.com/welcome/voice/"


def voiceflow(*words: str, setting: Callable[[dict[str, Any]], None] | None = None, **given: str) -> Outcome:
    """Runs `voiceflow number` against a fake account whose number `setting` has changed before."""

    async def main() -> Outcome:
        twilio = FakeTwilio(account_sid=ACCOUNT, auth_token=TOKEN, numbers=["+120255501990", ME])
        number = next(each for each in twilio.numbers.values() if each["phone_number"] == ME)
        if setting is not None:
            setting(number)
        async with Serving(twilio) as serving:
            keys = {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN, "TWILIO_BASE_URL": serving.url}
            result = await asyncio.to_thread(
                CliRunner().invoke, app, ["number", *words], env={**keys, "NO_COLOR": "1", **given}
            )
        return Outcome(result, number, [each.form for each in twilio.requests if each.method == "POST"])

    return asyncio.run(asyncio.wait_for(main(), 10))


class Outcome:
    def __init__(self, result: Result, number: dict[str, Any], changes: list[list[tuple[str, str]]]) -> None:
        self.error = result.exception if isinstance(result.exception, VoiceflowError) else None
        self.code = 2 if self.error is not None else result.exit_code
        self.lines = result.output.splitlines()
        self.number = number
        self.changes = changes
        assert TOKEN not in result.output + str(result.exception)


def set_to(**fields: str) -> Callable[[dict[str, Any]], None]:
    return lambda number: number.update(fields)


def test_it_points_the_number_here():
    done = voiceflow(ME, "--public-url", f"{PUBLIC}/", setting=set_to(voice_url=DEMO))
    assert done.code == 0, done.lines
    assert done.lines == [
        f"{ME}  before  {DEMO} (POST)",
        f"              after   {HOOK} (POST)",
        f"to undo: voiceflow number {ME} --voice-url {DEMO}",
    ]
    assert (done.number["voice_url"], done.number["voice_method"]) == (HOOK, "POST")
    assert done.changes == [[("VoiceUrl", HOOK), ("VoiceMethod", "POST")]]


def test_the_environment_says_which_number_and_where():
    done = voiceflow(TWILIO_NUMBER="+1 (202) 555-0199", VOICEFLOW_PUBLIC_URL=PUBLIC)
    assert done.code == 0, done.lines
    assert done.number["voice_url"] == HOOK
    assert done.lines[0] == f"{ME}  before  nobody"
    assert done.lines[-1].startswith("to undo: set it back at console.twilio.com, Phone Numbers")


def test_and_back_again():
    done = voiceflow(ME, "--voice-url", DEMO, setting=set_to(voice_url=HOOK))
    assert done.number["voice_url"] == DEMO
    assert done.lines[-1] == f"to undo: voiceflow number {ME} --voice-url {HOOK}"


def test_what_cannot_be_undone_with_one_command_is_told():
    done = voiceflow(ME, "--public-url", PUBLIC, setting=set_to(voice_url=DEMO, voice_method="GET"))
    assert done.lines[0] == f"{ME}  before  {DEMO} (GET)"
    assert "set it back at console.twilio.com" in done.lines[-1]
    assert done.number["voice_method"] == "POST"
    done = voiceflow(ME, "--public-url", PUBLIC, setting=set_to(voice_application_sid="AP1", trunk_sid="TK1"))
    assert done.lines[0] == f"{ME}  before  the SIP trunk TK1"
    assert "set it back at console.twilio.com" in done.lines[-1]
    assert (done.number["voice_application_sid"], done.number["trunk_sid"]) == ("", "")


def test_show_changes_nothing():
    for words in (["--show"], ["--show", "--public-url", PUBLIC]):
        done = voiceflow(ME, *words, setting=set_to(voice_url=DEMO))
        assert (done.code, done.lines, done.changes) == (0, [f"{ME}  {DEMO} (POST)"], [])


def test_nothing_to_change():
    done = voiceflow(ME, "--public-url", PUBLIC, setting=set_to(voice_url=HOOK))
    assert (done.code, done.lines, done.changes) == (0, [f"{ME}  {HOOK} (POST)  (nothing to change)"], [])


@pytest.mark.parametrize(
    ("words", "given", "message"),
    [
        ([ME], {}, "where should it point"),
        ([ME, "--public-url", "http://agent.example.com"], {}, "must be https://"),
        ([ME, "--public-url", "http://127.0.0.1:8080"], {}, "begins with https://"),
        ([ME, "--public-url", "https://localhost"], {}, "this machine's own address"),
        ([ME, "--public-url", "agent.example.com"], {}, "is no address"),
        ([ME, "--voice-url", "http://agent.example.com/voice"], {}, "begins with https://"),
        ([ME, "--voice-url", f"https://me:{TOKEN}@host"], {}, "begins with https://"),
        ([ME, "--voice-url", "https://[::1"], {}, "begins with https://"),
        ([ME, "--voice-url", "https://host:port/"], {}, "begins with https://"),
        (["2025550199", "--show"], {}, "no telephone number"),
        (["+12025550100", "--show"], {}, "+12025550100 is no number of this account"),
        ([ME, "--show"], {"TWILIO_ACCOUNT_SID": ""}, "TWILIO_ACCOUNT_SID is not set"),
        ([ME, "--show"], {"TWILIO_AUTH_TOKEN": "0" * 32}, "the credentials are wrong"),
        ([ME, "--show"], {"TWILIO_BASE_URL": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_what_cannot_work(words, given, message):
    done = voiceflow(*words, setting=set_to(voice_url=DEMO), **given)
    assert done.code == 2
    assert message in str(done.error)
    assert done.changes == []
    assert done.number["voice_url"] == DEMO


def test_no_number_at_all():
    assert str(voiceflow("--show").error).startswith("which number? Give it, or set TWILIO_NUMBER")


def test_a_number_for_messages_only():
    done = voiceflow(
        ME, "--public-url", PUBLIC, setting=lambda each: each["capabilities"].update(voice=False)
    )
    assert "takes no voice calls" in str(done.error)
    assert done.changes == []


def test_a_change_that_did_not_happen(monkeypatch):
    def ignore(self: FakeTwilio, request: Any, form: Any) -> tuple[int, dict[str, Any]]:
        return 200, self.numbers[request.match_info["sid"]]

    monkeypatch.setattr(FakeTwilio, "_point", ignore)
    done = voiceflow(ME, "--public-url", PUBLIC, setting=set_to(voice_url=DEMO))
    assert "Twilio did not take it over" in str(done.error)
    assert "to undo" not in "".join(done.lines)


def test_twilio_refuses_the_change(monkeypatch):
    def refuse(self: FakeTwilio, request: Any, form: Any) -> tuple[int, dict[str, Any]]:
        raise Problem(429, 20429, "Too Many Requests")

    monkeypatch.setattr(FakeTwilio, "_point", refuse)
    assert "too many requests at once" in str(voiceflow(ME, "--public-url", PUBLIC).error)


def test_missing_keys_say_where_to_get_them():
    done = voiceflow(ME, "--show", TWILIO_ACCOUNT_SID="", TWILIO_AUTH_TOKEN="")
    assert isinstance(done.error, MissingKeys)
    assert str(done.error).count("console.twilio.com, Account info") == 2
