"""A browser as a line: its microphone and loudspeaker over a WebSocket, and the page that opens it.

codec    the protocol, sans-IO          routes   the page, its socket, what is kept of a call
access   who may come in                screen   what the page is shown of a live call
link     one socket for both            shelf    recording and trace of calls that are over
checked  the chain, as the page shows it
page/    HTML, CSS and JavaScript, served as they are
"""

from __future__ import annotations

from processors.browser.codec import BrowserCodec

__all__ = ["BrowserCodec"]
