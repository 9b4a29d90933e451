// Which images are shown: by class, split, file name or pile; and, next to it, adding images and taking labels along.

import { html, useMemo, useState } from "./vendor/preact.js";
import { post } from "./api.js";
import { refresh, say, useStore } from "./store.js";
import { Choose } from "./add.js";
import { copyToFolders } from "./adding.js";

export function Filters({ filter, set, total, reload }) {
  const { state } = useStore();
  const groups = useMemo(() => choices(state), [state]);
  const [isMore, more] = useState(false);
  const labelled = state.total - state.unlabelled - state.excluded;
  const show = (value) => (value === filter.show ? reload() : set({ ...filter, show: value }));
  return html`<aside class=${isMore ? "filters more" : "filters"}>
    <select class="narrow" aria-label="Show" value=${filter.show} onChange=${(event) => show(event.target.value)}>
      ${groups.map((group) => html`<optgroup key=${group.title} label=${group.title}>${group.options.map((one) =>
        html`<option key=${one.value} value=${one.value}>${one.title} (${one.images.toLocaleString("en")})</option>`)}</optgroup>`)}
    </select>
    <input id="text" type="search" placeholder="Find in file names" aria-label="Find in file names" value=${filter.text}
      onChange=${(event) => set({ ...filter, text: event.target.value })}
      onKeyDown=${(event) => (event.key === "Enter" || event.key === "Escape") && event.target.blur()} />
    ${state.splits.length > 0 && html`<select aria-label="Split" value=${filter.split}
      onChange=${(event) => set({ ...filter, split: event.target.value })}>
      <option value="">every split</option>${state.splits.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`}
    <button class="narrow" aria-expanded=${isMore} onClick=${() => more(!isMore)}>More</button>
    <div class="wide"><div class="groups">${groups.map((group) => html`<section key=${group.title}><h2>${group.title}</h2>
      ${group.options.map((one) => html`<button key=${one.value} class=${one.value === filter.show ? "choice chosen" : "choice"}
        onClick=${() => show(one.value)}><span>${one.title}</span><small>${one.images.toLocaleString("en")}</small></button>`)}
    </section>`)}</div>
    <${Choose} />
    ${state.piles === null && state.errors.images && html`<p class="alarm">${state.errors.images}</p>
      <button onClick=${findAgain}>Try again</button>`}
    ${state.piles === null && !state.errors.images && html`<p class="quiet">Piles of near-duplicates, label errors and outliers appear here once they are found.</p>`}
    ${state.piles !== null && state.piles_at !== state.changed && html`<button onClick=${findAgain}>Find again with the labels of now</button>`}
    ${labelled > 0 && html`<${Take} state=${state} />`}
    ${state.notes.map((note) => html`<p key=${note} class="quiet note">${note}</p>`)}
    </div>
  </aside>`;
}

// The labels, for other tools.
function Take({ state }) {
  const { copied, background, errors } = state;
  const copy = () => copyToFolders().catch((error) => say(error.message, true));
  return html`<h2>To take along</h2>
    <p><a href="/labels.csv" download>Labels as CSV</a></p>
    <p><a href="/class-folders.zip" download>Class folders as a zip file</a></p>
    <button class="to-folders" disabled=${background.title.startsWith("copy")} onClick=${copy}>Copy into class folders</button>
    ${errors.copy && html`<p class="alarm">${errors.copy}</p>`}
    ${copied && html`<p role="status">${copied.images.toLocaleString("en")} images are copied to <code>${copied.path}</code>.
      ${copied.left_out > 0 && ` ${copied.left_out} were left out: their files have changed.`}
      ${copied.renamed.length > 0 && ` A folder cannot be called like the class: ${copied.renamed.join(", ")}.`}</p>`}`;
}

async function findAgain() {
  try {
    await post("/api/piles");
    await refresh();
  } catch (error) {
    say(error.message, true);
  }
}

function choices(state) {
  const groups = [
    { title: "Images", options: [
      { value: "all", title: "All", images: state.total },
      { value: "unlabelled", title: "Without a label", images: state.unlabelled },
      { value: "excluded", title: "Excluded", images: state.excluded },
      ...(state.ambiguous ? [{ value: "ambiguous", title: "of them ambiguous", images: state.ambiguous }] : []),
    ] },
    { title: "Classes", options: state.classes.map((one) => ({ value: `label:${one.name}`, title: one.name, images: one.images })) },
    { title: "To check", options: (state.piles || []).map((one) => ({ value: `pile:${one.name}`, title: one.title, images: one.images })) },
  ];
  return groups.filter((group) => group.options.length);
}
