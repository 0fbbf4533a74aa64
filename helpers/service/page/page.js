// The main script of the page: handles input, sends requests, and shows the results.

import { AddDialog } from "./add_dialog.js";
import { MAX_ALSO, format, parse, sameImage, textParts } from "./url_state.js";
import { fetchObjects, fetchPage } from "./results.js";
import { MoreImages, TEXT_WEIGHTS, fillWeights } from "./more_images.js";
import { CropTools } from "./crop_tools.js";
import { Grid, nameOf } from "./grid.js";
import { ObjectBoxes } from "./objects.js";
import { isTextField, listen, Uploads } from "./query_input.js";
import { call, ServiceError } from "./api.js";
import { Viewer } from "./viewer.js";
import { isDistance } from "./text.js";
import { element, hide, isModified, on, tell, write } from "./web/dom.js";
import { ALL_CLASSES, megabytes, plural, sentence } from "./web/words.js";

const MAX_VIEWS = 50; // for back and forward
const OVERHEAD = 2000; // bytes of a request in addition to the image

let info = null;
let view = null; // the current view
let key = ""; // for changes; never stored
let running = null; // AbortController of the current request
const views = new Map(); // history entry → its view, so that going back needs no request
const uploads = new Uploads();
const known = new Map(); // id → image of the gallery
const found = new Map(); // query image → its objects, or null while they are not known
let serial = 0;

const uniqueName = () => `${Math.round(performance.timeOrigin).toString(36)}-${(serial += 1)}`;

const search = (item) => go(viewOf(item));
const grid = new Grid(element("grid"), {
  href: (item) => format(viewOf(item)),
  search,
  open: (item) => viewer.open(item, info.changes, key),
  add: addToQuery,
});
const moreImages = new MoreImages(element("also"), element("chip"), (also) => go(promoted({ ...view, also })));
const viewer = new Viewer({ neighbor, search, remove });
const addDialog = new AddDialog({ add, search, done: changed });
const objects = new ObjectBoxes(element("objects"), (boxes) => go({ ...view, boxes }));
const crop = new CropTools({ search: searchPart, announce: (text) => showMessage("count", text) });

// Views: queries and their results.

function viewOf(item) {
  known.set(item.id, item);
  return queryOf("id", String(item.id));
}

const queryOf = (kind, value) => ({ ...parse(""), query: { kind, value } });

function newView({ query, crop: rectangle, boxes, text, weight, also, className }) {
  const state = { query, crop: rectangle, boxes, text, weight, also, className };
  const next = { ...state, items: [], ids: new Set(), offset: 0, more: true, vector: null, note: "", scroll: 0 };
  // The same query with another class or text needs no second upload and feature extraction.
  if (view?.vector && sameImage(view, next)) next.vector = view.vector;
  return next;
}

/** Without a query image and a text, the first further image becomes the query. */
function promoted(state) {
  if (state.query || state.text) return state;
  const first = state.also.find((part) => part.weight > 0);
  if (!first) return { ...state, also: [] };
  const also = state.also.filter((part) => part !== first);
  return { ...state, query: { kind: "id", value: String(first.id) }, also };
}

function addToQuery(item) {
  known.set(item.id, item);
  const also = [...view.also.filter((part) => part.id !== item.id), { id: item.id, weight: 1 }];
  if (also.length > MAX_ALSO) return showMessage("error", `A query has at most ${MAX_ALSO} further images.`);
  return go(promoted({ ...view, also }));
}

/** Search, then show the results. After an error the page stays as it was. */
async function go(state, { replace = false } = {}) {
  if (!info) return;
  showMessage("hint", "");
  const next = newView(state);
  const hadFocus = element("grid").contains(document.activeElement) || document.activeElement === document.body;
  if (!(await load(next, { again: () => go(state, { replace }) }))) {
    // Restore the selected class, and continue to load the current view.
    showClasses();
    showParts();
    if (view) showEnd();
    return;
  }
  rememberPosition();
  const entry = uniqueName();
  const hash = format(next);
  const step = replace || hash === location.hash ? "replaceState" : "pushState";
  history[step]({ entry }, "", hash || location.pathname);
  keep(entry, next);
  show(next);
  window.scrollTo(0, 0);
  if (hadFocus) element("results-title").focus({ preventScroll: true });
}

/** Show the view of the URL, after back, forward, a reload or an edit of the URL. */
async function showCurrentUrl() {
  if (!info) return;
  rememberPosition();
  running?.abort();
  if (!history.state?.entry) history.replaceState({ entry: uniqueName() }, "", location.href);
  const { entry } = history.state;
  const kept = views.get(entry);
  if (kept && (kept.items.length || !kept.more)) {
    showMessage("error", "");
    show(kept);
    window.scrollTo(0, kept.scroll);
    if (kept.focus) grid.focus(kept.focus);
    return;
  }
  const state = parse(location.hash);
  if (state.query?.kind === "upload" && !uploads.has(state.query.value)) {
    await home("The uploaded image was lost when the page was reloaded. Choose it again.");
    return;
  }
  const next = newView(state);
  keep(entry, next);
  show(next);
  await load(next, { again: showCurrentUrl, lost: home });
  if (view === next) show(next);
}

async function home(message) {
  history.replaceState({ entry: uniqueName() }, "", location.pathname);
  const next = newView(parse(""));
  keep(history.state.entry, next);
  show(next);
  await load(next, { again: () => home(message) });
  show(next);
  if (message) showMessage("error", message);
}

function keep(entry, next) {
  views.set(entry, next);
  for (const oldest of views.keys()) {
    if (views.size <= MAX_VIEWS) break;
    views.delete(oldest);
  }
}

function rememberPosition() {
  if (!view) return;
  view.scroll = window.scrollY;
  view.focus = grid.focusedId;
}

/** Fetch the next page of a view; resolves to whether it arrived. */
async function load(target, { again, lost = null } = {}) {
  running?.abort();
  const controller = new AbortController();
  running = controller;
  setBusy(true);
  showMessage("error", "");
  let waited = false;
  const onWait = (seconds) => {
    waited = true;
    showMessage("hint", `The service is busy. Trying again in ${plural(seconds, "second")} …`);
  };
  try {
    const page = await fetchPage(target, { info, uploads }, { signal: controller.signal, onWait });
    const fresh = page.items.filter((item) => !target.ids.has(item.id));
    for (const item of fresh) {
      target.ids.add(item.id);
      known.set(item.id, item);
    }
    target.items.push(...fresh);
    target.fresh = fresh;
    const { offset, more, note, vector = target.vector } = page;
    Object.assign(target, { offset, more, note, vector });
    target.milliseconds ??= page.milliseconds;
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (!(error instanceof ServiceError)) throw error;
    if (lost && [400, 404, 422].includes(error.status)) await lost(error.message);
    else {
      target.stopped = true;
      const permanent = [400, 404, 413, 415, 422].includes(error.status);
      showMessage("error", error.message, permanent ? null : again);
    }
    return false;
  } finally {
    if (running === controller) {
      running = null;
      setBusy(false);
      if (waited) showMessage("hint", "");
    }
  }
}

async function loadMore() {
  const target = view;
  if (running || !target?.more) return;
  target.stopped = false;
  if ((await load(target, { again: loadMore })) && view === target) {
    grid.append(target.fresh);
    showEnd();
  } else if (view === target) showEnd();
}

async function neighbor(item, step) {
  const index = grid.items.findIndex((each) => each.id === item.id) + step;
  if (index >= grid.items.length) await loadMore();
  return grid.items[index] ?? null;
}

// Changes of the gallery.

async function add(file, className, newKey) {
  if (tooLarge(file)) throw new ServiceError(413, tooLarge(file));
  const body = new FormData();
  body.append("image", file, file.name);
  const item = await call("v1/images", { method: "POST", body, key: newKey, parameters: { class_name: className } });
  key = newKey;
  return item;
}

async function remove(item, newKey) {
  await call(`v1/images/${item.id}`, { method: "DELETE", key: newKey });
  key = newKey;
  const index = view.items.findIndex((each) => each.id === item.id);
  view.items = view.items.filter((each) => each.id !== item.id);
  view.offset = Math.max(view.offset - 1, 0);
  const scroll = window.scrollY;
  await changed();
  if (view.query?.kind === "id" && Number(view.query.value) === item.id) {
    await home("");
  } else {
    show(view);
    window.scrollTo(0, scroll);
    const next = view.items[Math.min(index, view.items.length - 1)];
    if (next) grid.focus(next.id);
  }
  showMessage("count", `${nameOf(item)} was removed.`);
}

/** After a change of the gallery, the stored views are out of date. */
async function changed() {
  for (const [entry, each] of views) if (each !== view) views.delete(entry);
  try {
    info = await call("v1/info");
  } catch (error) {
    showMessage("error", error.message, changed);
    return;
  }
  showInfo();
  showClasses();
  showEnd();
}

// Showing.

function show(shown) {
  view = shown;
  element("layout").classList.toggle("has-query", Boolean(shown.query));
  showQuery();
  showText();
  showClasses();
  grid.show(shown.items);
  showTitle();
  hide("shuffle", Boolean(shown.query || shown.text || shown.className));
  showEnd();
}

function showTitle() {
  const [title, summary] = headings();
  write("results-title", title);
  write("summary", summary);
  document.title = view.query || view.text ? `${title} – Lookalike` : "Lookalike";
  if (!view.query) return;
  write("query-name", queryName());
  element("query-image").alt = `Your image: ${queryName()}`;
}

function headings() {
  if (!view.query && !view.text && view.className) return [`All images of class ${view.className}`, ""];
  if (!view.query && !view.text) return ["Or start from one of these", ""];
  const parts = view.boxes.length + (view.crop ? 1 : 0);
  const what = ["", "a part of "][parts] ?? `${parts} parts of `;
  const image = view.query ? ` that look like ${what}${queryName()}` : "";
  const others = view.also.length ? `, with ${plural(view.also.length, "further image")}` : "";
  const title = `Images${image}${textTitle()}${others}`;
  const milliseconds = Math.max(1, Math.round(view.milliseconds));
  const time = view.milliseconds === undefined ? "" : ` · searched in ${milliseconds} ms`;
  const only = view.className ? ` · class ${view.className} only` : "";
  return [title, `${view.text || view.also.length ? "Best match" : "Most similar"} first${only}${time}`];
}

function textTitle() {
  const { added, subtracted } = textParts(view.text);
  const of = added ? `${view.query ? " and match" : " of"} “${added}”` : "";
  return of + subtracted.map((word) => `, without “${word}”`).join("");
}

function queryName() {
  const { kind, value } = view.query;
  if (kind === "upload") return uploads.get(value)?.name ?? "your image";
  const item = known.get(Number(value));
  return item ? nameOf(item) : `image ${value}`;
}

function showQuery() {
  const { query } = view;
  hide("query", !query);
  if (!query) {
    element("query-image").removeAttribute("src");
    crop.enabled = false;
    showParts();
    return;
  }
  const source = query.kind === "id" ? `v1/images/${query.value}/file` : uploads.get(query.value)?.url;
  const image = element("query-image");
  if (!source) {
    image.removeAttribute("src");
    showNoPreview("This tab no longer has the image. The search still works.");
  } else if (image.getAttribute("src") !== source) {
    showNoPreview("");
    image.src = source;
  }
  showParts();
  if (query.kind === "id" && !known.has(Number(query.value))) fetchItem(Number(query.value));
}

/** The crop and the objects of the query image. */
function showParts() {
  const { crop: rectangle, boxes } = view ?? parse("");
  crop.show(rectangle, boxes.length > 0);
  showObjects();
}

function showObjects() {
  const { query, crop: rectangle, boxes } = view ?? parse("");
  const name = query && `${query.kind}:${query.value}`;
  const any = objects.show(found.get(name) ?? null, boxes, rectangle ? 2 : 1);
  hide("objects-help", !any);
  element("query").classList.toggle("with-objects", any);
  // Only an index with objects has a detector for sure.
  if (query && info.regions === "detector" && !found.has(name)) findObjects(name, query);
}

async function findObjects(name, query) {
  found.set(name, null);
  try {
    found.set(name, await fetchObjects(query, uploads));
  } catch (error) {
    showMessage("hint", error.message);
  }
  if (view.query?.value === query.value) showObjects();
}

/** The text field, and what it says beside an image. */
function showText() {
  hide("text-form", !info.text);
  element("text").value = view.text;
  hide("text-clear", !view.text);
  hide("text-weight-label", !view.text || !(view.query || view.also.length));
  fillWeights(element("text-weight"), TEXT_WEIGHTS, view.weight);
  moreImages.show(view.also, (id) => known.get(id));
  for (const { id } of view.also) if (!known.has(id)) fetchItem(id);
}

/** Fetch the name of an image of the query. */
async function fetchItem(id) {
  try {
    known.set(id, await call(`v1/images/${id}`));
  } catch {
    return; // The search shows the error.
  }
  if (view.also.some((part) => part.id === id)) moreImages.show(view.also, (each) => known.get(each));
  if (view.query?.kind !== "id" || Number(view.query.value) !== id) return;
  showTitle();
}

/** A text instead of the query image, or "" to show the image. */
function showNoPreview(text) {
  tell("query-no-preview", text);
  hide("stage", Boolean(text));
  crop.enabled = !text;
}

function showInfo() {
  write("about", `${plural(info.images, "image")} · ${info.extractor} · ${info.index}`);
  hide("open-add", info.changes === "off");
  write("help-extractor", info.extractor);
  hide("help-similarity", isDistance(info));
  hide("help-distance", !isDistance(info));
  hide("help-parts", !info.regions);
  // Several parts need cosines.
  element("grid").classList.toggle("no-parts", isDistance(info));
}

function showClasses() {
  const select = element("class");
  const choices = [[ALL_CLASSES, ""], ...info.classes.map(({ name, count }) => [`${name} (${count})`, name])];
  hide(select.closest(".filter"), choices.length === 1);
  const chosen = view?.className ?? "";
  if (!choices.some(([, name]) => name === chosen)) choices.push([chosen, chosen]);
  // Otherwise an open list would close.
  if (select.dataset.shown !== `${choices}`) select.replaceChildren(...choices.map((choice) => new Option(...choice)));
  select.dataset.shown = `${choices}`;
  select.value = chosen;
}

function showEnd() {
  const { items, more, stopped, note, query, text } = view;
  hide("more", !more || !items.length);
  hide("end", more || Boolean(running));
  const none = info.images ? "No images were found." : "The gallery is empty.";
  write("end", items.length ? `No more images. ${(query || text) && note ? sentence(note) : ""}` : none);
  if (items.length) showMessage("count", `${plural(items.length, "image")} shown${more ? ", more below" : ""}.`);
  // Observe again, because only changes are reported: after a short page the button may still be visible.
  atEnd.disconnect();
  if (more && !stopped) atEnd.observe(element("more"));
}

const atEnd = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && loadMore(), {
  rootMargin: "600px",
});

let busyTimer = 0;
function setBusy(busy) {
  clearTimeout(busyTimer);
  element("grid").setAttribute("aria-busy", String(busy));
  // Fast requests show no progress bar.
  if (!busy) hide("progress", true);
  else {
    busyTimer = setTimeout(() => {
      hide("progress", false);
      showMessage("count", "Searching …");
    }, 150);
  }
}

/** where: "error", "hint" or "count"; again: the action of the button "Try again". */
function showMessage(where, text, again = null) {
  if (where !== "error") return write(where, text);
  write("error-text", text);
  hide("error", !text);
  hide("error-again", !again);
  element("error-again").onclick = again;
}

// The query: files, paste, URLs.

async function searchFile(file, count) {
  if (!info) return;
  if (!file.size) return showMessage("error", `${file.name} is empty.`);
  if (tooLarge(file)) return showMessage("error", tooLarge(file));
  const value = uniqueName();
  uploads.add(value, file);
  await go(queryOf("upload", value));
  if (count > 1) showMessage("hint", `Only one image can be the query. Searched with ${file.name}.`);
}

/** An error message, or "". */
function tooLarge(file) {
  const limit = info.limits.body_bytes - OVERHEAD;
  if (file.size <= limit) return "";
  return `${file.name} is too large (${megabytes(file.size)}). The limit is ${megabytes(limit)}.`;
}

function searchUrl(text) {
  if (!info) return;
  const url = URL.canParse(text) ? new URL(text) : {};
  if (!/^https?:$/.test(url.protocol)) return showMessage("error", "The pasted or dropped data contains no image.");
  const isOwn = url.origin === location.origin && url.pathname === location.pathname;
  if (isOwn && parse(url.hash).query) return go(parse(url.hash));
  return showMessage("error", "The service does not download images. Save the image and choose the file.");
}

listen({ file: searchFile, text: searchUrl });

function searchPart(rectangle) {
  // Without a rectangle, the whole image is searched.
  const next = { ...view, crop: rectangle, ...(rectangle ? {} : { boxes: [] }) };
  // Several crops in a row are one history entry.
  if (!sameImage(next, view)) go(next, { replace: Boolean(rectangle && view.crop) });
}

on("query-image", "load", () => {
  const { naturalWidth, naturalHeight } = element("query-image");
  element("stage").style.setProperty("--ratio", naturalWidth / naturalHeight);
  showNoPreview("");
});
on("query-image", "error", () => showNoPreview("This browser can’t display the image. The search still works."));

// The text.

function searchText(text) {
  const { added, subtracted } = textParts(text);
  if (text && !added && subtracted.length && !view.query) {
    return showMessage("error", "Say what to find, too: words with a minus sign only leave images out.");
  }
  return text === view.text ? null : go(promoted({ ...view, text }));
}

on("text-form", "submit", (event) => {
  event.preventDefault();
  if (info) searchText(element("text").value.trim());
});
on("text-clear", "click", () => searchText(""));
on("text-weight", "change", (event) => go({ ...view, weight: Number(event.target.value) }));

// The rest of the page.

on("class", "change", (event) => {
  // Several classes in a row are one history entry.
  const replace = Boolean(view.className && event.target.value);
  go({ ...view, className: event.target.value }, { replace });
});
on("more", "click", loadMore);
on("shuffle", "click", () => go(parse(""), { replace: true }));
on("brand", "click", (event) => {
  if (!info || isModified(event) || event.shiftKey) return;
  event.preventDefault();
  go(parse(""));
});
on("skip", "click", (event) => {
  event.preventDefault();
  if (grid.items.length) grid.focus();
  else element("results-title").focus();
});
on("results-title", "keydown", (event) => {
  if (event.key !== "ArrowDown" || !grid.items.length) return;
  event.preventDefault();
  grid.focus();
});
on("error-close", "click", () => showMessage("error", ""));
on("open-add", "click", () => {
  const upload = view?.query?.kind === "upload" ? uploads.get(view.query.value) : null;
  addDialog.open({ current: upload, changes: info.changes, key, classes: info.classes });
});
on("open-help", "click", () => element("help").showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  on(dialog.querySelector(".close"), "click", () => dialog.close());
  on(dialog, "pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const outside = event.clientX < left || event.clientX > right || event.clientY < top || event.clientY > bottom;
    if (event.target === dialog && outside) dialog.close();
  });
}

on(document, "keydown", (event) => {
  if (isModified(event) || event.defaultPrevented) return;
  if (!element("help-keys").checked || isTextField(event.target) || document.querySelector("dialog[open]")) return;
  const action = {
    "/": () => element(info?.text ? "text" : "choose").focus(),
    "?": () => element("help").showModal(),
    c: () => view?.query && !element("crop-row").hidden && element("crop-open").click(),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

on(window, "popstate", showCurrentUrl);
history.scrollRestoration = "manual";

async function start() {
  try {
    showMessage("error", "");
    info = await call("v1/info", { onWait: () => showMessage("hint", "The service is starting …") });
  } catch (error) {
    showMessage("error", error.message, start);
    return;
  }
  showMessage("hint", "");
  showInfo();
  await showCurrentUrl();
}

start();
