// The page: search and choice lead to the list, the list to a tree, and the address holds the item: #id.

async function start() {
  const count = document.getElementById("count");
  if (!("DecompressionStream" in window)) {
    count.textContent = "This browser is too old to read the page's data: use one of 2023 or later.";
    return;
  }
  const contents = await unpack("contents");
  const searched = contents.id.map((id, index) => `${id} ${contents.text[index]}`.toLowerCase());
  const form = document.getElementById("filters"), { find, which } = form.elements;
  const panel = document.getElementById("tree");
  const total = contents.id.length.toLocaleString("en");
  let chosen = -1;

  const list = new ItemList(contents, (place) => choose(list.indices[place]));

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const indices = contents.id.map((_, index) => index).filter((index) =>
      (!which.value || contents[which.value][index]) && words.every((word) => searched[index].includes(word)));
    count.textContent = indices.length
      ? `${indices.length.toLocaleString("en")} of ${total} items`
      : `No item of ${total} passes.`;
    list.show(indices, indices.indexOf(chosen));
  }

  async function choose(index) {
    chosen = index;
    list.select(list.indices.indexOf(index));
    history.replaceState(null, "", `#${encodeURIComponent(contents.id[index])}`);
    const tree = await treeAt(contents, index);
    if (chosen !== index) return; // another was chosen meanwhile
    panel.replaceChildren(...drawTree(tree));
    panel.scrollTop = 0;
  }

  function follow() {
    let wanted = "";
    try { wanted = decodeURIComponent(location.hash.slice(1)); } catch { /* an address that somebody wrote by hand */ }
    const index = contents.id.indexOf(wanted);
    if (index >= 0 && index !== chosen) choose(index);
  }

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select")) {
      event.preventDefault();
      find.focus();
    } else if (event.key === "Escape" && event.target === find) {
      find.value = "";
      filter();
      document.getElementById("list").focus();
    }
  });
  filter();
  follow();
}
