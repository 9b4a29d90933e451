// The screen Decide: targets and costs, what they give on validation and test at once, and the bundle that has them.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { say, sentence } from "./store.js";
import { useKeys } from "./classes.js";
import { percent } from "./charts.js";
import { Command } from "./command.js";
import { Costs, Fraction, Target } from "./targets.js";

const PAUSE = 150;
const SPLITS = { val: "validation", test: "test" };

export function Decide() {
  const [runs, setRuns] = useState(null), [run, choose] = useState("");
  useEffect(() => {
    get("/api/runs").then((list) => { setRuns(list); if (list.length) choose(list[0].run); }).catch(fail);
  }, []);
  if (!runs) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  if (!runs.length) return html`<div class="page"><p class="wait">How labels are decided is set once a run has finished. <a href="#train">Train</a></p></div>`;
  return html`<${Decision} key=${run} run=${run} runs=${runs} choose=${choose} />`;
}

const fail = (error) => say(`${sentence(error.message)}.`, true);

// What is asked for, as the server takes it. What the run has is not sent, and stays, until a target or a cost is
// changed: then all of them are, since they replace those of the run.
function request({ isChanged, targets, costs, coverage, in_distribution }) {
  const body = { coverage, in_distribution };
  if (!isChanged) return body;
  Object.assign(body, { recall: {}, precision: {}, costs: {} });
  for (const [name, ofClass] of targets) for (const [kind, value] of Object.entries(ofClass)) body[kind][name] = value;
  for (const { truth, predicted, cost } of costs) (body.costs[truth] ??= {})[predicted] = cost;
  return body;
}

// The targets of a class are { recall, precision }, either or both.
function asked({ recall, precision, costs }) {
  const targets = new Map();
  for (const [kind, values] of Object.entries({ recall, precision })) {
    for (const [name, value] of Object.entries(values)) targets.set(name, { ...targets.get(name), [kind]: value });
  }
  const list = Object.entries(costs).flatMap(([truth, row]) => Object.entries(row).map(([predicted, cost]) => ({ truth, predicted, cost })));
  return { isChanged: false, targets, costs: list, coverage: null, in_distribution: null };
}

const isAsked = ({ isChanged, coverage, in_distribution }) => isChanged || coverage != null || in_distribution != null;

function Decision({ run, runs, choose }) {
  const [trained, setTrained] = useState(null), [ask, setAsk] = useState(null), [found, setFound] = useState(null);
  const [written, setWritten] = useState(null), [isWriting, writing] = useState(false);
  const latest = useRef(0), timer = useRef(0);
  useEffect(() => {
    get(`/api/decide/${run}`).then(({ settings, ...one }) => { setTrained(settings); setAsk(asked(settings)); setFound(one); }).catch(fail);
    return () => clearTimeout(timer.current);
  }, [run]);
  const change = (part) => {
    const next = { ...ask, ...part }, number = ++latest.current;
    setAsk(next);
    setWritten(null);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => post(`/api/decide/${run}`, request(next)).then((one) => { if (number === latest.current) setFound(one); }, fail), PAUSE);
  };
  const write = async () => {
    if (!ask || isWriting || !isAsked(ask)) return;
    writing(true);
    try {
      setWritten(await post(`/api/decide/${run}/bundle`, request(ask)));
    } catch (error) {
      fail(error);
    }
    writing(false);
  };
  useKeys({
    digit: (_, key) => { const field = document.getElementById(`target-${key - 1}`); if (!field) return false; field.focus(); },
    w: () => void write(),
  });
  // Keys are those of the page again.
  useEffect(() => {
    const leave = (event) => event.key === "Escape" && document.activeElement.blur();
    addEventListener("keydown", leave);
    return () => removeEventListener("keydown", leave);
  }, []);
  if (!ask || !found) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  const require = (part) => change({ isChanged: true, ...part });
  return html`<div class="page"><div class="column decide">
    <section><h1>Decide</h1>
      <p>How labels follow from the probabilities of <select aria-label="Run" value=${run} onChange=${(event) => choose(event.target.value)}>
        ${runs.map((one) => html`<option key=${one.run} value=${one.run}>${one.run}</option>`)}</select>.
        Thresholds are chosen on validation; whether they hold for new images, only the test images show.</p>
      <p class=${found.summary ? "" : "quiet"}>${found.summary ? `${sentence(found.summary)}.` : "The most likely class is predicted."}</p>
      ${found.unmet.map((one) => html`<p key=${one} class="flag">${sentence(one)}.</p>`)}
      ${found.classes.map((name, index) => html`<${OfClass} key=${name} name=${name} index=${index} found=${found}>
        <${Target} name=${name} index=${index} target=${ask.targets.get(name)}
          set=${(target) => require({ targets: new Map(ask.targets).set(name, target) })} /><//>`)}
    </section>
    <section><h2 class="big">Costs of mistakes</h2>
      <${Costs} classes=${found.classes} costs=${ask.costs} set=${(costs) => require({ costs })} /></section>
    <${Review} ask=${ask} trained=${trained} found=${found} change=${change} />
    <${Slices} found=${found} />
  </div></div>
  <div class="bar" role="toolbar" aria-label="Bundle"><div class="outcome">${splitsOf(found).map(([split, one]) => html`<span key=${split}>
      ${SPLITS[split]}: accuracy <b>${percent(one.accuracy.value)}</b>, ${one.flagged} flagged</span>`)}</div>
    ${written && html`<div class="written"><span>Written. Nothing else is changed.</span><${Command} text=${written.command} /></div>`}
    <div class="actions"><button class="primary" disabled=${isWriting || !isAsked(ask)} onClick=${write}>
      <kbd>W</kbd> ${isWriting ? "Writing …" : "Write a bundle with this decision"}</button></div></div>`;
}

const splitsOf = (found) => Object.entries(found.splits);

function OfClass({ name, index, found, children }) {
  const threshold = found.thresholds[index];
  return html`<div class="of-class"><h2>${name} ${threshold != null && html`<small>predicted from a probability of ${percent(threshold)} on</small>`}</h2>
    ${children}
    <table class="rates"><thead><tr><th></th><th class="number">recall</th><th class="number">precision</th><th class="number">false positives</th></tr></thead>
    <tbody>${splitsOf(found).map(([split, one]) => { const { images, false_positives, rates } = one.classes[index]; return html`<tr key=${split}>
      <th>${SPLITS[split]}<br /><small>${images} of ${one.images}</small></th>
      <td class="number"><${Rate} one=${rates.recall} /></td><td class="number"><${Rate} one=${rates.precision} /></td>
      <td class="number">${false_positives}<br /><small><${Rate} one=${rates.false_positive_rate} isShort=${true} /></small></td></tr>`; })}</tbody></table></div>`;
}

function Rate({ one, isShort = false }) {
  if (!one) return "–";
  const bounds = `${percent(one.low)} to ${percent(one.high)}`;
  return isShort ? bounds : html`${percent(one.value)}<br /><small>${bounds}</small>`;
}

function Review({ ask, trained, found, change }) {
  if (!splitsOf(found)[0][1].review) return null;
  return html`<section><h2 class="big">Flagged for review</h2>
    <p class="quiet">An image is ambiguous unless its label is its only candidate class, and out-of-distribution if it is far from all training images.</p>
    <${Fraction} title="Coverage" about="fraction of images whose true class is among the candidates" value=${ask.coverage ?? trained.coverage}
      set=${(coverage) => change({ coverage })} />
    <${Fraction} title="In-distribution" about="fraction of validation images that are near enough" value=${ask.in_distribution ?? trained.in_distribution}
      set=${(value) => change({ in_distribution: value })} />
    <div class="scroll"><table class="rates"><thead><tr><th></th><th class="number">flagged</th><th class="number">ambiguous</th>
      <th class="number">out-of-distribution</th><th class="number">accuracy on the rest</th></tr></thead>
    <tbody>${splitsOf(found).map(([split, { flagged, flagged_rate, images, review }]) => html`<tr key=${split}><th>${SPLITS[split]}<br /><small>${images} images</small></th>
      <td class="number">${flagged}<br /><small>${flagged_rate && html`<${Rate} one=${flagged_rate} isShort=${true} />`}</small></td>
      <td class="number"><${Rate} one=${review.ambiguous} /></td><td class="number"><${Rate} one=${review.out_of_distribution} /></td>
      <td class="number"><${Rate} one=${review.accuracy_of_rest} /></td></tr>`)}</tbody></table></div></section>`;
}

function Slices({ found }) {
  if (!found.slices.length) return null;
  const [worst] = found.slices, split = SPLITS[splitsOf(found).at(-1)[0]];
  return html`<section><h2 class="big">Slices</h2>
    <p>The worst one is <b>${worst.column} ${worst.value}</b>: accuracy ${percent(worst.accuracy.value)} (95% interval${" "}
      ${percent(worst.accuracy.low)} to ${percent(worst.accuracy.high)}) on ${worst.images} ${split} images.</p>
    <div class="scroll"><table><thead><tr><th>column</th><th>value</th><th class="number">${split} images</th><th class="number">accuracy</th></tr></thead>
    <tbody>${found.slices.map((one) => html`<tr key=${JSON.stringify([one.column, one.value])}><td>${one.column}</td><td>${one.value}</td>
      <td class="number">${one.images}</td><td class="number"><${Rate} one=${one.accuracy} /></td></tr>`)}</tbody></table></div>
    <p class="quiet note">Every column of the table with 2 to 50 values; in front the slice whose accuracy is surely low, by the upper bound of its interval.</p></section>`;
}
