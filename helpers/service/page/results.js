// The results of a view (url_state.js), page by page.

import { call, ServiceError } from "./api.js";
import { scoreText } from "./text.js";
import { isFiltered, isSearch, isSingle, textParts } from "./url_state.js";

// Images per request; a service may allow fewer.
const PAGE = 24;
// Consecutive images of the gallery that stay together in the random order.
const BLOCK = 4;
// This re-ranker compares the pixels of the query, so that its vector is not enough.
const NEEDS_PIXELS = "geometry";

/**
 * The next page of a view: {items, offset, more, note}, and for searches also vector and milliseconds. Items have the
 * ratio of their sides, if it is known.
 *
 * view: the state of url_state.js with offset, vector (of an earlier page, or null) and order (initially null).
 * context: info (from /v1/info) and uploads (name → {file}); options: signal and onWait for `call`.
 */
export async function fetchPage(view, { info, uploads }, options) {
  const page = await fetchItems(view, { info, uploads }, options);
  const ids = page.items.map(({ id }) => id);
  if (!ids.length) return page;
  const { sizes } = await call("v1/images/sizes", { signal: options.signal, parameters: { id: ids } });
  const ratio = ([width, height]) => width / height;
  return { ...page, items: page.items.map((item) => ({ ...item, ratio: sizes[item.id] && ratio(sizes[item.id]) })) };
}

async function fetchItems(view, { info, uploads }, options) {
  if (!isSearch(view)) return isFiltered(view) || view.sort ? list(view, options) : listRandomly(view, info.images, options);
  const isCombined = !isSingle(view);
  const rerank = isCombined ? "" : view.rerank;
  const size = { k: Math.min(PAGE, info.max_k), offset: view.offset };
  const parameters = { ...size, good: view.good, bad: view.bad, ...classFilter(view) };
  if (rerank) parameters.rerank = rerank;
  const { results, ...rest } = await search(view, parameters, uploads, options);
  const ownId = view.query?.kind === "id" ? Number(view.query.value) : null;
  const high = results.filter(({ score }) => view.threshold === null || score >= view.threshold);
  const page = {
    ...rest,
    // The vector of a part of a gallery image would find the image itself first.
    items: high
      .filter((result) => result.id !== ownId)
      .map((result) => ({ ...result, scoreText: scoreText(info, result.score, isCombined, rerank) })),
    offset: view.offset + results.length,
  };
  if (high.length === results.length) return page;
  return { ...page, more: false, note: `All other scores are below ${view.threshold}.` };
}

/** The filter of a view by class, as the service expects it. */
function classFilter({ className }) {
  if (className === null) return { no_class: true };
  return className ? { class_name: className } : {};
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
  if (vector && needsVector && parameters.rerank !== NEEDS_PIXELS) {
    return { ...(await post("v1/search/vector", { ...parameters, vector })), vector };
  }
  const extra = { parameters: { ...parameters, ...crop, box: boxes, vectors: needsVector || null } };
  if (query.kind === "id") return call(`v1/search/id/${query.value}`, { ...options, ...extra });
  return post("v1/search", uploadForm(query, uploads), extra);
}

function uploadForm({ value }, uploads) {
  const upload = uploads.get(value);
  if (!upload) throw new ServiceError(404, "This browser no longer has the uploaded image. Choose it again.");
  const body = new FormData();
  body.append("image", upload.file, upload.name);
  return body;
}

/** The objects in a query image: {width, height, regions}, in pixels. */
export async function fetchObjects(query, uploads) {
  if (query.kind === "id") return call(`v1/images/${query.value}/regions`);
  return call("v1/regions", { method: "POST", body: uploadForm(query, uploads) });
}

/** Why an image is similar to the query of a view: {similarity, shows, query, result}, with two data URLs. */
export async function fetchWhy({ query, crop, boxes }, id, uploads) {
  const parameters = { ...crop, box: boxes, query_id: query.kind === "id" ? query.value : null };
  const body = query.kind === "id" ? undefined : uploadForm(query, uploads);
  return call(`v1/images/${id}/why`, { method: "POST", parameters, body });
}

async function list(view, options) {
  const parameters = { offset: view.offset, limit: PAGE, sort: view.sort, ...classFilter(view) };
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
