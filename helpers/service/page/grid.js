// The grid of images: one card per image, arrow keys move between cards. Names are inserted as text, never as HTML.

import { isModified, on, write } from "./dom.js";
import { matchText, outlines } from "./objects.js";

export class Grid {
  /** actions: href(item) → URL of the search with it; search(item); open(item); add(item) to the query. */
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
    return [...this.list.children];
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
    this.items.push(...items);
    const first = !this.list.children.length;
    this.list.append(...items.map((item) => this.#card(item)));
    if (first) this.#makeCurrent(this.list.firstElementChild);
  }

  focus(id) {
    const card = this.cards.find((each) => each.dataset.id === String(id)) ?? this.list.firstElementChild;
    card?.querySelector(".card-link").focus();
  }

  #card(item) {
    const card = this.template.content.firstElementChild.cloneNode(true);
    const part = (selector) => card.querySelector(selector);
    card.dataset.id = item.id;
    const link = part(".card-link");
    link.href = this.actions.href(item);
    link.title = [item.key, matchText(item)].filter(Boolean).join(" · ");
    part(".tile").append(outlines(item));
    const image = part("img");
    on(image, "error", () => card.classList.add("missing"), { once: true });
    image.srcset = `${thumbnail(item, 256)} 1x, ${thumbnail(item, 512)} 2x`;
    image.src = thumbnail(item, 256);
    write(part(".class-name"), item.class_name ?? "no class");
    part(".class-name").classList.toggle("none", item.class_name === null);
    write(part(".file-name"), nameOf(item));
    const score = part(".score");
    if (item.score === undefined) score.remove();
    else {
      write(score, item.score.toFixed(3));
      score.title = item.scoreText;
    }
    part(".enlarge").setAttribute("aria-label", `Enlarge ${nameOf(item)}`);
    part(".add-part").setAttribute("aria-label", `Add ${nameOf(item)} to the query`);
    return card;
  }

  // Only one card is in the tab order, so that one Tab leaves the grid.
  #makeCurrent(card) {
    if (!card) return;
    for (const control of this.list.querySelectorAll('[tabindex="0"]')) control.tabIndex = -1;
    for (const control of card.querySelectorAll(".card-link, .enlarge, .add-part")) control.tabIndex = 0;
  }

  #item(card) {
    return this.items.find((item) => String(item.id) === card.dataset.id);
  }

  #clicked(event) {
    const card = event.target.closest(".card");
    if (!card || event.button !== 0 || isModified(event) || event.shiftKey) return;
    if (event.target.closest(".enlarge")) this.actions.open(this.#item(card));
    else if (event.target.closest(".add-part")) this.actions.add(this.#item(card));
    else if (event.target.closest(".card-link")) {
      event.preventDefault();
      this.actions.search(this.#item(card));
    }
  }

  #keyPressed(event) {
    const card = event.target.closest(".card");
    if (!card || isModified(event) || event.shiftKey) return;
    if (event.key === " " && event.target.matches(".card-link")) {
      event.preventDefault();
      this.actions.open(this.#item(card));
      return;
    }
    const { cards } = this;
    const position = cards.indexOf(card);
    const columns = this.#columns(cards);
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    let to = event.key === "Home" ? 0 : event.key === "End" ? cards.length - 1 : position + (moves[event.key] ?? 0);
    if (!(event.key in moves) && event.key !== "Home" && event.key !== "End") return;
    event.preventDefault();
    if (to >= cards.length && event.key === "ArrowDown") to = cards.length - 1;
    cards[to]?.querySelector(".card-link").focus();
  }

  #columns(cards) {
    const below = cards.findIndex((card) => card.offsetTop > cards[0].offsetTop);
    return below === -1 ? cards.length : below;
  }
}

export const nameOf = (item) => item.name;

// Relative to the page, which a proxy may publish under any path.
export const thumbnail = (item, side) => `v1/images/${item.id}/thumbnail?side=${side}`;
