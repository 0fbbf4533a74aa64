// What the service results to a view (address.js), page by page.

import { call, ServiceError } from "./service.js";
import { scoreWords } from "./words.js";

// Images that are fetched at once; a service may allow fewer.
const PAGE = 24;
// Neighbors in the gallery that are fetched together where its order is by chance.
const BLOCK = 4;

/**
 * The next page of a view: {items, offset, more, note, vector, milliseconds}, the last two for searches only.
 *
 * view: an address with offset, vector (of an earlier page, or null) and order (null at first, kept up here).
 * context: info (what the service says of itself) and uploads (name → {file}); options: signal and onWait for `call`.
 */
export async function fetchPage(view, { info, uploads }, options) {
  if (!view.query) return view.className ? inOrder(view, options) : byChance(view, info.images, options);
  const given = { k: Math.min(PAGE, info.max_k), offset: view.offset };
  if (view.className) given.class_name = view.className;
  const { results, ...told } = await search(view, given, uploads, options);
  const itself = view.query.kind === "id" ? Number(view.query.value) : null;
  return {
    ...told,
    // A part of a gallery's image finds the whole of it first, which nobody asks for.
    items: results
      .filter((result) => result.id !== itself)
      .map((result) => ({ ...result, scoreWords: scoreWords(info, result.score) })),
    offset: view.offset + results.length,
  };
}

async function search({ query, crop, vector }, given, uploads, options) {
  const post = (path, body, parameters) => call(path, { ...options, method: "POST", body, parameters });
  if (query.kind === "id" && !crop) return call(`/api/search/id/${query.value}`, { ...options, parameters: given });
  if (vector) return post("/api/search/vector", { ...given, vector });
  const body = new FormData();
  if (query.kind === "id") {
    body.append("image", await call(`/api/images/${query.value}/file`, { ...options, as: "blob" }), "image.jpg");
  } else {
    const upload = uploads.get(query.value);
    if (!upload) throw new ServiceError(404, "That image was kept in its tab only, and is gone. Choose it again.");
    body.append("image", upload.file, upload.name);
  }
  return post("/api/search", body, { ...given, ...crop });
}

async function inOrder(view, options) {
  const parameters = { offset: view.offset, limit: PAGE, class_name: view.className };
  const { images, total } = await call("/api/images", { ...options, parameters });
  const offset = view.offset + images.length;
  return { items: images, offset, more: images.length > 0 && offset < total, note: "" };
}

async function byChance(view, total, options) {
  view.order ??= new Blocks(total);
  const blocks = view.order.next(PAGE / BLOCK);
  try {
    const pages = await Promise.all(blocks.map((parameters) => call("/api/images", { ...options, parameters })));
    const items = shuffled(pages.flatMap((page) => page.images));
    return { items, offset: view.offset + items.length, more: view.order.more, note: "" };
  } catch (error) {
    // The order has moved on; begin again rather than leave these out.
    view.order = null;
    throw error;
  }
}

/** The gallery in blocks of neighbors, each once, in an order by chance, made only as far as it is asked for. */
class Blocks {
  constructor(total) {
    this.left = Math.ceil(total / BLOCK);
    this.swapped = new Map();
  }

  get more() {
    return this.left > 0;
  }

  /** [{offset, limit}] of the next ones. */
  next(count) {
    const blocks = [];
    while (this.more && blocks.length < count) {
      // Fisher and Yates, with only the swapped places kept.
      const place = Math.floor(Math.random() * this.left);
      this.left -= 1;
      const block = this.swapped.get(place) ?? place;
      this.swapped.set(place, this.swapped.get(this.left) ?? this.left);
      this.swapped.delete(this.left);
      blocks.push({ offset: block * BLOCK, limit: BLOCK });
    }
    return blocks;
  }
}

function shuffled(items) {
  for (let last = items.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [items[last], items[other]] = [items[other], items[last]];
  }
  return items;
}
