// One item as a tree: its image and dialogue are the trunk, its other samples the branches, what was refused stands last.

const PARTS = { dialogue: "Dialogue (trunk)", recognition: "Recognition", caption: "Caption", vqa: "VQA" };

function drawTree(tree) {
  const trunk = tree.samples.filter((sample) => sample.part === "dialogue");
  const branches = tree.samples.filter((sample) => sample.part !== "dialogue");
  const tops = [...trunk, ...branches.slice(0, trunk.length ? 0 : 1)];
  const rest = branches.filter((sample) => !tops.includes(sample));
  const parts = [element("h2", {}, element("bdi", {}, tree.id))];
  if (!tree.samples.length) parts.push(element("p", { className: "hint" }, "Nothing of this item is in the data set."));
  const twigs = [
    ...rest.map((sample) => element("li", {}, drawSample(sample))),
    ...(tree.refused.length ? [element("li", {}, drawRefused(tree.refused))] : []),
    ...(tree.removed.length ? [element("li", {}, drawRemoved(tree.removed))] : []),
  ];
  parts.push(...tops.map(drawSample));
  if (twigs.length) parts.push(element("ul", { className: "branches" }, ...twigs));
  return parts;
}

function drawSample(sample) {
  const pictures = sample.overlaps.filter((overlap) => overlap.turn < 0);
  const images = sample.images.map((image) => imageOf(image, `Image of ${sample.id}`, "shown"));
  const turns = sample.turns.map(([asked, answer], number) => {
    const found = sample.overlaps.filter((overlap) => overlap.turn === number);
    return element("li", {}, element("bdi", { className: "asked" }, asked ?? ""),
      element("bdi", { className: "answer" }, answer ?? ""), ...found.map(overlapMark));
  });
  return element("section", { className: "sample" },
    element("h3", {}, PARTS[sample.part] ?? sample.part, element("bdi", { className: "id" }, sample.id)),
    element("div", { className: "body" },
      element("div", { className: "pictures" }, ...images,
        ...(sample.likeness === null ? [] : [element("p", { className: "found" }, `likeness to the item's own image: ${sample.likeness.toFixed(2)}`)]),
        ...pictures.map(overlapMark)),
      element("div", {}, element("ol", { className: "turns" }, ...turns),
        element("p", { className: "origin" }, sample.origin ? `Written by ${sample.origin}.` : "Written by the templates."))));
}

/** Return the mark of an overlap with the evaluation, and of what with. */
function overlapMark(overlap) {
  return element("p", { className: "found" }, element("span", { className: "mark overlap" }, overlap.kind),
    ` ${overlapWords(overlap)}`);
}

function overlapWords({ question, asked, score }) {
  return `with question ${question} (${asked ? `${asked}, ` : ""}${Math.round(100 * score)} % alike)`;
}

function drawRefused(refused) {
  const lines = refused.map((reject) => element("li", {},
    element("span", { className: "mark refused" }, reject.reason), ` ${PARTS[reject.part] ?? reject.part}`,
    ...(reject.question ? [element("bdi", { className: "asked" }, reject.question)] : []),
    ...(reject.answer ? [element("bdi", { className: "answer" }, reject.answer)] : []),
    ...(reject.subject ? [element("p", { className: "origin" }, "subject: ", element("bdi", {}, reject.subject))] : []),
    ...(reject.detail ? [element("p", { className: "origin" }, reject.detail)] : [])));
  return aside(`Refused (${refused.length})`, lines);
}

function drawRemoved(removed) {
  const lines = removed.map((overlap) => element("li", {},
    element("span", { className: "mark removed" }, overlap.kind), " ", element("bdi", {}, overlap.sample),
    ` ${overlap.turn < 0 ? "for its image" : `for its turn ${overlap.turn + 1}`}, ${overlapWords(overlap)}`));
  return aside(`Removed for an overlap (${removed.length})`, lines);
}

function aside(title, lines) {
  return element("details", { className: "sample", open: lines.length <= 12 }, element("summary", {}, title),
    element("ul", { className: "turns" }, ...lines));
}
