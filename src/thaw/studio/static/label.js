// The screen Label next: one image after the other, in the order in which labelling helps most.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { edit, say, useStore } from "./store.js";
import { listen, mark, need, row, usePile, want } from "./rows.js";
import { ClassBar, isControl, Mark, useKeys } from "./classes.js";
import { Thumbnail } from "./grid.js";
import { Curve, percent } from "./charts.js";

const LATEST = 20;
// Images that were skipped come again when Studio is opened again, and hits are of this visit: by image, whether its
// suggestion was right.
const skipped = new Set(), hits = new Map();

const without = (images, ids) => images.filter((one) => !ids.includes(one.id));

const isOpen = (id) => mark(id) === null;

export function Label() {
  const { state } = useStore();
  const [queue, setQueue] = useState(null), [error, fail] = useState("");
  const [images, setImages] = useState([]);
  const [outlook, setOutlook] = useState(null);
  const [, redraw] = useState(0);
  const [nearby, setSimilar] = useState({ of: null, ids: [] });
  const isBusy = useRef(false), answered = useRef(new Map());
  // What is asked for has no label, unless another window has given it one and it was refused to change this unseen.
  const refused = useRef(new Set()), seen = (id) => (refused.current.has(id) ? mark(id) : null);
  const image = images[0];
  // Those of the image before must not get this one's label.
  const similar = nearby.of === image?.id ? nearby.ids.filter(isOpen) : [];

  const load = async () => {
    isBusy.current = true;
    try {
      usePile("");
      const found = await get("/api/queue", { skip: [...skipped].slice(-500).join(",") });
      await need(found.images.map((one) => one.id));
      setQueue(found);
      setImages((now) => [...now, ...without(found.images, now.map((one) => one.id))]);
      fail("");
    } catch (problem) {
      fail(problem.message);
    }
    isBusy.current = false;
  };
  useEffect(() => { if (state.ready) load(); }, [state.ready]);

  useEffect(() => listen(() => redraw((count) => count + 1)), []);
  // Again where another window has changed labels.
  useEffect(() => want([...images.map((one) => one.id), ...similar]));

  // It is estimated in the background, from time to time.
  useEffect(() => {
    if (state.ready) get("/api/outlook").then(setOutlook).catch(() => {});
  }, [state.ready, state.background.title === "", queue]);

  useEffect(() => {
    if (!image) return;
    let isOver = false;
    get(`/api/similar/${image.id}`).then(async ({ ids }) => {
      await need(ids);
      if (!isOver) setSimilar({ of: image.id, ids });
    }).catch(() => {});
    return () => { isOver = true; };
  }, [image?.id]);

  const advance = async (ids) => {
    const isLeft = (one) => !ids.includes(one.id) && isOpen(one.id), rest = images.filter(isLeft);
    setImages((now) => now.filter(isLeft));
    if (!rest.length) return load();
    // The head is fitted to the new label, too.
    const { suggestions } = await get("/api/suggestions", { ids: rest.map((one) => one.id).join(",") });
    const by = new Map(suggestions.map((one) => [one.id, one]));
    setImages((now) => now.map((one) => ({ ...one, ...by.get(one.id) })));
  };

  const give = async (to, ids = [image.id]) => {
    if (!image || isBusy.current) return;
    isBusy.current = true;
    const done = await need(ids).then(() => edit(ids.map((id) => ({ id, mark: seen(id) })), to), (problem) => void say(problem.message, true));
    isBusy.current = false;
    if (!done) {
      if (!isOpen(image.id)) refused.current.add(image.id);
      return;
    }
    answered.current.set(image.id, image);
    hits.delete(image.id);
    if (typeof to === "string" && image.suggested) hits.set(image.id, image.suggested === to);
    if (to === null) skipped.add(image.id);
    try {
      await advance(ids);
    } catch (problem) {
      say(problem.message, true);
    }
  };
  // What was undone is asked again.
  const undone = (ids) => {
    const again = ids.map((id) => answered.current.get(id)).filter(Boolean);
    for (const id of ids) hits.delete(id);
    setImages((now) => [...again, ...without(now, ids)]);
  };
  const skip = () => {
    if (!image) return;
    skipped.add(image.id);
    advance([image.id]).catch((problem) => say(problem.message, true));
  };
  const all = () => (image ? [image.id, ...similar] : []);

  // Shift and a digit: the similar images get the label, too.
  useEffect(() => {
    const press = (event) => {
      const digit = event.shiftKey && !event.target.closest("input, select") && !document.querySelector("dialog[open]") && /^Digit([1-9])$/.exec(event.code);
      const name = digit && state.classes[digit[1] - 1]?.name;
      if (!name) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      give(name, all());
    };
    addEventListener("keydown", press, true);
    return () => removeEventListener("keydown", press, true);
  });
  useKeys({
    Enter: (event) => (isControl(event) || !image?.suggested ? false : void give(image.suggested)),
    s: skip,
    ArrowRight: skip,
  });

  if (!state.total) return html`<div class="label"><p class="wait">There is nothing to label yet. <a href="#images">Add images</a></p></div>`;
  if (!state.ready) return html`<div class="label"><p class="quiet wait">${state.errors.images
    || "Every image is being decoded and its features extracted, once. Meanwhile you can label in the screen Images."}</p></div>`;
  if (error) return html`<div class="label"><p class="alarm wait">${error}</p></div>`;
  const found = image && row(image.id);
  return html`<div class="label">
    <div class="work">
      <section class="ask">
        ${!queue ? html`<p class="quiet wait">Choosing images …</p>`
          : !image && !queue.waiting ? html`<p class="wait">Every image has a label, is excluded, was skipped, or is a near-duplicate of one that has a label.</p>`
          : !image ? html`<p class="quiet wait">Choosing the next images …</p>`
          : html`${found?.digest && html`<img key=${image.id} alt="" src=${`/full/${image.id}/${found.digest}`} />`}
            <p class="path">${found?.path} ${found && !isOpen(image.id) && html`<${Mark} mark=${found.mark} />`}</p>`}
      </section>
      <section class="about">
        ${image && html`<div class="suggestion">${image.suggested
          ? html`<${Mark} mark=${image.suggested} /> <b>${percent(image.confidence, 0)}</b>
            <button onClick=${() => give(image.suggested)}><kbd>↵</kbd> accept</button>`
          : html`<span class="quiet">No suggestion before two classes have a label.</span>`}
          <button onClick=${skip}><kbd>S</kbd> skip</button></div>`}
        ${similar.length > 0 && html`<div class="similar"><h2>Similar, without a label</h2>
          <div class="strip">${similar.map((id) => html`<button key=${id} title="Leave this one out" aria-label="Leave this one out"
            onClick=${(event) => { event.currentTarget.nextElementSibling?.focus(); setSimilar({ of: image.id, ids: similar.filter((other) => other !== id) }); }}><${Thumbnail} found=${row(id)} side=${76} /></button>`)}</div>
          <p class="quiet"><span class="keys"><kbd>Shift</kbd> and a number label these, too.</span> A click leaves one out.</p>
          ${image?.suggested && html`<button onClick=${() => give(image.suggested, all())}>all ${similar.length + 1} are ${image.suggested}</button>`}</div>`}
        ${queue && html`<${Progress} queue=${queue} outlook=${outlook} />`}
      </section>
    </div>
    <${ClassBar} give=${give} undone=${undone} isReady=${Boolean(image)} />
  </div>`;
}

function Progress({ queue, outlook }) {
  const { state } = useStore();
  const labelled = state.total - state.unlabelled - state.excluded;
  const latest = [...hits.values()].slice(-LATEST), right = latest.filter(Boolean).length;
  return html`<div class="progress">
    <h2>So far</h2>
    <p><b>${labelled.toLocaleString("en")}</b> labelled, <b>${state.unlabelled.toLocaleString("en")}</b> without a label
      ${queue.duplicates > 0 && html`, of which ${queue.duplicates.toLocaleString("en")} are near-duplicates and not asked for`}.
      ${latest.length > 4 && html` Of the last ${latest.length} suggestions, ${right} were right.`}</p>
    ${outlook?.sentence && html`<p class=${outlook.can_stop ? "good" : ""}>${outlook.can_stop ? html`<b>You can stop here.</b> ` : ""}${capital(outlook.sentence)}.</p>`}
    ${outlook?.curve.length > 1 && html`<${Curve} points=${outlook.curve.map((point) => [point.labels, point.changes])} low=${0}
      xTitle="labels" format=${(value) => percent(value, 0)} label="Predictions that up to 100 more labels would change" />
      <p class="quiet">Predictions that up to 100 more labels would change</p>`}
    <details><summary>Why these images</summary><p class="quiet">${capital(queue.why)}.</p></details>
  </div>`;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
