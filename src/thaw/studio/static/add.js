// What is shown of images that are added: the invitation, buttons to choose them, progress, and what was left out.

import { html, useRef } from "./vendor/preact.js";
import { add, answerFolders, chosen, dropped, forgetAdding, stopAdding, useAdding } from "./adding.js";
import { forget } from "./rows.js";
import { say, sentence, useStore } from "./store.js";

const number = (value) => value.toLocaleString("en");
const images = (value) => `${number(value)} ${value === 1 ? "image" : "images"}`;

// Properties of an element that takes what is dropped on it; `over` is told whether something is above it.
export const droppable = (over) => ({
  onDragOver: (event) => { event.preventDefault(); over(true); },
  onDragLeave: (event) => { if (!event.currentTarget.contains(event.relatedTarget)) over(false); },
  onDrop: (event) => {
    event.preventDefault();
    over(false);
    dropped(event.dataTransfer).then((files) => files.length && add(files)).catch((error) => say(error.message, true));
  },
});

export function Invitation() {
  const adding = useAdding();
  if (adding && !adding.isOver) return html`<p class="quiet wait">The first images appear here in a moment.</p>`;
  return html`<div class="invitation"><div class="drop">
    <h1>Begin with your images</h1>
    <p>Drop a folder, a zip file or single images here.</p>
    <${Choose} isFirst=${true} />
    <p class="quiet">They are copied into the project, on this machine. Your own files stay as they are.</p>
  </div></div>`;
}

export function Choose({ isFirst = false }) {
  const files = useRef(null), folder = useRef(null);
  const take = (event) => {
    const list = chosen(event.target.files);
    event.target.value = "";
    if (list.length) add(list);
  };
  return html`<div class="row choose">
    <button class=${isFirst ? "primary" : ""} onClick=${() => files.current.click()}>${isFirst ? "Choose images or a zip file" : "Add images"}</button>
    <button onClick=${() => folder.current.click()}>${isFirst ? "Choose a folder" : "Add a folder"}</button>
    <input ref=${files} type="file" accept="image/*,.tif,.tiff,.bmp,.zip" multiple hidden onChange=${take} />
    <input ref=${folder} type="file" webkitdirectory multiple hidden onChange=${take} />
  </div>`;
}

export function Adding() {
  const { state } = useStore(), adding = useAdding();
  return html`${adding && !adding.isOver && html`<${Running} adding=${adding} archive=${state.adding} />`}
    ${adding?.isOver && html`<${Over} adding=${adding} />`}
    ${state.proposed.length > 0 && html`<${Proposal} proposed=${state.proposed} />`}`;
}

function Running({ adding, archive }) {
  const { done, total } = archive || adding;
  return html`<div class="notice" role="status"><span>Adding ${number(Math.min(done + 1, total))} of ${number(total)} …</span>
    <progress max=${total} value=${done}></progress>
    <button disabled=${adding.stops} onClick=${stopAdding}>Stop</button></div>`;
}

function Over({ adding }) {
  const left = [...adding.leftOut.entries()], rest = adding.total - adding.done;
  return html`<div class="notice" role="status"><div>
    <p><b>${images(adding.added)} added.</b>${rest > 0 && html` Stopped before the last ${number(rest)}.`}</p>
    ${adding.error && html`<p class="alarm">${sentence(adding.error)}. What was added stays; drop the same again, and only the rest is added.</p>`}
    ${left.map(([reason, { files, examples }]) => html`<p key=${reason} class="quiet">Left out, ${reason}: ${examples.join(", ")}${files > examples.length && ` and ${number(files - examples.length)} more`}.</p>`)}
    ${adding.renamed.length > 0 && html`<p class="quiet">Another image had the name already, so the new ones have a number, such as ${adding.renamed[0]}.</p>`}
  </div><button aria-label="Close" onClick=${forgetAdding}>×</button></div>`;
}

function Proposal({ proposed }) {
  const answer = async (accept) => {
    try {
      await answerFolders(accept);
      forget();
    } catch (error) {
      say(error.message, true);
    }
  };
  const shown = proposed.slice(0, 12);
  return html`<div class="notice"><div><p><b>The folders look like classes:</b> ${shown.map((one) => `${one.name} (${number(one.images)})`).join(", ")}${proposed.length > shown.length && ` and ${proposed.length - shown.length} more`}.</p>
    <div class="row"><button class="primary" onClick=${() => answer(true)}>Label the images with them</button>
      <button onClick=${() => answer(false)}>Leave them without a label</button></div></div></div>`;
}
