// What is known of images: fetched a few hundred at a time as they are scrolled to, and kept.

import { get } from "./api.js";

const AT_ONCE = 200;
const known = new Map(), waiting = new Set();
const listeners = new Set();
let pile = "", timer = 0;

export const row = (id) => known.get(id);

export const mark = (id) => known.get(id)?.mark ?? null;

// In a pile images have a note, and may have a suggested label.
export function usePile(name) {
  if (name === pile) return;
  pile = name;
  forget();
}

export function forget() {
  known.clear();
  tell();
}

// The marks that images got.
export function learn(images) {
  for (const { id, mark } of images) {
    const found = known.get(id);
    if (found) known.set(id, { ...found, mark });
  }
  tell();
}

export function listen(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function want(ids) {
  for (const id of ids) if (!known.has(id)) waiting.add(id);
  if (waiting.size && !timer) timer = setTimeout(fetchSome, 20);
}

// Resolves when these images are known.
export async function need(ids) {
  const missing = ids.filter((id) => !known.has(id));
  for (let start = 0; start < missing.length; start += AT_ONCE) await load(missing.slice(start, start + AT_ONCE));
}

async function fetchSome() {
  // The latest ones are on the screen; those that were scrolled past can wait until they are seen again.
  const ids = [...waiting].slice(-AT_ONCE);
  waiting.clear();
  try {
    await load(ids);
  } catch {
    // The state, which is asked for every few seconds, says what is wrong.
  }
  timer = 0;
  if (waiting.size) timer = setTimeout(fetchSome, 20);
}

async function load(ids) {
  const asked = pile;
  const found = await get("/api/rows", { ids: ids.join(","), pile });
  if (asked !== pile) return;
  for (const one of found) known.set(one.id, one);
  tell();
}

function tell() {
  for (const listener of listeners) listener();
}
