// What the keys do, in a dialog that "?" opens.

import { html, useRef } from "./vendor/preact.js";
import { useKeys } from "./classes.js";

const KEYS = [
  ["Labels", [
    [["1", "9"], "label with the class of that number"],
    [["N"], "new class: type its name, then Enter"],
    [["0"], "no label"],
    [["X"], "exclude from training"],
    [["U"], "undo"],
  ]],
  ["Images", [
    [["←", "→", "↑", "↓"], "move; with Shift, select a range"],
    [["Space"], "add to the selection"],
    [["A"], "accept the suggested label"],
    [["↵", "Esc"], "full view, and back"],
    [["/"], "find in file names"],
  ]],
  ["Label next", [
    [["↵"], "accept the suggested label"],
    [["S"], "skip"],
    [["Shift", "1"], "label the similar images, too"],
  ]],
  ["Mistakes", [
    [["←", "→"], "the error before, the next error"],
    [["A"], "the prediction is right: accept it as the label"],
    [["M"], "ambiguous: nobody can say which class it is; not trained on"],
    [["Esc"], "back to the error; all errors"],
  ]],
  ["Decide", [
    [["1", "9"], "to the target of the class of that number"],
    [["Esc"], "out of a field"],
    [["W"], "write the bundle"],
  ]],
  ["Ship", [
    [["P"], "promote the challenger"],
    [["R"], "roll back"],
    [["E"], "export"],
  ]],
];

export function Help() {
  const dialog = useRef(null);
  const open = () => {
    dialog.current.showModal();
    // Not its button, which is at the end of what is to be read.
    dialog.current.focus();
    dialog.current.scrollTop = 0;
  };
  useKeys({ "?": open });
  return html`<button class="help" aria-label="Keys" title="Keys" onClick=${open}>?</button>
    <dialog ref=${dialog} class="keys-help" tabindex="-1" onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      ${KEYS.map(([title, keys]) => html`<h2 key=${title}>${title}</h2><table><tbody>
        ${keys.map(([names, what]) => html`<tr key=${what}><td>${names.map((name) => html`<kbd key=${name}>${name}</kbd>`)}</td><td>${what}</td></tr>`)}
      </tbody></table>`)}
      <button onClick=${() => dialog.current.close()}>Close</button>
    </dialog>`;
}
