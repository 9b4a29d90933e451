// The screen Try: images that are dropped, pasted or chosen are classified by a finished run, one after the other.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get, postFile } from "./api.js";
import { say } from "./store.js";
import { percent } from "./charts.js";

const KEPT = 24;

export function Try() {
  const [runs, setRuns] = useState(null), [run, choose] = useState("");
  const [tried, setTried] = useState([]), [waiting, wait] = useState(0);
  const [isOver, over] = useState(false);
  const input = useRef(null);
  useEffect(() => {
    get("/api/runs").then((list) => { setRuns(list); if (list.length) choose(list[0].run); }).catch((error) => say(error.message, true));
  }, []);

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
  useEffect(() => {
    if (!run) return;
    const paste = (event) => take(event.clipboardData.files);
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, [run]);

  if (!runs) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  if (!runs.length) return html`<div class="page"><p class="wait">Images can be tried once a run has finished. <a href="#train">Train</a></p></div>`;
  const hover = (event) => { event.preventDefault(); over(true); };
  const drop = (event) => { event.preventDefault(); over(false); take(event.dataTransfer.files); };
  return html`<div class="page" onDragOver=${hover} onDragLeave=${() => over(false)} onDrop=${drop}><div class="column">
    <section><h1>Try</h1>
      <div class=${isOver ? "drop over" : "drop"}>
        <p><b>Drop images here</b>, paste one, or${" "}
          <button onClick=${() => input.current.click()}>choose files</button></p>
        <p class="quiet">They are classified by <select aria-label="Run" value=${run} onChange=${(event) => choose(event.target.value)}>
          ${runs.map((one) => html`<option key=${one.run} value=${one.run}>${one.run}</option>`)}</select> and not kept.</p>
        <input ref=${input} type="file" accept="image/*,.tif,.tiff,.bmp" multiple hidden
          onChange=${(event) => { take(event.target.files); event.target.value = ""; }} />
      </div>
      ${waiting > 0 && html`<p class="quiet" role="status">Classifying, ${waiting} left …</p>`}
    </section>
    ${tried.map((one) => html`<${Tried} key=${one.key} one=${one} />`)}
  </div></div>`;
}

function Tried({ one }) {
  if (one.error) return html`<section class="tried"><p class="path">${one.name}</p><p class="alarm">${one.error}</p></section>`;
  return html`<section class="tried">
    <div class="maps"><figure><img alt="" src=${one.view} /><figcaption>what the network sees</figcaption></figure>
      ${one.evidence && html`<figure><img alt="" src=${one.evidence} /><figcaption>evidence for ${one.label || "the most likely class"}</figcaption></figure>`}</div>
    <div><p class="path">${one.name}</p>
      <p class="verdict">${one.label || "No label"} <span>${percent(one.confidence, 0)}</span></p>
      ${one.review && html`<p class="flag">Flagged for review: ${one.review}</p>`}
      <ul class="bars">${one.probabilities.map((item) => html`<li key=${item.name}><span>${item.name}</span><b>${percent(item.probability)}</b>
        <i style=${{ "--fraction": `${100 * item.probability}%` }}></i></li>`)}</ul></div>
  </section>`;
}
