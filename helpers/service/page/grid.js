// The grid of images: one card per image, arrow keys move between cards. Names are inserted as text, never as HTML.

import { matchText, resultOutlines } from "./objects.js";
import { controlOf, makeCard, neighborOf, outlineOnCard, showOnCard } from "./web/cards.js";
import { isModified, on } from "./web/dom.js";
import { scoreNumber } from "./web/words.js";

export class Grid {
  /** actions: href(item) → URL of the search with it; search(item); open(item); add(item) to the query. */
  constructor(list, actions) {
    this.list = list;
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
    const card = makeCard({ tag: "a", controls: ["enlarge", "add"], tabIndex: -1 });
    const { open, image } = card.parts;
    open.href = this.actions.href(item);
    showOnCard(card, {
      id: item.id, name: nameOf(item), className: item.class_name, ratio: item.ratio,
      title: [item.key, matchText(item)].filter(Boolean).join(" · "),
      score: item.score === undefined ? "" : scoreNumber(item.score), scoreTitle: item.scoreText,
    });
    outlineOnCard(card, resultOutlines(item, "slice"));
    on(image, "error", () => card.classList.add("missing"), { once: true });
    image.loading = "lazy";
    image.srcset = `${thumbnail(item, 256)} 1x, ${thumbnail(item, 512)} 2x`;
    image.src = thumbnail(item, 256);
    return card;
  }

  // Only one card is in the tab order, so that one Tab leaves the grid.
  #makeCurrent(card) {
    if (!card) return;
    for (const control of this.list.querySelectorAll('[tabindex="0"]')) control.tabIndex = -1;
    for (const control of card.querySelectorAll("a, button")) control.tabIndex = 0;
  }

  #item(card) {
    return this.items.find((item) => String(item.id) === card.dataset.id);
  }

  #clicked(event) {
    const card = event.target.closest(".card");
    if (!card || event.button !== 0 || isModified(event) || event.shiftKey) return;
    const control = controlOf(event);
    if (control === "enlarge") this.actions.open(this.#item(card));
    else if (control === "add") this.actions.add(this.#item(card));
    else if (control === "open") {
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
    const to = neighborOf(this.cards, card, event.key);
    if (to === undefined) return;
    event.preventDefault();
    to?.querySelector(".card-link").focus();
  }
}

export const nameOf = (item) => item.name;

// Relative to the page, which a proxy may publish under any path.
export const thumbnail = (item, side) => `v1/images/${item.id}/thumbnail?side=${side}`;
