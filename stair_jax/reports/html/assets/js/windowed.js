// A list of many rows of one height, of which only those in sight are elements.

const BEYOND = 6; // rows made on each side of those in sight
const MOST_PRINTED = 1000;

class Windowed {
  /** `make(row)`: the element of a row; `height`: of it in pixels; `label`: for screen readers. */
  constructor({ height, make, label, role = "listbox", onselect = () => {}, onopen = () => {} }) {
    Object.assign(this, { height, make, onselect, onopen });
    this.count = 0;
    this.drawn = [0, 0];
    this.selected = -1;
    this.rows = el("div.rows", { role: "presentation" });
    this.space = el("div.space", { role: "presentation" }, this.rows);
    this.node = el("div.windowed", { tabindex: 0, role, "aria-label": label }, this.space);
    this.node.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.key(event));
    this.node.addEventListener("click", (event) => this.click(event));
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.node);
    this.print = () => this.drawRange(0, Math.min(this.count, MOST_PRINTED));
    this.printed = () => this.draw();
    addEventListener("beforeprint", this.print);
    addEventListener("afterprint", this.printed);
  }

  close() {
    this.sizes.disconnect();
    removeEventListener("beforeprint", this.print);
    removeEventListener("afterprint", this.printed);
  }

  show(count, selected = this.selected) {
    this.count = count;
    this.selected = selected < count ? selected : -1;
    this.space.style.height = `${count * this.height}px`;
    this.draw();
  }

  /** [first, last) of the rows that are elements. */
  range() {
    const first = Math.floor(this.node.scrollTop / this.height) - BEYOND;
    const last = Math.ceil((this.node.scrollTop + this.node.clientHeight) / this.height) + BEYOND;
    return [Math.max(0, first), Math.min(this.count, last)];
  }

  draw() {
    this.drawRange(...this.range());
  }

  drawRange(first, last) {
    this.drawn = [first, last];
    this.rows.style.transform = `translateY(${first * this.height}px)`;
    const made = [];
    for (let row = first; row < last; row++) made.push(this.drawRow(row));
    this.rows.replaceChildren(...made);
    const active = made.find((node) => node.id && node.classList.contains("selected"));
    if (active) this.node.setAttribute("aria-activedescendant", active.id);
    else this.node.removeAttribute("aria-activedescendant");
  }

  /** Makes the rows that have come into sight alone. */
  scrolled() {
    const [first, last] = this.range();
    const [from, to] = this.drawn;
    if (first === from && last === to) return;
    if (last <= from || first >= to) return this.drawRange(first, last);
    const made = (start, end) =>
      Array.from({ length: Math.max(0, end - start) }, (_, at) => this.drawRow(start + at));
    for (let row = from; row < first; row++) this.rows.firstChild.remove();
    for (let row = last; row < to; row++) this.rows.lastChild.remove();
    this.rows.prepend(...made(first, from));
    this.rows.append(...made(to, last));
    this.rows.style.transform = `translateY(${first * this.height}px)`;
    this.drawn = [first, last];
  }

  drawRow(row) {
    const node = this.make(row);
    node.classList.add("row");
    node.dataset.row = row;
    node.style.height = `${this.height}px`;
    node.setAttribute("aria-selected", row === this.selected);
    if (row === this.selected) {
      node.classList.add("selected");
      node.id = "selected-row";
    }
    return node;
  }

  click(event) {
    const node = event.target.closest(".row");
    if (!node || event.target.closest("a, button")) return;
    this.select(Number(node.dataset.row));
    this.onopen(this.selected);
  }

  select(row, isTold = true) {
    if (!this.count) return;
    this.selected = clamp(row, 0, this.count - 1);
    this.reveal(this.selected);
    this.draw();
    if (isTold) this.onselect(this.selected);
  }

  reveal(row) {
    const [top, bottom] = [row * this.height, (row + 1) * this.height];
    const { scrollTop, clientHeight } = this.node;
    if (top < scrollTop) this.node.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.node.scrollTop = bottom - clientHeight;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.node) return;
    const page = Math.max(1, Math.floor(this.node.clientHeight / this.height) - 1);
    const rows = {
      ArrowDown: this.selected + 1,
      ArrowUp: Math.max(0, this.selected - 1),
      PageDown: this.selected + page,
      PageUp: Math.max(0, this.selected - page),
      Home: 0,
      End: this.count - 1,
    };
    if (event.key === "Enter" && this.selected >= 0) this.onopen(this.selected);
    else if (event.key in rows) this.select(rows[event.key]);
    else return;
    event.preventDefault();
  }
}
