// One call: the microphone and the loudspeaker on a WebSocket. What is said on it: processors/browser/codec.py.
"use strict";

const RATE = 16000;
const BEHIND = 64000; // bytes that the socket may be behind: two seconds; then audio is dropped, not delayed
const LATENCY_LOOK = 1000; // ms between two looks at how late the loudspeaker is

export class Refused extends Error {}

export class Line {
  // `on` has: event(message), playing(yes), level(peak), over(reason or null), figures(object)
  constructor(on) {
    this.on = on;
    this.figures = { underruns: 0, dropped: 0, clears: [], pressed: performance.timeOrigin + performance.now() };
    this.ended = false;
    this.last = null; // the message with which the call was over
  }

  // Raises Refused with a sentence for the page.
  async open(called) {
    try {
      // When the browser is sure to give the microphone, the call is set up meanwhile. Else it would wait, and
      // count, while somebody reads the browser's question.
      const sure = await granted();
      const microphone = microphoneStream();
      microphone.catch(() => {});
      const audio = this.prepare();
      audio.catch(() => {});
      if (!sure) await microphone;
      const [stream, , offer] = await Promise.all([microphone, audio, ask(called)]);
      if (this.ended) return this.release(stream);
      await this.connect(stream, offer);
    } catch (error) {
      this.ended = true;
      this.stop();
      throw error;
    }
  }

  async prepare() {
    this.context = new AudioContext({ latencyHint: "interactive" });
    const modules = ["./capture.js", "./playback.js"].map((name) => new URL(name, import.meta.url));
    await Promise.all([this.context.resume(), ...modules.map((each) => this.context.audioWorklet.addModule(each))]);
    this.playback = new AudioWorkletNode(this.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.playback.port.onmessage = ({ data }) => this.played(data);
    this.playback.connect(this.context.destination);
    this.context.onstatechange = () => {
      if (!this.ended && this.context.state === "interrupted") this.context.resume().catch(() => {});
    };
  }

  async connect(stream, offer) {
    this.stream = stream;
    for (const track of stream.getAudioTracks()) {
      track.onended = () => this.close("The microphone was unplugged.");
    }
    const socket = (this.socket = new WebSocket(
      location.origin.replace(/^http/, "ws") + "/browser/ws/" + encodeURIComponent(offer.token),
    ));
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.take(JSON.parse(data)) : this.play(data));
    socket.onclose = () => this.gone();
    await new Promise((opened, failed) => {
      socket.onopen = opened;
      socket.onerror = () => failed(new Refused("The server did not open the line."));
    });
    socket.onerror = null;
    this.send({ type: "start", call: offer.call, rate: RATE });
    const capture = (this.capture = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 1 }));
    capture.port.onmessage = ({ data }) => this.heard(data);
    this.source = this.context.createMediaStreamSource(stream);
    // Its output is silence: it is connected because a node that leads nowhere is not run everywhere.
    this.source.connect(capture).connect(this.context.destination);
    this.latency();
    this.looking = setInterval(() => this.latency(), LATENCY_LOOK);
  }

  latency() {
    const { outputLatency, baseLatency } = this.context;
    this.playback.port.postMessage({ latency: (outputLatency || 0) + (baseLatency || 0) });
  }

  // -- to the server

  heard({ audio, peak }) {
    this.on.level(peak);
    if (this.socket.readyState !== WebSocket.OPEN || this.closing) return;
    if (this.socket.bufferedAmount > BEHIND) {
      this.figures.dropped++;
      return;
    }
    this.figures.first ??= performance.timeOrigin + performance.now();
    this.socket.send(audio);
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  key(key) {
    this.send({ type: "key", key });
  }

  // -- from the server

  play(audio) {
    this.playback.port.postMessage({ audio }, [audio]);
  }

  take(message) {
    if (message.type === "mark") this.playback.port.postMessage({ mark: message.name });
    else if (message.type === "clear") {
      this.clearing = performance.now();
      this.playback.port.postMessage({ clear: true });
    } else if (message.type === "closing") this.stop();
    else if (message.type === "over") this.last = message;
    else this.on.event(message);
  }

  // From the worklet.
  played(message) {
    if (message.marks) for (const name of message.marks) this.send({ type: "mark", name });
    if (message.playing !== undefined) this.on.playing(message.playing);
    if (message.cleared !== undefined) this.silent(message.cleared);
    if (message.underruns !== undefined) this.figures.underruns = message.underruns;
  }

  // How long after `clear` came the loudspeaker was silent, by the clock of what it plays.
  silent(frame) {
    const heard = this.context.getOutputTimestamp?.();
    const asked = this.clearing;
    this.clearing = undefined;
    if (!heard?.performanceTime || asked === undefined) return; // our own: we hung up
    const ahead = (frame / this.context.sampleRate - heard.contextTime) * 1000;
    if (this.figures.clears.length < 1000) {
      this.figures.clears.push(heard.performanceTime + ahead - asked);
    }
  }

  // -- the end

  // The caller hangs up. `why` is for the page, when it was not meant.
  close(why = null) {
    if (this.closing) return;
    this.why = why;
    this.send({ type: "stop" });
    this.stop();
    // The server has the last word; if it has none, that is the end all the same.
    this.waiting = setTimeout(() => this.gone(), 8000);
    if (!this.socket) this.gone();
  }

  // Nothing is said or heard any more.
  stop() {
    this.closing = true;
    this.playback?.port.postMessage({ clear: true });
    this.release();
  }

  release(stream = this.stream) {
    clearInterval(this.looking);
    for (const track of stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.source?.disconnect();
    this.capture?.port.postMessage("close");
    if (this.context && this.context.state !== "closed") {
      // A moment for the end of the last word, which fades.
      setTimeout(() => {
        this.playback?.port.postMessage({ close: true });
        this.context.close().catch(() => {});
      }, 100);
    }
  }

  gone() {
    if (this.ended) return;
    this.ended = true;
    clearTimeout(this.waiting);
    if (!this.closing) this.stop();
    this.socket?.close();
    this.on.over(this.last, this.why ?? null, this.figures);
  }
}

async function granted() {
  try {
    const { state } = await navigator.permissions.query({ name: "microphone" });
    const devices = state === "granted" ? await navigator.mediaDevices.enumerateDevices() : [];
    return devices.some((device) => device.kind === "audioinput");
  } catch {
    return false; // a browser that does not say
  }
}

async function microphoneStream() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Refused(
      isSecureContext
        ? "This browser has no access to microphones."
        : "Browsers give the microphone only to pages of this machine, or over https://.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
  } catch (error) {
    throw new Refused(WHY_NOT[error.name] ?? `The microphone cannot be used (${error.name}).`);
  }
}

const WHY_NOT = {
  NotAllowedError:
    "The microphone was refused. Allow it for this page - beside the address, or in the system's settings - and press Talk again.",
  NotFoundError: "There is no microphone. Plug one in and press Talk again.",
  NotReadableError: "The microphone is in use by another program. Close that and press Talk again.",
  SecurityError: "This page may not use the microphone here.",
};

async function ask(called) {
  let response;
  try {
    response = await fetch("/browser/calls", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ called }),
    });
  } catch {
    throw new Refused("The server does not answer.");
  }
  if (response.status === 401) location.reload();
  const body = await response.json().catch(() => ({ error: `The server says ${response.status}.` }));
  if (!response.ok) throw new Refused(`The call was not taken: ${body.error}`);
  return body;
}
