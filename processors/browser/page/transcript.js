// What is said, as it grows: of the agent what was heard, what is still to come, and what was cut.
"use strict";

const ITEMS = 400; // lines that are kept on the page

export class Transcript {
  // `list` shows it; `live` is read aloud, a line at a time, when it is complete.
  constructor(list, live) {
    this.list = list;
    this.live = live;
    this.clear();
  }

  clear() {
    this.list.replaceChildren();
    this.live.replaceChildren();
    this.replies = new Map(); // number → { item, text, spoken, heard }
    this.caller = null;
    this.words = "";
  }

  event(event) {
    switch (event.type) {
      case "words":
        this.words = event.text;
        if (this.caller) this.caller.text.textContent = event.text;
        return this.scroll();
      case "heard":
        return this.heard(event.reply, event.text);
      case "path":
        return event.over && event.cut && this.lost(event);
      case "event":
        return this.happened(event);
    }
  }

  happened(event) {
    switch (event.kind) {
      case "caller speaks":
        this.words = "";
        this.caller = this.add("caller", "You");
        this.caller.text.textContent = "…";
        this.caller.item.classList.add("growing");
        break;
      case "caller done": {
        const said = this.caller ?? this.add("caller", "You");
        said.item.classList.remove("growing");
        this.spell(said.text, event.words, "no words");
        this.say("You: " + (event.words ?? "no words"));
        this.caller = null;
        break;
      }
      case "first sentence":
      case "first audio":
      case "more":
        if (event.reply !== undefined && event.words) this.spoken(event.reply, event.words);
        break;
      case "said":
      case "cut":
        this.over(event);
        break;
      case "draft dropped":
        this.replies.get(event.reply)?.item.remove();
        this.replies.delete(event.reply);
        break;
      case "held":
        this.note("The agent waits: was that for it?");
        break;
      case "backchannel":
        this.note("You, meanwhile: " + (event.words ? `“${event.words}”` : "a sound") + " - no interruption");
        break;
      case "kept":
        this.note(`You, meanwhile: “${event.words ?? ""}” - answered afterwards`);
        break;
      case "tool":
        this.note(`${event.owner} ${event.detail ?? ""}${event.words ? ": " + event.words : ""}`);
        break;
      case "note":
        this.note(`${event.owner ?? ""}: ${event.detail ?? ""}`);
        break;
    }
    this.scroll();
  }

  // A sentence that is on its way to the ear.
  spoken(reply, words) {
    const found = this.reply(reply);
    found.spoken += (found.spoken ? " " : "") + words;
    this.draw(found);
  }

  heard(reply, text) {
    const found = this.reply(reply);
    if (found.over) return;
    found.heard = text;
    this.draw(found);
    this.scroll();
  }

  over(event) {
    const found = this.reply(event.reply);
    found.over = true;
    found.heard = event.words ?? "";
    found.cut = event.kind === "cut" ? event.detail || "cut off" : "";
    if (!found.cut) found.spoken = found.heard;
    this.draw(found);
    if (found.heard || found.cut) this.say("Agent: " + found.heard + (found.cut ? " - cut off" : ""));
  }

  // The trace knows best what was ready and never heard.
  lost(path) {
    const found = this.replies.get(path.reply);
    if (!found) return;
    found.lost = path.lost;
    this.draw(found);
  }

  reply(number) {
    let found = this.replies.get(number);
    if (!found) {
      found = { ...this.add("agent", "Agent"), spoken: "", heard: "", cut: "", over: false, lost: null };
      this.replies.set(number, found);
    }
    return found;
  }

  draw(found) {
    const parts = [];
    if (found.heard) parts.push(span("", found.heard));
    const rest = found.over ? (found.lost ?? after(found.spoken, found.heard)) : after(found.spoken, found.heard);
    if (found.cut) parts.push(span("mark", found.heard ? " ✂ " : "✂ ", "cut off: " + found.cut));
    if (found.cut && rest) parts.push(element("s", "", rest));
    else if (!found.over && rest) parts.push(span("ahead", (found.heard ? " " : "") + rest));
    if (!parts.length) parts.push(span("none", "no words"));
    found.text.replaceChildren(...parts);
  }

  note(text) {
    const item = element("li", "aside", text);
    this.list.append(item);
  }

  add(who, name) {
    const item = element("li", who);
    const text = element("bdi", "text");
    text.dir = "auto";
    item.append(element("span", "who", name), text);
    this.list.append(item);
    while (this.list.children.length > ITEMS) this.list.firstChild.remove();
    return { item, text };
  }

  spell(place, words, none) {
    place.replaceChildren(words ? span("", words) : span("none", none));
  }

  say(text) {
    this.live.append(element("p", "", text));
    while (this.live.children.length > 20) this.live.firstChild.remove();
  }

  // Follows the talk, unless somebody reads further up.
  scroll() {
    const list = this.list;
    if (list.scrollHeight - list.scrollTop - list.clientHeight < 160) list.scrollTop = list.scrollHeight;
  }
}

// What of `text` comes after its first words, which are those of `heard`.
function after(text, heard) {
  const words = text.split(/\s+/).filter(Boolean);
  const count = heard.split(/\s+/).filter(Boolean).length;
  return words.slice(count).join(" ");
}

export function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function span(kind, text, title) {
  const made = element("span", kind, text);
  if (title) made.title = title;
  return made;
}
