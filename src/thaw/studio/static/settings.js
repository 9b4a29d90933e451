// Any setting of a run but those of single phases, from the same table as the command line and the documentation.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get } from "./api.js";

export function Settings({ settings, set }) {
  const [known, setKnown] = useState([]);
  useEffect(() => { get("/api/settings").then(setKnown).catch(() => {}); }, []);
  const by = new Map(known.map((one) => [one.key, one]));
  const add = (key) => key && set({ ...settings, [key]: "" });
  const remove = (key) => { const { [key]: _, ...rest } = settings; set(rest); };
  return html`<details class="settings"><summary>Settings</summary>
    <p class="quiet">What is not set here is planned from measurements, with a reason for each choice.</p>
    ${Object.entries(settings).map(([key, value]) => html`<div key=${key} class="setting">
      <label><code>${key}</code>
        <input value=${value} placeholder=${by.get(key)?.default} onInput=${(event) => set({ ...settings, [key]: event.target.value })} /></label>
      <button aria-label=${`Remove ${key}`} onClick=${() => remove(key)}>×</button>
      <p class="quiet">${by.get(key)?.description} ${by.get(key)?.allowed && `Allowed: ${by.get(key).allowed}.`}</p></div>`)}
    <select aria-label="Add a setting" value="" onChange=${(event) => add(event.target.value)}>
      <option value="">Add a setting …</option>
      ${known.filter((one) => !(one.key in settings)).map((one) => html`<option key=${one.key} value=${one.key}>${one.key}</option>`)}
    </select>
  </details>`;
}
