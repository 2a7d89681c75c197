// What the page adds for eyes and keys; everything is there without it.
"use strict";
(() => {
  const tip = document.getElementById("tip");
  let shown = null;

  function show(part) {
    hide();
    shown = part;
    part.classList.add("shown");
    const name = document.createElement("b");
    name.textContent = part.dataset.step + "  " + part.dataset.ms + " ms";
    const more = document.createElement("span");
    more.textContent = " " + part.dataset.owner + ", " + part.dataset.share + " of the gap";
    tip.replaceChildren(name, more);
    tip.hidden = false;
    const at = part.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = at.left + at.width / 2 - size.width / 2;
    tip.style.left = Math.max(8, Math.min(left, innerWidth - size.width - 8)) + "px";
    tip.style.top = (at.top > size.height + 12 ? at.top - size.height - 8 : at.bottom + 8) + "px";
  }

  function hide() {
    if (shown) shown.classList.remove("shown");
    shown = null;
    tip.hidden = true;
  }

  document.addEventListener("pointerover", (event) => {
    const part = event.target.closest(".part");
    if (part) show(part);
    else if (shown && !shown.parentElement.matches(":focus")) hide();
  });
  addEventListener("scroll", hide, { passive: true });

  // Arrow keys: one stop of the tab key for a group, then from one to the next.
  function group(items, back, forth) {
    items.forEach((item, index) => {
      item.tabIndex = index ? -1 : 0;
      item.addEventListener("focus", () => items.forEach((each) => (each.tabIndex = each === item ? 0 : -1)));
      item.addEventListener("keydown", (event) => {
        const step = { [back]: -1, [forth]: 1, Home: -items.length, End: items.length }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        items[Math.max(0, Math.min(items.length - 1, index + step))].focus();
      });
    });
  }

  const bars = [...document.querySelectorAll(".bar[tabindex]")];
  group(bars, "ArrowUp", "ArrowDown");
  group([...document.querySelectorAll(".lane a")].sort((a, b) => a.dataset.at - b.dataset.at), "ArrowLeft", "ArrowRight");
  for (const bar of bars) {
    const parts = [...bar.querySelectorAll(".part")];
    bar.addEventListener("focus", () => {
      if (bar.matches(":focus-visible") && parts.length) show(parts[0]);
    });
    bar.addEventListener("blur", hide);
    bar.addEventListener("keydown", (event) => {
      if (event.key === "Escape") hide();
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined || !parts.length) return;
      event.preventDefault();
      const next = parts.includes(shown) ? parts.indexOf(shown) + step : 0;
      show(parts[Math.max(0, Math.min(parts.length - 1, next))]);
    });
  }
})();
