// A grid of images in rows of one height: one card per image, arrow keys move between cards. Names are inserted as text,
// never as HTML.

import { element, hide, isModified, on, write } from "./dom.js";
import { matchText, outlines } from "./objects.js";

// Ratios of the sides of a tile; longer images are cut.
const NARROWEST = 0.7;
const WIDEST = 2.6;
const SKELETONS = 12;
const KEYS = { g: "good", b: "bad", x: "pick" };

export class Grid {
  /**
   * actions: href(item) → URL of the search with it; search(item); open(item); add(item) to the query;
   * mark(item, good) toggles a mark; pick(item) toggles the selection.
   */
  constructor(list, template, actions) {
    this.list = list;
    this.template = template;
    this.actions = actions;
    this.items = [];
    on(list, "click", (event) => this.#clicked(event));
    on(list, "keydown", (event) => this.#keyPressed(event));
    on(list, "focusin", (event) => this.#makeCurrent(event.target.closest(".card")));
  }

  get cards() {
    return [...this.list.querySelectorAll(".card")];
  }

  /** Id of the image that has the focus, or null. */
  get focusedId() {
    const card = document.activeElement?.closest?.(".card");
    return card && this.list.contains(card) ? Number(card.dataset.id) : null;
  }

  show(items) {
    this.items = [];
    this.list.replaceChildren();
    this.append(items);
  }

  append(items) {
    this.showSkeletons(false);
    this.items.push(...items);
    const first = !this.list.children.length;
    this.list.append(...items.map((item) => this.#card(item)));
    if (first) this.#makeCurrent(this.list.firstElementChild);
  }

  /** Gray tiles where images will be. */
  showSkeletons(shown = true) {
    for (const each of this.list.querySelectorAll(".skeleton")) each.remove();
    if (!shown) return;
    const tiles = Array.from({ length: SKELETONS }, (_, number) => {
      const tile = document.createElement("li");
      tile.className = "skeleton";
      tile.setAttribute("aria-hidden", "true");
      tile.style.setProperty("--ratio", [1, 1.5, 0.75, 1.33][number % 4]);
      return tile;
    });
    this.list.append(...tiles);
  }

  focus(id) {
    const card = this.cards.find((each) => each.dataset.id === String(id)) ?? this.cards[0];
    card?.querySelector(".card-link").focus();
  }

  /** Show marks (id → true for good), the selected ids, and the ranks of the same images in another list, or null. */
  decorate({ marks, picked, others = null }) {
    for (const card of this.cards) {
      const id = Number(card.dataset.id);
      const mark = marks.get(id);
      for (const [name, good] of [["good", true], ["bad", false]]) {
        card.classList.toggle(name, mark === good);
        card.querySelector(`.mark-${name}`).setAttribute("aria-pressed", String(mark === good));
      }
      card.classList.toggle("picked", picked.has(id));
      card.querySelector(".pick input").checked = picked.has(id);
      const rank = others?.get(id);
      card.classList.toggle("common", Boolean(rank));
      const badge = card.querySelector(".common-rank");
      hide(badge, !rank);
      write(badge, rank ? `also rank ${rank}` : "");
    }
  }

  #card(item) {
    const card = this.template.content.firstElementChild.cloneNode(true);
    const part = (selector) => card.querySelector(selector);
    card.dataset.id = item.id;
    card.style.setProperty("--ratio", Math.min(Math.max(item.ratio ?? 1, NARROWEST), WIDEST));
    const link = part(".card-link");
    link.href = this.actions.href(item);
    link.title = [item.key, matchText(item)].filter(Boolean).join(" · ");
    part(".tile").append(outlines(item, "slice"));
    const image = part("img");
    on(image, "load", () => card.classList.add("loaded"), { once: true });
    on(image, "error", () => card.classList.add("missing"), { once: true });
    const isLong = Math.abs(Math.log(item.ratio ?? 1)) > 0.25;
    image.srcset = `${thumbnail(item, isLong ? 512 : 256)} 1x, ${thumbnail(item, 512)} 2x`;
    image.src = thumbnail(item, 256);
    write(part(".class-name"), item.class_name ?? "no class");
    part(".class-name").classList.toggle("none", item.class_name === null);
    write(part(".file-name"), nameOf(item));
    const score = part(".score");
    if (item.score === undefined) score.remove();
    else {
      // Scores of geometry are numbers of keypoints.
      write(score, item.score > 1 && Number.isInteger(item.score) ? item.score : item.score.toFixed(3));
      score.title = item.scoreText;
    }
    const labels = {
      ".enlarge": "Enlarge", ".add-part": "Add to the query:", ".mark-good": "Good result:", ".mark-bad": "Bad result:",
      ".pick input": "Select",
    };
    for (const [selector, text] of Object.entries(labels)) part(selector).setAttribute("aria-label", `${text} ${nameOf(item)}`);
    part(".add-part").setAttribute("aria-label", `Add ${nameOf(item)} to the query`);
    return card;
  }

  // Only one card is in the tab order, so that one Tab leaves the grid.
  #makeCurrent(card) {
    if (!card?.matches(".card")) return;
    for (const control of this.list.querySelectorAll('[tabindex="0"]')) control.tabIndex = -1;
    for (const control of card.querySelectorAll("a, button, input")) control.tabIndex = 0;
  }

  #item(card) {
    return this.items.find((item) => String(item.id) === card.dataset.id);
  }

  #clicked(event) {
    const card = event.target.closest(".card");
    if (!card || event.button !== 0 || isModified(event) || event.shiftKey) return;
    const { actions } = this;
    const hit = (selector) => event.target.closest(selector);
    if (hit(".enlarge")) actions.open(this.#item(card));
    else if (hit(".add-part")) actions.add(this.#item(card));
    else if (hit(".mark-good")) actions.mark(this.#item(card), true);
    else if (hit(".mark-bad")) actions.mark(this.#item(card), false);
    else if (hit("input")) actions.pick(this.#item(card));
    else if (hit(".card-link")) {
      event.preventDefault();
      actions.search(this.#item(card));
    }
  }

  #keyPressed(event) {
    const card = event.target.closest(".card");
    if (!card || isModified(event) || event.shiftKey) return;
    const { key } = event;
    const { actions } = this;
    const onLink = event.target.matches(".card-link");
    if (onLink && key === " ") actions.open(this.#item(card));
    else if (onLink && KEYS[key] && element("help-keys").checked) {
      if (KEYS[key] === "pick") actions.pick(this.#item(card));
      else actions.mark(this.#item(card), KEYS[key] === "good");
    } else {
      const to = this.#neighbor(card, key);
      if (to === undefined) return;
      to?.querySelector(".card-link").focus();
    }
    event.preventDefault();
  }

  /** The card that a key leads to; null for none, undefined if the key does not move. */
  #neighbor(card, key) {
    const { cards } = this;
    const position = cards.indexOf(card);
    if (key === "Home") return cards[0];
    if (key === "End") return cards.at(-1);
    if (key === "ArrowLeft") return cards[position - 1] ?? null;
    if (key === "ArrowRight") return cards[position + 1] ?? null;
    if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
    // Rows have different numbers of images: the nearest one in the next row.
    const step = key === "ArrowDown" ? 1 : -1;
    let first = position;
    while (cards[first] && cards[first].offsetTop === card.offsetTop) first += step;
    const row = cards.filter((each) => cards[first] && each.offsetTop === cards[first].offsetTop);
    const middle = (each) => each.offsetLeft + each.offsetWidth / 2;
    const distance = (each) => Math.abs(middle(each) - middle(card));
    const nearest = row.sort((a, b) => distance(a) - distance(b))[0];
    return nearest ?? (step > 0 ? cards.at(-1) : null);
  }
}

export const nameOf = (item) => item.name;

// Relative to the page, which a proxy may publish under any path.
export const thumbnail = (item, side) => `v1/images/${item.id}/thumbnail?side=${side}`;
