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
 * context: info (from /v1/info) and uploads (name → {file}); options: signal and onWait for `call`.
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
    // The vector of a part of a gallery image would find the image itself first.
    items: results
      .filter((result) => result.id !== ownId)
      .map((result) => ({ ...result, scoreText: scoreText(info, result.score, isCombined) })),
    offset: view.offset + results.length,
  };
}

async function search(view, parameters, uploads, options) {
  if (!view.text && !view.also.length) return searchImage(view, parameters, uploads, options);
  const { query, crop, boxes, text, weight, also } = view;
  const { added, subtracted } = textParts(text);
  const parts = [...subtracted.map((word) => ({ text: word, weight: -weight })), ...also];
  if (added) parts.push({ text: added, weight });
  let { vector } = view;
  if (query?.kind === "id" && !crop && !boxes.length) parts.push({ id: Number(query.value) });
  else if (query) {
    // Another text needs no second upload and feature extraction.
    vector ??= (await searchImage(view, { k: 1 }, uploads, options)).vector;
    // One vector for each part of the image.
    parts.push(...[vector].flat().map((each) => ({ vector: each })));
  }
  const found = await call("v1/search/combined", { ...options, method: "POST", body: { ...parameters, parts } });
  return { ...found, vector };
}

async function searchImage({ query, crop, boxes, vector }, parameters, uploads, options) {
  const post = (path, body, extra) => call(path, { ...options, method: "POST", body, ...extra });
  const isPart = crop || boxes.length;
  const needsVector = Boolean(isPart) || query.kind === "upload";
  if (vector && needsVector) return { ...(await post("v1/search/vector", { ...parameters, vector })), vector };
  const vectors = needsVector || null;
  const extra = { parameters: { ...parameters, ...crop, box: boxes, vectors } };
  if (query.kind === "id") return call(`v1/search/id/${query.value}`, { ...options, ...extra });
  return post("v1/search", uploadForm(query, uploads), extra);
}

function uploadForm({ value }, uploads) {
  const upload = uploads.get(value);
  if (!upload) throw new ServiceError(404, "This tab no longer has the uploaded image. Choose it again.");
  const body = new FormData();
  body.append("image", upload.file, upload.name);
  return body;
}

/** The objects in a query image: {width, height, regions}, in pixels. */
export async function fetchObjects(query, uploads) {
  if (query.kind === "id") return call(`v1/images/${query.value}/regions`);
  return call("v1/regions", { method: "POST", body: uploadForm(query, uploads) });
}

async function listClass(view, options) {
  const parameters = { offset: view.offset, limit: PAGE, class_name: view.className };
  const { images, total } = await call("v1/images", { ...options, parameters });
  const offset = view.offset + images.length;
  return { items: images, offset, more: images.length > 0 && offset < total, note: "" };
}

async function listRandomly(view, total, options) {
  view.order ??= shuffled([...Array(Math.ceil(total / BLOCK)).keys()]);
  const blocks = view.order.splice(0, PAGE / BLOCK);
  const fetched = (block) => call("v1/images", { ...options, parameters: { offset: block * BLOCK, limit: BLOCK } });
  try {
    const items = shuffled((await Promise.all(blocks.map(fetched))).flatMap((page) => page.images));
    return { items, offset: view.offset + items.length, more: view.order.length > 0, note: "" };
  } catch (error) {
    // These blocks would be skipped: start a new order.
    view.order = null;
    throw error;
  }
}

function shuffled(items) {
  for (let last = items.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [items[last], items[other]] = [items[other], items[last]];
  }
  return items;
}
