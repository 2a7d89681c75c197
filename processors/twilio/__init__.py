"""Twilio Media Streams: the codec of the line, webhook signatures, TwiML, and a simulated caller.

The caller (`processors.twilio.simulated.caller`) is not imported here: only tests, `dial` and `demo` need it.
"""

from __future__ import annotations

from processors.twilio.codec import TwilioCodec

__all__ = ["TwilioCodec"]
