// Tables sort by a click on a column's name: once for the order that helps most, again for its reverse, then as it was.

function sortable(table) {
  const body = table.tBodies[0], original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = element("button", { type: "button", title: "Sort by this column" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = original.some((row) => "value" in row.cells[column].dataset);
      const [first, second] = numbers ? ["descending", "ascending"] : ["ascending", "descending"];
      const next = { [first]: second, [second]: "" }[head.getAttribute("aria-sort")] ?? first;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      body.append(...(next ? sorted(original, column, numbers, next) : original));
    });
  });
}

/** Return the rows in order; rows without a figure stand last in either direction. */
function sorted(rows, column, numbers, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => (numbers ? Number(row.cells[column].dataset.value ?? NaN) : row.cells[column].textContent);
  return [...rows].sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (!numbers) return sign * a.localeCompare(b);
    return Number.isNaN(a) - Number.isNaN(b) || (Number.isNaN(a) ? 0 : sign * (a - b));
  });
}

function startTables() {
  document.querySelectorAll("table.sortable").forEach(sortable);
}
