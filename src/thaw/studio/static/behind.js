// The training images that a prediction comes from, and training images to choose, so that their label can be fixed.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { say, sentence } from "./store.js";
import { row, want } from "./rows.js";
import { Mark } from "./classes.js";
import { name, Thumbnail } from "./grid.js";
import { percent } from "./charts.js";

const PAUSE = 1000;

export function Choice({ ids, chosen, choose }) {
  return html`<div class="maps candidates">${ids.map((id) => { const one = row(id); return html`<button key=${id} title=${one?.path}
    aria-pressed=${id === chosen} onClick=${() => choose(id === chosen ? null : id)}>
    <${Thumbnail} found=${one} side=${100} />${one && html`<${Mark} mark=${one.mark} />`}<span class="quiet">${one && name(one.path)}</span></button>`; })}</div>`;
}

export function Behind({ run, image, label, chosen, choose }) {
  const [found, setFound] = useState(null), [asked, ask] = useState(0);
  useEffect(() => {
    let isOver = false, timer = 0;
    const look = async () => {
      try {
        const one = await get(`/api/influence/${run}/${image}`, { label });
        if (isOver) return;
        want(one.ids);
        setFound(one);
        if (one.state === "computing") timer = setTimeout(look, PAUSE);
      } catch (error) {
        if (!isOver) fail(error);
      }
    };
    look();
    return () => { isOver = true; clearTimeout(timer); };
  }, [run, image, label, asked]);
  const compute = () => post(`/api/influence/${run}`).then(() => ask((count) => count + 1), fail);
  if (!found) return null;
  return html`<h2>Training images behind “${label}”</h2>
    ${found.state === "none" && html`<button onClick=${compute}>Find them</button>
      <p class="quiet note">For all errors of this run at once. It takes about as long as classifying every image, unless their features are cached.</p>`}
    ${found.state === "computing" && html`<p class="quiet" role="status">Extracting features, and fitting a linear head to them …</p>`}
    ${found.state === "ready" && (found.ids.length ? html`<${Choice} ids=${found.ids} chosen=${chosen} choose=${choose} />
      <p class="quiet note">Without one of these, the probability of ${label} would fall most. Is one labelled wrong? Choose it, and give it another label or
        exclude it. Estimated with a linear head on the features of this run, which
        ${found.label === label ? " agrees with it here" : html` <b>predicts ${found.label} here</b>`}, and on ${percent(found.agreement, 0)} of the images.</p>`
      : html`<p class="quiet note">None: the image, or training images of this class, are no longer in the project.</p>`)}`;
}

const fail = (error) => say(`${sentence(error.message)}.`, true);
