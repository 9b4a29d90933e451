// The screen Images: every image in a grid, filters, piles to work through, and labels by keys.

import { html, useCallback, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { edit, refresh, say, useStore } from "./store.js";
import { mark, need, row, usePile } from "./rows.js";
import { Adding, Choose, droppable, Invitation } from "./add.js";
import { copyToFolders } from "./adding.js";
import { ClassBar, isControl, useKeys } from "./classes.js";
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

function Filters({ filter, set, total, reload }) {
  const { state } = useStore();
  const groups = useMemo(() => choices(state), [state]);
  const [isMore, more] = useState(false);
  const labelled = state.total - state.unlabelled - state.excluded;
  const show = (value) => (value === filter.show ? reload() : set({ ...filter, show: value }));
  return html`<aside class=${isMore ? "filters more" : "filters"}>
    <select class="narrow" aria-label="Show" value=${filter.show} onChange=${(event) => show(event.target.value)}>
      ${groups.map((group) => html`<optgroup key=${group.title} label=${group.title}>${group.options.map((one) =>
        html`<option key=${one.value} value=${one.value}>${one.title} (${one.images.toLocaleString("en")})</option>`)}</optgroup>`)}
    </select>
    <input id="text" type="search" placeholder="Find in file names" aria-label="Find in file names" value=${filter.text}
      onChange=${(event) => set({ ...filter, text: event.target.value })}
      onKeyDown=${(event) => event.key === "Enter" && event.target.blur()} />
    ${state.splits.length > 0 && html`<select aria-label="Split" value=${filter.split}
      onChange=${(event) => set({ ...filter, split: event.target.value })}>
      <option value="">every split</option>${state.splits.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`}
    <button class="narrow" aria-expanded=${isMore} onClick=${() => more(!isMore)}>More</button>
    <div class="wide"><div class="groups">${groups.map((group) => html`<section key=${group.title}><h2>${group.title}</h2>
      ${group.options.map((one) => html`<button key=${one.value} class=${one.value === filter.show ? "choice chosen" : "choice"}
        onClick=${() => show(one.value)}><span>${one.title}</span><small>${one.images.toLocaleString("en")}</small></button>`)}
    </section>`)}</div>
    <${Choose} />
    ${state.piles === null && state.background.error && html`<p class="alarm">${state.background.error}</p>
      <button onClick=${findAgain}>Try again</button>`}
    ${state.piles === null && !state.background.error && html`<p class="quiet">Piles of near-duplicates, label errors and outliers appear here once they are found.</p>`}
    ${state.piles !== null && state.piles_at !== state.changed && html`<button onClick=${findAgain}>Find again with the labels of now</button>`}
    ${labelled > 0 && html`<${Take} state=${state} />`}
    ${state.notes.map((note) => html`<p key=${note} class="quiet note">${note}</p>`)}
    </div>
  </aside>`;
}

// The labels, for other tools.
function Take({ state }) {
  const { copied, background } = state;
  const copy = () => copyToFolders().catch((error) => say(error.message, true));
  return html`<h2>To take along</h2>
    <p><a href="/labels.csv" download>Labels as CSV</a></p>
    <p><a href="/class-folders.zip" download>Class folders as a zip file</a></p>
    <button class="to-folders" disabled=${background.title.startsWith("copy")} onClick=${copy}>Copy into class folders</button>
    ${copied && html`<p role="status">${copied.images.toLocaleString("en")} images are copied to <code>${copied.path}</code>.
      ${copied.left_out > 0 && ` ${copied.left_out} were left out: their files have changed.`}
      ${copied.renamed.length > 0 && ` A folder cannot be called like the class: ${copied.renamed.join(", ")}.`}</p>`}`;
}

async function findAgain() {
  try {
    await post("/api/piles");
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

function choices(state) {
  const groups = [
    { title: "Images", options: [
      { value: "all", title: "All", images: state.total },
      { value: "unlabelled", title: "Without a label", images: state.unlabelled },
      { value: "excluded", title: "Excluded", images: state.excluded },
    ] },
    { title: "Classes", options: state.classes.map((one) => ({ value: `label:${one.name}`, title: one.name, images: one.images })) },
    { title: "To check", options: (state.piles || []).map((one) => ({ value: `pile:${one.name}`, title: one.title, images: one.images })) },
  ];
  return groups.filter((group) => group.options.length);
}

function About({ show }) {
  const { state } = useStore();
  const pile = (state.piles || []).find((one) => show === `pile:${one.name}`);
  return pile ? html`<p class="about">${pile.about}</p>` : null;
}
