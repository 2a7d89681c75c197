"""What is sent to Flux next: the caller's audio in chunks of 80 ms, or silence when none comes.

Flux counts its time in audio. When the audio stops, so do all its timers, and the end of a turn would never
come: hence the silence (Deepgram closes a connection that gets nothing, besides).
"""

from __future__ import annotations

from processors.flux.ring import Ring
from processors.flux.timeline import Timeline
from voiceflow.frames import AudioFormat

CHUNK = 0.08
"""Seconds of audio in a message, as Deepgram strongly advises: 640 bytes of mu-law, four packets of 20 ms."""
KEPT = 30.0
"""Seconds of the caller's audio that can be sent again."""
STOPPED = 0.5
"""Seconds without audio from the line after which silence is sent instead."""
EARLY = 0.002
"""Seconds by which a timer may come before its time: event loops round to a millisecond."""
BEHIND = 1.0
"""Seconds of silence that are caught up on when the event loop was held up; not more."""


class Feed:
    """Times are `loop.time()`, positions sample indices of the caller's stream."""

    def __init__(self, audio: AudioFormat, now: float) -> None:
        self.chunk = round(CHUNK * audio.rate)
        self.position = 0
        """The next sample to send."""
        self.dropped = 0
        """Samples that had to go before they could be sent."""
        self.silence_fed = 0
        """Samples of silence that were sent because no audio came."""
        self._rate = audio.rate
        self._silence = audio.silence
        self._ring = Ring(round(KEPT * audio.rate), audio)
        self._fed = 0
        """Samples of silence since the audio stopped."""
        self.timeline = Timeline(audio.rate, 0)
        self.silence_due = now + STOPPED
        """When silence has to be sent, unless audio comes."""

    @property
    def oldest(self) -> int:
        """The oldest sample that can be sent again."""
        return self._ring.begin

    def append(self, audio: bytes, at: int, now: float) -> bool:
        """Takes audio from the line. Returns whether there is a whole chunk to send."""
        ring, before = self._ring, self._ring.end
        missing = ring.append(audio, at)
        if self._fed:
            if missing and self.position == before:  # that silence was sent in its stead, as it were
                self.position += min(missing, self._fed)
            self._fed = 0
        if ring.begin > self.position:
            self.dropped += max(0, min(ring.begin, before) - self.position)
            self.position = ring.begin
        self.silence_due = now + STOPPED
        return ring.end - self.position >= self.chunk

    def take(self, now: float) -> bytes | None:
        """The next message; None when it is not time for one yet. The last samples before a silence are
        filled up with it."""
        waiting = self._ring.end - self.position
        if waiting < self.chunk and now < self.silence_due - EARLY:
            return None
        samples = min(waiting, self.chunk)
        audio = self._ring.read(self.position, samples)
        if samples:
            self.timeline.audio(self.position, samples)
            self.position += samples
        if lacking := self.chunk - samples:
            self.timeline.silence(lacking)
            self._fed += lacking
            self.silence_fed += lacking
            audio += self._silence * lacking
            self.silence_due = max(self.silence_due + CHUNK, now - BEHIND)
        return audio

    def rewind(self, position: int) -> int:
        """A new connection begins: goes back to `position`, or to the oldest sample there is. Returns how
        many samples will be sent again."""
        before = self.position
        self.position = max(position, self._ring.begin)
        self.timeline = Timeline(self._rate, self.position)
        self._fed = 0
        return max(0, before - self.position)

    def forget(self, position: int) -> None:
        """What lies before `position` will never be sent again."""
        self._ring.forget(min(position, self.position))
