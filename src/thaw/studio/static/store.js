// What all screens show: classes and counts, the edit to undo, what is being computed, and the last message.

import { get, post, Refusal } from "./api.js";
import { useEffect, useState } from "./vendor/preact.js";
import { forget, learn } from "./rows.js";

const BUSY = 1000, IDLE = 5000;

let state = null, message = null, timer = 0;
const listeners = new Set();

export function useStore() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return { state, message };
}

export function say(text, isAlarm = false) {
  message = text ? { text, isAlarm } : null;
  tell();
}

export async function refresh() {
  clearTimeout(timer);
  try {
    const found = await get("/api/state");
    // Another window has changed labels.
    if (state && found.changed !== state.changed) forget();
    show(found);
  } catch (error) {
    say(error.message, true);
  }
  timer = setTimeout(refresh, state?.background.title || state?.adding ? BUSY : IDLE);
}

// Give images, as [{id, mark}] with the marks that are shown, another mark. Resolves to the marks that they got, or to
// null where nothing is changed.
export const edit = (images, to) => change("/api/edits", { images, to });

export const undo = () => {
  if (!state.undo) { say("There is nothing to undo."); return Promise.resolve(null); }
  return change("/api/undo", { edit: state.undo.edit });
};

async function change(path, body) {
  try {
    const { marks, ...found } = await post(path, body);
    learn(marks);
    show(found);
    say(path === "/api/undo" ? "Undone." : state.undo && marks.length ? `${sentence(state.undo.sentence)}.` : "");
    return marks;
  } catch (error) {
    if (error instanceof Refusal && error.status === 409) {
      const { marks, error: _, ...found } = error.body;
      learn(marks);
      show(found);
    }
    say(`${sentence(error.message)}.`, true);
    return null;
  }
}

export const sentence = (text) => text[0].toUpperCase() + text.slice(1);

// What the server said about its state.
export function show(found) {
  state = { ...state, ...found };
  tell();
}

function tell() {
  for (const listener of listeners) listener();
}
