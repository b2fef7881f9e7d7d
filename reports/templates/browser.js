// The question browser: filters, list and panel follow one state, which the address holds.

class Browser {
  constructor() {
    this.form = document.getElementById("filters");
    this.fields = Object.fromEntries(Object.keys(DEFAULTS).filter((name) => name !== "q").map((name) => [name, this.form.elements[name]]));
    this.status = document.getElementById("questions-count");
    this.list = new QuestionList((place, push) => this.pick(place, push));
    this.panel = new QuestionPanel((step) => this.pick(this.list.place + step, true));
    this.address = new Address((state) => this.follow(state));
    this.state = { ...DEFAULTS };
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", (event) => {
      event.preventDefault();
      this.change({ ...DEFAULTS, q: this.state.q, model: this.state.model, seed: this.state.seed }, true);
    });
    this.form.addEventListener("input", (event) => {
      const { name, value } = event.target;
      this.change({ ...this.state, [name]: value }, name !== "find" || !this.typing);
      this.typing = name === "find";
    });
    addEventListener("keydown", (event) => this.shortcut(event));
  }

  /** Show a state that came from the address; a question in it is brought into sight. */
  async follow(state) {
    if ((await this.show(state)) && state.q) document.getElementById("every-question").scrollIntoView({ block: "start" });
  }

  /** Show a state that the reader chose, and write it into the address. */
  async change(state, push) {
    if (!(await this.show(state))) return;
    if (push) this.address.push(this.state);
    else this.address.replace(this.state);
  }

  /** Show a state once its data are unpacked; return whether nothing else was chosen meanwhile. */
  async show(wanted) {
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const state = (this.state = { ...wanted });
    const model = Math.max(0, contents.models.findIndex((one) => one.name === state.model));
    const { methods, seeds, tasks } = contents.models[model];
    const seed = seeds.map(String).includes(state.seed) ? Number(state.seed) : seeds[0];
    const [questions, answers] = await Promise.all([questionsOf(model), answersOf(model, seed)]);
    if (turn !== this.turn) return false;
    this.view = { model, seed, seeds, methods, questions, answers };
    this.view.counted = counted(this.view);
    this.offer(state, tasks);
    this.indices = chosen(this.view, state);
    this.list.show(this.view, this.indices);
    this.count();
    this.open();
    return true;
  }

  /** Fill the choices from the data; a choice in the address that the data do not have falls back to the default. */
  offer(state, tasks) {
    const { questions, methods, seeds } = this.view;
    const distinct = (name, among) => [...new Set(among.map((question) => question[name]))].filter(Boolean);
    const set = (name, choices, all) => {
      const options = [...(all === null ? [] : [["", all]]), ...choices.map((choice) => [String(choice), choice])];
      this.fields[name].replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
      this.fields[name].closest("label").hidden = choices.length < 2 && !state[name];
    };
    set("model", contents.models.map((one) => one.name), null);
    set("seed", seeds, null);
    set("task", tasks.map((task) => task.name), "all tasks");
    const among = state.task ? questions.filter((question) => question.task === state.task) : questions;
    set("type", distinct("type", among), "all types");
    set("kind", distinct("kind", among), "all kinds");
    for (const name of ["one", "two"]) set(name, methods.map((method) => method.name), "any method");
    for (const [name, field] of Object.entries(this.fields)) {
      field.value = state[name];
      if (field.value !== state[name]) field.value = state[name] = field.options?.[0]?.value === "" ? "" : DEFAULTS[name];
      if (field.options && field.selectedIndex < 0) field.selectedIndex = 0;
    }
    for (const name of ["one", "two"]) this.fields[`${name}-is`].disabled = !state[name];
  }

  count() {
    const all = this.view.questions.length.toLocaleString("en"), shown = this.indices.length;
    this.status.textContent = shown ? `${shown.toLocaleString("en")} of ${all} questions` : `No question of ${all} passes these filters.`;
  }

  /** Open the question that the state names, wherever it stands. */
  open() {
    const { q } = this.state;
    const index = q ? this.view.questions.findIndex((question) => `${question.task}/${question.id}` === q) : -1;
    const place = index < 0 ? -1 : this.indices.indexOf(index);
    if (q && index < 0) this.status.textContent += ` There is no question ${q}.`;
    this.list.select(place);
    this.panel.show(this.view, index < 0 ? null : index, place, this.indices.length, this.state);
  }

  pick(place, push) {
    const question = this.view?.questions[this.indices[place]];
    if (!question) return;
    this.state = { ...this.state, q: `${question.task}/${question.id}` };
    this.open();
    if (push) this.address.push(this.state);
    else this.address.replace(this.state);
  }

  shortcut(event) {
    const { find } = this.fields;
    const writing = /^(input|select|textarea)$/i.test(event.target.tagName ?? "");
    if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      find.focus();
    } else if (event.key === "Escape" && event.target === find) {
      if (find.value) this.change({ ...this.state, find: "" }, true);
      else this.list.box.focus();
    }
  }
}

function startBrowser() {
  const section = document.getElementById("every-question");
  if (!section || !contents) return;
  const status = document.getElementById("questions-count");
  section.querySelector(".browser").hidden = false;
  if (!("DecompressionStream" in window)) {
    status.textContent = "This web browser is too old to unpack the questions (it has no DecompressionStream).";
    return;
  }
  const browser = new Browser();
  const asked = readAddress(location.hash);
  const start = () => {
    const ready = asked?.q ? browser.follow(asked) : browser.show(asked ?? { ...DEFAULTS });
    ready.catch((error) => { status.textContent = `The questions cannot be read: ${error.message}`; });
  };
  if (location.hash.startsWith("#q=")) return start();
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    if (!browser.view) start(); // else an address was followed meanwhile
  }, { rootMargin: "1200px" });
  seen.observe(section);
}
