// As `thaw.formats.percent`: what is not exactly 0 or 1 does not read as if it were.
function percent(fraction, digits = 1) {
  const least = 10 ** -digits, isBetween = fraction > 1e-9 && fraction < 1 - 1e-9;
  if (isBetween && 100 * fraction < least / 2) return `<${least.toFixed(digits)}%`;
  if (isBetween && 100 * (1 - fraction) < least / 2) return `>${(100 - least).toFixed(digits)}%`;
  return `${(100 * fraction).toFixed(digits)}%`;
}
