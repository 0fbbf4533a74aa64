// The results of a view (url_state.js), page by page.

import { call, ServiceError } from "./api.js";
import { scoreText } from "./text.js";
import { textParts } from "./url_state.js";

// Images per request; a service may allow fewer.
const PAGE = 24;
// Consecutive images of the gallery that stay together in the random order.
const BLOCK = 4;

/**
 * The next page of a view: {items, offset, more, note}, and for searches also vector and milliseconds.
 *
 * view: the state of url_state.js with offset, vector (of an earlier page, or null) and order (initially null).
 * context: info (from /api/info) and uploads (name → {file}); options: signal and onWait for `call`.
 */
export async function fetchPage(view, { info, uploads }, options) {
  if (!view.query && !view.text) return view.className ? listClass(view, options) : listRandomly(view, info.images, options);
  const parameters = { k: Math.min(PAGE, info.max_k), offset: view.offset };
  if (view.className) parameters.class_name = view.className;
  const { results, ...rest } = await search(view, parameters, uploads, options);
  const isCombined = Boolean(view.text) || view.also.length > 0;
  const ownId = view.query?.kind === "id" ? Number(view.query.value) : null;
  return {
    ...rest,
    // A crop of a gallery image would find the image itself first.
    items: results
      .filter((result) => result.id !== ownId)
      .map((result) => ({ ...result, scoreText: scoreText(info, result.score, isCombined) })),
    offset: view.offset + results.length,
  };
}

async function search(view, parameters, uploads, options) {
  if (!view.text && !view.also.length) return searchImage(view, parameters, uploads, options);
  const { query, crop, text, weight, also } = view;
  const { added, subtracted } = textParts(text);
  const parts = [...subtracted.map((word) => ({ text: word, weight: -weight })), ...also];
  if (added) parts.push({ text: added, weight });
  let { vector } = view;
  if (query?.kind === "id" && !crop) parts.push({ id: Number(query.value) });
  else if (query) {
    // Another text needs no second upload and feature extraction.
    vector ??= (await searchImage(view, { k: 1 }, uploads, options)).vector;
    parts.push({ vector });
  }
  const found = await call("api/search/combined", { ...options, method: "POST", body: { ...parameters, parts } });
  return { ...found, vector };
}

async function searchImage({ query, crop, vector }, parameters, uploads, options) {
  const post = (path, body, extra = {}) => call(path, { ...options, method: "POST", body, ...extra });
  if (query.kind === "id" && !crop) return call(`api/search/id/${query.value}`, { ...options, parameters });
  if (vector) return post("api/search/vector", { ...parameters, vector });
  const body = new FormData();
  if (query.kind === "id") {
    body.append("image", await call(`api/images/${query.value}/file`, { ...options, as: "blob" }), "image.jpg");
  } else {
    const upload = uploads.get(query.value);
    if (!upload) throw new ServiceError(404, "This tab no longer has the uploaded image. Choose it again.");
    body.append("image", upload.file, upload.name);
  }
  return post("api/search", body, { parameters: { ...parameters, ...crop } });
}

async function listClass(view, options) {
  const parameters = { offset: view.offset, limit: PAGE, class_name: view.className };
  const { images, total } = await call("api/images", { ...options, parameters });
  const offset = view.offset + images.length;
  return { items: images, offset, more: images.length > 0 && offset < total, note: "" };
}

async function listRandomly(view, total, options) {
  view.order ??= new Blocks(total);
  const blocks = view.order.next(PAGE / BLOCK);
  try {
    const pages = await Promise.all(blocks.map((parameters) => call("api/images", { ...options, parameters })));
    const items = shuffled(pages.flatMap((page) => page.images));
    return { items, offset: view.offset + items.length, more: view.order.more, note: "" };
  } catch (error) {
    // These blocks would be skipped: start a new order.
    view.order = null;
    throw error;
  }
}

/** Blocks of consecutive images, each once, in a random order that is generated on demand. */
class Blocks {
  constructor(total) {
    this.left = Math.ceil(total / BLOCK);
    this.swapped = new Map();
  }

  get more() {
    return this.left > 0;
  }

  /** [{offset, limit}] of the next blocks. */
  next(count) {
    const blocks = [];
    while (this.more && blocks.length < count) {
      // Fisher–Yates shuffle that stores only the swapped positions.
      const position = Math.floor(Math.random() * this.left);
      this.left -= 1;
      const block = this.swapped.get(position) ?? position;
      this.swapped.set(position, this.swapped.get(this.left) ?? this.left);
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
