// The page: one button, and what becomes of it.
//
//   away ──▶ idle ──▶ connecting ──▶ talking ──▶ ending ──▶ idle
//     the server does not answer: it is asked again until it does
"use strict";
import { Line, Refused } from "./line.js";
import { Transcript, element } from "./transcript.js";
import { Waterfall } from "./waterfall.js";

const LOOK = 4000; // ms between two looks at whether the server is there, while nobody talks
const LOOK_AGAIN = 1000; // and when it was not
const NO_CALL = "No call is taken just now";
const LOCK = "voiceflow-talk"; // held by the tab that talks

const $ = (id) => document.getElementById(id);
const button = $("talk");
const transcript = new Transcript($("transcript"), $("live"));
const waterfall = new Waterfall($("turns"), $("legend"));
const called = $("called");

let state = "away";
let line = null;
let boot = null;
let letGo = null; // gives the lock back
let timer = 0;

// -- states

const LABELS = {
  away: "Talk",
  idle: "Talk",
  connecting: "Connecting …",
  talking: "Hang up",
  ending: "Hanging up …",
};

function become(next) {
  state = next;
  document.body.dataset.state = next;
  button.textContent = LABELS[next];
  button.disabled = next === "away" || next === "connecting" || next === "ending";
  button.setAttribute("aria-pressed", String(next === "talking"));
  $("keys").hidden = next !== "talking";
  called.disabled = next !== "idle";
  if (next !== "talking") for (const lamp of ["you", "agent"]) speaking(lamp, false);
  if (next === "idle" || next === "away") look(next === "idle" ? LOOK : LOOK_AGAIN);
  else clearTimeout(timer);
}

function say(text, bad = false) {
  const place = $("message");
  if (place.textContent !== text) place.textContent = text; // else it would be read aloud once more
  place.classList.toggle("fault", bad);
}

function speaking(who, yes) {
  const lamp = $(who);
  lamp.classList.toggle("on", yes);
  lamp.querySelector(".does").textContent = yes ? "speaking" : state === "talking" ? "listening" : "–";
}

// -- a call

async function talk() {
  if (state !== "idle") return;
  become("connecting");
  say("Asking for the microphone …");
  $("after").hidden = true;
  letGo = await lock();
  if (!letGo) {
    become("idle");
    return say("You are talking in another tab: hang up there first.", true);
  }
  transcript.clear();
  waterfall.clear();
  const mine = (line = new Line({
    event: (message) => event(message),
    playing: (yes) => speaking("agent", yes),
    level: (peak) => $("you").style.setProperty("--level", peak.toFixed(3)),
    over,
  }));
  window.voiceflow.figures = mine.figures; // for whoever measures
  try {
    await mine.open(called.value.trim());
  } catch (error) {
    if (!(error instanceof Refused)) console.error(error);
    letGo();
    become("idle");
    return say(error instanceof Refused ? error.message : `The sound does not start (${error.name}).`, true);
  }
  become("talking");
  speaking("you", false);
  speaking("agent", false);
  say("Speak. Press again, or Escape, to hang up.");
}

function hangUp() {
  if (state !== "talking") return;
  line.close();
  become("ending");
}

function event(message) {
  transcript.event(message);
  waterfall.event(message);
  if (message.type !== "event") return;
  if (message.kind === "caller speaks" || message.kind === "resumed") speaking("you", true);
  if (message.kind === "caller done" || message.kind === "backchannel") speaking("you", false);
}

// `last` is the server's last word; null when it had none: then the connection broke.
function over(last, why, figures) {
  letGo?.();
  line = null;
  window.voiceflow.figures = figures;
  if (last) {
    ended(last, why);
    become("idle");
    if (!last.normal) look(LOOK_AGAIN); // it may be gone
  } else {
    say(why ?? "The connection to the server broke. Trying to reach it again …", true);
    become("away");
  }
}

function ended(last, why) {
  const ours = last.reason === "the caller hung up";
  const reason = why ?? (ours ? "You hung up." : `The call is over: ${last.reason}.`);
  say(reason, why !== null || !last.normal);
  const after = $("after");
  const links = $("links");
  links.replaceChildren();
  if (last.fallback) links.append(element("p", "", `A caller on the phone would now hear: “${last.fallback}”`));
  if (last.audio) {
    const player = element("audio");
    player.controls = true;
    player.preload = "metadata";
    player.src = last.audio;
    player.setAttribute("aria-label", "The recording: you left, the agent right");
    links.append(player, link(last.audio, "The recording", true));
  }
  if (last.trace) links.append(link(last.trace, "The trace: where the time went"));
  after.hidden = !links.children.length;
}

function link(to, text, download = false) {
  const made = element("a", "", text);
  made.href = to;
  if (download) made.download = "";
  else made.target = "_blank";
  return made;
}

// One tab at a time: two would hear each other. Resolves to what gives the lock back, or null.
async function lock() {
  if (!navigator.locks) return () => {};
  return new Promise((found) => {
    navigator.locks.request(LOCK, { ifAvailable: true }, (held) => {
      if (!held) return found(null);
      return new Promise((release) => found(release));
    });
  });
}

// -- the server

function look(after) {
  clearTimeout(timer);
  timer = setTimeout(refresh, after);
}

async function refresh() {
  if (state !== "idle" && state !== "away") return;
  if (document.hidden && state === "idle") return look(LOOK);
  let found;
  try {
    const quick = boot !== null && state === "idle" ? "?quick" : "?called=" + encodeURIComponent(called.value.trim());
    const response = await fetch("/browser/state" + quick, { signal: AbortSignal.timeout(20000) });
    if (response.status === 401) return location.reload();
    if (!response.ok) throw new Error(await response.text());
    found = await response.json();
  } catch {
    if (state === "idle") say("The server does not answer. Trying again …", true);
    else if (boot === null) say("The server does not answer. Trying again …", true);
    return become("away");
  }
  if (state !== "idle" && state !== "away") return; // pressed meanwhile
  const again = boot !== null && boot !== found.boot;
  const back = state === "away";
  boot = found.boot;
  $("logout").hidden = !found.login;
  if (again && found.chain === undefined) {
    boot = null;
    return refresh();
  }
  if (found.chain !== undefined) {
    chain(found);
    if (found.error) {
      say(`This pipeline cannot run here: ${found.error}`, true);
      button.disabled = true;
      document.body.dataset.state = state = "away";
      return look(LOOK);
    }
  }
  if (back) {
    if (again) {
      say("The server was started again. Press Talk.");
      $("after").hidden = true; // that is gone with the old one
    } else if (!$("message").classList.contains("fault") || $("after").hidden) say("Press Talk, and speak.");
    become("idle");
  } else look(LOOK);
  if (found.ready) say(`${NO_CALL}: ${found.ready}.`, true);
  else if ($("message").textContent.startsWith(NO_CALL)) say("Press Talk, and speak.");
}

function chain(found) {
  $("chain").replaceChildren(
    ...found.chain.map((name, number) => {
      const item = element("li");
      const box = element("span", "", name);
      if (number === found.authority) {
        box.classList.add("authority");
        box.append(element("small", "", " decides the turns"));
      }
      item.append(box);
      return item;
    }),
  );
  $("warnings").replaceChildren(...found.warnings.map((text) => element("li", "", text)));
  $("checked").textContent = found.error
    ? found.error
    : found.warnings.length
      ? "It can run. What looks strange:"
      : "Checked: nothing is missing.";
  $("checked").classList.toggle("fault", Boolean(found.error));
}

// -- hands

button.addEventListener("click", () => (state === "talking" ? hangUp() : talk()));
called.addEventListener("change", () => {
  boot = null;
  refresh();
});
$("logout").addEventListener("click", async () => {
  await fetch("/browser/logout", { method: "POST" }).catch(() => {});
  location.reload();
});
for (const key of document.querySelectorAll("#keys button")) {
  key.addEventListener("click", () => line?.key(key.value));
}
addEventListener("keydown", (press) => {
  if (press.ctrlKey || press.metaKey || press.altKey || press.repeat) return;
  const elsewhere = press.target.closest?.("button, a, input, summary, audio");
  if (press.key === "Escape") hangUp();
  else if ((press.key === " " || press.key === "Enter") && !elsewhere) {
    press.preventDefault();
    button.click();
  } else if (state === "talking" && /^[0-9*#]$/.test(press.key) && press.target !== called) {
    line.key(press.key);
    const shown = document.querySelector(`#keys button[value="${CSS.escape(press.key)}"]`);
    shown?.animate?.([{ opacity: 0.3 }, { opacity: 1 }], 200);
  }
});
addEventListener("pagehide", () => line?.close());
document.addEventListener("visibilitychange", () => document.hidden || (state === "talking" ? null : refresh()));

window.voiceflow = { figures: null };
become("away");
clearTimeout(timer);
say("Looking for the server …");
refresh();
