// Curves as SVG, in the colours of the page.

import { html } from "./vendor/preact.js";

const WIDTH = 360, HEIGHT = 150, LEFT = 54, BOTTOM = 26, TOP = 10, RIGHT = 12;
const NICE = [1, 2, 2.5, 5, 10];

// Round bounds around values, apart by at least `least`: small changes are not drawn as large ones, and equal values
// have an axis, too.
export function bounds(values, low, least) {
  const smallest = low ?? Math.min(...values), greatest = Math.max(...values, smallest);
  const span = Math.max(greatest - smallest, least), power = 10 ** Math.floor(Math.log10(span / 2));
  const step = power * NICE.find((one) => one * power >= (span / 2) * (1 - 1e-9));
  // Rounding must not make the bounds longer, such as 0.30000000000000004.
  const exact = (value) => Number(value.toPrecision(12));
  const bottom = low ?? exact(Math.floor(exact(smallest / step)) * step);
  const top = exact(Math.ceil(exact(greatest / step)) * step);
  return top > bottom ? [bottom, top] : [low ?? exact(bottom - step), exact(bottom + step)];
}

// points: [[x, y]] in order of x; format: of y; low: where the axis begins, if not near the least value; least: what it
// spans at least; breaks: values of x between which something changes.
export function Curve({ points, format, xTitle, label, low = null, least = 0.02, breaks = [] }) {
  if (points.length < 2) return null;
  const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [bottom, highest] = bounds(ys, low, least);
  // Nothing is above 100%.
  const top = Math.max(...ys) <= 1 ? Math.min(highest, 1) : highest;
  const x = (value) => LEFT + ((value - left) / Math.max(right - left, 1e-9)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - (value - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
  const path = points.map(([one, other], index) => `${index ? "L" : "M"}${x(one).toFixed(1)} ${y(other).toFixed(1)}`).join("");
  return html`<svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${label} class="chart">
    ${[bottom, (bottom + top) / 2, top].map((value, index) => html`<line key=${value} class="grid-line" x1=${LEFT} x2=${WIDTH - RIGHT} y1=${y(value)} y2=${y(value)} />
      ${index !== 1 && html`<text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${format(value)}</text>`}`)}
    ${breaks.map((value) => html`<line key=${`b${value}`} class="grid-line" x1=${x(value)} x2=${x(value)} y1=${TOP} y2=${HEIGHT - BOTTOM} />`)}
    <path class="curve" d=${path} />
    <circle class="dot" cx=${x(xs.at(-1))} cy=${y(ys.at(-1))} r="4" />
    <text x=${LEFT} y=${HEIGHT - 6}>${left.toLocaleString("en")}</text>
    <text x=${WIDTH - RIGHT} y=${HEIGHT - 6} text-anchor="end">${right.toLocaleString("en")} ${xTitle}</text>
  </svg>`;
}

// As `thaw.formats.percent`: what is not exactly 0 or 1 does not read as if it were.
export function percent(fraction, digits = 1) {
  const rounding = 1e-9, least = 10 ** -digits, limit = least / 2 + rounding;
  const isBetween = fraction > rounding && fraction < 1 - rounding;
  if (isBetween && 100 * fraction <= limit) return `<${least.toFixed(digits)}%`;
  if (isBetween && 100 * (1 - fraction) <= limit) return `>${(100 - least).toFixed(digits)}%`;
  return `${(100 * fraction).toFixed(digits)}%`;
}
