// One question in full: its pictures, its gold answer, and what every method said.

class QuestionPanel {
  constructor(step) {
    this.panel = document.getElementById("question");
    this.step = step;
  }

  /** Show the question at ``index`` of a view, ``place`` of ``total`` in the list (-1: not in it); null shows none. */
  show(view, index, place, total, state) {
    this.shown = `${view?.model}/${view?.seed}/${index}`;
    document.getElementById("every-question").toggleAttribute("data-open", index !== null);
    if (index === null) {
      this.panel.replaceChildren(element("p", { className: "hint" }, "Choose a question to read every answer to it."));
      return;
    }
    const question = view.questions[index];
    this.panel.replaceChildren(
      this.bar(question, place, total, state),
      this.pictures(question),
      marked("p", "asked", question.text, state.find),
      element("p", { className: "gold" }, element("span", { className: "label" }, "Gold answer"), marked("bdi", "", question.gold, state.find)),
      this.answers(view, index, state));
    this.panel.scrollTop = 0;
    if (view.seeds.length > 1) this.otherSeeds(view, index);
  }

  bar(question, place, total, state) {
    const about = [question.task, question.type, question.kind].filter(Boolean);
    const where = place < 0 ? "not among the questions shown" : `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`;
    const link = element("a", { href: addressOf(state), title: "The address of this question with these filters" }, "Link");
    const buttons = [["‹", "Previous question", -1], ["›", "Next question", 1]].map(([sign, label, step]) => {
      const button = element("button", { type: "button", title: label, disabled: place < 0 || place + step < 0 || place + step >= total }, sign);
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => this.step(step));
      return button;
    });
    const tags = about.map((text) => element("bdi", { className: "tag" }, text));
    return element("div", { className: "bar" }, element("span", { className: "tags" }, ...tags, element("bdi", { className: "id" }, `#${question.id}`)),
      element("span", { className: "where" }, where), link, element("span", { className: "steps" }, ...buttons));
  }

  pictures(question) {
    const shown = question.images.map(([index, path], number) => {
      const source = picture(index);
      if (!source) {
        const why = index === -2 ? "image left out to keep the page small" : "image not found";
        return element("span", { className: "absent" }, why, element("bdi", {}, path));
      }
      const image = element("img", { src: source, alt: `Image ${number + 1} of ${question.images.length} of the question` });
      image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 64 && image.naturalHeight <= 64));
      return image;
    });
    return element("div", { className: "pictures" }, ...shown);
  }

  answers(view, index, state) {
    const head = element("tr", {}, ...["", "Method", "Answer", "Score"].map((name) => element("th", { scope: "col", className: name.toLowerCase() }, name)));
    if (view.seeds.length > 1) head.append(element("th", { scope: "col", className: "seeds" }, "Seeds"));
    const rows = view.methods.map((method, number) => {
      const cell = view.answers.cells[number];
      const mark = cell ? cell.mark[index] : MISSING;
      const sign = markOf(mark);
      sign.setAttribute("role", "img");
      sign.setAttribute("aria-label", MARK_WORDS[mark]);
      const name = element("th", { scope: "row" }, element("bdi", {}, method.name));
      const row = element("tr", { className: MARKS[mark][0] }, element("td", {}, sign), name, this.said(view, cell, index, method, state),
        element("td", { className: "score" }, mark === MISSING ? "" : `${Math.round(100 * cell.right[index])}`));
      row.classList.toggle("compared", [state.one, state.two].includes(method.name));
      if (view.seeds.length > 1) row.append(element("td", { className: "seeds" }));
      return row;
    });
    return element("table", { className: "answers" }, element("thead", {}, head), element("tbody", {}, ...rows));
  }

  said(view, cell, index, method, state) {
    if (!cell) return element("td", { className: "absent" }, element("bdi", {}, method.missing[view.seed] ?? "no record of this seed"));
    if (cell.said[index] < 0) return element("td", { className: "absent" }, "not asked");
    const text = view.answers.texts[cell.said[index]];
    return text.trim() ? marked("td", "", text, state.find) : element("td", { className: "absent" }, "(empty)");
  }

  /** Show how every seed answered, once their answers are unpacked. */
  async otherSeeds(view, index) {
    const asked = this.shown;
    const all = await Promise.all(view.seeds.map((seed) => answersOf(view.model, seed)));
    if (asked !== this.shown) return;
    this.panel.querySelectorAll("tbody .seeds").forEach((place, number) => {
      const marks = all.map(({ cells }) => (cells[number] ? cells[number].mark[index] : MISSING));
      const signs = marks.map((mark, at) => Object.assign(markOf(mark), { title: `seed ${view.seeds[at]}: ${MARK_WORDS[mark]}` }));
      place.replaceChildren(...signs);
    });
  }
}

/** Return an element with ``text`` in which the words searched for are marked. */
function marked(tag, className, text, words) {
  const made = element(tag, { className, dir: "auto" });
  const lower = text.toLowerCase(), needle = words.toLowerCase();
  let start = 0;
  for (let at = needle ? lower.indexOf(needle) : -1; at >= 0 && lower.length === text.length; at = lower.indexOf(needle, start)) {
    made.append(text.slice(start, at), element("mark", {}, text.slice(at, at + needle.length)));
    start = at + needle.length;
  }
  made.append(text.slice(start));
  return made;
}
