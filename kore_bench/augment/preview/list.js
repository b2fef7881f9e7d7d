// The list of items: only the rows in sight are in the document.

const ROW = 56; // pixels, as in page.css

class ItemList {
  constructor(contents, pick) {
    this.contents = contents;
    this.scroller = document.getElementById("items");
    this.box = document.getElementById("list");
    this.rows = document.getElementById("rows");
    this.indices = [];
    this.place = -1;
    this.drawn = new Map(); // place in the list -> its row
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.scroller);
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) pick(Number(row.dataset.place));
    });
    this.box.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || !this.indices.length) return;
      event.preventDefault();
      pick(Math.min(Math.max(this.place + steps[event.key], 0), this.indices.length - 1));
    });
  }

  /** Hold the items ``indices``, the chosen one of them marked. */
  show(indices, place) {
    this.indices = indices;
    this.drawn.clear();
    this.rows.replaceChildren();
    this.box.style.height = `${indices.length * ROW}px`;
    this.scroller.scrollTop = 0;
    this.select(place);
  }

  select(place) {
    this.place = place;
    const { scrollTop, clientHeight } = this.scroller;
    if (place >= 0) this.scroller.scrollTop = Math.max(Math.min(scrollTop, place * ROW), (place + 1) * ROW - clientHeight);
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - 4);
    const last = Math.min(this.indices.length, first + Math.ceil(this.scroller.clientHeight / ROW) + 8);
    for (const [place, row] of this.drawn) {
      if (place >= first && place < last) continue;
      row.remove();
      this.drawn.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      if (this.drawn.has(place)) continue;
      this.drawn.set(place, this.row(place));
      this.rows.append(this.drawn.get(place));
    }
    for (const [place, row] of this.drawn) row.setAttribute("aria-selected", String(place === this.place));
    const there = this.drawn.has(this.place);
    if (there) this.box.setAttribute("aria-activedescendant", `row-${this.place}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const { id, text, image, samples, refused, overlaps, removed } = this.contents;
    const index = this.indices[place];
    const marks = [[refused, "refused", "refused"], [overlaps, "overlap", overlaps[index] === 1 ? "overlap" : "overlaps"], [removed, "removed", "removed"]]
      .filter(([counts]) => counts[index])
      .map(([counts, kind, words]) => element("span", { className: `mark ${kind}` }, `${counts[index]} ${words}`));
    const row = element("div", { className: "row", id: `row-${place}` },
      imageOf(image[index], "", "thumb"),
      element("span", { className: "words" },
        element("bdi", { className: "name" }, id[index]), element("bdi", { className: "text" }, text[index])),
      element("span", { className: "marks" }, ...marks));
    row.dataset.place = place;
    row.style.transform = `translateY(${place * ROW}px)`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", this.indices.length);
    row.setAttribute("aria-label", `${id[index]}: ${samples[index]} samples, ${refused[index]} texts refused, ${overlaps[index]} overlaps, ${removed[index]} removed`);
    return row;
  }
}
