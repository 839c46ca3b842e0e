// Colours of the page as the canvas needs them, and the scale of values.

const SHADES = 13;

/** What the style sheet says, which depends on dark mode. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = ["text", "dim", "line", "ground", "accent", "low", "middle", "high", "none"];
  const found = Object.fromEntries(names.map((name) => [name, of(name)]));
  return { ...found, shades: shadesOf(found), font: style.fontFamily };
}

function shadesOf({ low, middle, high }) {
  return Array.from({ length: SHADES }, (_, index) => {
    const share = (index / (SHADES - 1)) * 2 - 1;
    return mixed(middle, share < 0 ? low : high, Math.abs(share));
  });
}

function mixed(from, to, share) {
  const [a, b] = [from, to].map(partsOf);
  return `rgb(${a.map((part, index) => Math.round(part + (b[index] - part) * share)).join(" ")})`;
}

/** Red, green and blue of #rrggbb. */
function partsOf(colour) {
  return [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
}

/** Which shade a value has, of a range; -1: there is no value. */
function shadeOf(value, [least, most]) {
  if (value === null || value === undefined || !Number.isFinite(value)) return -1;
  if (most <= least) return (SHADES - 1) / 2;
  return clamp(Math.round(((value - least) / (most - least)) * (SHADES - 1)), 0, SHADES - 1);
}

/** A small box with the colour of a value. */
function chip(value, range) {
  const shade = shadeOf(value, range);
  return el(`span.chip.${shade < 0 ? "none" : `shade${shade}`}`, { "aria-hidden": "true" });
}

const darkMode = matchMedia("(prefers-color-scheme: dark)");
