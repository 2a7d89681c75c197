// The loudspeaker: plays what comes, in order, through a small jitter buffer.
//
//   in    { audio } 16-bit samples at 16 kHz    { mark }    { clear }    { latency } seconds to the ear    { close }
//   out   { marks } played, or cleared          { playing } whether anything is heard
//         { cleared } the frame of our clock from which on it is silent    { underruns, lead }
//
// A mark comes back when the last sample before it has reached the ear: that is `latency` after it left here.
"use strict";
import { Resampler } from "./resampler.js";

const RATE = 16000;
const BLOCK = 128;
const LEAD = 0.04; // seconds that must be there before it begins; more after each underrun
const LEAD_STEP = 0.02;
const LEAD_MOST = 0.2;
const LONGEST = 30; // seconds that are kept; the server sends 0.2 ahead

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(RATE, sampleRate);
    this.queue = []; // Float32Arrays and names of marks; bounded by LONGEST
    this.offset = 0; // into the first of them
    this.queued = 0; // samples
    this.due = []; // marks that have left here: [frame, name]
    this.latency = 0;
    this.lead = LEAD;
    this.since = 0; // the frame at which the first sample came that waits
    this.playing = false;
    this.underruns = 0;
    this.last = 0; // the sample that was played last
    this.fading = false;
    this.over = false;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.audio) this.add(new Int16Array(message.audio));
    else if (message.mark !== undefined) this.queue.push(message.mark);
    else if (message.clear) this.clear();
    else if (message.latency !== undefined) this.latency = Math.round(message.latency * sampleRate);
    else if (message.close) this.over = true;
  }

  add(samples) {
    const floats = new Float32Array(samples.length);
    for (let i = 0; i < samples.length; i++) floats[i] = samples[i] / 32768;
    const piece = this.resampler.process(floats);
    if (!piece.length || this.queued > LONGEST * sampleRate) return;
    if (!this.queued) this.since = currentFrame;
    this.queue.push(piece);
    this.queued += piece.length;
  }

  clear() {
    const marks = [...this.due.map(([, name]) => name), ...this.queue.filter((each) => typeof each === "string")];
    this.fading = this.playing; // to zero within a block: without it the loudspeaker clicks
    this.queue = [];
    this.due = [];
    this.offset = this.queued = 0;
    this.resampler.reset();
    if (marks.length) this.port.postMessage({ marks });
    this.port.postMessage({ cleared: currentFrame + (this.fading ? BLOCK : 0) });
    this.plays(false);
  }

  process(inputs, outputs) {
    const [first, ...others] = outputs[0];
    if (!this.playing && this.queued) {
      const waited = (currentFrame - this.since) / sampleRate;
      if (this.queued >= this.lead * sampleRate || waited >= this.lead) this.plays(true);
    }
    if (this.fading) this.fade(first);
    else this.fill(first);
    for (const other of others) other.set(first);
    this.last = first[first.length - 1];
    this.tell();
    return !this.over;
  }

  fade(out) {
    for (let i = 0; i < out.length; i++) out[i] = this.last * (1 - (i + 1) / out.length);
    this.fading = false;
  }

  fill(out) {
    let at = 0;
    let ended = false;
    while (this.queue.length && (this.playing || typeof this.queue[0] === "string")) {
      const next = this.queue[0];
      if (typeof next === "string") {
        this.due.push([currentFrame + at + this.latency, next]);
        this.queue.shift();
        ended = true;
        continue;
      }
      if (at === out.length) return;
      const samples = Math.min(next.length - this.offset, out.length - at);
      out.set(next.subarray(this.offset, this.offset + samples), at);
      at += samples;
      this.queued -= samples;
      this.offset += samples;
      ended = false;
      if (this.offset === next.length) {
        this.queue.shift();
        this.offset = 0;
      }
    }
    if (!this.playing || at === out.length) return;
    if (!ended) {
      // A reply ends with a mark. This one goes on, and the rest of it is late.
      this.underruns++;
      this.lead = Math.min(LEAD_MOST, this.lead + LEAD_STEP);
      this.port.postMessage({ underruns: this.underruns, lead: this.lead });
    }
    this.plays(false);
  }

  tell() {
    const now = currentFrame + BLOCK;
    const marks = [];
    while (this.due.length && this.due[0][0] <= now) marks.push(this.due.shift()[1]);
    if (marks.length) this.port.postMessage({ marks });
  }

  plays(playing) {
    if (playing === this.playing) return;
    this.playing = playing;
    this.port.postMessage({ playing });
  }
}

registerProcessor("playback", Playback);
