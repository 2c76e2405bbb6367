"use strict";
/* Makes the pages live. They are complete without it. What it goes by:
 *   data-live=URL      one on a page: the stream of what changes in it; data-limit=N says that a row which is not there
 *                      yet is put in by its data-at, newest first, among at most N
 *   data-hint          shown only where this runs
 *   #connection        says live, reconnecting or paused      #zone   a button: UTC or local
 *   time[datetime]     in UTC; data-since=TIME: how long since then, ticking
 *   data-copy=TEXT     a button that copies TEXT
 *   id="run/..."       rows for j and k, which focus the first link; data-go=LETTER: a link for "g LETTER"
 *   [type=search]      for "/"      dialog#keys   for "?", with a checkbox #keys-on
 * The stream has events row {id, html}, gone {id} and end; the id of an event goes on from there. */
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (target, type, listener) => target?.addEventListener(type, listener);
  // A browser may forbid storage: then a choice lasts as long as the page.
  const chosen = {};
  const read = (key) => { try { return localStorage.getItem(key); } catch { return chosen[key]; } };
  const keep = (key, value) => { chosen[key] = value; try { localStorage.setItem(key, value); } catch { /* see above */ } };

  // Times. What the server wrote, in UTC, is kept beside what is shown.
  const pad = (number) => String(number).padStart(2, "0");
  const local = (text, at) => text
    .replace(/\d{4}-\d\d-\d\d/, `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`)
    .replace(/\d\d:\d\d(:\d\d)?/, (was) => `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`.slice(0, was.length));
  const showTime = (element) => {
    const utc = element.dataset.utc ??= element.textContent;
    const text = read("zone") === "local" ? local(utc, new Date(element.dateTime)) : utc;
    if (element.textContent !== text) element.textContent = text;
  };
  const elapsed = (seconds) => {
    const parts = [[86400, "d"], [3600, "h"], [60, "m"], [1, "s"]];
    const first = Math.max(0, parts.findIndex(([size]) => seconds >= size));
    return parts.slice(seconds < 1 ? 3 : first, first + 2).map(([size, unit], at) =>
      `${Math.floor(at ? (seconds % parts[first][0]) / size : seconds / size)}${unit}`).join(" ");
  };
  const tick = (within = document) => all("[data-since]", within).forEach((element) => {
    const text = elapsed(Math.max(0, Math.floor((Date.now() - Date.parse(element.dataset.since)) / 1000)));
    if (element.textContent !== text) element.textContent = text;
  });
  const dress = (within) => {
    all("time[datetime]:not([data-since])", within).forEach(showTime);
    all("[data-hint]", within).forEach((element) => { element.hidden = false; });
    tick(within);
  };
  const nameZone = () => { const zone = one("#zone"); if (zone) zone.textContent = read("zone") === "local" ? "Local" : "UTC"; };
  on(one("#zone"), "click", () => {
    keep("zone", read("zone") === "local" ? "utc" : "local");
    nameZone();
    dress(document);
  });

  // Rows: changed where they differ, but nothing that somebody is at.
  const dirty = (field) => field.type === "checkbox" || field.type === "radio" ? field.checked !== field.defaultChecked
    : field.options ? [...field.options].some((option) => option.selected !== option.defaultSelected) && field.selectedIndex > 0
    : field.value !== undefined && field.type !== "hidden" && field.value !== field.defaultValue;
  const held = (node) => {
    const selection = getSelection();
    return node.contains(document.activeElement)
      || (!selection.isCollapsed && selection.containsNode(node, true))
      || (node.querySelectorAll && all("input, textarea, select", node).some(dirty));
  };
  /** Make *from* equal to *to*, keeping the nodes that are; return whether something had to wait. */
  const morph = (from, to) => {
    if (from.isEqualNode(to)) return false;
    if (from.nodeType !== 1) {
      if (held(from)) return true;
      from.nodeValue = to.nodeValue;
      return false;
    }
    for (const { name } of [...from.attributes]) if (name !== "open" && !to.hasAttribute(name)) from.removeAttribute(name);
    for (const { name, value } of to.attributes) if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
    let waits = false;
    let at = from.firstChild;
    for (const next of [...to.childNodes]) {
      const known = next.id ? all(":scope > [id]", from).find((child) => child.id === next.id) : null;
      if (known) {
        while (at && at !== known && !at.id) at = drop(at);
        if (at !== known) from.insertBefore(known, at);
        else at = at.nextSibling;
        waits = morph(known, next) || waits;
      } else if (at && !at.id && !next.id && at.nodeName === next.nodeName) {
        waits = morph(at, next) || waits;
        at = at.nextSibling;
      } else from.insertBefore(next, at);
    }
    function drop(node) {
      const after = node.nextSibling;
      if (held(node)) waits = true; else node.remove();
      return after;
    }
    while (at) at = drop(at);
    return waits;
  };

  const list = one("[data-live]");
  const limit = Number(list?.dataset.limit ?? 0);
  const changes = new Map(); // by id: the newest HTML, or null where it is gone; what has to wait stays
  const made = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    dress(template.content);
    return template.content.firstElementChild;
  };
  const place = (row) => {
    const rows = [...list.children].filter((child) => child.dataset.at);
    const before = rows.find((child) => child.dataset.at <= row.dataset.at);
    if (!before && rows.length >= limit) return;
    list.insertBefore(row, before ?? null);
    if (rows.length >= limit && !held(rows.at(-1))) rows.at(-1).remove();
  };
  const apply = () => {
    for (const [id, html] of [...changes]) {
      const row = document.getElementById(id);
      let waits = false;
      if (html === null) {
        waits = row ? held(row) : false;
        if (!waits) row?.remove();
      } else if (row) waits = morph(row, made(html));
      else if (limit) place(made(html));
      if (!waits) changes.delete(id);
    }
    document.dispatchEvent(new Event("run-log:changed"));
  };
  // One drawing for all that came since the last.
  let drawing = 0;
  const draw = () => { drawing ||= requestAnimationFrame(() => { drawing = 0; apply(); }); };
  for (const type of ["focusout", "selectionchange", "reset"]) on(document, type, () => { if (changes.size) draw(); });

  // The stream. It pauses where nobody looks, since a server is billed for it.
  let source = null;
  let last = null;
  let again = 0;
  let failures = 0;
  const say = (text) => {
    const state = one("#connection");
    if (state && state.textContent !== text) { state.textContent = text; state.dataset.state = text; }
  };
  const close = () => { clearTimeout(again); source?.close(); source = null; };
  const open = () => {
    close();
    const url = new URL(list.dataset.live, location.href);
    if (last !== null) url.searchParams.set("cursor", last);
    source = new EventSource(url);
    on(source, "open", () => { failures = 0; say("live"); });
    on(source, "row", (event) => { const row = JSON.parse(event.data); take(event, row.id, row.html); });
    on(source, "gone", (event) => take(event, JSON.parse(event.data).id, null));
    on(source, "end", open);
    on(source, "error", () => {
      say("reconnecting");
      // The browser tries again by itself, but not after an answer that is no stream.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(open, Math.min(30_000, 1_000 * 2 ** failures++));
    });
  };
  const take = (event, id, html) => { last = event.lastEventId; changes.set(id, html); draw(); };
  const follow = () => { if (document.hidden) { close(); say("paused"); } else open(); };
  if (list) { on(document, "visibilitychange", follow); follow(); }

  // Copying.
  on(document, "click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const label = button.textContent;
    try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "copied"; } catch { button.textContent = "cannot copy"; }
    setTimeout(() => { button.textContent = label; }, 1_500);
  });

  // Keys.
  const help = one("dialog#keys");
  const move = (by) => {
    const rows = all('main [id^="run/"]');
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const row = rows[at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))];
    row?.querySelector("a")?.focus();
  };
  const keys = {
    j: () => move(1), k: () => move(-1), o: () => document.activeElement?.closest('[id^="run/"] a')?.click(),
    "/": () => one("[type=search]")?.focus(), "?": () => help?.showModal(),
  };
  let goes = false;
  on(document, "keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help?.open || read("keys") === "off"
      || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
    const action = goes ? () => one(`a[data-go="${CSS.escape(event.key)}"]`)?.click() : keys[event.key];
    goes = event.key === "g" && !goes;
    if (action) { event.preventDefault(); action(); }
  });
  const switched = one("#keys-on");
  if (switched) switched.checked = read("keys") !== "off";
  on(switched, "change", () => keep("keys", switched.checked ? "on" : "off"));

  nameZone();
  dress(document);
  setInterval(() => { if (!document.hidden) tick(); }, 1_000);
})();
