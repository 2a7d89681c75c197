// From one sample rate to another, in pieces: a windowed sinc that reaches 16 samples of the slower rate to each
// side, in 512 phases. Its band ends at 92 % of the slower rate's half, its delay is those 16 samples (1 ms at
// 16 kHz).
"use strict";

const SIDE = 16;
const PHASES = 512;
const BAND = 0.92;

export class Resampler {
  constructor(from, to) {
    this.same = from === to;
    if (this.same) return;
    const slower = Math.min(1, to / from);
    this.step = from / to;
    this.half = Math.ceil(SIDE / slower);
    this.table = kernels(this.half, BAND * slower);
    this.reset();
  }

  // Forgets what came before.
  reset() {
    if (this.same) return;
    this.past = new Float32Array(this.half - 1);
    this.at = this.half - 1; // where the next output's centre is, in what is there
  }

  // Float32 samples in, as many out as are complete. The result may be the input itself.
  process(input) {
    if (this.same) return input;
    const { half, step, table } = this;
    const taps = 2 * half;
    const all = new Float32Array(this.past.length + input.length);
    all.set(this.past);
    all.set(input, this.past.length);
    const out = new Float32Array(Math.max(0, Math.ceil((all.length - half - this.at) / step)));
    let made = 0;
    let at = this.at;
    while (made < out.length && Math.floor(at) + half < all.length) {
      const whole = Math.floor(at);
      const first = whole - half + 1;
      const row = Math.round((at - whole) * PHASES) * taps;
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) sum += all[first + tap] * table[row + tap];
      out[made++] = sum;
      at += step;
    }
    const done = Math.max(0, Math.floor(at) - half + 1);
    this.past = all.slice(done);
    this.at = at - done;
    return made === out.length ? out : out.subarray(0, made);
  }
}

// A row of taps for each phase, each of sum 1.
function kernels(half, band) {
  const taps = 2 * half;
  const table = new Float32Array((PHASES + 1) * taps);
  for (let phase = 0; phase <= PHASES; phase++) {
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      const x = tap - half + 1 - phase / PHASES;
      const angle = Math.PI * band * x;
      const window = Math.abs(x) < half ? 0.5 + 0.5 * Math.cos((Math.PI * x) / half) : 0;
      const value = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
      table[phase * taps + tap] = value;
      sum += value;
    }
    for (let tap = 0; tap < taps; tap++) table[phase * taps + tap] /= sum;
  }
  return table;
}
