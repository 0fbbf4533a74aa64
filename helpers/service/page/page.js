// The main script of the page: handles input, sends requests, and shows the results.

import { AddDialog } from "./add_dialog.js";
import { Changes } from "./changes.js";
import { MarksBar, SelectionBar, UndoBar } from "./dock.js";
import { DuplicatesDialog } from "./duplicates.js";
import { MAX_ALSO, format, isFiltered, isSearch, isSingle, parse, sameImage, textParts } from "./url_state.js";
import { fetchObjects, fetchPage, fetchWhy } from "./results.js";
import { MoreImages, TEXT_WEIGHTS, fillWeights } from "./more_images.js";
import { CropTools } from "./crop_tools.js";
import { Grid, nameOf } from "./grid.js";
import { ObjectBoxes } from "./objects.js";
import { isTextField, listen, Uploads } from "./query_input.js";
import { call, ServiceError } from "./api.js";
import { askKey } from "./key_field.js";
import { storedUpload, storeUpload } from "./upload_store.js";
import { Viewer } from "./viewer.js";
import { copy } from "./export.js";
import { isDistance } from "./text.js";
import { element, hide, isModified, letClose, on, tell, write } from "./web/dom.js";
import { icon } from "./web/icons.js";
import { reduced } from "./web/reduce.js";
import { ALL_CLASSES, NO_CLASS, NO_RERANKING, classOnly, inBothLists, megabytes, plural, sentence } from "./web/words.js";

const MAX_VIEWS = 50; // for back and forward
const OVERHEAD = 2000; // bytes of a request in addition to the image
const QUERY_SIDE = 2048; // pixels of the longest side of a query that is reduced
const ADDED_SIDE = 4096; // and of an image that is added
const WITHOUT = "\0"; // value of the choice of images without a class; no class has this name

let info = null;
let view = null; // the current view
let running = null; // AbortController of the current request
let coming = null; // the state of a search that has not ended
const views = new Map(); // history entry → its view, so that going back needs no request
const uploads = new Uploads();
const known = new Map(); // id → image of the gallery
const found = new Map(); // query image → its objects, or null while they are not known

// Names sort by time, and no two tabs give the same one.
const uniqueName = () =>
  `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;

const search = (item) => go(viewOf(item));
const changes = new Changes(() => info.changes);
const actions = {
  href: (item) => format(viewOf(item)),
  open: search,
  enlarge: (item) => viewer.open(item),
  add: addToQuery,
  good: (item) => mark(item, true),
  bad: (item) => mark(item, false),
  pick: (item) => selection.toggle(item),
};
const grid = new Grid(element("grid"), actions);
const secondGrid = new Grid(element("second-grid"), actions);
const moreImages = new MoreImages(element("also"), element("chip"), (also) => go(promoted({ ...latest(), also })));
const viewer = new Viewer({
  neighbor, search, add: addToQuery, mark, setClass,
  remove: (item, key) => {
    changes.key = key;
    return removeAll([item]);
  },
  why: (item) => fetchWhy(view, item.id, uploads),
  state: (item) => ({
    changes: info.changes,
    key: changes.key,
    isSearch: isSearch(view),
    canCombine: !isDistance(info),
    canExplain: isSingle(view) && item.score !== undefined,
    mark: view.marks.get(item.id),
  }),
});
const addDialog = new AddDialog({ add, search, done: changed });
const marksBar = new MarksBar({ search: searchMarked, forget: () => searchMarked(new Map()) });
const selection = new SelectionBar({
  changed: decorate,
  shown: () => view.items,
  remove: (items) => attempt(() => removeAll(items)),
  announce: (text) => showMessage("hint", text),
});
const undo = new UndoBar();
new DuplicatesDialog({ find: () => changes.duplicates(), remove: removeAll, total: () => info.images });
const objects = new ObjectBoxes(element("objects"), (boxes) => go({ ...latest(), boxes }));
const crop = new CropTools({ search: searchPart, announce: (text) => showMessage("count", text) });

// Views: queries and their results.

function viewOf(item) {
  known.set(item.id, item);
  return queryOf("id", String(item.id));
}

/** Another query with the same method. */
const queryOf = (kind, value) => {
  const { rerank = "", compare = "" } = view ?? {};
  return { ...parse(""), rerank, compare, query: { kind, value } };
};

/** A view of a state of url_state.js; marks: those that are not applied yet, too. */
function newView(given) {
  const state = { ...parse(""), ...given };
  const marks = new Map(given.marks ?? [...state.good.map((id) => [id, true]), ...state.bad.map((id) => [id, false])]);
  const empty = () => ({ items: [], ids: new Set(), offset: 0, more: true, note: "", order: null });
  const next = { ...state, ...empty(), marks, vector: null, scroll: 0, milliseconds: undefined, stopped: false };
  // The same query with another class or text needs no second upload and feature extraction.
  if (view?.vector && sameImage(view, next)) next.vector = view.vector;
  const isCompared = state.compare && isSingle(state);
  next.second = isCompared ? { ...next, ...empty(), rerank: state.compare.replace(/^none$/, ""), second: null } : null;
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
  const also = [...latest().also.filter((part) => part.id !== item.id), { id: item.id, weight: 1 }];
  if (also.length > MAX_ALSO) return showMessage("error", `A query has at most ${MAX_ALSO} further images.`);
  return go(promoted({ ...latest(), also }));
}

/** The state to change: that of a search that has not ended, or else that of the view. */
const latest = () => coming ?? view;

/** Search, then show the results. After an error the page stays as it was. */
async function go(state, { replace = false } = {}) {
  if (!info) return;
  showMessage("hint", "");
  coming = state;
  const next = newView(state);
  const hadFocus = element("grid").contains(document.activeElement) || document.activeElement === document.body;
  const loaded = await load(next, { again: () => go(state, { replace }) });
  if (coming === state) coming = null;
  if (!loaded) {
    // Restore the controls, and continue to load the current view.
    showControls();
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
  coming = null;
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
  if (state.query?.kind === "upload" && !(await findUpload(state.query.value))) {
    await home(
      "This is a link to a search with an image that was uploaded in another browser, or long ago. Choose the image again.",
    );
    return;
  }
  const next = newView(state);
  keep(entry, next);
  show(next);
  await load(next, { again: showCurrentUrl, lost: home });
  if (view === next) show(next);
}

/** Whether this tab or the database of the browser has an upload. */
async function findUpload(value) {
  if (!uploads.has(value)) {
    const file = await storedUpload(value);
    if (file) uploads.add(value, file);
  }
  return uploads.has(value);
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
  setBusy(true, target === view || !view?.items.length);
  showMessage("error", "");
  let waited = false;
  const onWait = (seconds) => {
    waited = true;
    showMessage("hint", `The service is busy. Trying again in ${plural(seconds, "second")} …`);
  };
  const options = { signal: controller.signal, onWait };
  try {
    await fetchInto(target, options);
    if (target.second) {
      target.second.vector ??= target.vector;
      await fetchInto(target.second, options);
    }
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

async function fetchInto(target, options) {
  target.fresh = [];
  if (!target.more) return;
  const page = await fetchPage(target, { info, uploads }, options);
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
}

const hasMore = ({ more, second }) => more || Boolean(second?.more);

async function loadMore() {
  const target = view;
  if (running || !target || !hasMore(target)) return;
  target.stopped = false;
  if ((await load(target, { again: loadMore })) && view === target) {
    grid.append(target.fresh);
    if (target.second) secondGrid.append(target.second.fresh);
    decorate();
    showEnd();
  } else if (view === target) showEnd();
}

async function neighbor(item, step) {
  const index = grid.items.findIndex((each) => each.id === item.id) + step;
  if (index >= grid.items.length) await loadMore();
  return grid.items[index] ?? null;
}

// Changes of the gallery.

async function add(file, className, key) {
  const smaller = await reduced(file, limits(ADDED_SIDE));
  if (tooLarge(smaller)) throw new ServiceError(413, tooLarge(smaller));
  return changes.add(smaller, className, key);
}

/** Show the error of an action. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    showMessage("error", error.message);
  }
}

async function removeAll(items) {
  const removed = [];
  try {
    for (const item of items) {
      await changes.remove(item.id);
      removed.push(item);
    }
  } finally {
    if (removed.length) await showRemoved(removed);
  }
}

async function showRemoved(removed) {
  const gone = new Set(removed.map(({ id }) => id));
  const index = view.items.findIndex((each) => gone.has(each.id));
  for (const target of [view, view.second].filter(Boolean)) {
    const kept = target.items.filter((each) => !gone.has(each.id));
    target.offset = Math.max(target.offset - (target.items.length - kept.length), 0);
    target.items = kept;
  }
  for (const id of gone) selection.replace(id);
  const text = removed.length === 1 ? `${nameOf(removed[0])} was removed.` : `${plural(removed.length, "image")} were removed.`;
  undo.offer(text, () => restoreAll(removed));
  const scroll = window.scrollY;
  await changed();
  if (view.query?.kind === "id" && gone.has(Number(view.query.value))) return home("");
  show(view);
  window.scrollTo(0, scroll);
  const next = view.items[Math.min(Math.max(index, 0), view.items.length - 1)];
  if (next) grid.focus(next.id);
}

/** Undo a removal; resolves to a message. */
async function restoreAll(removed) {
  for (const item of removed) known.delete(item.id);
  while (removed.length) {
    const restored = await changes.restore(removed[0].id);
    known.set(restored.id, restored);
    removed.shift();
  }
  await changed();
  await refresh();
  return "The removal was undone.";
}

/** Search again for the current view, after the gallery has changed. */
async function refresh() {
  const next = newView(view);
  if (!(await load(next, { again: refresh }))) return;
  const scroll = window.scrollY;
  keep(history.state.entry, next);
  show(next);
  window.scrollTo(0, scroll);
}

/** Change the class of an image, which then has another id; resolves to the new item. */
async function setClass(item, name) {
  const next = { ...item, ...(await changes.setClass(item.id, name)) };
  known.set(next.id, next);
  selection.replace(item.id, next);
  const swap = (id) => (id === item.id ? next.id : id);
  for (const target of [view, view.second].filter(Boolean)) {
    target.items = target.items.map((each) => (each.id === item.id ? { ...each, ...next, rank: each.rank, score: each.score, scoreText: each.scoreText } : each));
    target.ids.add(next.id);
    target.good = target.good.map(swap);
    target.bad = target.bad.map(swap);
    target.marks = new Map([...target.marks].map(([id, good]) => [swap(id), good]));
    target.also = target.also.map((part) => ({ ...part, id: swap(part.id) }));
    if (target.query?.kind === "id") target.query = { ...target.query, value: String(swap(Number(target.query.value))) };
  }
  history.replaceState(history.state, "", format(view) || location.pathname);
  const scroll = window.scrollY;
  await changed();
  show(view);
  window.scrollTo(0, scroll);
  return next;
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
  showControls();
  showEnd();
}

// Marks.

function mark(item, good) {
  const { marks } = view;
  if (marks.get(item.id) === good) marks.delete(item.id);
  else marks.set(item.id, good);
  decorate();
}

function searchMarked(marks) {
  const ids = (good) => [...marks].filter((each) => each[1] === good).map(([id]) => id);
  const [good, bad] = [ids(true), ids(false)];
  if (isApplied(view, marks)) {
    view.marks = new Map(marks);
    return decorate();
  }
  return go({ ...latest(), good, bad, marks: null });
}

const isApplied = ({ good, bad }, marks) =>
  marks.size === good.length + bad.length &&
  good.every((id) => marks.get(id) === true) &&
  bad.every((id) => marks.get(id) === false);

/** Marks, selected images and common results on the cards, and the bars below. */
function decorate() {
  if (!view) return;
  const { marks, second, items } = view;
  const ranks = (list) => new Map(list.map(({ id }, index) => [id, index + 1]));
  const picked = selection.items;
  grid.decorate({ marks, picked, others: second && ranks(second.items) });
  secondGrid.decorate({ marks, picked, others: ranks(items) });
  marksBar.show(marks, isApplied(view, marks));
}

// Showing.

function show(shown) {
  view = shown;
  element("layout").classList.toggle("has-query", Boolean(shown.query));
  document.querySelector("h1").classList.toggle("visually-hidden", Boolean(shown.query));
  showQuery();
  showText();
  showControls();
  grid.show(shown.items);
  secondGrid.show(shown.second?.items ?? []);
  element("columns").classList.toggle("compared", Boolean(shown.second));
  // Several parts and the gallery itself have no query that marks could move.
  element("columns").classList.toggle("no-marks", !isSearch(shown) || shown.boxes.length + (shown.crop ? 1 : 0) > 1);
  decorate();
  showTitle();
  hide("shuffle", isSearch(shown) || isFiltered(shown) || Boolean(shown.sort));
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
  const { query, text, className, sort, second } = view;
  if (!isSearch(view)) {
    if (isFiltered(view)) return [`All images ${className === null ? "without a class" : `of class ${className}`}`, ""];
    return [sort ? "All images" : "Or start from one of these", ""];
  }
  const parts = view.boxes.length + (view.crop ? 1 : 0);
  const what = ["", "a part of "][parts] ?? `${parts} parts of `;
  const image = query ? ` that look like ${what}${queryName()}` : "";
  const others = view.also.length ? `, with ${plural(view.also.length, "further image")}` : "";
  const title = `Images${image}${textTitle()}${others}`;
  const milliseconds = Math.max(1, Math.round(view.milliseconds));
  const marks = view.good.length + view.bad.length;
  const common = second && view.items.filter(({ id }) => second.ids.has(id)).length;
  const facts = [
    `${text || view.also.length ? "Best match" : "Most similar"} first`,
    isFiltered(view) && classOnly(className),
    isSingle(view) && view.rerank && !second && `re-ranked by ${view.rerank}`,
    marks && `moved by ${plural(marks, "mark")}`,
    view.threshold !== null && `scores from ${view.threshold}`,
    second && inBothLists(common),
    view.milliseconds !== undefined && `searched in ${milliseconds} ms`,
  ];
  return [title, facts.filter(Boolean).join(" · ")];
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
  if (view.query?.kind === "id" && Number(view.query.value) === id) showTitle();
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
  element("class-names").replaceChildren(...info.classes.map(({ name }) => new Option(name, name)));
  write("help-extractor", info.extractor);
  hide("help-similarity", isDistance(info));
  hide("help-distance", !isDistance(info));
  hide("help-parts", !info.regions);
  // Several parts need cosines.
  for (const id of ["grid", "second-grid"]) element(id).classList.toggle("no-parts", isDistance(info));
}

/** The class, the order and the method. */
function showControls() {
  const shown = view ?? newView({});
  const classes = info.classes.map(({ name, count }) => [`${name} (${count})`, name]);
  const without = info.images - info.classes.reduce((sum, { count }) => sum + count, 0);
  if (without || shown.className === null) classes.push([`${NO_CLASS} (${without})`, WITHOUT]);
  fill("class", [[ALL_CLASSES, ""], ...classes], shown.className ?? WITHOUT);
  hide(element("class").closest(".filter"), !info.classes.length);
  const searching = isSearch(shown);
  element("sort").value = shown.sort;
  hide("sort-label", searching);
  hide("method", !searching);
  hide("copy-link", !searching);
  hide("open-duplicates", searching || info.changes === "off" || !info.images);
  for (const label of document.querySelectorAll("#method .single")) hide(label, !isSingle(shown));
  const names = info.rerankers.filter((name) => name !== "none").map((name) => [name, name]);
  fill("rerank", [[NO_RERANKING, ""], ...names], shown.rerank);
  fill("compare", [["nothing", ""], [NO_RERANKING, "none"], ...names], shown.compare);
  element("threshold").value = shown.threshold ?? "";
  for (const [id, name] of [["first-title", shown.rerank], ["second-title", shown.second?.rerank]]) {
    tell(id, shown.second ? name || NO_RERANKING : "");
  }
  hide("second", !shown.second);
}

/** The choices of a select element; a value of a link is added. */
function fill(id, choices, chosen) {
  const select = element(id);
  const all = choices.some(([, value]) => value === chosen) ? choices : [...choices, [chosen, chosen]];
  // Otherwise an open list would close.
  if (select.dataset.shown !== `${all}`) select.replaceChildren(...all.map((choice) => new Option(...choice)));
  select.dataset.shown = `${all}`;
  select.value = chosen;
}

function showEnd() {
  const { items, stopped, note } = view;
  const more = hasMore(view);
  hide("more", !more || !items.length);
  hide("end", more || Boolean(running));
  const none = info.images ? "No images were found." : "The gallery is empty.";
  write("end", items.length ? `No more images. ${isSearch(view) && note ? sentence(note) : ""}` : note ? sentence(note) : none);
  if (items.length) showMessage("count", `${plural(items.length, "image")} shown${more ? ", more below" : ""}.`);
  // Observe again, because only changes are reported: after a short page the button may still be visible.
  atEnd.disconnect();
  if (more && !stopped) atEnd.observe(element("more"));
}

const atEnd = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && loadMore(), {
  rootMargin: "600px",
});

let busyTimer = 0;
/** appends: whether the images will be added to those that are shown. */
function setBusy(busy, appends = false) {
  clearTimeout(busyTimer);
  const grids = view?.second ? [grid, secondGrid] : [grid];
  for (const { list } of grids) list.setAttribute("aria-busy", String(busy));
  // Fast requests show no progress bar.
  if (!busy) {
    hide("progress", true);
    for (const each of grids) each.showSkeletons(false);
  } else {
    busyTimer = setTimeout(() => {
      hide("progress", false);
      if (appends) for (const each of grids) each.showSkeletons();
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
  const smaller = await reduced(file, limits(QUERY_SIDE));
  if (tooLarge(smaller)) return showMessage("error", tooLarge(smaller));
  const value = uniqueName();
  uploads.add(value, smaller);
  storeUpload(value, smaller);
  await go(queryOf("upload", value));
  if (count > 1) showMessage("hint", `Only one image can be the query. Searched with ${file.name}.`);
  else if (smaller !== file) showMessage("hint", `${file.name} is large, so the browser reduced it before the search.`);
}

/** Of an image; side: of one that is reduced. */
const limits = (side) => ({ bytes: info.limits.body_bytes - OVERHEAD, pixels: info.limits.pixels, side });

/** An error message, or "". */
function tooLarge(file) {
  const { bytes } = limits();
  if (file.size <= bytes) return "";
  return `${file.name} is too large (${megabytes(file.size)}). The limit is ${megabytes(bytes)}.`;
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
  const next = { ...latest(), crop: rectangle, ...(rectangle ? {} : { boxes: [] }) };
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
  return text === view.text ? null : go(promoted({ ...latest(), text }));
}

on("text-form", "submit", (event) => {
  event.preventDefault();
  if (info) searchText(element("text").value.trim());
});
on("text-clear", "click", () => searchText(""));
on("text-weight", "change", (event) => go({ ...latest(), weight: Number(event.target.value) }));

// The rest of the page.

for (const [id, name] of [["open-add", "add"], ["crop-open", "crop"], ["copy-link", "link"]]) element(id).prepend(icon(name));

/** The current view with the values of the controls, of which several may have changed since. */
const chosen = () => {
  const value = (id) => element(id).value;
  const threshold = value("threshold") === "" ? null : Number(value("threshold"));
  const searched = isSearch(view) ? { rerank: value("rerank"), compare: value("compare"), threshold } : {};
  const className = value("class") === WITHOUT ? null : value("class");
  return { ...latest(), className, sort: value("sort"), ...searched };
};

// Several classes or thresholds in a row are one history entry.
on("class", "change", () => go(chosen(), { replace: isFiltered(view) && element("class").value !== "" }));
on("sort", "change", () => go(chosen(), { replace: true }));
on("rerank", "change", () => go(chosen()));
on("compare", "change", () => go(chosen()));
on("threshold", "change", () => go(chosen(), { replace: view.threshold !== null }));
on("copy-link", "click", async () => {
  const own = view.query?.kind === "upload" ? " It shows your image only in this browser." : "";
  showMessage("hint", (await copy(location.href)) ? `The link was copied.${own}` : "The browser did not copy the link.");
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
  addDialog.open({ current: upload, changes: info.changes, key: changes.key });
});
on("open-help", "click", () => element("help").showModal());
document.querySelectorAll("dialog:not(.viewer)").forEach(letClose);

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

/** The result of a request; if reading needs a key, the user enters it first. */
async function signedIn(request) {
  try {
    return await request();
  } catch (error) {
    if (error.status !== 401) throw error;
    const key = await askKey();
    if (!key) throw new ServiceError(401, "This gallery needs the key of the service.");
    await call("v1/session", { method: "POST", key });
    return request();
  }
}

async function start() {
  try {
    showMessage("error", "");
    const onWait = () => showMessage("hint", "The service is starting …");
    info = await signedIn(() => call("v1/info", { onWait }));
  } catch (error) {
    showMessage("error", error.message, start);
    return;
  }
  showMessage("hint", "");
  showInfo();
  await showCurrentUrl();
}

start();
