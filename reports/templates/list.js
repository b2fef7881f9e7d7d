// The list of questions: only the rows in sight are in the document.

const ROW = 48; // pixels, as in page.css
const MARKS = [["wrong", "×"], ["partly", "½"], ["right", "✓"], ["none", "–"]];
const MARK_WORDS = ["wrong", "partly right", "right", "no answer"];

/** Return an element; children that are no elements become text, never markup. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function markOf(mark) {
  return element("span", { className: `mark ${MARKS[mark][0]}` }, MARKS[mark][1]);
}

/** Return a question's first line, which its instruction follows. */
function headline(text) {
  return text.trim().split("\n", 1)[0];
}

class QuestionList {
  constructor(pick) {
    this.scroller = document.getElementById("questions");
    this.head = document.getElementById("questions-head");
    this.box = document.getElementById("questions-list");
    this.rows = element("div", { className: "rows" });
    this.rows.setAttribute("role", "presentation");
    this.box.append(this.rows);
    this.indices = [];
    this.drawn = new Map(); // place in the list -> its row
    this.place = -1;
    this.top = this.room = 0;
    this.measure();
    const resized = new ResizeObserver(() => {
      this.measure();
      this.later();
    });
    for (const part of [this.scroller, this.head]) resized.observe(part);
    this.scroller.addEventListener("scroll", () => {
      this.top = this.scroller.scrollTop;
      this.later();
    }, { passive: true });
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) pick(Number(row.dataset.place), true);
    });
    this.box.addEventListener("keydown", (event) => {
      const page = Math.max(1, Math.floor(this.room / ROW) - 1);
      const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || !this.indices.length) return;
      event.preventDefault();
      pick(Math.min(Math.max(this.place + steps[event.key], 0), this.indices.length - 1), false);
    });
  }

  /** Read sizes when they change, not while drawing: each reading makes the browser lay out the page. */
  measure() {
    if (!this.scroller.clientHeight) return; // not shown, as in print
    this.top = this.scroller.scrollTop;
    this.room = this.scroller.clientHeight - this.head.offsetHeight;
  }

  scroll(top) {
    if (top === this.top) return;
    this.scroller.scrollTop = top;
    this.top = top;
  }

  /** Hold the questions ``indices`` of a view, from the top; `select` draws them. */
  show(view, indices) {
    this.view = view;
    this.indices = indices;
    this.drawn.clear();
    this.rows.replaceChildren();
    this.box.style.height = `${indices.length * ROW}px`;
    this.header();
    this.scroll(0);
  }

  /** Mark the row at ``place`` as the one that is read, and bring it into sight. */
  select(place) {
    this.place = place;
    if (place >= 0) {
      const top = place * ROW;
      this.scroll(Math.max(Math.min(this.top, top), top + ROW - this.room));
    }
    this.draw();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.view) this.draw();
    });
  }

  draw() {
    const first = Math.max(0, Math.floor(this.top / ROW) - 4);
    const last = Math.min(this.indices.length, first + Math.ceil(this.room / ROW) + 9);
    for (const [place, row] of this.drawn) {
      if (place >= first && place < last) continue;
      row.remove();
      this.drawn.delete(place);
    }
    // rows that stay are left alone, so that a click that begins on one also ends on it
    const lowest = Math.min(...this.drawn.keys()), before = [], after = [];
    for (let place = first; place < last; place += 1) {
      if (this.drawn.has(place)) continue;
      const row = this.row(place);
      this.drawn.set(place, row);
      (place < lowest && lowest < Infinity ? before : after).push(row);
    }
    this.rows.prepend(...before);
    this.rows.append(...after);
    for (const [place, row] of this.drawn) row.setAttribute("aria-selected", String(place === this.place));
    this.rows.style.transform = `translateY(${first * ROW}px)`;
    const there = this.place >= first && this.place < last;
    if (there) this.box.setAttribute("aria-activedescendant", `row-${this.place}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  row(place) {
    const index = this.indices[place];
    const question = this.view.questions[index];
    const marks = this.view.answers.cells.map((cell) => (cell ? cell.mark[index] : MISSING));
    const source = question.images.length ? picture(question.images[0][0]) : null;
    const thumb = source ? element("img", { src: source, alt: "", className: "thumb" }) : element("span", { className: "thumb" });
    const words = element("span", { className: "words" },
      element("bdi", { className: "asked" }, headline(question.text)),
      element("bdi", { className: "gold" }, question.gold));
    const row = element("div", { className: "row", id: `row-${place}` },
      thumb, words, element("span", { className: "marks" }, ...marks.map(markOf)));
    row.dataset.place = place;
    const right = marks.filter((mark) => mark === 2).length;
    row.setAttribute("role", "option");
    row.setAttribute("aria-posinset", place + 1);
    row.setAttribute("aria-setsize", this.indices.length);
    row.setAttribute("aria-label", `${headline(question.text)} Gold answer: ${question.gold}. Right: ${right} of ${marks.length}.`);
    return row;
  }

  /** Name the columns of marks, with each method's share on the questions shown. */
  header() {
    const columns = this.view.methods.map((method, number) => {
      const value = share(this.view.answers.cells[number], this.indices);
      const figure = value === null ? "–" : Math.round(value);
      const column = element("span", { className: "column" }, element("bdi", {}, method.name), element("b", {}, figure));
      column.title = value === null ? `${method.name}: no answers` : `${method.name}: ${value.toFixed(1)} % on the questions shown`;
      return column;
    });
    const words = element("span", { className: "words" }, "mean score in % on the questions shown");
    this.head.replaceChildren(words, element("span", { className: "marks" }, ...columns));
  }
}
