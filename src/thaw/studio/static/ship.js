// The screen Ship: which classifier is in use, whether another one is better, and exports with their certificates.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get, post } from "./api.js";
import { refresh, say, sentence, useStore } from "./store.js";
import { useKeys } from "./classes.js";
import { Command } from "./command.js";

export function Ship() {
  const { state } = useStore(), { background, errors } = state;
  const [found, setFound] = useState(null), [challenger, challenge] = useState(""), [to, choose] = useState("");
  const [exported, chooseExported] = useState(""), [isWorking, working] = useState(false);
  // An export may just have ended.
  useEffect(() => { get("/api/ship").then(setFound).catch(fail); }, [background.title]);

  const others = found ? found.classifiers.filter((one) => one !== found.champion) : [];
  const other = others.includes(challenger) ? challenger : others[0];
  const call = async (path, body, done) => {
    if (isWorking) return;
    working(true);
    try {
      setFound(await post(`/api/ship/${path}`, body));
      say(done);
    } catch (error) {
      fail(error);
      get("/api/ship").then(setFound).catch(fail);
    }
    working(false);
  };
  const promote = () => other && call("promote", { name: other, champion: found.champion }, `${other} is promoted.`);
  const rollBack = () => found.previous && call("rollback", { champion: found.champion }, `${found.previous} is promoted again.`);
  const name = exported || found?.champion || found?.classifiers[0], format = to || found?.formats[0];
  const exportIt = () => name && call("export", { name, to: format }, "").then(refresh);
  useKeys({ p: () => found && void promote(), r: () => found && void rollBack(), e: () => found && void exportIt() });

  if (!found) return html`<div class="page"><p class="quiet wait">Loading …</p></div>`;
  if (!found.classifiers.length) return html`<div class="page"><p class="wait">A classifier is shipped once a run has finished. <a href="#train">Train</a></p></div>`;
  const options = (names) => names.map((one) => html`<option key=${one} value=${one}>${one}</option>`);
  return html`<div class="page"><div class="column ship">
    <section><h1>Ship</h1>
      <p class="verdict">${found.champion ? html`${found.champion} <span>is promoted</span>` : html`<span>No classifier is promoted yet.</span>`}</p>
      ${found.is_missing && html`<p class="flag">It is no longer in the project.</p>`}
      ${found.commands.map((one) => html`<${Command} key=${one} text=${one} />`)}
      ${found.previous && html`<p><button disabled=${isWorking} onClick=${rollBack}><kbd>R</kbd> Roll back to ${found.previous}</button></p>`}
    </section>
    ${other && html`<section><h2 class="big">${found.champion ? "Champion against challenger" : "Promote"}</h2>
      <div class="row"><select aria-label="Challenger" value=${other} onChange=${(event) => challenge(event.target.value)}>${options(others)}</select>
        <button class="primary" disabled=${isWorking} onClick=${promote}><kbd>P</kbd> Promote ${other}</button></div>
      ${found.champion && !found.is_missing && html`<${Comparison} key=${`${found.champion} ${other}`} first=${found.champion} second=${other} changed=${state.changed} />`}
    </section>`}
    <section><h2 class="big">Export</h2>
      <div class="row"><select aria-label="Classifier" value=${name} onChange=${(event) => chooseExported(event.target.value)}>${options(found.classifiers)}</select>
        <span>to</span><select aria-label="Format" value=${format} onChange=${(event) => choose(event.target.value)}>${options(found.formats)}</select>
        <button disabled=${isWorking} onClick=${exportIt}><kbd>E</kbd> Export</button></div>
      ${background.title.startsWith("export ") && html`<p class="row" role="status">${sentence(background.title)} … <progress></progress></p>`}
      ${errors.export && html`<p class="alarm">${sentence(errors.export)}</p>`}
      <p class="quiet note">An export is kept only if it gives the probabilities of Thaw on the images that the bundle keeps for this.
        Formats whose packages are not installed are not listed.</p>
      ${found.exports.map((one) => html`<div key=${one.path} class="of-class"><h2>${one.classifier} <small>${one.to}, ${(one.size / 1e6).toFixed(1)} MB</small></h2>
        <p class="path">${one.path}</p><p class="quiet note">Certified on ${one.certificate.images} images: probabilities differ by at most
        ${" "}${one.certificate.max_difference.toExponential(1)}; ${one.hint}.
        ${one.decision && ` Decision: ${one.decision}, so apply \`decision\` of its metadata to the probabilities.`}</p></div>`)}
    </section>
    ${found.steps.length > 0 && html`<section><h2 class="big">What was promoted</h2><div class="scroll"><table><tbody>
      ${found.steps.map((one) => html`<tr key=${one.when}><td class="when">${one.when.slice(0, 16).replace("T", " ")}</td>
        <td>${one.action === "promote" ? "promoted" : "rolled back to"} ${one.classifier}</td><td class="quiet">${one.verdict}</td></tr>`)}</tbody></table></div></section>`}
  </div></div>`;
}

const fail = (error) => say(`${sentence(error.message)}.`, true);

const points = (fraction) => `${fraction > 0 ? "+" : fraction < 0 ? "−" : ""}${Math.abs(100 * fraction).toFixed(1)}`;

// Again where labels have changed, of which the truth is.
function Comparison({ first, second, changed }) {
  const [found, setFound] = useState(null), [error, setError] = useState("");
  useEffect(() => {
    let isOver = false;
    const show = (one, problem) => { if (!isOver) { setFound(one); setError(problem); } };
    get("/api/ship/compare", { first, second }).then((one) => show(one, ""), ({ message }) => show(null, message));
    return () => { isOver = true; };
  }, [changed]);
  if (error) return html`<p class="flag">${sentence(error)}.</p>`;
  if (!found) return html`<p class="quiet">Comparing …</p>`;
  const { accuracy } = found.differences;
  return html`<p class="flag">${found.verdict}.</p>
    <table class="rates"><tbody>
      <tr><th>test images of both</th><td class="number">${found.images}</td></tr>
      <tr><th>only ${first} is right</th><td class="number">${found.only_first}</td></tr>
      <tr><th>only ${second} is right</th><td class="number">${found.only_second}</td></tr>
      <tr><th>accuracy, in points</th><td class="number">${points(accuracy.value)}<br /><small>${points(accuracy.low)} to ${points(accuracy.high)}</small></td></tr>
      ${found.p_value != null && html`<tr><th>exact McNemar test</th><td class="number">p = ${found.p_value.toPrecision(2)}</td></tr>`}
    </tbody></table><p class="quiet note">Both on the same test images, with the labels of now.</p>`;
}
