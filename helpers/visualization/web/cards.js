// A card: an image to search with, what is known about it, and its controls. The page and the query picker use this
// module. Names are inserted as text, never as HTML.

import { hide, make, write } from "./dom.js";
import { icon } from "./icons.js";
import { CONTROLS, NO_CLASS, SIGNS } from "./words.js";

// Ratios of the sides of a tile; longer images are cut.
const NARROWEST = 0.7;
const WIDEST = 2.6;

const MARKS = [["good", true], ["bad", false]];
// Control → CSS class, where they differ.
const CLASSES = { add: "add-part", good: "mark-good", bad: "mark-bad" };

/**
 * A new card, an `li` with its elements as `card.parts`: open, tile, image, sign, className, score, name, note, and
 * the controls. `data-control` of each control is its name, for one listener of the whole list.
 *
 * tag: "a" for a link, or "button"; controls: names of CONTROLS; tabIndex: of all controls.
 */
export function makeCard({ tag = "button", controls = [], tabIndex = 0 } = {}) {
  const image = make("img", { alt: "", draggable: false, decoding: "async" });
  const parts = {
    image,
    tile: make("span", { class: "tile" }, image),
    sign: make("span", { class: "sign", hidden: true }),
    className: make("span", { class: "class-name" }),
    score: make("span", { class: "score" }),
    name: make("span", { class: "file-name" }),
    note: make("span", { class: "card-note", hidden: true }),
  };
  const action = make("span", { class: "visually-hidden" }, "Search with ");
  const facts = make("span", { class: "facts" }, action, parts.sign, parts.className, parts.score);
  const button = { type: tag === "a" ? null : "button", class: "card-link", tabIndex, "data-control": "open" };
  parts.open = make(tag, button, parts.tile, facts, parts.name, parts.note);
  for (const name of controls) parts[name] = control(name, tabIndex);
  const card = make("li", { class: "card" }, parts.open, ...controls.map((name) => parts[name]));
  image.addEventListener("load", () => {
    card.classList.add("loaded");
    if (!card.hasRatio) setRatio(card, image.naturalWidth / image.naturalHeight);
  });
  return Object.assign(card, { parts });
}

function setRatio(card, ratio) {
  card.style.setProperty("--ratio", Math.min(Math.max(ratio, NARROWEST), WIDEST));
}

function control(name, tabIndex) {
  const [title] = CONTROLS[name];
  if (name === "pick") {
    return make("label", { class: "control pick", title }, make("input", { type: "checkbox", tabIndex, "data-control": name }));
  }
  const pressed = name === "good" || name === "bad" ? "false" : null;
  const given = { type: "button", class: `control ${CLASSES[name] ?? name}`, title, tabIndex };
  return make("button", { ...given, "aria-pressed": pressed, "data-control": name }, icon(name));
}

/**
 * Show an image on a card.
 *
 * item: {id, name, className (null for none), score (text, "" for none), scoreTitle, line (below the class, by default
 * the name), title, label (of the whole card; by default its text), ratio (width / height; by default that of the
 * loaded image), relevant (true, false or null)}.
 */
export function showOnCard(card, item) {
  const { parts } = card;
  card.dataset.id = item.id;
  card.hasRatio = Boolean(item.ratio);
  setRatio(card, item.ratio ?? 1);
  const relevant = item.relevant ?? null;
  card.classList.toggle("relevant", relevant === true);
  card.classList.toggle("not-relevant", relevant === false);
  write(parts.sign, SIGNS.get(relevant) ?? "");
  hide(parts.sign, relevant === null);
  write(parts.className, item.className ?? NO_CLASS);
  parts.className.classList.toggle("none", item.className === null);
  write(parts.score, item.score ?? "");
  hide(parts.score, !item.score);
  parts.score.title = item.scoreTitle ?? "";
  write(parts.name, item.line ?? item.name);
  if (item.title) parts.open.title = item.title;
  if (item.label) parts.open.setAttribute("aria-label", item.label);
  for (const [name, [, label]] of Object.entries(CONTROLS)) {
    const labeled = name === "pick" ? parts.pick?.firstChild : parts[name];
    labeled?.setAttribute("aria-label", label(item.name));
  }
}

/** Lay the result of `outlines` of parts.js over the image of a card, in place of the former one. */
export function outlineOnCard(card, drawing) {
  card.querySelector(".outlines")?.remove();
  if (drawing) card.parts.tile.append(drawing);
}

/** Show the mark of a card (true, false or null), whether it is selected, and a note, such as "also rank 3". */
export function decorateCard(card, { mark = null, picked = false, note = "" } = {}) {
  const { parts } = card;
  for (const [name, good] of MARKS) {
    card.classList.toggle(name, mark === good);
    parts[name]?.setAttribute("aria-pressed", String(mark === good));
  }
  card.classList.toggle("picked", picked);
  if (parts.pick) parts.pick.firstChild.checked = picked;
  card.classList.toggle("common", Boolean(note));
  write(parts.note, note);
  hide(parts.note, !note);
}

/** The name of the control that an event is for, or "". */
export const controlOf = (event) => event.target.closest("[data-control]")?.dataset.control ?? "";

/**
 * The card that a key leads to, in a list of rows with different numbers of cards; null for none, undefined if the key
 * does not move.
 */
export function neighborOf(cards, card, key) {
  const position = cards.indexOf(card);
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  if (key === "ArrowLeft") return cards[position - 1] ?? null;
  if (key === "ArrowRight") return cards[position + 1] ?? null;
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  // The nearest one in the next row.
  const step = key === "ArrowDown" ? 1 : -1;
  let first = position;
  while (cards[first] && cards[first].offsetTop === card.offsetTop) first += step;
  const row = cards.filter((each) => cards[first] && each.offsetTop === cards[first].offsetTop);
  const middle = (each) => each.offsetLeft + each.offsetWidth / 2;
  const distance = (each) => Math.abs(middle(each) - middle(card));
  return row.sort((a, b) => distance(a) - distance(b))[0] ?? (step > 0 ? cards.at(-1) : null);
}
