// A command to copy.

import { html } from "./vendor/preact.js";
import { say } from "./store.js";

export function Command({ text }) {
  const copy = () => navigator.clipboard.writeText(text).then(() => say("Copied."), () => say("Select the command, and copy it.", true));
  return html`<div class="command"><code>${text}</code><button onClick=${copy}>Copy</button></div>`;
}
