// Figures as text.

const MINUS = "\u2212";
const NO_FIGURE = "\u2013";

/** A figure with so many digits that count; a dash where there is none. */
function figure(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return NO_FIGURE;
  if (!Number.isFinite(value)) return value > 0 ? "\u221e" : `${MINUS}\u221e`;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e15) return whole(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3))
    return trimmedPower(value.toExponential(digits - 1));
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return trimmed(value.toFixed(Math.min(places, 6))).replace("-", MINUS);
}

function trimmedPower(text) {
  const [digits, power] = text.split("e");
  return `${trimmed(digits)}e${power.replace("+", "")}`.replaceAll("-", MINUS);
}

function trimmed(text) {
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/** A whole number with thin spaces between thousands. */
function whole(value) {
  const text = Math.abs(value)
    .toFixed(0)
    .replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return value < 0 ? MINUS + text : text;
}

/** A figure with a fixed number of places, for columns. */
function fixed(value, places = 2) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NO_FIGURE;
  return value.toFixed(places).replace("-", MINUS);
}

/** Seconds as a duration. */
function duration(seconds) {
  if (seconds === null || seconds === undefined) return NO_FIGURE;
  if (seconds < 60) return `${figure(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function plural(count, one, many = `${one}s`) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}

function clamp(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

/** Smallest and largest of the figures that there are; null: there are none. */
function extent(values) {
  let least = Infinity;
  let most = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined || !Number.isFinite(value)) continue;
    if (value < least) least = value;
    if (value > most) most = value;
  }
  return least <= most ? [least, most] : null;
}
