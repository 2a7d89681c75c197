"""The webhook as it is declared: on the command line, or in a pipeline file."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from voiceflow.webhook.delivery import WebhookDelivery
from voiceflow.webhook.endpoint import Endpoint
from voiceflow.webhook.spool import Spool

if TYPE_CHECKING:
    from voiceflow.call import Call

REDACT = "VOICEFLOW_REDACT"
TRUE = ("1", "true", "t", "yes", "y", "on")
"""What the command line takes for true, too."""


class Webhook:
    """Tells `url` about each call that is over, however it ended: `call.on_end(Webhook(url))`.

        url      where: https, or http on this machine; VOICEFLOW_WEBHOOK_URL when not given
        secret   what it is signed with; VOICEFLOW_WEBHOOK_SECRET when not given
        redact   hides words, numbers, parameters and what tools were given; VOICEFLOW_REDACT when not given
        spool    a folder that keeps events until they are taken

    All calls of the process share one delivery, which ends with the call's services. DeclarationError when
    the address or the secret is missing or cannot be used, VoiceflowError for a folder that cannot.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        secret: str | None = None,
        redact: bool | None = None,
        spool: Path | str | None = None,
    ) -> None:
        self.endpoint = Endpoint.of(url, secret)
        self.redact = os.environ.get(REDACT, "").strip().lower() in TRUE if redact is None else redact
        self.spool = _spool(Path(spool)) if spool is not None else None

    def __call__(self, call: Call) -> None:
        """The end hook. Never waits."""
        self.delivery(call).ended(call)

    def delivery(self, call: Call) -> WebhookDelivery:
        """What all calls with these settings share."""
        key = (WebhookDelivery, self.endpoint, self.redact, self.spool)  # a Spool is equal to itself
        return call.services.shared(key, self._make)

    def _make(self) -> WebhookDelivery:
        return WebhookDelivery(self.endpoint, redact=self.redact, spool=self.spool)


@lru_cache(maxsize=64)
def _spool(path: Path) -> Spool:
    """Looked at once: a pipeline file makes a Webhook for every call."""
    return Spool(path)
