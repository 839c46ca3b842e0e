// Elements. All text of models and data sets gets into the page through here: as text nodes.

const SVG_SPACE = "http://www.w3.org/2000/svg";
// Control and format characters, by which a text could hide or reorder what stands there.
const UNSEEN = new RegExp(
  [
    "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e]",
    "[\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|[\\u{e0000}-\\u{e007f}]",
  ].join("|"),
  "gu",
);

/** A text whose invisible characters stand there as their names. */
function visible(text) {
  return String(text).replace(UNSEEN, (found) => {
    const code = found.codePointAt(0);
    if (code < 32) return String.fromCodePoint(0x2400 + code);
    return `[U+${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
}

/** A child of an element: nodes as they are, all else as text. */
function childOf(value) {
  return value instanceof Node ? value : visible(value);
}

function filled(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : visible(value));
  }
  for (const child of children.flat(2)) {
    if (child === undefined || child === null || child === false) continue;
    node.append(childOf(child));
  }
  return node;
}

/** An element, as el("td.number", {title: "..."}, "text", child); `onclick` and so on listen. */
function el(kind, properties = {}, ...children) {
  const [name, ...classes] = kind.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  return filled(node, properties, children);
}

function svg(name, properties = {}, ...children) {
  return filled(document.createElementNS(SVG_SPACE, name), properties, children);
}

/** A link within the page. */
function link(place, ...children) {
  return el("a", { href: hrefOf(place) }, ...children);
}

function button(label, onclick, properties = {}) {
  return el("button", { type: "button", onclick, ...properties }, label);
}

/** What a screen reader is to say. */
function say(text) {
  document.getElementById("said").textContent = visible(text);
}

/** What is shown when the reader opens it; made when it is opened first. */
function folded(summary, make, open = false) {
  const node = el("details", { open }, el("summary", {}, summary));
  const fill = () => node.open && node.children.length === 1 && node.append(make());
  node.addEventListener("toggle", fill);
  if (open) fill();
  return node;
}

/** Terms with what belongs to them; those without are left out. */
function facts(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined);
  return el(
    "dl.facts",
    {},
    known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}
