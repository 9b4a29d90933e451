// The frame of Studio: its screens, what is being computed, and the last message.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { refresh, say, useStore } from "./store.js";
import { Decide } from "./decide.js";
import { Help } from "./help.js";
import { Images } from "./images.js";
import { Label } from "./label.js";
import { Mistakes } from "./mistakes.js";
import { Ship } from "./ship.js";
import { Train } from "./train.js";
import { Try } from "./try.js";

const SCREENS = [
  { path: "images", title: "Images", screen: Images },
  { path: "label", title: "Label next", screen: Label },
  { path: "train", title: "Train", screen: Train },
  { path: "mistakes", title: "Mistakes", screen: Mistakes },
  { path: "decide", title: "Decide", screen: Decide },
  { path: "try", title: "Try", screen: Try },
  { path: "ship", title: "Ship", screen: Ship },
];

function useScreen() {
  const [path, go] = useState(location.hash.slice(1).split("?")[0] || SCREENS[0].path);
  useEffect(() => {
    const changed = () => go(location.hash.slice(1).split("?")[0] || SCREENS[0].path);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return SCREENS.find((one) => one.path === path) || SCREENS[0];
}

function Frame() {
  const { state, message } = useStore();
  const { path, screen } = useScreen();
  useEffect(() => { refresh(); }, []);
  // On a phone the screens are wider than the page.
  useEffect(() => document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [path, Boolean(state)]);
  if (!state) return html`<p class="quiet loading" role="status">${message ? message.text : "Opening …"}</p>`;
  return html`
    <header>
      <strong class="name" title=${state.folder}>${state.name}</strong>
      <nav aria-label="Screens">${SCREENS.map((one) => html`<a key=${one.path} href=${`#${one.path}`}
        aria-current=${one.path === path ? "page" : null}>${one.title}</a>`)}</nav>
      <${Working} background=${state.background} error=${Object.values(state.errors).at(-1)} />
      <${Help} />
    </header>
    <${screen} key=${path} />
    <${Message} message=${message} />`;
}

// error: of the job that failed last.
function Working({ background, error }) {
  const { title, done, total } = background;
  if (!title) return error ? html`<span class="working alarm" title=${error}>${error}</span>` : null;
  const percent = total ? Math.round((100 * done) / total) : 0;
  return html`<span class="working quiet" role="status">${title}${total ? ` ${percent}%` : " …"}
    <progress max=${total || null} value=${total ? done : null}></progress></span>`;
}

function Message({ message }) {
  useEffect(() => {
    if (!message || message.isAlarm) return;
    const timer = setTimeout(() => say(""), 4000);
    return () => clearTimeout(timer);
  }, [message]);
  return html`<div class=${message?.isAlarm ? "message alarm" : "message"} role="status" hidden=${!message}>
    <span>${message?.text}</span>
    ${message && html`<button aria-label="Close" onClick=${() => say("")}>×</button>`}
  </div>`;
}

// A file that misses its place must not replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

const place = document.getElementById("app");
place.replaceChildren();
render(html`<${Frame} />`, place);
