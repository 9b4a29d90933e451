// Curves as SVG, in the colours of the page.

import { html } from "./vendor/preact.js";

const WIDTH = 360, HEIGHT = 150, LEFT = 50, BOTTOM = 26, TOP = 10, RIGHT = 12;

// points: [[x, y]] in order of x; format: of y; breaks: values of x between which something changes.
export function Curve({ points, format, xTitle, label, low = null, breaks = [] }) {
  if (points.length < 2) return null;
  const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const bottom = low ?? Math.min(...ys), top = Math.max(...ys, bottom + 1e-9);
  const x = (value) => LEFT + ((value - left) / Math.max(right - left, 1e-9)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const path = points.map(([one, other], index) => `${index ? "L" : "M"}${x(one).toFixed(1)} ${y(other).toFixed(1)}`).join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${label} class="chart">
    ${[bottom, top].map((value) => html`<line key=${value} class="grid-line" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(value)} y2=${y(value)} />
      <text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${format(value)}</text>`)}
    ${breaks.map((value) => html`<line key=${`b${value}`} class="grid-line" x1=${x(value)} x2=${x(value)} y1=${TOP} y2=${HEIGHT - BOTTOM} />`)}
    <path class="curve" d=${path} />
    <circle class="dot" cx=${x(xs.at(-1))} cy=${y(ys.at(-1))} r="4" />
    <text x=${LEFT} y=${HEIGHT - 6}>${left.toLocaleString("en")}</text>
    <text x=${WIDTH - RIGHT} y=${HEIGHT - 6} text-anchor="end">${right.toLocaleString("en")} ${xTitle}</text>
  </svg>`;
}

export const percent = (fraction, digits = 1) => `${(100 * fraction).toFixed(digits)}%`;
