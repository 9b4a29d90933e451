// Fields of the screen Decide: targets for a class, costs of mistakes, and a fraction as a slider with a number.

import { html } from "./vendor/preact.js";

const FIRST = 0.95;

// Names of the targets that a class can have, and what they are called.
const CHOICES = { "": "no target", recall: "recall at least", precision: "precision at least", "recall precision": "recall and precision at least" };

export function Target({ name, index, target = {}, set }) {
  const kinds = ["recall", "precision"].filter((kind) => kind in target), [value = FIRST] = Object.values(target);
  const choose = (event) => set(Object.fromEntries(event.target.value.split(" ").filter(Boolean).map((kind) => [kind, target[kind] ?? value])));
  return html`<div class="target">
    <select id=${`target-${index}`} aria-label=${`Target for ${name}`} value=${kinds.join(" ")} onChange=${choose}>
      ${Object.entries(CHOICES).map(([one, text]) => html`<option key=${one} value=${one}>${text}</option>`)}</select>
    ${kinds.map((kind) => html`<${Slider} key=${kind} label=${`${kind} of ${name}`} value=${target[kind]}
      set=${(next) => set({ ...target, [kind]: next })} max=${100} />`)}</div>`;
}

export function Fraction({ title, about, value, set }) {
  return html`<div class="target"><span><b>${title}</b> <small>${about}</small></span>
    <${Slider} label=${title} value=${value} set=${set} max=${99.9} /></div>`;
}

function Slider({ label, value, set, max }) {
  const shown = Math.round(1000 * value) / 10;
  const take = (event) => {
    const given = event.target.valueAsNumber;
    if (given > 0 && given <= max) set(given / 100);
  };
  return html`<input type="range" aria-label=${label} min="50" max=${max} step="0.5" value=${shown} onInput=${take} />
    <span class="percent"><input type="number" aria-label=${`${label} in percent`} min="0.1" max=${max} step="any" value=${shown} onChange=${take} /> %</span>`;
}

export function Costs({ classes, costs, set }) {
  const change = (index, part) => set(costs.map((one, place) => (place === index ? { ...one, ...part } : one)));
  const options = classes.map((name) => html`<option key=${name} value=${name}>${name}</option>`);
  return html`<div class="costs">
    <p class="quiet">A mistake costs 1, unless it is listed here. The label with the lowest expected cost is predicted.</p>
    ${costs.map((one, index) => html`<div key=${index} class="row">
      <select aria-label="True class" value=${one.truth} onChange=${(event) => change(index, { truth: event.target.value })}>${options}</select>
      <span>taken for</span>
      <select aria-label="Predicted class" value=${one.predicted} onChange=${(event) => change(index, { predicted: event.target.value })}>${options}</select>
      <span>costs</span>
      <input type="number" aria-label="Cost" min="0" step="any" value=${one.cost}
        onChange=${(event) => event.target.valueAsNumber >= 0 && change(index, { cost: event.target.valueAsNumber })} />
      <button aria-label="Remove" onClick=${() => set(costs.filter((_, place) => place !== index))}>×</button></div>`)}
    <button onClick=${() => set([...costs, { truth: classes[0], predicted: classes[1], cost: 10 }])}>Add a mistake</button></div>`;
}
