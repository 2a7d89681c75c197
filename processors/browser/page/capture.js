// The microphone, as 20 ms of 16-bit samples at 16 kHz: { audio, peak }.
"use strict";
import { Resampler } from "./resampler.js";

const RATE = 16000;
const FRAME = RATE / 50;
const QUIET = new Float32Array(128);

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.over = false;
    this.port.onmessage = () => (this.over = true);
    this.begin();
  }

  begin() {
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.peak = 0;
  }

  process(inputs) {
    // A microphone that is muted or gone gives nothing: silence then, because the line goes on.
    const samples = this.resampler.process(inputs[0][0] ?? QUIET);
    for (const sample of samples) {
      const level = Math.max(-1, Math.min(1, sample));
      this.frame[this.filled++] = Math.round(level * 32767);
      if (Math.abs(level) > this.peak) this.peak = Math.abs(level);
      if (this.filled === FRAME) {
        this.port.postMessage({ audio: this.frame.buffer, peak: this.peak }, [this.frame.buffer]);
        this.begin();
      }
    }
    return !this.over;
  }
}

registerProcessor("capture", Capture);
