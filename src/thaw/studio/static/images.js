// The screen Images: every image in a grid, filters, piles to work through, and labels by keys.

import { html, useCallback, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { edit, say, useStore } from "./store.js";
import { mark, need, row, usePile } from "./rows.js";
import { Adding, droppable, Invitation } from "./add.js";
import { ClassBar, isControl, useKeys } from "./classes.js";
import { Filters } from "./filters.js";
import { Grid } from "./grid.js";
import { Viewer } from "./viewer.js";

const NOTHING = new Set();

export function Images() {
  const { state } = useStore();
  const [filter, setFilter] = useState({ show: startFilter(), split: "", text: "" });
  const [ids, setIds] = useState(null);
  const [cursor, setCursor] = useState(-1), [anchor, setAnchor] = useState(-1);
  const [selected, select] = useState(NOTHING);
  const [columns, columnsChanged] = useState(1);
  const [isOpen, setOpen] = useState(false), [isOver, over] = useState(false);
  const place = useRef(null), shown = useRef(state.total), wasOpen = useRef(false);
  const pile = filter.show.startsWith("pile:") ? filter.show.slice(5) : "";
  const waits = pile && state.piles === null;

  // The list stays as it is while one works on it, although a label may no longer fit the filter.
  const load = useCallback(async () => {
    usePile(pile);
    try {
      const found = await get("/api/images", filter);
      setIds(found.ids);
      setCursor(found.ids.length ? 0 : -1);
      setAnchor(-1);
      select(NOTHING);
    } catch (error) {
      say(error.message, true);
    }
  }, [filter]);
  useEffect(() => { if (!waits) load(); }, [load, waits]);

  // Images that were added come after the others, and nobody loses his place.
  useEffect(() => {
    const from = shown.current;
    if (state.total <= from) return;
    shown.current = state.total;
    get("/api/images", filter).then((found) => {
      const more = pile ? [] : found.ids.filter((id) => id >= from);
      setIds((now) => [...(now || []).filter((id) => id < from), ...more]);
      setCursor((now) => (now < 0 && more.length ? 0 : now));
    }).catch((error) => say(error.message, true));
  }, [state.total]);

  // What had the focus is gone: the invitation, the grid, or the full view.
  const isEmpty = state.total === 0;
  const wasEmpty = useRef(isEmpty);
  useEffect(() => {
    if (wasOpen.current === isOpen && !(wasEmpty.current && ids?.length)) return;
    wasOpen.current = isOpen;
    wasEmpty.current = isEmpty;
    place.current.querySelector(isOpen ? ".viewer" : ".grid")?.focus({ preventScroll: true });
  }, [isOpen, Boolean(ids?.length)]);

  const move = (to, extends_) => {
    if (!ids?.length) return;
    const next = Math.max(0, Math.min(ids.length - 1, to));
    if (extends_) {
      const from = anchor < 0 ? Math.max(0, cursor) : anchor;
      setAnchor(from);
      select(range(from, next));
    } else {
      setAnchor(-1);
      select(NOTHING);
    }
    setCursor(next);
  };

  const choose = useCallback((index, event) => {
    if (event.shiftKey) {
      const from = anchor < 0 ? Math.max(0, cursor) : anchor;
      setAnchor(from);
      select(range(from, index));
    } else if (event.ctrlKey || event.metaKey || event.target.closest(".tick")) {
      const next = new Set(selected);
      if (!next.delete(index)) next.add(index);
      select(next);
      setAnchor(index);
    } else {
      select(NOTHING);
      setAnchor(-1);
    }
    setCursor(index);
  }, [anchor, cursor, selected]);

  const chosen = selected.size ? [...selected] : cursor >= 0 ? [cursor] : [];
  const give = async (to) => {
    const images = chosen.map((index) => ids[index]);
    await need(images);
    const done = await edit(images.map((id) => ({ id, mark: mark(id) })), to);
    // One image was labelled: on to the next. After a range one wants to see what it has become.
    if (done && !selected.size && cursor < ids.length - 1) setCursor(cursor + 1);
  };
  const accept = async () => {
    const suggested = chosen.map((index) => row(ids[index])?.suggested);
    if (!suggested[0] || suggested.some((one) => one !== suggested[0])) {
      say("There is no one suggested label for what is selected.");
    } else await give(suggested[0]);
  };

  useKeys({
    ArrowLeft: (event) => move(cursor - 1, event.shiftKey),
    ArrowRight: (event) => move(cursor + 1, event.shiftKey),
    ArrowUp: (event) => move(cursor - columns, event.shiftKey),
    ArrowDown: (event) => move(cursor + columns, event.shiftKey),
    Home: (event) => move(0, event.shiftKey),
    End: (event) => move(ids.length - 1, event.shiftKey),
    PageUp: (event) => move(cursor - 4 * columns, event.shiftKey),
    PageDown: (event) => move(cursor + 4 * columns, event.shiftKey),
    Enter: (event) => (isControl(event) || cursor < 0 ? false : setOpen(!isOpen)),
    Escape: () => (isOpen ? setOpen(false) : (select(NOTHING), setAnchor(-1))),
    " ": (event) => (isControl(event) || cursor < 0 ? false : choose(cursor, { ctrlKey: true, target: event.target })),
    a: () => void accept(),
    "/": () => document.getElementById("text").focus(),
  });

  if (isEmpty) return html`<div class=${isOver ? "images empty over" : "images empty"} ref=${place} ...${droppable(over)}><div class="content"><${Adding} /><${Invitation} /></div></div>`;
  return html`<div class=${isOver ? "images over" : "images"} ref=${place} ...${droppable(over)}>
    <${Filters} filter=${filter} set=${setFilter} total=${ids?.length} reload=${load} />
    <div class="content">
      <${Adding} />
      <${About} show=${filter.show} count=${ids?.length} />
      ${ids === null ? html`<p class="quiet empty">${waits ? "Being found …" : "Loading …"}</p>`
        : ids.length === 0 ? html`<p class="quiet empty">No image here.</p>`
        : isOpen && cursor >= 0 ? html`<${Viewer} id=${ids[cursor]}
            place=${`${(cursor + 1).toLocaleString("en")} of ${ids.length.toLocaleString("en")}`}
            close=${() => setOpen(false)} step=${(by) => move(cursor + by)} />`
        : html`<${Grid} ids=${ids} cursor=${cursor} selected=${selected} choose=${choose}
            open=${(index) => { setCursor(index); setOpen(true); }} columnsChanged=${columnsChanged} />`}
      <${ClassBar} give=${give} isReady=${chosen.length > 0}>
        <span class="quiet">${selected.size ? `${selected.size.toLocaleString("en")} selected` : ""}</span>
        ${pile === "label-errors" && html`<button onClick=${accept}><kbd>A</kbd> accept suggestion</button>`}
      <//>
    </div>
  </div>`;
}

const startFilter = () => new URLSearchParams(location.hash.split("?")[1] || "").get("show") || "all";

function range(one, other) {
  const found = new Set();
  for (let index = Math.min(one, other); index <= Math.max(one, other); index++) found.add(index);
  return found;
}

function About({ show }) {
  const { state } = useStore();
  const pile = (state.piles || []).find((one) => show === `pile:${one.name}`);
  return pile ? html`<p class="about">${pile.about}</p>` : null;
}
