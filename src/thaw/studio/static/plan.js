// The plan of a run: each setting with its reason, and the time that is predicted.

import { html } from "./vendor/preact.js";

export function PlanTable({ plan, predicted, expected = "" }) {
  return html`<p>${predicted != null && html`Predicted: at most <b>${duration(predicted)}</b>. `}${expected && `Expected accuracy of a linear head: ${expected}.`}</p>
    <div class="scroll"><table class="plan"><tbody>${plan.map((one) => html`<tr key=${one.setting}>
      <td><code>${one.setting}</code></td><td>${one.value}</td><td class="quiet">${one.reason}</td></tr>`)}</tbody></table></div>`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
