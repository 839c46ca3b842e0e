// Elements are made here alone. All text, ours and that of users and models, becomes text nodes.

// An element with attributes, and children that are nodes or strings.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function button(label, onClick, attributes = {}) {
  const element = make("button", { type: "button", ...attributes }, label);
  element.addEventListener("click", onClick);
  return element;
}

// Sets the text of an element; where only its end is new, that alone is added.
export function setText(element, text) {
  const node = element.firstChild;
  const known = node ? node.data : "";
  if (known === text) return;
  if (node && text.startsWith(known)) node.appendData(text.slice(known.length));
  else element.textContent = text;
}
