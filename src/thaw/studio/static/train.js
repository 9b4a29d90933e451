// The screen Train: plan, start and queue runs, see the epochs and the time left, stop and resume, and what was reached.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { say, useStore } from "./store.js";
import { Curve, percent } from "./charts.js";
import { duration, PlanTable } from "./plan.js";
import { Settings } from "./settings.js";
import { Update } from "./update.js";

export function Train() {
  const [run, setRun] = useState(null);
  const [results, setResults] = useState([]);
  useEffect(() => {
    const events = new EventSource("/api/training/events");
    events.onmessage = (event) => setRun(JSON.parse(event.data));
    return () => events.close();
  }, []);
  const refreshRuns = () => get("/api/runs").then(setResults).catch(() => {});
  useEffect(() => { refreshRuns(); }, [run?.state]);
  const call = async (path, body) => {
    try {
      setRun(await post(path, body));
    } catch (error) {
      say(capital(error.message) + ".", true);
    }
  };
  if (!run) return html`<div class="page"><p class="quiet">Loading …</p></div>`;
  const isRunning = run.state === "starting" || run.state === "training";
  const present = run.state !== "none" && html`<${Run} run=${run} call=${call} />`;
  return html`<div class="page"><div class="column">
    ${isRunning && present}
    ${run.problem && html`<p class="alarm" role="alert">A run cannot begin: ${run.problem}</p>`}
    ${run.failed.filter((one) => isRunning || one !== run.failed.at(-1) || run.state !== "failed").map((one) => html`<p key=${one.number} class="alarm">
      A run${Object.entries(one.settings).map(([key, value]) => ` ${key}=${value}`)} did not start: ${one.log[0] || "its process ended"}</p>`)}
    ${run.queue.length > 0 && html`<${Queue} run=${run} isRunning=${isRunning} call=${call} />`}
    <${Start} run=${run} isRunning=${isRunning} call=${call} />
    ${!isRunning && present}
    ${results.length > 0 && html`<${Results} results=${results} />`}
    ${results.length > 0 && !isRunning && html`<${Update} runs=${results.map((one) => one.run)} ended=${refreshRuns} />`}
  </div></div>`;
}

function Start({ run, isRunning, call }) {
  const { state } = useStore();
  const [settings, set] = useState(() => run.next.settings || {});
  const labelled = state.classes.reduce((sum, one) => sum + one.images, 0);
  const classes = state.classes.filter((one) => one.images), next = run.next;
  const isQueued = isRunning || run.queue.length > 0 || next.state === "planning";
  const changed = next.state !== "ready" ? null : next.edits !== state.changed ? "Labels" : !equal(next.settings, filled(settings)) ? "Settings" : "";
  const isPlanned = changed === "";
  const start = () => call("/api/training", { settings: filled(settings), with_plan: isPlanned });
  return html`<section>
    ${isRunning || run.queue.length > 0 ? html`<h2 class="big">Another run</h2>` : html`<h1>Train</h1>`}
    ${classes.length < 2
      ? html`<p>Label images of at least two classes first. <a href="#label">Label next</a></p>`
      : html`<p>${labelled.toLocaleString("en")} labelled images of ${classes.length} classes. A part of them is kept apart to
        choose the best epoch, and another to test on; near-duplicates stay together.
        ${state.unlabelled > 0 && html` ${state.unlabelled.toLocaleString("en")} images without a label are not used.`}</p>
        <div class="row">
        ${isQueued ? html`<button onClick=${start}>${isPlanned ? "Add the planned run to the queue" : "Add a run with the labels of now to the queue"}</button>`
          : html`<button class="primary" onClick=${start}>${isPlanned ? "Start with this plan" : run.state === "none" ? "Start training" : "Train again with the labels of now"}</button>
          ${!isPlanned && html`<button onClick=${() => call("/api/training/plan", { settings: filled(settings) })}>${changed ? "Plan again" : "Show the plan first"}</button>`}`}
        ${run.resumable && html`<button onClick=${() => call("/api/training/resume")}>Resume ${run.resumable}</button>`}</div>
        <${Settings} settings=${settings} set=${set} />
        ${next.state !== "none" && html`<${Next} next=${next} changed=${changed} call=${call} />`}`}
  </section>`;
}

// changed: what is not as it was planned.
function Next({ next, changed, call }) {
  const cancel = (text) => html`<button onClick=${() => call("/api/training/plan/cancel")}>${text}</button>`;
  if (next.state === "planning") return html`<div class="of-class"><h2>Measuring and planning; nothing is trained</h2>
    <div class="row"><progress></progress>${cancel("Cancel")}</div>
    ${next.log.length > 0 && html`<pre>${next.log.join("\n")}</pre>`}</div>`;
  if (next.state === "failed") return html`<div class="of-class"><h2>There is no plan</h2>
    <p class="alarm">${next.log.at(-1) || "planning was ended"}</p>${cancel("Close")}</div>`;
  return html`<div class="of-class"><div class="row"><h2>The plan of the next run</h2>${cancel("Discard")}</div>
    ${changed && html`<p class="flag">${changed} have changed since; a run that is started now is planned again.</p>`}
    <${PlanTable} plan=${next.plan} predicted=${next.predicted} expected=${next.expected} /></div>`;
}

function Queue({ run, isRunning, call }) {
  const begins = isRunning ? "Each run begins when the one before it has ended" : run.next.state === "planning" ? "The next run begins once the plan is made"
    : "The next run begins in a moment";
  return html`<section><h2 class="big">Queue</h2>
    <p class="quiet">${begins}, on the labels of when it was added.</p>
    <table><tbody>${run.queue.map((one) => html`<tr key=${one.number}><td>${one.resumes ? `resume ${one.resumes}` : "new run"}${one.is_planned && ", as planned"}</td>
      <td>${one.images.toLocaleString("en")} images</td><td>${Object.entries(one.settings).map(([key, value]) => html`<code key=${key}>${key}=${value}</code> `)}</td>
      <td class="when">${time(one.when)}</td>
      <td class="number"><button onClick=${() => call("/api/training/cancel", { number: one.number })}>Cancel</button></td></tr>`)}</tbody></table></section>`;
}

const time = (when) => new Date(when).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

const equal = (one, other) => JSON.stringify(Object.entries(one).sort()) === JSON.stringify(Object.entries(other).sort());

const filled = (settings) => Object.fromEntries(Object.entries(settings).filter(([, value]) => value.trim()));

const STATES = {
  starting: "Reading the images, measuring and planning",
  training: "Training",
  finished: "Finished",
  stopped: "Stopped; every epoch that was completed is kept",
  failed: "Did not start",
};

function Run({ run, call }) {
  const { state } = useStore();
  const edits = state.changed - run.edits;
  const isRunning = run.state === "starting" || run.state === "training";
  const [isStopping, stopping] = useState(false);
  useEffect(() => stopping(false), [isRunning]);
  const total = run.phases?.reduce((sum, phase) => sum + phase.epochs, 0);
  return html`<section>
    <h2 class="big">${run.run || "New run"}: ${STATES[run.state]}</h2>
    ${isRunning && html`<div class="row">
      <progress max=${total || null} value=${total ? done(run) : null}></progress>
      <span>${run.left != null ? `at most ${duration(run.left)} left` : ""}</span>
      <button disabled=${isStopping} onClick=${() => { stopping(true); call("/api/training/stop"); }}>${isStopping ? "Stopping …" : "Stop"}</button></div>
      <p class="quiet">Training continues when this window, or Studio, is closed.</p>`}
    ${edits > 0 && html`<p class="quiet">${edits === 1 ? "1 edit" : `${edits.toLocaleString("en")} edits`} of labels since it was started.</p>`}
    ${run.state === "failed" && html`<p class="alarm">${run.log.at(-1)}</p>`}
    ${run.monitor && run.epochs.length > 0 && html`<${Epochs} run=${run} />`}
    ${run.plan?.length > 0 && html`<details><summary>The plan and its reasons</summary>
      <${PlanTable} plan=${run.plan} predicted=${run.predicted} /></details>`}
    ${run.log?.length > 0 && html`<details open=${run.state === "failed" || run.state === "starting"}><summary>Console output</summary>
      <pre>${run.log.join("\n")}</pre></details>`}
  </section>`;
}

// Epochs of phases that are over count as planned: they may have stopped early.
function done(run) {
  const last = run.epochs.at(-1);
  if (!last) return 0;
  const now = run.phases.findIndex((phase) => phase.name === last.phase);
  return run.phases.slice(0, now).reduce((sum, phase) => sum + phase.epochs, 0) + last.epoch;
}

function Epochs({ run }) {
  const { title, kind, higher_is_better } = run.monitor, shown = kind === "loss" ? decimals : percent;
  const last = run.epochs.at(-1), values = run.epochs.map((one) => one.value).filter((value) => value != null);
  const best = values.length ? (higher_is_better ? Math.max : Math.min)(...values) : null;
  const breaks = run.epochs.flatMap((one, index) => (index && run.epochs[index - 1].phase !== one.phase ? [index + 0.5] : []));
  return html`<div class="two">
    <div><h3>${capital(title)} on validation</h3>
      <${Curve} points=${points(run.epochs, "value")} format=${(value) => shown(value)}
        xTitle="epochs" breaks=${breaks} label=${`${title} on validation`} />
      <p class="quiet">Phase ${last.phase}, epoch ${last.epoch}: ${orDash(last.value, shown)}${best != null && `, best ${shown(best)}`}</p></div>
    <div><h3>Loss on validation</h3>
      <${Curve} points=${points(run.epochs, "val_loss")} format=${decimals}
        xTitle="epochs" breaks=${breaks} label="Loss on validation" />
      <p class="quiet">On training ${orDash(last.train_loss, decimals)}, on validation ${orDash(last.val_loss, decimals)}</p></div>
  </div>`;
}

// Of the epochs with a value: there is none where the run has diverged.
const points = (epochs, name) => epochs.map((one, index) => [index + 1, one[name]]).filter(([, value]) => value != null);

const decimals = (value) => value.toFixed(3);

const orDash = (value, format) => (value == null ? "–" : format(value));

function Results({ results }) {
  const damaged = results.filter((one) => one.error), whole = results.filter((one) => !one.error);
  return html`<section><h2 class="big">Finished runs</h2>
    ${whole.length > 0 && html`<${ResultTable} results=${whole} />`}
    ${damaged.map((one) => html`<p key=${one.run} class="alarm">${one.run}: ${one.error}</p>`)}</section>`;
}

function ResultTable({ results }) {
  const names = results[0].splits[splitOf(results[0])].metrics.map((one) => one.title);
  return html`<div class="scroll"><table>
    <thead><tr><th>run</th><th>measured on</th>${names.map((name) => html`<th key=${name} class="number">${name}</th>`)}<th></th></tr></thead>
    <tbody>${results.map((one) => { const split = splitOf(one), found = one.splits[split]; return html`<tr key=${one.run}>
      <td>${one.run}</td><td>${found.images.toLocaleString("en")} ${split === "val" ? "validation" : split} images</td>
      ${names.map((name) => html`<td key=${name} class="number"><${Value} one=${found.metrics.find((metric) => metric.title === name)} /></td>`)}
      <td><a href=${`/runs/${one.run}/report`} target="_blank" rel="noopener">report</a></td></tr>`; })}</tbody></table></div>`;
}

const splitOf = (one) => ("test" in one.splits ? "test" : "val");

function Value({ one }) {
  if (one?.value == null) return "–";
  return html`${percent(one.value)}<br /><small>${one.low != null && `${percent(one.low)} to ${percent(one.high)}`}</small>`;
}

const capital = (text) => text && text[0].toUpperCase() + text.slice(1);
