"use strict";
// Makes pages live; templates/base.html says what it goes by.
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (target, type, listener) => target?.addEventListener(type, listener);
  const write = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };

  // A browser may forbid storage: then choices last as long as the page.
  let choices = {};
  try { choices = localStorage; } catch { /* forbidden */ }

  // Times: what the server wrote is kept.
  const zone = () => choices.zone ?? "UTC";
  const local = (at) => new Date(at - 6e4 * at.getTimezoneOffset()).toISOString().slice(-24, -5).replace("T", " ");
  const zoned = (time) => {
    const utc = time.dataset.utc ??= time.textContent;
    write(time, zone() === "UTC" ? utc : local(new Date(time.dateTime)).slice(-utc.length));
  };
  const two = (s, big, small, names) => `${Math.floor(s / big)} ${names[0]} ${Math.floor(s % big / small)} ${names[1]}`;
  const took = (s) => s < 60 ? `${s} s` : s < 3600 ? two(s, 60, 1, "ms")
    : s < 86400 ? two(s, 3600, 60, "hm") : two(s, 86400, 3600, "dh");
  const tick = (within) => all("[data-since]", within).forEach((element) =>
    write(element, took(Math.max(0, Math.floor((Date.now() - Date.parse(element.dataset.since)) / 1000)))));
  const dress = (within) => {
    all("time", within).forEach(zoned);
    all("abbr.zone", within).forEach((name) => write(name, zone()));
    all("[data-copy], #zone, #help", within).forEach((button) => { button.hidden = false; });
    write(one("#zone", within), `Times: ${zone()}`);
    tick(within);
  };
  on(one("#zone"), "click", () => { choices.zone = zone() === "UTC" ? "local" : "UTC"; dress(document); });

  // What somebody is at waits until it is left.
  const edited = new Set();
  on(document, "input", ({ target }) => edited.add(target));
  const isHeld = (node) => [document.activeElement, ...edited].some((field) => node.contains(field))
    || (!getSelection().isCollapsed && getSelection().containsNode(node, true));
  // Makes a node as another one is; returns whether a part waits. Ids tell what is the same.
  const morph = (from, to) => {
    if (from.isEqualNode(to)) return false;
    if (from.nodeType !== 1) {
      const waits = isHeld(from);
      if (!waits) from.nodeValue = to.nodeValue;
      return waits;
    }
    for (const name of [...from.getAttributeNames(), ...to.getAttributeNames()]) {
      if (name === "open") continue; // somebody has opened it, or not
      if (to.hasAttribute(name)) from.setAttribute(name, to.getAttribute(name)); else from.removeAttribute(name);
    }
    let waits = false, at = from.firstChild;
    const leave = (gone = at) => {
      at = at.nextSibling;
      if (isHeld(gone)) waits = true; else gone.remove();
    };
    for (const next of [...to.childNodes]) {
      const same = next.id ? [...from.children].find(({ id }) => id === next.id)
        : at && !at.id && at.nodeName === next.nodeName && at;
      // Moved, it would lose the focus.
      while (same && at !== same && ![...to.children].some(({ id }) => id && id === at.id)) leave();
      if (same && same === at) at = at.nextSibling;
      else from.insertBefore(same || next, at);
      if (same) waits = morph(same, next) || waits;
    }
    while (at) leave();
    return waits;
  };

  const list = one("[data-live]");
  const { limit = 0, fresh } = list?.dataset ?? {};
  const made = (html) => {
    const { content } = Object.assign(document.createElement("template"), { innerHTML: html });
    dress(content);
    return content.firstElementChild;
  };
  const begun = (row) => one("time", row)?.dateTime ?? "";
  const place = (row) => {
    const rows = [...list.children];
    const after = rows.find((other) => begun(other) <= begun(row));
    if (!after && rows.length >= limit) return;
    list.insertBefore(row, after ?? null);
    if (rows.length >= limit && !isHeld(rows.at(-1))) rows.at(-1).remove();
  };
  // By id the newest HTML, null where it is gone.
  const changes = new Map();
  const apply = () => changes.forEach((html, id) => {
    const row = document.getElementById(id);
    if (row && (html ? morph(row, made(html)) : isHeld(row))) return;
    changes.delete(id);
    if (!html) row?.remove();
    else if (!row && limit) place(made(html));
  });
  let drawing = 0;
  const draw = () => { if (changes.size) drawing ||= requestAnimationFrame(() => { drawing = 0; apply(); }); };
  for (const type of ["focusout", "selectionchange", "reset"]) on(document, type, draw);

  // The page as it is now: one change does not tell it.
  let asked = 0, pause = 100;
  const renew = async () => {
    const answer = await fetch(location).catch(() => null);
    const page = new DOMParser().parseFromString(answer?.ok ? await answer.text() : "", "text/html");
    const main = one("main", page);
    if (main) changes.set("main", main.outerHTML);
    draw();
    [asked, pause] = [0, 1000 * fresh];
    if (main && !main.dataset.live) { close(); say(""); } // what has ended does not change
  };

  // The stream pauses where nobody looks: an open one keeps a server billed.
  let source, last, again, failures = 0;
  const shown = one("#connection");
  const say = (state) => { write(shown, state); shown.className = state; };
  const close = () => { clearTimeout(again); source?.close(); };
  const open = () => {
    close();
    const url = new URL(list.dataset.live, location);
    if (last) url.searchParams.set("cursor", last);
    source = new EventSource(url);
    const hear = (type, listener) => on(source, type, ({ data, lastEventId }) => { last = lastEventId; listener(JSON.parse(data)); });
    on(source, "open", () => { failures = 0; say("live"); });
    hear("row", ({ id, html }) => { if ("reload" in list.dataset && id !== "tabs") location.reload(); else changes.set(id, html); draw(); });
    hear("gone", ({ id }) => { changes.set(id, null); draw(); });
    hear("changed", () => { asked ||= setTimeout(renew, pause); });
    hear("end", open);
    on(source, "error", () => {
      say("reconnecting");
      // A browser comes back by itself after a cut, but not after an answer that is no stream.
      if (source.readyState === 2) again = setTimeout(open, Math.min(3e4, 1000 * 2 ** failures++));
    });
  };
  const follow = () => { if (document.hidden) { close(); say("paused"); } else open(); };
  if (list) { on(document, "visibilitychange", follow); follow(); }

  on(document, "click", async ({ target }) => {
    const button = target.closest("[data-copy]");
    if (!button) return;
    const name = button.dataset.name ??= button.textContent;
    write(button, await navigator.clipboard?.writeText(button.dataset.copy).then(() => "Copied", () => 0) || "Cannot copy");
    setTimeout(write, 1500, button, name);
  });

  const help = one("#keys"), inUse = one("#keys-on");
  on(one("#help"), "click", () => help.showModal());
  inUse.checked = choices.keys !== "off";
  on(inUse, "change", () => { choices.keys = inUse.checked ? "on" : "off"; });
  const move = (by) => {
    const rows = all('main [id^="run/"]');
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    rows[at < 0 ? 0 : at + by]?.querySelector("a, summary")?.focus();
  };
  const keys = {
    j: () => move(1), k: () => move(-1), o: () => document.activeElement.closest("a, summary")?.click(),
    "/": () => one("[role=search] input:not([type=hidden])")?.focus(), "?": () => help.showModal(),
  };
  let goes = false;
  on(document, "keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog") || !inUse.checked) return;
    const link = one(`[data-${goes ? "go" : "key"}="${CSS.escape(key)}"]`);
    const action = link ? () => link.click() : !goes && keys[key];
    goes = key === "g" && !goes;
    if (action) { event.preventDefault(); action(); }
  });

  dress(document);
  setInterval(() => { if (!document.hidden) tick(document); }, 1000);
})();
