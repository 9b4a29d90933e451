// What a run says about one image: the label, the probabilities, and the evidence.

import { html } from "./vendor/preact.js";
import { percent } from "./charts.js";

// children: figures in front of the others.
export function Tried({ one, children }) {
  if (one.error) return html`<section class="tried"><p class="path">${one.name}</p><p class="alarm">${one.error}</p></section>`;
  return html`<section class="tried">
    <div class="maps">${children || html`<figure><img alt="" src=${one.view} /><figcaption>what the network sees</figcaption></figure>`}
      ${one.evidence && html`<figure><img alt="" src=${one.evidence} /><figcaption>evidence for ${one.explained}</figcaption></figure>`}</div>
    <div><p class="path">${one.name}</p>
      <p class="verdict">${one.label || "No label"} ${one.confidence != null && html`<span>${percent(one.confidence, 0)}</span>`}</p>
      ${one.review && html`<p class="flag">Flagged for review: ${one.review}</p>`}
      <ul class="bars">${one.probabilities.map((item) => html`<li key=${item.name}><span>${item.name}</span><b>${percent(item.probability)}</b>
        <i style=${{ "--fraction": `${100 * item.probability}%` }}></i></li>`)}</ul></div>
  </section>`;
}
