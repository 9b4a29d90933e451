// As `thaw.formats.percent`: what is not exactly 0 or 1 does not read as if it were.
function percent(fraction, digits = 1) {
  const rounding = 1e-9, least = 10 ** -digits, limit = least / 2 + rounding;
  const isBetween = fraction > rounding && fraction < 1 - rounding;
  if (isBetween && 100 * fraction <= limit) return `<${least.toFixed(digits)}%`;
  if (isBetween && 100 * (1 - fraction) <= limit) return `>${(100 - least).toFixed(digits)}%`;
  return `${(100 * fraction).toFixed(digits)}%`;
}
