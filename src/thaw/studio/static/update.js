// A part of the screen Train: a finished run learns what it does not know of the labels of now, without old images.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { say, sentence } from "./store.js";
import { percent } from "./charts.js";

const PAUSE = 1000;

// `ended` is called when an update has ended.
export function Update({ runs, ended }) {
  const [found, setFound] = useState(null), [chosen, choose] = useState("");
  const isRunning = found?.state === "running";
  useEffect(() => { get("/api/update").then(setFound, fail); }, []);
  useEffect(() => {
    if (!isRunning) return undefined;
    const timer = setInterval(() => get("/api/update").then((now) => { setFound(now); if (now.state !== "running") ended(); }, fail), PAUSE);
    return () => clearInterval(timer);
  }, [isRunning]);
  if (!found) return null;
  const run = runs.includes(chosen) ? chosen : runs[0];
  return html`<section><h2 class="big">Update a run</h2>
    <p>It learns the images that it does not know, and new classes, in seconds: the features that it left in the cache stand in
      for its own images, which may be gone. It is kept only if no class is recognised less well than before, beyond noise.</p>
    <div class="row"><select aria-label="Run to update" value=${run} onChange=${(event) => choose(event.target.value)}>
      ${runs.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>
      <button disabled=${isRunning} onClick=${() => post("/api/update", { run }).then(setFound, fail)}>Update with the labels of now</button></div>
    ${isRunning && html`<p class="row" role="status">Updating ${found.run} … <progress></progress></p>`}
    ${found.state === "failed" && html`<p class="alarm">${sentence(found.log.at(-1) || "It was stopped")}.</p>`}
    ${found.state === "kept" && html`<p>${found.updated} is ${found.run} with what it has learnt.</p>`}
    ${found.state === "not kept" && html`<p class="flag">Not kept: ${found.run} recognised more before. ${found.run} is unchanged.</p>`}
    ${found.old?.length > 0 && html`<${Changes} title="Old classes, on the run's own validation and test images" changes=${found.old} />`}
    ${found.new?.length > 0 && html`<${Changes} title="New images of validation and test" changes=${found.new} />`}
  </section>`;
}

const fail = (error) => say(`${sentence(error.message)}.`, true);

function Changes({ title, changes }) {
  return html`<h3>${title}</h3><div class="scroll"><table>
    <thead><tr><th>class</th><th class="number">images</th><th class="number">before</th><th class="number">after</th><th></th></tr></thead>
    <tbody>${changes.map((one) => html`<tr key=${one.name}><td>${one.name || "all"}</td><td class="number">${one.images}</td>
      <td class="number">${one.before == null ? "new" : percent(one.before)}</td><td class="number">${percent(one.after)}</td>
      <td class="quiet">${remark(one)}</td></tr>`)}</tbody></table></div>`;
}

function remark(one) {
  if (one.before == null || one.after >= one.before) return "";
  return `${one.falls ? "falls" : "within noise"}, p = ${one.p_value.toPrecision(2)}`;
}
