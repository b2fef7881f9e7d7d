// Which questions are shown, and in which order.

const IS = { right: (mark) => mark === 2, partly: (mark) => mark === 1, wrong: (mark) => mark === 0 };

const OUTCOMES = {
  right: (tally) => tally.right > 0 && tally.right === tally.answered,
  none: (tally) => tally.right === 0 && tally.answered > 0,
  wrong: (tally) => tally.wrong > 0 && tally.wrong === tally.answered,
  differ: (tally) => tally.right > 0 && tally.right < tally.answered,
  partly: (tally) => tally.right + tally.wrong < tally.answered,
  missing: (tally) => tally.answered < tally.cells,
};

/** Return the indices of the questions that pass every filter of the state, in its order. */
function chosen(view, state) {
  const tests = [];
  for (const name of ["task", "type", "kind"]) {
    if (state[name]) tests.push((index) => view.questions[index][name] === state[name]);
  }
  for (const name of ["one", "two"]) {
    const cell = view.answers.cells[view.methods.findIndex((method) => method.name === state[name])];
    if (state[name]) tests.push((index) => Boolean(cell) && IS[state[`${name}-is`]](cell.mark[index]));
  }
  const outcome = OUTCOMES[state.outcome];
  if (outcome) tests.push((index) => outcome(tally(view, index)));
  if (state.find) tests.push(searched(view, state.find));
  const found = view.questions.map((_, index) => index).filter((index) => tests.every((test) => test(index)));
  return ordered(view, found, state.order);
}

/** Return the methods that outcomes count: those that were trained, or all where none was. */
function counted(view) {
  const trained = view.methods.flatMap((method, index) => (method.reference ? [] : [index]));
  return trained.length ? trained : view.methods.map((_, index) => index);
}

function tally(view, index) {
  const found = { cells: view.counted.length, answered: 0, right: 0, wrong: 0, sum: 0 };
  for (const method of view.counted) {
    const cell = view.answers.cells[method];
    const mark = cell ? cell.mark[index] : MISSING;
    if (mark === MISSING) continue;
    found.answered += 1;
    found.right += mark === 2;
    found.wrong += mark === 0;
    found.sum += cell.right[index];
  }
  return found;
}

function searched(view, words) {
  const needle = words.toLowerCase();
  const asked = once(`asked-lower-${view.model}`, () => view.questions.map(
    (question) => `${question.id}\n${question.text}\n${question.gold}`.toLowerCase()));
  const lower = once(`given-lower-${view.model}-${view.seed}`, () => view.answers.texts.map((text) => text.toLowerCase()));
  const hits = Uint8Array.from(lower, (text) => text.includes(needle));
  const cells = view.answers.cells.filter(Boolean);
  return (index) => asked[index].includes(needle) || cells.some((cell) => cell.said[index] >= 0 && hits[cell.said[index]]);
}

function ordered(view, found, order) {
  if (!order) return found;
  const rank = new Float64Array(view.questions.length);
  for (const index of found) {
    const { sum, answered } = tally(view, index);
    const share = answered ? sum / answered : 2;
    rank[index] = order === "hard" ? share : order === "easy" ? -share : Math.abs(share - 0.5);
  }
  return found.sort((one, other) => rank[one] - rank[other] || one - other);
}

/** Return how right a method is on the questions, in percent, or null where it answered none. */
function share(cell, indices) {
  if (!cell) return null;
  let sum = 0, count = 0;
  for (const index of indices) {
    if (cell.mark[index] === MISSING) continue;
    sum += cell.right[index];
    count += 1;
  }
  return count ? (100 * sum) / count : null;
}
