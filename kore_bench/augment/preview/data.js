// The page's data blocks, unpacked when they are asked for; a few chunks of trees are kept.

const KEPT = 8;
const kept = new Map();

async function unpack(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/** Return the tree of the item at a place in the data set. */
async function treeAt(contents, index) {
  const chunk = Math.floor(index / contents.chunk);
  if (!kept.has(chunk)) kept.set(chunk, unpack(`trees-${chunk}`));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return (await kept.get(chunk))[index % contents.chunk];
}

/** Return an element; children that are no elements become text, never markup. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** Return an image of the data set, or words where it is not there. */
function imageOf(address, alt, className) {
  const absent = () => element("span", { className: `${className} absent` }, "no image");
  if (!address) return absent();
  const image = element("img", { alt, className, loading: "lazy", decoding: "async" });
  image.addEventListener("load", () => image.classList.toggle("pixels", image.naturalWidth <= 64));
  image.addEventListener("error", () => image.replaceWith(absent()));
  image.src = address;
  return image;
}
