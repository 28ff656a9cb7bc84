"use strict";
// The reader of all rows: sort, filter, open. Texts enter the page through textContent alone.
(() => {
  const PAGE = 50;
  const LEVELS = 5;
  const SNIPPET = 120;
  const byId = (id) => document.getElementById(id);
  const reader = byId("reader");
  const body = byId("reader-rows");
  const form = byId("reader-form");
  const more = byId("reader-more");
  const data = JSON.parse(byId("rows-data").textContent);
  const rows = data.rows.map((values) =>
    Object.fromEntries(data.columns.map((name, i) => [name, values[i]])),
  );
  const state = { key: "place", ascending: true, shown: PAGE, found: rows };

  function make(tag, className, ...children) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.append(...children);
    return element;
  }

  function number(value) {
    return value === null ? "–" : value.toFixed(3).replace("-", "−");
  }

  function words(text, className = "") {
    const element = make("div", `words ${className}`.trim(), text.trim() ? text : "(empty)");
    element.dir = "auto";
    if (!text.trim()) element.className = "none";
    return element;
  }

  // --- one row, opened ---

  function coloured(row) {
    const element = make("div", "words");
    element.dir = "auto";
    for (const [word, delta] of row.words) {
      const share = delta === null || !data.word_scale ? 0 : delta / data.word_scale;
      const level = Math.max(-LEVELS, Math.min(LEVELS, Math.trunc(LEVELS * share)));
      const span = make("span", level ? `w${level > 0 ? "" : "n"}${Math.abs(level)}` : "", word);
      span.title = `Δ FVE ${number(delta)}`;
      element.append(span, " ");
    }
    return element;
  }

  function source(row) {
    const element = words(row.cut ? `… ${row.source}` : row.source);
    element.className = "words";
    if (!row.source) element.textContent = "";
    element.append(make("mark", "", row.last));
    if (!row.cut) return element;
    return make("div", "", make("small", "", `${row.cut} characters before are not shown`), element);
  }

  function claims(row) {
    return make("ul", "", ...row.claims.map(([text, state]) =>
      make("li", "", make("span", "words", text), " ", make("span", "tag", state))));
  }

  function details(row) {
    const chips = make("p", "chips", ...[
      ["centred cosine", number(row.centred_cosine)],
      ["best floor", number(row.floor)],
      ["another row's text", number(row.other_row_centred_cosine)],
      ["label", number(row.label_centred_cosine)],
      ["cosine", number(row.cosine)],
      ["FVE", number(row.fve)],
      ["family", row.family],
      ["row", row.id],
      ...(row.document === null ? [] : [["document", row.document]]),
    ].map(([name, value]) => make("span", "", `${name} `, make("b", "", value))));
    const list = make("dl", "");
    const entries = [["Explanation", words(row.explanation, "explanation")]];
    if (row.words) entries.push(["Words", coloured(row)]);
    if (row.claims) entries.push(["Claims", claims(row)]);
    if (row.label) entries.push(["Label", words(row.label)]);
    entries.push(["Source", source(row)]);
    for (const [name, value] of entries) list.append(make("dt", "", name), make("dd", "", value));
    const cell = make("td", "", make("div", "example", chips, list));
    cell.colSpan = 6;
    return make("tr", "opened", cell);
  }

  function toggle(button, line, row) {
    const open = button.getAttribute("aria-expanded") === "true";
    button.setAttribute("aria-expanded", String(!open));
    if (open) line.nextElementSibling.remove();
    else line.after(details(row));
  }

  // --- the table ---

  function line(row) {
    const text = row.explanation.trim() || "(empty)";
    const button = make("button", "opener", make("b", "", String(row.place)), " ",
      make("span", "words", text.length > SNIPPET ? `${text.slice(0, SNIPPET)}…` : text));
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    const head = make("th", "", button);
    head.scope = "row";
    const element = make("tr", "", head, make("td", "wide", row.family),
      make("td", "", make("b", "", number(row.centred_cosine))), make("td", "", number(row.floor)),
      make("td", "wide", number(row.label_centred_cosine)), make("td", "wide", number(row.fve)));
    button.addEventListener("click", () => toggle(button, element, row));
    return element;
  }

  function draw(from) {
    if (from === 0) body.replaceChildren();
    body.append(...state.found.slice(from, state.shown).map(line));
    const left = state.found.length - state.shown;
    more.hidden = left <= 0;
    more.textContent = `Show ${Math.min(PAGE, Math.max(left, 0))} more`;
    byId("reader-count").textContent = `${state.found.length} of ${rows.length} rows`;
  }

  function bound(name, otherwise) {
    const value = form.elements[name].valueAsNumber;
    return Number.isNaN(value) ? otherwise : value;
  }

  function matches(row, text, family, low, high, bounded) {
    if (family && row.family !== family) return false;
    if (bounded && row.centred_cosine === null) return false;
    if (row.centred_cosine < low || row.centred_cosine > high) return false;
    if (!text) return true;
    row.all ??= [row.id, row.document ?? "", row.explanation, row.label, row.source + row.last]
      .join("\n").toLowerCase();
    return row.all.includes(text);
  }

  function compare(a, b) {
    const [x, y] = [a[state.key], b[state.key]];
    if (x === null || y === null) return (x === null) - (y === null); // without a value: last
    const order = typeof x === "string" ? (x < y ? -1 : Number(x > y)) : x - y;
    return (state.ascending ? order : -order) || a.place - b.place;
  }

  function update() {
    const text = form.elements.text.value.trim().toLowerCase();
    const family = form.elements.family.value;
    const [low, high] = [bound("low", -2), bound("high", 2)];
    const bounded = low > -2 || high < 2;
    state.found = rows.filter((row) => matches(row, text, family, low, high, bounded));
    state.found.sort(compare);
    state.shown = PAGE;
    draw(0);
  }

  function sortBy(head) {
    const key = head.dataset.key;
    // The best of a score first; the first of a name or a place.
    const first = key === "place" || key === "family";
    state.ascending = state.key === key ? !state.ascending : first;
    state.key = key;
    for (const other of reader.querySelectorAll("th[data-key]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
    update();
  }

  for (const head of reader.querySelectorAll("th[data-key]")) {
    head.querySelector("button").addEventListener("click", () => sortBy(head));
  }
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  more.addEventListener("click", () => {
    const from = state.shown;
    state.shown += PAGE;
    draw(from);
    // The button may be gone: the reader goes on at the first of the new rows.
    body.querySelectorAll(".opener")[from]?.focus();
  });
  reader.hidden = false;
  update();
})();
