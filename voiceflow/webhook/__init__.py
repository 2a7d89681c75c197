"""A signed request about every call that is over: who spoke, what was said and done, how it ended.

    call.on_end(Webhook("https://example.com/calls"))       in a pipeline file
    verify(secret, headers, body); read_event(body)         where it is received, in Python

`voiceflow run FILE --webhook https://...` does the former for any file. More in docs/webhook.md.
"""

from __future__ import annotations

from voiceflow.webhook.delivery import WebhookDelivery
from voiceflow.webhook.event import EndedCall, Ending, Entry, Latency, Tool, WebhookEvent, read_event
from voiceflow.webhook.hook import Webhook
from voiceflow.webhook.signature import WebhookRejected, new_secret, verify

__all__ = [
    "EndedCall",
    "Ending",
    "Entry",
    "Latency",
    "Tool",
    "Webhook",
    "WebhookDelivery",
    "WebhookEvent",
    "WebhookRejected",
    "new_secret",
    "read_event",
    "verify",
]
