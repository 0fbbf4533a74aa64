// The page's one script: it reads what a person does, asks the service, and shows the results.

import { Adding } from "./adding.js";
import { format, parse, sameCrop, sameQuery } from "./address.js";
import { fetchPage } from "./results.js";
import { CropTools } from "./cropping.js";
import { Grid, nameOf } from "./grid.js";
import { isWriting, listen, Uploads } from "./intake.js";
import { call, ServiceError } from "./service.js";
import { Viewer } from "./viewer.js";
import { megabytes, plural, scoreHelp, sentence } from "./words.js";

const part = (id) => document.getElementById(id);

// Searches that back and forward can still reach without asking again.
const KEPT = 50;
// Bytes of a request that are not the image's.
const ROOM = 2000;

let info = null;
let view = null; // what is shown
let key = ""; // for changes; never stored
let running = null; // AbortController of the search under way
const views = new Map(); // history entry → its view, so that going back needs no search
const uploads = new Uploads();
const known = new Map(); // id → the gallery image, as the service gave it
let serial = 0;

const mark = () => `${Math.round(performance.timeOrigin).toString(36)}-${(serial += 1)}`;

const grid = new Grid(part("grid"), part("card"), {
  href: (item) => format(ofImage(item)),
  search: (item) => go(ofImage(item)),
  open: (item) => viewer.open(item, info.changes, key),
});
const viewer = new Viewer({ neighbor, search: (item) => go(ofImage(item)), remove });
const adding = new Adding({ add, search: (item) => go(ofImage(item)), done: changed });
const crop = new CropTools({ search: searchPart, say: (text) => say("count", text) });

// ---- views: what is asked, and what came back -------------------------------------------------------------------

function ofImage(item) {
  known.set(item.id, item);
  return { query: { kind: "id", value: String(item.id) }, crop: null, className: "" };
}

function newView(address) {
  const made = { ...address, items: [], ids: new Set(), offset: 0, more: true, vector: null, note: "", scroll: 0 };
  // The same image with another class needs neither another upload nor another description.
  if (view?.vector && sameQuery(view.query, made.query) && sameCrop(view.crop, made.crop)) made.vector = view.vector;
  return made;
}

const addressOf = ({ query, crop: rectangle, className }) => ({ query, crop: rectangle, className });

/** Search first, show when the results are there: what fails leaves everything as it was. */
async function go(address, { replace = false } = {}) {
  if (!info) return;
  say("hint", "");
  const next = newView(address);
  const hadFocus = part("grid").contains(document.activeElement) || document.activeElement === document.body;
  if (!(await load(next, { again: () => go(address, { replace }) }))) {
    // The choice of a class goes back, and what was loading on goes on.
    showClasses();
    if (view) showEnd();
    return;
  }
  leave();
  const entry = mark();
  const here = format(next);
  const step = replace || here === location.hash ? "replaceState" : "pushState";
  history[step]({ entry }, "", here || location.pathname);
  keep(entry, next);
  show(next);
  window.scrollTo(0, 0);
  if (hadFocus) part("found-title").focus({ preventScroll: true });
}

/** After back, forward, a reload or an edit of the address. */
async function arrive() {
  if (!info) return;
  leave();
  running?.abort();
  if (!history.state?.entry) history.replaceState({ entry: mark() }, "", location.href);
  const { entry } = history.state;
  const kept = views.get(entry);
  if (kept && (kept.items.length || !kept.more)) {
    say("error", "");
    show(kept);
    window.scrollTo(0, kept.scroll);
    if (kept.focus) grid.focus(kept.focus);
    return;
  }
  const address = parse(location.hash);
  if (address.query?.kind === "upload" && !uploads.has(address.query.value)) {
    await home("That image was kept in its tab only, and is gone after a reload. Choose it again.");
    return;
  }
  const next = newView(address);
  keep(entry, next);
  show(next);
  await load(next, { again: arrive, lost: home });
  if (view === next) show(next);
}

async function home(message) {
  history.replaceState({ entry: mark() }, "", location.pathname);
  const next = newView(parse(""));
  keep(history.state.entry, next);
  show(next);
  await load(next, { again: () => home(message) });
  show(next);
  if (message) say("error", message);
}

function keep(entry, next) {
  views.set(entry, next);
  for (const oldest of views.keys()) {
    if (views.size <= KEPT) break;
    views.delete(oldest);
  }
}

function leave() {
  if (!view) return;
  view.scroll = window.scrollY;
  view.focus = grid.focusedId;
}

/** Fetch the next page of a view; true if it came. */
async function load(wanted, { again, lost = null } = {}) {
  running?.abort();
  const controller = new AbortController();
  running = controller;
  busy(true);
  say("error", "");
  let waited = false;
  const onWait = (seconds) => {
    waited = true;
    say("hint", `The service is busy. Trying again in ${plural(seconds, "second")} …`);
  };
  try {
    const page = await fetchPage(wanted, { info, uploads }, { signal: controller.signal, onWait });
    const fresh = page.items.filter((item) => !wanted.ids.has(item.id));
    for (const item of fresh) {
      wanted.ids.add(item.id);
      known.set(item.id, item);
    }
    wanted.items.push(...fresh);
    wanted.fresh = fresh;
    const { offset, more, note, vector = wanted.vector } = page;
    Object.assign(wanted, { offset, more, note, vector });
    wanted.milliseconds ??= page.milliseconds;
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (!(error instanceof ServiceError)) throw error;
    if (lost && [400, 404, 422].includes(error.status)) await lost(error.message);
    else {
      wanted.stopped = true;
      const hopeless = [400, 404, 413, 415, 422].includes(error.status);
      say("error", error.message, hopeless ? null : again);
    }
    return false;
  } finally {
    if (running === controller) {
      running = null;
      busy(false);
      if (waited) say("hint", "");
    }
  }
}

async function loadMore() {
  const wanted = view;
  if (running || !wanted?.more) return;
  wanted.stopped = false;
  if ((await load(wanted, { again: loadMore })) && view === wanted) {
    grid.append(wanted.fresh);
    showEnd();
  } else if (view === wanted) showEnd();
}

async function neighbor(item, step) {
  const at = grid.items.findIndex((each) => each.id === item.id) + step;
  if (at >= grid.items.length) await loadMore();
  return grid.items[at] ?? null;
}

// ---- changes of the gallery -------------------------------------------------------------------------------------

async function add(file, className, given) {
  if (tooLarge(file)) throw new ServiceError(413, tooLarge(file));
  const body = new FormData();
  body.append("image", file, file.name);
  const item = await call("/api/images", { method: "POST", body, key: given, parameters: { class_name: className } });
  key = given;
  return item;
}

async function remove(item, given) {
  await call(`/api/images/${item.id}`, { method: "DELETE", key: given });
  key = given;
  const at = view.items.findIndex((each) => each.id === item.id);
  view.items = view.items.filter((each) => each.id !== item.id);
  view.offset = Math.max(view.offset - 1, 0);
  const scroll = window.scrollY;
  await changed();
  if (view.query?.kind === "id" && Number(view.query.value) === item.id) {
    await home("");
  } else {
    show(view);
    window.scrollTo(0, scroll);
    const next = view.items[Math.min(at, view.items.length - 1)];
    if (next) grid.focus(next.id);
  }
  say("count", `${nameOf(item)} was removed.`);
}

/** What was searched before no longer says what a search would. */
async function changed() {
  for (const [entry, each] of views) if (each !== view) views.delete(entry);
  try {
    info = await call("/api/info");
  } catch (error) {
    say("error", error.message, changed);
    return;
  }
  showInfo();
  showClasses();
  showEnd();
}

// ---- showing ----------------------------------------------------------------------------------------------------

function show(shown) {
  view = shown;
  part("layout").classList.toggle("asked", Boolean(shown.query));
  showQuery();
  showClasses();
  grid.show(shown.items);
  const [title, summary] = words();
  part("found-title").textContent = title;
  part("summary").textContent = summary;
  part("shuffle").hidden = Boolean(shown.query || shown.className);
  document.title = shown.query ? `${title} – Lookalike` : "Lookalike";
  showEnd();
}

function words() {
  if (!view.query && view.className) return [`All of the class ${view.className}`, ""];
  if (!view.query) return ["Or start from one of these", ""];
  const title = `Images that look like ${view.crop ? "a part of " : ""}${queryName()}`;
  const took = Math.max(1, Math.round(view.milliseconds));
  const time = view.milliseconds === undefined ? "" : ` · searched in ${took} ms`;
  const kind = view.className ? ` · class ${view.className} only` : "";
  return [title, `Most alike first${kind}${time}`];
}

function queryName() {
  const { kind, value } = view.query;
  if (kind === "upload") return uploads.get(value)?.name ?? "your image";
  const item = known.get(Number(value));
  return item ? nameOf(item) : `image ${value}`;
}

function showQuery() {
  const { query } = view;
  part("query").hidden = !query;
  part("drop-words").textContent = query ? "Drop or paste another image" : "Drop an image here, or paste one";
  part("choose").textContent = query ? "Choose another" : "Choose an image";
  if (!query) {
    part("query-image").removeAttribute("src");
    crop.enabled = false;
    crop.show(null);
    return;
  }
  const source = { id: `/api/images/${query.value}/file`, upload: uploads.get(query.value)?.url }[query.kind];
  const image = part("query-image");
  part("query-name").textContent = queryName();
  image.alt = `Your image: ${queryName()}`;
  if (!source) {
    image.removeAttribute("src");
    unseen("This tab no longer keeps the image. The search works all the same.");
  } else if (image.getAttribute("src") !== source) {
    unseen("");
    image.src = source;
  }
  crop.show(view.crop);
  if (query.kind === "id" && !known.has(Number(query.value))) nameLater(Number(query.value));
}

async function nameLater(id) {
  try {
    known.set(id, await call(`/api/images/${id}`));
  } catch {
    return; // Its search says what is wrong.
  }
  if (view?.query?.kind !== "id" || Number(view.query.value) !== id) return;
  const [title] = words();
  part("found-title").textContent = title;
  part("query-name").textContent = queryName();
  part("query-image").alt = `Your image: ${queryName()}`;
  document.title = `${title} – Lookalike`;
}

/** Words in the place of a query that can't be shown. */
function unseen(text) {
  part("query-unseen").textContent = text;
  part("query-unseen").hidden = !text;
  part("stage").hidden = Boolean(text);
  crop.enabled = !text;
}

function showInfo() {
  part("about").textContent = `${plural(info.images, "image")} · ${info.extractor} · ${info.index}`;
  part("open-adding").hidden = info.changes === "off";
  part("help-scores").textContent = scoreHelp(info);
}

function showClasses() {
  const select = part("class");
  const names = info.classes.map((each) => each.name);
  const options = info.classes.map(({ name, count }) => new Option(`${name} (${count})`, name));
  if (view?.className && !names.includes(view.className)) options.push(new Option(view.className, view.className));
  const wanted = [new Option("All classes", ""), ...options];
  const same = select.length === wanted.length && wanted.every((each, at) => each.text === select.options[at].text);
  if (!same) select.replaceChildren(...wanted);
  select.value = view?.className ?? "";
  select.closest(".filter").hidden = !options.length;
}

function showEnd() {
  const { items, more, stopped, note, query } = view;
  part("more").hidden = !more || !items.length;
  const end = part("end");
  end.hidden = more || Boolean(running);
  if (!items.length) end.textContent = info.images ? "No image was found." : "The gallery is empty.";
  else end.textContent = query && note ? `That is all. ${sentence(note)}` : "That is all.";
  if (items.length) say("count", `${plural(items.length, "image")} shown${more ? ", more below" : ", that is all"}.`);
  // Observed anew, for it tells of a change only: the button may still be in sight after a short page.
  atEnd.disconnect();
  if (more && !stopped) atEnd.observe(part("more"));
}

const atEnd = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && loadMore(), {
  rootMargin: "600px",
});

let busyLater = 0;
function busy(on) {
  clearTimeout(busyLater);
  part("grid").setAttribute("aria-busy", String(on));
  // What is quick needs no sign of it.
  if (!on) part("progress").hidden = true;
  else {
    busyLater = setTimeout(() => {
      part("progress").hidden = false;
      say("count", "Searching …");
    }, 150);
  }
}

/** Where: "error", "hint" or "count"; an error may come with something to try again. */
function say(where, text, again = null) {
  if (where !== "error") {
    part(where).textContent = text;
    return;
  }
  part("error-text").textContent = text;
  part("error").hidden = !text;
  part("error-again").hidden = !again;
  part("error-again").onclick = again;
}

// ---- the query: files, paste, addresses -------------------------------------------------------------------------

async function take(file, count) {
  if (!info) return;
  if (!file.size) return say("error", `${file.name} is empty: there is nothing to search with.`);
  if (tooLarge(file)) return say("error", tooLarge(file));
  const value = mark();
  uploads.add(value, file);
  await go({ query: { kind: "upload", value }, crop: null, className: "" });
  if (count > 1) say("hint", `Of ${count} files, ${file.name} was taken: one image asks at a time.`);
}

/** Words, or "" where the service takes it. */
function tooLarge(file) {
  const most = info.limits.body_bytes - ROOM;
  if (file.size <= most) return "";
  return `${file.name} has ${megabytes(file.size)}; this service takes up to ${megabytes(most)}.`;
}

function takeText(text) {
  if (!info) return;
  const address = webAddress(text);
  if (!address) return say("error", "That is neither an image nor an address of one.");
  if (address.origin === location.origin && parse(address.hash).query) return go(parse(address.hash));
  return say("error", "This service fetches no images from the web. Save the image, and choose the file.");
}

function webAddress(text) {
  try {
    const address = new URL(text.trim());
    return /^https?:$/.test(address.protocol) ? address : null;
  } catch {
    return null;
  }
}

listen({ file: take, text: takeText });

function searchPart(rectangle) {
  if (sameCrop(rectangle, view.crop)) return;
  // Trying one box after the other is one step of the history.
  go({ ...addressOf(view), crop: rectangle }, { replace: Boolean(rectangle && view.crop) });
}

part("query-image").addEventListener("load", () => {
  const { naturalWidth, naturalHeight } = part("query-image");
  part("stage").style.setProperty("--ratio", naturalWidth / naturalHeight);
  unseen("");
});
part("query-image").addEventListener("error", () => {
  unseen("This browser can’t show the image. The search works all the same.");
});

// ---- the rest of the page ---------------------------------------------------------------------------------------

part("class").addEventListener("change", (event) => {
  // From class to class by arrow keys is one step of the history.
  const replace = Boolean(view.className && event.target.value);
  go({ ...addressOf(view), className: event.target.value }, { replace });
});
part("more").addEventListener("click", loadMore);
part("shuffle").addEventListener("click", async () => {
  const next = newView(parse(""));
  if (!(await load(next, { again: () => part("shuffle").click() }))) return;
  views.set(history.state.entry, next);
  show(next);
});
part("brand").addEventListener("click", (event) => {
  if (!info || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(parse(""));
});
part("skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (grid.items.length) grid.focus(grid.items[0].id);
  else part("found-title").focus();
});
part("found-title").addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" || !grid.items.length) return;
  event.preventDefault();
  grid.focus(grid.items[0].id);
});
part("error-close").addEventListener("click", () => say("error", ""));
part("open-adding").addEventListener("click", () => {
  const upload = view?.query?.kind === "upload" ? uploads.get(view.query.value) : null;
  adding.open({ current: upload, changes: info.changes, key, classes: info.classes });
});
part("open-help").addEventListener("click", () => part("help").showModal());
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const beside = event.clientX < left || event.clientX > right || event.clientY < top || event.clientY > bottom;
    if (event.target === dialog && beside) dialog.close();
  });
}
part("help-close").addEventListener("click", () => part("help").close());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (!part("help-keys").checked || isWriting(event.target) || document.querySelector("dialog[open]")) return;
  const doing = {
    "/": () => part("choose").focus(),
    "?": () => part("help").showModal(),
    c: () => view?.query && !part("crop-row").hidden && part("crop-open").click(),
  }[event.key];
  if (!doing) return;
  event.preventDefault();
  doing();
});

window.addEventListener("popstate", arrive);
history.scrollRestoration = "manual";

async function start() {
  try {
    say("error", "");
    info = await call("/api/info", {
      onWait: () => say("hint", "The service is getting ready …"),
    });
  } catch (error) {
    say("error", error.message, start);
    return;
  }
  say("hint", "");
  showInfo();
  await arrive();
}

start();
