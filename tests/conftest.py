"""No test sees the keys of whoever runs it: not those in the environment, and not those in a .env file."""

from __future__ import annotations

import os

VENDORS = ("TWILIO_", "DEEPGRAM_", "OPENAI_", "ELEVENLABS_")
OURS = (
    "VOICEFLOW_PUBLIC_URL",
    "VOICEFLOW_TRACES",
    "VOICEFLOW_REDACT",
    "VOICEFLOW_WEBHOOK",
    "VOICEFLOW_DASHBOARD",
)

# When this is imported no test module has been, so copies of the environment that they keep are clean too.
for name in [name for name in os.environ if name.startswith((*VENDORS, *OURS))]:
    del os.environ[name]
os.environ["PYTHON_DOTENV_DISABLED"] = "1"
