"use strict";
/* Makes pages live that are complete without it. What it goes by:
 *   [data-live=URL]      the one stream of the page; events: row {id, html}, gone {id}, end
 *   [data-limit=N]       there: a row with an unknown id is put in, newest first, among at most N
 *   [data-reload]        there: an empty list, which the first row fills
 *   time[datetime]       its text is the end of YYYY-MM-DD HH:MM:SS in UTC
 *   [data-since=TIME]    how long ago that was, ticking
 *   [data-copy=TEXT]     a button that copies; hidden until this runs, as #zone and #help are
 *   main [id^="run/"]    rows for the keys; [data-go=X]: a link for "g x" */
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (target, type, listener) => target?.addEventListener(type, listener);
  const write = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };

  // Choices that stay. A browser may forbid storage: then they last as long as the page.
  const chosen = {};
  const read = (key) => { try { return localStorage[key] ?? chosen[key]; } catch { return chosen[key]; } };
  const keep = (key, value) => { chosen[key] = value; try { localStorage[key] = value; } catch { /* as above */ } };

  // Times. What the server wrote is kept beside what is shown.
  const isLocal = () => read("zone") === "local";
  const pad = (number) => String(number).padStart(2, "0");
  const local = (at) => `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} `
    + `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  const zoned = (time) => {
    const utc = time.dataset.utc ??= time.textContent;
    write(time, isLocal() ? local(new Date(time.dateTime)).slice(-utc.length) : utc);
  };
  const took = (s) => s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} m ${s % 60} s`
    : s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} m`
    : `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
  const tick = (within) => all("[data-since]", within).forEach((element) =>
    write(element, took(Math.max(0, Math.floor((Date.now() - Date.parse(element.dataset.since)) / 1000)))));
  const dress = (within) => {
    all("time", within).forEach(zoned);
    all("abbr.zone", within).forEach((name) => write(name, isLocal() ? "local" : "UTC"));
    all("[data-copy], #zone, #help", within).forEach((button) => { button.hidden = false; });
    write(one("#zone"), `Times: ${isLocal() ? "local" : "UTC"}`);
    tick(within);
  };
  on(one("#zone"), "click", () => { keep("zone", isLocal() ? "utc" : "local"); dress(document); });

  // Rows: changed only where they differ, and nothing that somebody is at.
  const edited = new Set();
  on(document, "input", ({ target }) => edited.add(target));
  const isHeld = (node) => [document.activeElement, ...edited].some((field) => node.contains(field))
    || (!getSelection().isCollapsed && getSelection().containsNode(node, true));
  // Makes one node equal to another; returns whether a part has to wait. Ids tell what is the same.
  const morph = (from, to) => {
    if (from.isEqualNode(to)) return false;
    if (from.nodeType !== 1) {
      const waits = isHeld(from);
      if (!waits) from.nodeValue = to.nodeValue;
      return waits;
    }
    const names = new Set([...from.getAttributeNames(), ...to.getAttributeNames()]);
    names.delete("open"); // what somebody has opened
    for (const name of names) to.hasAttribute(name) ? from.setAttribute(name, to.getAttribute(name)) : from.removeAttribute(name);
    let waits = false;
    let at = from.firstChild;
    for (const next of [...to.childNodes]) {
      const same = next.id ? [...from.children].find(({ id }) => id === next.id)
        : at && !at.id && at.nodeName === next.nodeName && at;
      if (same === at && at) at = at.nextSibling;
      else from.insertBefore(same || next, at);
      if (same) waits = morph(same, next) || waits;
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      if (isHeld(gone)) waits = true; else gone.remove();
    }
    return waits;
  };

  const list = one("[data-live]");
  const limit = Number(list?.dataset.limit ?? 0);
  const made = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    dress(template.content);
    return template.content.firstElementChild;
  };
  const begun = (row) => one("time", row)?.dateTime ?? "";
  const place = (row) => {
    const rows = [...list.children];
    const after = rows.find((other) => begun(other) <= begun(row));
    if (!after && rows.length >= limit) return;
    list.insertBefore(row, after ?? null);
    if (rows.length >= limit && !isHeld(rows.at(-1))) rows.at(-1).remove();
  };
  // By id, the newest HTML, null where it is gone. What has to wait stays until it is left.
  const changes = new Map();
  const apply = () => {
    for (const [id, html] of changes) {
      const row = document.getElementById(id);
      if (html === null ? row && isHeld(row) : row && morph(row, made(html))) continue;
      changes.delete(id);
      if (html === null) row?.remove();
      else if (!row && limit) place(made(html));
    }
  };
  let drawing = 0;
  const draw = () => { if (changes.size) drawing ||= requestAnimationFrame(() => { drawing = 0; apply(); }); };
  for (const type of ["focusout", "selectionchange", "reset"]) on(document, type, draw);

  // The stream. It pauses where nobody looks: a server is billed for as long as it is open.
  let source, last, again, failures = 0;
  const say = (state) => { const shown = one("#connection"); write(shown, state); shown.className = state; };
  const close = () => { clearTimeout(again); source?.close(); };
  const take = (event, id, html) => {
    if (html && "reload" in list.dataset) { close(); location.reload(); return; }
    last = event.lastEventId;
    changes.set(id, html);
    draw();
  };
  const open = () => {
    close();
    const url = new URL(list.dataset.live, location);
    if (last) url.searchParams.set("cursor", last);
    source = new EventSource(url);
    on(source, "open", () => { failures = 0; say("live"); });
    on(source, "row", (event) => { const { id, html } = JSON.parse(event.data); take(event, id, html); });
    on(source, "gone", (event) => take(event, JSON.parse(event.data).id, null));
    on(source, "end", (event) => { last = event.lastEventId; open(); });
    on(source, "error", () => {
      say("reconnecting");
      // A browser comes back by itself where the stream was cut, but not after an answer that is none.
      if (source.readyState === 2) again = setTimeout(open, Math.min(30000, 1000 * 2 ** failures++));
    });
  };
  const follow = () => { if (document.hidden) { close(); say("paused"); } else open(); };
  if (list) { on(document, "visibilitychange", follow); follow(); }

  on(document, "click", async ({ target }) => {
    const button = target.closest?.("[data-copy]");
    if (!button) return;
    const name = button.dataset.name ??= button.textContent;
    try { await navigator.clipboard.writeText(button.dataset.copy); write(button, "Copied"); } catch { write(button, "Cannot copy"); }
    setTimeout(write, 1500, button, name);
  });

  const help = one("#keys");
  on(one("#help"), "click", () => help.showModal());
  const inUse = one("#keys-on");
  inUse.checked = read("keys") !== "off";
  on(inUse, "change", () => keep("keys", inUse.checked ? "on" : "off"));
  const move = (by) => {
    const rows = all('main [id^="run/"]');
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const to = rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))];
    one("a", to)?.focus();
  };
  const keys = {
    j: () => move(1), k: () => move(-1), o: () => document.activeElement.closest("a")?.click(),
    "/": () => one("[role=search] input:not([type=hidden])")?.focus(), "?": () => help.showModal(),
  };
  let goes = false;
  on(document, "keydown", (event) => {
    const typed = event.target.closest?.("input, textarea, select, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || typed || !inUse.checked) return;
    const action = goes ? () => one(`[data-go="${CSS.escape(event.key)}"]`)?.click() : keys[event.key];
    goes = event.key === "g" && !goes;
    if (action) { event.preventDefault(); action(); }
  });

  dress(document);
  setInterval(() => { if (!document.hidden) tick(document); }, 1000);
})();
