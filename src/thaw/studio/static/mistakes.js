// The screen Mistakes: which classes are confused, the most confident errors, why, and the label fixed where it is wrong.

import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { edit, say } from "./store.js";
import { listen, mark, need, row, usePile, want } from "./rows.js";
import { AMBIGUOUS, ClassBar, Mark, useKeys } from "./classes.js";
import { Behind, Choice } from "./behind.js";
import { Thumbnail } from "./grid.js";
import { percent } from "./charts.js";

const SHOWN = 200;

export function Mistakes() {
  const [runs, setRuns] = useState(null), [run, choose] = useState("");
  const [found, setFound] = useState(null);
  const [cell, setCell] = useState(null), [cursor, setCursor] = useState(0);
  // A training image whose label is to be fixed, instead of that of the error.
  const [training, take] = useState(null);
  const [, redraw] = useState(0);
  useEffect(() => listen(() => redraw((count) => count + 1)), []);
  useEffect(() => {
    usePile("");
    get("/api/runs").then((list) => { setRuns(list); if (list.length) choose(list[0].run); }).catch(fail);
  }, []);
  useEffect(() => {
    if (!run) return;
    setFound(null);
    get(`/api/mistakes/${run}`).then((one) => { setFound(one); setCell(null); setCursor(0); }).catch(fail);
  }, [run]);

  const images = useMemo(() => {
    if (!found) return [];
    const fits = cell ? (one) => one.truth === cell[0] && one.predicted === cell[1] : (one) => one.truth !== one.predicted;
    return found.images.filter(fits).slice(0, SHOWN);
  }, [found, cell]);
  const image = images[cursor];
  // Again where another window has changed labels.
  useEffect(() => want([...images.map((one) => one.id), ...(image ? image.nearest : [])]));

  useEffect(() => take(null), [image?.id]);

  const move = (to) => setCursor(Math.max(0, Math.min(images.length - 1, to)));
  const give = async (to, id = training ?? image.id) => {
    await need([id]);
    const isDone = await edit([{ id, mark: mark(id) }], to);
    if (!isDone) return;
    if (id !== image.id) take(null);
    else if (cursor < images.length - 1) setCursor(cursor + 1);
  };
  useKeys({
    ArrowRight: () => move(cursor + 1),
    ArrowDown: () => move(cursor + 1),
    ArrowLeft: () => move(cursor - 1),
    ArrowUp: () => move(cursor - 1),
    a: () => (image ? void give(found.classes[image.predicted], image.id) : false),
    m: () => (image ? void give(AMBIGUOUS) : false),
    Escape: () => { if (training !== null) { take(null); return; } setCell(null); setCursor(0); },
  });

  if (!runs || (run && !found)) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  if (!runs.length) return html`<div class="page"><p class="wait">Mistakes are shown once a run has finished. <a href="#train">Train</a></p></div>`;
  const pick = (truth, predicted) => { setCell([truth, predicted]); setCursor(0); };
  return html`<div class="mistakes">
    <div class="work">
      <section class="ask scrolls">
        <div class="row"><select aria-label="Run" value=${run} onChange=${(event) => choose(event.target.value)}>
          ${runs.map((one) => html`<option key=${one.run} value=${one.run}>${one.run}</option>`)}</select>
          <${Changed} found=${found} /></div>
        <${found.confusion ? Matrix : Confusions} found=${found} cell=${cell} pick=${pick} />
        <h2>${cell ? html`${found.classes[cell[0]]}, predicted as ${found.classes[cell[1]]} <button onClick=${() => { setCell(null); setCursor(0); }}>all errors</button>`
          : "Errors, the most confident ones first"}</h2>
        ${images.length === 0 && html`<p class="quiet">None.</p>`}
        <div class="errors">${images.map((one, index) => html`<button key=${one.id} class=${index === cursor ? "error chosen" : "error"}
          ref=${index === cursor ? reveal : null} onClick=${() => setCursor(index)} title=${row(one.id)?.path}>
          <${Thumbnail} found=${row(one.id)} side=${92} />
          ${row(one.id) && html`<${Mark} mark=${row(one.id).mark} />`}
          <span class="quiet">${found.classes[one.predicted]} ${percent(one.confidence, 0)}</span></button>`)}</div>
      </section>
      <section class="about">${image && html`<${Detail} key=${image.id} image=${image} found=${found} accept=${give}
        chosen=${training} choose=${take} />`}</section>
    </div>
    <${ClassBar} give=${give} isReady=${Boolean(image)}>
      ${training !== null && html`<span class="quiet">for the chosen training image</span>`}
      <button disabled=${!image} onClick=${() => give(AMBIGUOUS)}><kbd>M</kbd> ambiguous</button><//>
  </div>`;
}

const fail = (error) => say(error.message, true);

const reveal = (button) => button?.scrollIntoView({ block: "nearest" });

function Changed({ found }) {
  const differ = found.images.filter((one) => row(one.id) && row(one.id).mark !== found.classes[one.truth]).length;
  if (!differ) return null;
  return html`<span>${differ === 1 ? "1 label has" : `${differ} labels have`} changed since this run. <a href="#train">Train again</a></span>`;
}

function Matrix({ found, cell, pick }) {
  const most = found.confusions.length ? found.confusions[0][2] : 1;
  return html`<div class="scroll"><table class="matrix">
    <thead><tr><th>label</th>${found.classes.map((one) => html`<th key=${one} class="number" title=${`predicted ${one}`}>${one}</th>`)}</tr></thead>
    <tbody>${found.confusion.map((counts, truth) => html`<tr key=${truth}><th>${found.classes[truth]}</th>
      ${counts.map((images, predicted) => {
        const isHit = truth === predicted, strength = isHit ? 0 : images / most;
        const chosen = cell && cell[0] === truth && cell[1] === predicted;
        return html`<td key=${predicted} class=${isHit ? "number hit" : "number"}>
          ${images > 0 ? html`<button class=${chosen ? "chosen" : ""} style=${{ "--strength": `${Math.round(60 * strength)}%` }}
            aria-label=${`${found.classes[truth]} predicted as ${found.classes[predicted]}: ${images}`}
            onClick=${() => pick(truth, predicted)}>${images}</button>` : html`<span class="quiet">·</span>`}</td>`;
      })}</tr>`)}</tbody></table></div>
    <p class="quiet note">Rows: the label; columns: the prediction, for images that the run was not trained on.
      <${Missing} found=${found} /></p>`;
}

// Of many classes, what a matrix has besides its diagonal.
function Confusions({ found, cell, pick }) {
  const { confusions, all_confusions: all } = found;
  const which = confusions.length < all ? `The ${confusions.length} most frequent of ${all.toLocaleString("en")} confusions` : "All confusions";
  return html`<div class="scroll"><table class="matrix confusions">
    <thead><tr><th>label</th><th>predicted</th><th class="number">images</th></tr></thead>
    <tbody>${confusions.map(([truth, predicted, images]) => html`<tr key=${`${truth} ${predicted}`}>
      <td>${found.classes[truth]}</td><td>${found.classes[predicted]}</td>
      <td class="number"><button class=${cell && cell[0] === truth && cell[1] === predicted ? "chosen" : ""}
        style=${{ "--strength": `${Math.round(60 * images / confusions[0][2])}%` }}
        aria-label=${`${found.classes[truth]} predicted as ${found.classes[predicted]}: ${images}`}
        onClick=${() => pick(truth, predicted)}>${images}</button></td></tr>`)}</tbody></table></div>
    <p class="quiet note">${which} of ${found.classes.length.toLocaleString("en")} classes, for images that the run was not trained on.
      <${Missing} found=${found} /></p>`;
}

function Missing({ found }) {
  if (!found.missing) return null;
  return html` ${found.missing === 1 ? "1 image is" : `${found.missing.toLocaleString("en")} images are`} no longer in the project, or replaced.`;
}

function Detail({ image, found, accept, chosen, choose }) {
  const one = row(image.id), predicted = found.classes[image.predicted], truth = found.classes[image.truth];
  const evidence = (label) => `/evidence/${found.run}/${image.id}?${new URLSearchParams({ label })}`;
  return html`<div class="detail">
    <p class="path">${one?.path}</p>
    <div class="suggestion"><${Mark} mark=${predicted} /> <b>${percent(image.confidence, 0)}</b>
      <span class="quiet">label ${truth} ${percent(image.of_truth, 0)}</span>
      ${image.predicted !== image.truth && html`<button onClick=${() => accept(predicted, image.id)}><kbd>A</kbd> it is ${predicted}</button>`}</div>
    <div class="maps">
      <figure>${one?.digest && html`<img alt="" src=${`/full/${image.id}/${one.digest}`} />`}<figcaption>image</figcaption></figure>
      <figure><img alt="" src=${evidence(predicted)} /><figcaption>evidence for ${predicted}</figcaption></figure>
      ${predicted !== truth && html`<figure><img alt="" src=${evidence(truth)} /><figcaption>evidence for ${truth}</figcaption></figure>`}
    </div>
    <h2>Most similar training images</h2>
    <${Choice} ids=${image.nearest} chosen=${chosen} choose=${choose} />
    <p class="quiet note">Is the label of the error wrong? Give it another one. Is it right? Go on with the arrow keys: more images like it help.</p>
    <${Behind} run=${found.run} image=${image.id} label=${predicted} chosen=${chosen} choose=${choose} />
  </div>`;
}
