// The bar of classes: what the keys 1 to 9 mean, and buttons for those who touch.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { undo, useStore } from "./store.js";

export const EXCLUDED = { excluded: true }, AMBIGUOUS = { excluded: true, ambiguous: true };

// What Enter and Space belong to where it has the focus.
export const isControl = (event) => Boolean(event.target.closest("button, a, summary"));

const isTyping = (event) => event.target.closest("input, select, textarea, [contenteditable]");

// Calls on[key] for keys that are pressed outside of fields; `digit` and `other` are called with the key.
export function useKeys(on) {
  const latest = useRef(on);
  latest.current = on;
  useEffect(() => {
    const press = (event) => {
      // An open dialog has the keys.
      if (isTyping(event) || document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const handler = /^[1-9]$/.test(key) ? latest.current.digit : latest.current[key];
      if (!handler || handler(event, key) === false) return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

export const colour = (index) => `hsl(${(index * 137.5 + 215) % 360} 62% 52%)`;

// The buttons; `give` gets a label, null, or EXCLUDED, and `undone` the images that an undo has changed.
export function ClassBar({ give, undone, isReady = true, children }) {
  const { state } = useStore();
  const dialog = useRef(null);
  // At once, so that what is typed next is the name.
  const ask = () => dialog.current.showModal();
  const back = async () => {
    const marks = await undo();
    if (marks && undone) undone(marks.map((one) => one.id));
  };
  const names = state.classes.map((one) => one.name);
  useKeys({
    digit: (_, key) => (names[key - 1] && isReady ? give(names[key - 1]) : false),
    x: () => isReady && give(EXCLUDED),
    0: () => isReady && give(null),
    Backspace: () => isReady && give(null),
    u: () => void back(),
    n: ask,
  });
  return html`<div class="bar" role="toolbar" aria-label="Labels">
    <div class="classes">
      ${names.map((name, index) => html`<button key=${name} class="class"
        disabled=${!isReady} onClick=${() => give(name)}>
        <i style=${{ background: colour(index) }}></i>${index < 9 && html`<kbd>${index + 1}</kbd>`}<span>${name}</span>
        <small>${state.classes[index].images.toLocaleString("en")}</small></button>`)}
      <button class="class" onClick=${ask}><kbd>N</kbd><span>new class</span></button>
    </div>
    <div class="actions">
      ${children}
      <button disabled=${!isReady} onClick=${() => give(null)}><kbd>0</kbd> no label</button>
      <button disabled=${!isReady} onClick=${() => give(EXCLUDED)}><kbd>X</kbd> exclude</button>
      <button disabled=${!state.undo} title=${state.undo ? state.undo.sentence : ""} onClick=${back}><kbd>U</kbd> undo</button>
    </div>
    <${NewClass} dialog=${dialog} names=${names} give=${isReady ? give : null} />
  </div>`;
}

function NewClass({ dialog, names, give }) {
  const [name, type] = useState("");
  const done = (event) => {
    event.preventDefault();
    dialog.current.close();
    if (name.trim() && give) give(name.trim());
  };
  return html`<dialog ref=${dialog} onClose=${() => type("")}>
    <form onSubmit=${done}>
      <label>Name of the class
        <input value=${name} onInput=${(event) => type(event.target.value)} maxlength="100" autocomplete="off" list="class-names" />
        <datalist id="class-names">${names.map((one) => html`<option key=${one} value=${one}></option>`)}</datalist>
      </label>
      <p class="quiet">${give ? "The selected images get it." : "Select images first: a class exists once an image has it."}</p>
      <div class="row"><button class="primary" disabled=${!name.trim() || !give}>Label with it</button>
      <button type="button" onClick=${() => dialog.current.close()}>Cancel</button></div>
    </form>
  </dialog>`;
}

export function Mark({ mark }) {
  const { state } = useStore();
  if (mark === null) return html`<span class="mark none">no label</span>`;
  if (mark.excluded) return html`<span class="mark out">${mark.ambiguous ? "ambiguous" : "excluded"}</span>`;
  const index = state.classes.findIndex((one) => one.name === mark);
  return html`<span class="mark"><i style=${{ background: colour(index) }}></i>${mark}</span>`;
}
