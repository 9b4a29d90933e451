// A grid of any number of images, of which only those on the screen exist: the rest is empty height.

import { html, useCallback, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { listen, row, want } from "./rows.js";
import { Mark } from "./classes.js";

const CELL = 148, SMALL_CELL = 108, CAPTION = 42, GAP = 10, AHEAD = 2;

// ids: the images in order. cursor: index of the one with the focus. selected: a Set of indices.
export function Grid({ ids, cursor, selected, choose, open, columnsChanged }) {
  const box = useRef(null);
  const [view, setView] = useState({ width: 0, height: 0, top: 0 });
  const [, redraw] = useState(0);

  const measure = useCallback(() => {
    const { clientHeight: height, scrollTop: top } = box.current, width = box.current.firstElementChild.clientWidth;
    setView((old) => (old.width === width && old.height === height && old.top === top ? old : { width, height, top }));
  }, []);
  useLayoutEffect(() => {
    measure();
    const sizes = new ResizeObserver(measure);
    sizes.observe(box.current);
    return () => sizes.disconnect();
  }, []);
  useEffect(() => listen(() => redraw((count) => count + 1)), []);

  const least = view.width < 600 ? SMALL_CELL : CELL;
  const columns = Math.max(1, Math.floor((view.width + GAP) / (least + GAP)));
  const side = Math.floor((view.width - GAP * (columns - 1)) / columns);
  const pitch = side + CAPTION + GAP;
  const lines = Math.ceil(ids.length / columns);
  const first = Math.max(0, Math.floor(view.top / pitch) - AHEAD);
  const last = Math.min(lines, Math.ceil((view.top + view.height) / pitch) + AHEAD);
  const shown = [];
  for (let index = first * columns; index < Math.min(ids.length, last * columns); index++) shown.push(index);

  useEffect(() => columnsChanged(columns), [columns]);
  useEffect(() => want(shown.map((index) => ids[index])));
  useLayoutEffect(() => {
    // Keep the cursor on the screen.
    if (cursor < 0 || !view.width) return;
    const top = Math.floor(cursor / columns) * pitch, bottom = top + pitch - GAP;
    if (top < box.current.scrollTop) box.current.scrollTop = top;
    else if (bottom > box.current.scrollTop + view.height) box.current.scrollTop = bottom - view.height;
  }, [cursor, columns]);

  return html`<div class="grid" ref=${box} onScroll=${measure} role="listbox" aria-multiselectable="true"
      aria-label="Images" tabindex="0" aria-activedescendant=${cursor >= 0 ? `cell-${cursor}` : null}>
    <div class="all" style=${{ height: `${lines * pitch}px` }}>
      ${shown.map((index) => html`<${Cell} key=${index} index=${index} id=${ids[index]} side=${side}
        x=${(index % columns) * (side + GAP)} y=${Math.floor(index / columns) * pitch}
        isCursor=${index === cursor} isSelected=${selected.has(index)} before=${ids[index - 1]} choose=${choose} open=${open} />`)}
    </div>
  </div>`;
}

function Cell({ index, id, side, x, y, isCursor, isSelected, before, choose, open }) {
  const found = row(id);
  const begins = found?.group != null && row(before)?.group !== found.group;
  const classes = ["cell", isCursor && "cursor", isSelected && "selected", begins && "begins", found?.mark?.excluded && "out"];
  return html`<div id=${`cell-${index}`} class=${classes.filter(Boolean).join(" ")} role="option" aria-selected=${isSelected}
      style=${{ width: `${side}px`, transform: `translate(${x}px, ${y}px)` }} title=${found?.path}
      onClick=${(event) => choose(index, event)} onDblClick=${() => open(index)}>
    <${Thumbnail} found=${found} side=${side} />
    <div class="caption">${found && html`<${Mark} mark=${found.mark} />
      <span class="quiet">${found.note || (found.suggested ? `${found.suggested}?` : name(found.path))}</span>`}</div>
  </div>`;
}

export function Thumbnail({ found, side }) {
  if (!found) return html`<div class="thumbnail" style=${{ height: `${side}px` }}></div>`;
  if (!found.digest) return html`<div class="thumbnail unreadable" style=${{ height: `${side}px` }}>cannot be read</div>`;
  return html`<img class="thumbnail" alt="" draggable=${false} style=${{ height: `${side}px` }} onError=${unreadable}
    src=${`/thumbnails/${found.id}/${found.digest}`} />`;
}

// A file that is no image, or a damaged one, shows when it is decoded.
const unreadable = (event) => { event.target.alt = "cannot be read"; };

export const name = (path) => path.slice(path.lastIndexOf("/") + 1);
