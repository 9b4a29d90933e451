// The screen Try: images that are dropped, those of a camera, or those that arrive in a folder are classified by a run.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get, postFile } from "./api.js";
import { say } from "./store.js";
import { Camera } from "./camera.js";
import { Tried } from "./tried.js";
import { Watch } from "./watch.js";

const KEPT = 24;
const SOURCES = [
  { title: "Files", source: Files },
  { title: "Camera", source: Camera },
  { title: "Watched folder", source: Watch },
];

export function Try() {
  const [runs, setRuns] = useState(null), [run, choose] = useState(""), [chosen, open] = useState(SOURCES[0]);
  useEffect(() => {
    get("/api/runs").then((list) => { setRuns(list); if (list.length) choose(list[0].run); }).catch((error) => say(error.message, true));
  }, []);
  if (!runs) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  if (!runs.length) return html`<div class="page"><p class="wait">Images can be tried once a run has finished. <a href="#train">Train</a></p></div>`;
  return html`<div class="page"><div class="column try">
    <h1>Try</h1>
    <p>Images are classified by <select aria-label="Run" value=${run} onChange=${(event) => choose(event.target.value)}>
      ${runs.map((one) => html`<option key=${one.run} value=${one.run}>${one.run}</option>`)}</select> and not kept.</p>
    <div class="row">${SOURCES.map((one) => html`<button key=${one.title} aria-pressed=${one === chosen} onClick=${() => open(one)}>${one.title}</button>`)}</div>
    <${chosen.source} run=${run} />
  </div></div>`;
}

function Files({ run }) {
  const [tried, setTried] = useState([]), [waiting, wait] = useState(0);
  const [isOver, over] = useState(false);
  const input = useRef(null);
  const take = async (list) => {
    const files = [...list];
    wait((count) => count + files.length);
    for (const file of files) {
      let found;
      try {
        found = { name: file.name, ...await postFile(`/api/try/${run}`, file) };
      } catch (error) {
        found = { name: file.name, error: error.message };
      }
      setTried((now) => [{ ...found, key: now.length ? now[0].key + 1 : 0 }, ...now].slice(0, KEPT));
      wait((count) => count - 1);
    }
  };
  // Anywhere on the page: a file that misses the box would be opened by the browser instead.
  useEffect(() => {
    const on = {
      paste: (event) => take(event.clipboardData.files),
      dragover: (event) => { event.preventDefault(); over(true); },
      dragleave: () => over(false),
      drop: (event) => { event.preventDefault(); over(false); take(event.dataTransfer.files); },
    };
    for (const [name, listener] of Object.entries(on)) addEventListener(name, listener);
    return () => { for (const [name, listener] of Object.entries(on)) removeEventListener(name, listener); };
  }, [run]);
  return html`<div class=${isOver ? "drop over" : "drop"}>
      <p><b>Drop images here</b>, paste one, or${" "}
        <button onClick=${() => input.current.click()}>choose files</button></p>
      <input ref=${input} type="file" accept="image/*,.tif,.tiff,.bmp" multiple hidden
        onChange=${(event) => { take(event.target.files); event.target.value = ""; }} />
    </div>
    ${waiting > 0 && html`<p class="quiet" role="status">Classifying, ${waiting} left …</p>`}
    ${tried.map((one) => html`<${Tried} key=${one.key} one=${one} />`)}`;
}
