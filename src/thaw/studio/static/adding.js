// Sends images to the project, one file after the other, large ones in parts; and what became of them.

import { post, postFile, Refusal } from "./api.js";
import { refresh, show } from "./store.js";
import { useEffect, useState } from "./vendor/preact.js";

const PART = 8 << 20, AT_ONCE = 3, EVERY = 700, ATTEMPTS = 20, EXAMPLES = 3;
const TAKEN = /\.(jpe?g|jpe|jfif|png|tiff?|bmp|webp|zip)$/i;

let now = null, waiting = [];
const listeners = new Set();

// null, or { done, total, isOver, stops, error, added, renamed, leftOut: Map of reason to { files, examples } }
export function useAdding() {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((count) => count + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return now;
}

export const forgetAdding = () => set(null);

export const stopAdding = () => set({ ...now, stops: true });

// files: [{ path, file }], where file is a function that resolves to a File. More can come while the first are sent.
export async function add(files) {
  // From the end, so that images arrive in the order of their names.
  const sorted = [...files].sort((one, other) => other.path.localeCompare(one.path, "en", { numeric: true }));
  waiting = [...sorted, ...waiting];
  if (now && !now.isOver) {
    set({ ...now, total: now.total + files.length });
    return;
  }
  set({ done: 0, total: files.length, isOver: false, stops: false, error: "", added: 0, renamed: [], leftOut: new Map() });
  const timer = setInterval(refresh, EVERY);
  // Again for those that come while the server concludes.
  do await sendAll(); while (waiting.length && !now.stops);
  clearInterval(timer);
  waiting = [];
  set({ ...now, isOver: true });
  refresh();
}

async function sendAll() {
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  try {
    const { added, ...found } = await post("/api/uploads/end");
    show(found);
    set({ ...now, added: now.added + added });
  } catch (error) {
    set({ ...now, error: now.error || error.message });
  }
}

async function work() {
  while (waiting.length && !now.stops) {
    const { path, file } = waiting.pop();
    try {
      if (TAKEN.test(path)) count(await send(path, await file()));
      else leaveOut("not an image that Thaw reads", 1, [path]);
    } catch (error) {
      // A disk without room, or a server that has gone, is not a matter of this one file.
      if (isOfFile(error)) leaveOut(error.message, 1, [path]);
      else set({ ...now, stops: true, error: error.message });
    }
    set({ ...now, done: now.done + 1 });
  }
}

const isOfFile = (error) => (error instanceof Refusal && error.status < 500 && ![401, 403].includes(error.status)) || error instanceof DOMException;

async function send(path, file) {
  const key = crypto.randomUUID();
  let at = 0, reply;
  do {
    // Read here, so that a file that cannot be read is not taken for a server that cannot be reached.
    const part = await file.slice(at, at + PART).arrayBuffer();
    const address = `/api/uploads?${new URLSearchParams({ path, key, at, size: file.size })}`;
    reply = await patiently(() => postFile(address, part));
    at += part.byteLength;
  } while (at < file.size && !now.stops);
  return reply;
}

// The server may have as much in hand as it takes.
async function patiently(request) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 503 || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

function count(reply) {
  if (!reply.left_out) return;
  set({ ...now, renamed: [...now.renamed, ...reply.renamed_examples] });
  for (const { reason, files, examples } of reply.left_out) leaveOut(reason, files, examples);
}

function leaveOut(reason, files, examples) {
  const found = now.leftOut.get(reason) || { files: 0, examples: [] };
  now.leftOut.set(reason, { files: found.files + files, examples: [...found.examples, ...examples].slice(0, EXAMPLES) });
  tell();
}

function set(next) {
  now = next;
  tell();
}

function tell() {
  for (const listener of listeners) listener();
}

export const chosen = (list) => [...list].map((one) => ({ path: one.webkitRelativePath || one.name, file: async () => one }));

// What was dropped, with the files of folders; the items are only there until the event is over.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.kind === "file" && item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const files = [];
  for (const entry of entries) await walk(entry, files);
  return files;
}

async function walk(entry, files) {
  if (entry.isFile) {
    files.push({ path: entry.fullPath.slice(1), file: () => new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    // A hundred at a time.
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return;
    for (const one of some) await walk(one, files);
  }
}

export async function answerFolders(accept) {
  show(await post("/api/folder-labels", { accept }));
}

export async function copyToFolders() {
  show(await post("/api/class-folders"));
  await refresh();
}

