// What htmx cannot do: arrow keys over the tokens, and the view in the address.
"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (text) => { one("#status").textContent = text; };

  // --- tokens: one of them is in the tab order, arrow keys move it ---

  function otherLine(chips, chip, step) {
    const middle = (c) => c.offsetLeft + c.offsetWidth / 2;
    const beyond = chips.filter((c) => step * (c.offsetTop - chip.offsetTop) > 4);
    if (!beyond.length) return chip;
    const tops = beyond.map((c) => c.offsetTop);
    const line = step > 0 ? Math.min(...tops) : Math.max(...tops);
    const far = (c) => Math.abs(middle(c) - middle(chip));
    return beyond.filter((c) => Math.abs(c.offsetTop - line) < 4)
      .reduce((best, c) => (far(c) < far(best) ? c : best));
  }

  document.addEventListener("keydown", (event) => {
    const chip = event.target.closest("[data-chips] .chip");
    if (!chip || event.ctrlKey || event.metaKey || event.altKey) return;
    const chips = all(".chip", chip.closest("[data-chips]"));
    const at = chips.indexOf(chip);
    const moves = {
      ArrowRight: () => chips[at + 1], ArrowLeft: () => chips[at - 1],
      ArrowDown: () => otherLine(chips, chip, 1), ArrowUp: () => otherLine(chips, chip, -1),
      Home: () => chips[0], End: () => chips[chips.length - 1],
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    const next = moves[event.key]();
    if (!next) return;
    chip.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  function chosen(pane) {
    const field = one("input[name=chosen]", pane);
    return field ? field.value : null;
  }

  function mark(pane) {
    const chips = all("[data-chips] .chip", pane);
    const at = chosen(pane);
    for (const chip of chips) {
      if (chip.value === at) chip.setAttribute("aria-current", "true");
      else chip.removeAttribute("aria-current");
    }
    if (!chips.length || chips.some((chip) => chip.tabIndex === 0)) return;
    const focus = chips.includes(document.activeElement) && document.activeElement;
    (focus || chips.find((chip) => chip.value === at) || chips[0]).tabIndex = 0;
  }

  document.addEventListener("focusin", (event) => {
    const chip = event.target.closest("[data-chips] .chip");
    if (!chip) return;
    for (const other of all(".chip", chip.parentElement)) other.tabIndex = -1;
    chip.tabIndex = 0;
  });

  // --- the view in the address: behind #, which no browser sends anywhere ---

  function paneState(pane) {
    const field = (name) => { const found = one(`form[id^=held] input[name=${name}]`, pane); return found ? found.value : ""; };
    const state = { pair: field("pair"), kind: field("kind"), text: field("text") };
    if (!state.text) return null;
    const at = chosen(pane);
    if (at !== null) state.chosen = Number(at);
    state.explained = all("[data-chips] .chip", pane)
      .filter((chip) => /level-|told/.test(chip.className)).map((chip) => Number(chip.value));
    const edit = one("textarea[name=edited]", pane);
    if (edit && edit.value !== edit.dataset.asWritten) state.edited = edit.value;
    return state;
  }

  async function through(stream, bytes) {
    const body = new Blob([bytes]).stream().pipeThrough(stream);
    return new Uint8Array(await new Response(body).arrayBuffer());
  }

  async function packed(view) {
    const bytes = await through(new CompressionStream("deflate-raw"), new TextEncoder().encode(JSON.stringify(view)));
    let letters = "";
    for (const byte of bytes) letters += String.fromCharCode(byte);
    return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }

  async function unpacked(text) {
    const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const bytes = await through(new DecompressionStream("deflate-raw"), Uint8Array.from(letters, (l) => l.charCodeAt(0)));
    return new TextDecoder().decode(bytes);
  }

  let waiting = 0;
  function remember() {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const panes = all(".pane").map(paneState).filter(Boolean);
      if (panes.length) history.replaceState(null, "", "#v1." + await packed({ panes }));
    }, 150);
  }

  async function restore() {
    if (!location.hash.startsWith("#v1.")) return;
    let view = "";
    try {
      view = await unpacked(location.hash.slice(4));
    } catch {
      view = "damaged"; // the server says so
    }
    const base = document.body.dataset.base;
    htmx.ajax("POST", base + "/explore/restore", { target: "#panes", swap: "innerHTML", values: { view } });
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-close]")) return;
    for (const part of all("#pane-b, #relation")) htmx.remove(part);
    one("#pane-a [data-beside]").focus();
    remember();
  });

  addEventListener("hashchange", restore);
  document.addEventListener("DOMContentLoaded", () => {
    restore();
    one("#copy").addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(location.href);
        say("The link is copied.");
      } catch {
        say("The address bar holds the link.");
      }
      one("#copy").textContent = one("#status").textContent;
      setTimeout(() => { one("#copy").textContent = "Copy a link to this view"; }, 2000);
    });
  });

  // --- what htmx tells ---

  document.addEventListener("htmx:beforeRequest", () => one("#problem").replaceChildren());
  document.addEventListener("htmx:afterSettle", () => { all(".pane").forEach(mark); remember(); });
  document.addEventListener("htmx:sseClose", (event) => {
    if (event.detail.type === "message") setTimeout(() => htmx.trigger(document.body, "told"), 50);
  });
  document.addEventListener("htmx:sendError", () => {
    const line = document.createElement("p");
    line.className = "problem";
    line.textContent = "The service does not answer. Is it still running?";
    one("#problem").replaceChildren(line);
  });
})();
