// The page's data blocks, unpacked when they are asked for and kept.

const MISSING = 3; // marks: 0 wrong, 1 partly right, 2 right, 3 no answer

const contents = (() => {
  const block = document.getElementById("browser-contents");
  return block ? JSON.parse(block.textContent) : null;
})();

const kept = new Map();

function once(key, make) {
  if (!kept.has(key)) kept.set(key, make());
  return kept.get(key);
}

async function unpack(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Return the data URI of a picture, or null where the page does not hold it. */
function picture(index) {
  if (index < 0) return null;
  const chunk = contents.pictures.findIndex((end) => index < end);
  const start = chunk ? contents.pictures[chunk - 1] : 0;
  const copies = once(`pictures-${chunk}`, () => JSON.parse(document.getElementById(`pictures-${chunk}`).textContent));
  return `data:image/webp;base64,${copies[index - start]}`;
}

/** Return the questions of all tasks of a model, in order. */
function questionsOf(model) {
  return once(`asked-${model}`, async () => {
    const { tasks } = contents.models[model];
    const parts = await Promise.all(tasks.map((_, task) => unpack(`asked-${model}-${task}`)));
    return parts.flatMap((part, task) => part.id.map((id, index) => ({
      id,
      task: tasks[task].name,
      type: part.types[part.type[index]],
      kind: part.kinds[part.kind[index]],
      text: part.text[index],
      gold: part.gold[index],
      images: part.images[index],
    })));
  });
}

/** Return what each method answered under a seed: arrays over the questions, null for a cell that is not there. */
function answersOf(model, seed) {
  return once(`given-${model}-${seed}`, async () => {
    const { tasks, methods } = contents.models[model];
    const parts = await Promise.all(tasks.map((_, task) => unpack(`given-${model}-${task}-${seed}`)));
    const total = tasks.reduce((sum, task) => sum + task.count, 0);
    const texts = [];
    const cells = methods.map(() => null);
    let start = 0;
    parts.forEach((part, task) => {
      part.right.forEach((right, method) => {
        if (!right) return;
        cells[method] ??= emptyCell(total);
        fill(cells[method], start, right, part.said[method], part.levels, texts.length);
      });
      for (const text of part.texts) texts.push(text);
      start += tasks[task].count;
    });
    return { cells, texts };
  });
}

function emptyCell(total) {
  return {
    right: new Float32Array(total).fill(NaN),
    mark: new Uint8Array(total).fill(MISSING),
    said: new Int32Array(total).fill(-1),
  };
}

function fill(cell, start, right, said, levels, offset) {
  right.forEach((level, index) => {
    if (level < 0) return;
    cell.right[start + index] = levels[level];
    cell.mark[start + index] = levels[level] >= 1 ? 2 : levels[level] > 0 ? 1 : 0;
    if (said[index] >= 0) cell.said[start + index] = said[index] + offset;
  });
}
