// Where each turn's time goes, while it goes: the bars of `voiceflow trace`, drawn as the steps come in.
"use strict";
import { element } from "./transcript.js";

const ROWS = 60; // turns that are shown: the latest
const ORDER = ["end of turn", "first token", "first sentence", "first audio", "on the wire", "heard"];

export class Waterfall {
  constructor(list, legend) {
    this.list = list;
    this.legend = legend;
    this.clear();
  }

  clear() {
    this.paths = new Map(); // reply → the latest message about it
    this.draw();
  }

  event(message) {
    if (message.type !== "path") return;
    this.paths.set(message.reply, message);
    if (message.dropped) this.paths.delete(message.reply);
    while (this.paths.size > ROWS) this.paths.delete(this.paths.keys().next().value);
    if (!this.drawing) this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = 0;
    const shown = [...this.paths.values()].filter((path) => path.parts.length);
    const longest = Math.max(1, ...shown.map((path) => sum(path.parts)));
    const owners = new Map();
    for (const path of shown) for (const part of path.parts) owners.set(part.step, part.owner);
    this.legend.replaceChildren(
      ...ORDER.filter((step) => owners.has(step)).map((step) => {
        const item = element("li");
        item.append(element("i", "swatch " + kind(step)), element("b", "", step), " ");
        item.append(element("span", "soft", owners.get(step)));
        return item;
      }),
    );
    const rows = shown.map((path) => row(path, longest));
    this.list.replaceChildren(...(rows.length ? rows : [element("li", "none", "No turn yet.")]));
  }
}

function row(path, longest) {
  const item = element("li", "turn");
  const name = path.turn === null ? "by itself" : "turn " + path.turn;
  const gap = path.gap_ms === null ? "…" : Math.round(path.gap_ms) + " ms";
  const bar = element("div", "bar");
  const parts = path.parts.map((part) => `${part.step} ${Math.round(part.ms)} ms, ${part.owner}`);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `${name}: ${path.gap_ms === null ? "not heard yet" : gap}. ${parts.join("; ")}`);
  let at = 0;
  path.parts.forEach((part, number) => {
    const piece = element("i", "part " + kind(part.step));
    piece.style.left = (at / longest) * 100 + "%";
    piece.style.width = (part.ms / longest) * 100 + "%";
    piece.title = parts[number];
    piece.append(element("span", "", String(Math.round(part.ms))));
    bar.append(piece);
    at += part.ms;
  });
  const meter = element("div", "meter");
  meter.append(bar, element("output", "", gap + (path.cut ? " ✂" : "")));
  item.append(element("h3", "", name), meter);
  return item;
}

const sum = (parts) => parts.reduce((total, part) => total + part.ms, 0);
const kind = (step) => step.replaceAll(" ", "-");
