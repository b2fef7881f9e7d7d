// What the reader looks at, as the page's address holds it: #q=TASK/ID and the filters that differ from the default.

const DEFAULTS = {
  q: "", model: "", seed: "", task: "", type: "", kind: "", find: "", outcome: "",
  one: "", "one-is": "right", two: "", "two-is": "wrong", order: "",
};

/** Return the state in an address, or null where the address is another one (a section of the page). */
function readAddress(hash) {
  const given = new URLSearchParams(hash.slice(1));
  if (hash.length > 1 && !given.has("q")) return null;
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
}

function addressOf(state) {
  const shown = Object.entries(state).filter(([name, value]) => name === "q" || value !== DEFAULTS[name]);
  return `#${new URLSearchParams(shown)}`.replaceAll("%2F", "/");
}

/** Writes the state into the address; slow enough for a held key, as browsers refuse addresses that change too fast. */
class Address {
  constructor(follow) {
    this.last = location.hash;
    this.timer = 0;
    addEventListener("hashchange", () => {
      if (location.hash === this.last) return;
      clearTimeout(this.timer);
      this.last = location.hash;
      const state = readAddress(location.hash);
      if (state) follow(state);
    });
  }

  /** Make the state a new entry of the history. */
  push(state) {
    clearTimeout(this.timer);
    this.last = addressOf(state);
    if (this.last !== location.hash) location.hash = this.last;
  }

  /** Put the state in place of the present entry, soon. */
  replace(state) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.last = addressOf(state);
      location.replace(this.last);
    }, 200);
  }
}
