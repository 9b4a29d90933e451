// A folder of this machine: images that arrive in it are classified, the newest ones on top.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { say, sentence } from "./store.js";
import { Tried } from "./tried.js";

const PAUSE = 1000, KEPT = 24;

const fail = (error) => say(`${sentence(error.message)}.`, true);

export function Watch({ run }) {
  const [watched, setWatched] = useState(null), [folder, type] = useState("");
  const latest = useRef(null);
  const learn = (found) => {
    const before = latest.current;
    if (found.watch && before?.watch === found.watch) {
      found.arrivals = [...found.arrivals, ...before.arrivals].sort((one, other) => other.arrived - one.arrived || one.number - other.number).slice(0, KEPT);
    }
    latest.current = found;
    setWatched(found);
    return found;
  };
  useEffect(() => {
    let isOver = false, timer = 0;
    const ask = async () => {
      const known = latest.current, after = Math.max(0, ...(known?.arrivals || []).map((one) => one.number));
      try {
        const found = await get("/api/watch", { watch: known?.watch || 0, after });
        // Started or stopped meanwhile: what was asked for is of before.
        if (!isOver && known === latest.current) {
          learn(found);
          if (!known) type((typed) => typed || found.folder || found.suggested);
        }
      } catch (error) {
        if (!known && !isOver) fail(error);
      }
      if (!isOver) timer = setTimeout(ask, PAUSE);
    };
    ask();
    return () => { isOver = true; clearTimeout(timer); };
  }, []);
  const start = (event) => { event.preventDefault(); post("/api/watch", { folder: folder.trim(), run }).then(learn, fail); };
  const isWatched = Boolean(watched?.watch);
  return html`<form class="row source" onSubmit=${start}>
      <input aria-label="Folder" placeholder="folder in the project" value=${folder} onInput=${(event) => type(event.target.value)} spellcheck="false" />
      <button class=${isWatched ? "" : "primary"} disabled=${!folder.trim()}>${isWatched ? "Watch this one" : "Watch"}</button>
      ${isWatched && html`<button type="button" onClick=${() => post("/api/watch/stop").then(learn, fail)}>Stop</button>`}
    </form>
    ${isWatched ? html`<p>${watched.run} classifies what arrives in <code>${watched.folder}</code>, also while this page is closed.
        ${watched.before > 0 && ` ${images(watched.before)} there before ${watched.before === 1 ? "is" : "are"} not classified.`}
</p>
        <p role="status">${watched.classified + watched.unreadable + watched.waiting === 0 ? "Waiting for images …" : html`
          ${images(watched.classified)} classified, ${watched.flagged.toLocaleString("en")} flagged for review${watched.unreadable > 0 && `, ${watched.unreadable.toLocaleString("en")} cannot be read`}${watched.waiting > 0 && `, ${watched.waiting.toLocaleString("en")} waiting`}.`}</p>
        ${run !== watched.run && html`<p class="quiet">Watch again to use ${run}.</p>`}`
      : html`<p class="quiet">A folder in the project or among its images, by its full path or from the project on. One elsewhere is
        named when Studio is started: <code>thaw studio --watch FOLDER</code>. Files in it are only read.</p>`}
    ${watched?.problem && html`<p class="alarm" role="alert">${sentence(watched.problem)}</p>`}
    ${isWatched && watched.arrivals.map((one) => html`<${Tried} key=${`${watched.watch}-${one.number}`} one=${one} />`)}`;
}

const images = (number) => `${number.toLocaleString("en")} ${number === 1 ? "image" : "images"}`;
