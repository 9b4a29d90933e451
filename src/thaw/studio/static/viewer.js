// One image in full view; the keys of the screen behind it stay as they are.

import { html, useEffect, useState } from "./vendor/preact.js";
import { listen, need, row } from "./rows.js";
import { Mark } from "./classes.js";

export function Viewer({ id, place, close, step }) {
  const [, redraw] = useState(0);
  useEffect(() => listen(() => redraw((count) => count + 1)), []);
  useEffect(() => { need([id]).catch(() => {}); }, [id]);
  const found = row(id);
  return html`<div class="viewer" role="group" aria-label="Image" tabindex="-1">
    <div class="top"><span class="path">${found?.path}</span><span class="quiet">${place}</span>
      <button aria-label="Close" onClick=${close}><kbd>Esc</kbd> close</button></div>
    <div class="stage">
      <button class="step" aria-label="Previous" onClick=${() => step(-1)}>‹</button>
      ${found?.digest ? html`<img key=${id} alt="" src=${`/full/${id}/${found.digest}`} />`
        : html`<p class="quiet">${found ? found.note : "Loading …"}</p>`}
      <button class="step" aria-label="Next" onClick=${() => step(1)}>›</button>
    </div>
    <div class="below">${found && html`<${Mark} mark=${found.mark} />`}
      ${found?.note && html`<span class="quiet">${found.note}</span>`}</div>
  </div>`;
}
