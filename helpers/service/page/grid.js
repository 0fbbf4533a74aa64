// A grid of images: one card per image, arrow keys move between cards.

import { matchText, resultOutlines } from "./objects.js";
import { controlOf, decorateCard, makeCard, neighborOf, outlineOnCard, showOnCard } from "./web/cards.js";
import { element, isModified, make, on } from "./web/dom.js";
import { alsoRank, scoreNumber } from "./web/words.js";

const CONTROLS = ["enlarge", "add", "good", "bad", "pick"];
// Single keys for a focused card.
const KEYS = { " ": "enlarge", g: "good", b: "bad", x: "pick" };
const SKELETONS = [1, 1.5, 0.75, 1.33, 1, 1.5, 0.75, 1.33, 1, 1.5, 0.75, 1.33];

export class Grid {
  /**
   * actions: href(item) → URL of the search with it, and one for each control of a card: open(item) searches with it,
   * enlarge(item), add(item) to the query, good(item), bad(item) and pick(item).
   */
  constructor(list, actions) {
    this.list = list;
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

  focus(id) {
    const card = this.cards.find((each) => each.dataset.id === String(id)) ?? this.cards[0];
    card?.querySelector(".card-link").focus();
  }

  /** Gray tiles where images will be. */
  showSkeletons(shown = true) {
    for (const each of this.list.querySelectorAll(".skeleton")) each.remove();
    if (!shown) return;
    const tiles = SKELETONS.map(() => make("li", { class: "skeleton", "aria-hidden": "true" }));
    // The Content-Security-Policy forbids style attributes.
    for (const [number, tile] of tiles.entries()) tile.style.setProperty("--ratio", SKELETONS[number]);
    this.list.append(...tiles);
  }

  /** Show marks (id → true for good), the selected ids, and the ranks of the same images in another list, or null. */
  decorate({ marks, picked, others = null }) {
    for (const card of this.cards) {
      const id = Number(card.dataset.id);
      decorateCard(card, { mark: marks.get(id), picked: picked.has(id), note: alsoRank(others?.get(id)) });
    }
  }

  #card(item) {
    const card = makeCard({ tag: "a", controls: CONTROLS, tabIndex: -1 });
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
    const isLong = Math.abs(Math.log(item.ratio ?? 1)) > 0.25;
    image.srcset = `${thumbnail(item, isLong ? 512 : 256)} 1x, ${thumbnail(item, 512)} 2x`;
    image.src = thumbnail(item, 256);
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
    const control = controlOf(event);
    if (control === "open") event.preventDefault();
    if (control) this.actions[control](this.#item(card));
  }

  #keyPressed(event) {
    const card = event.target.closest(".card");
    if (!card || isModified(event) || event.shiftKey) return;
    const control = event.target.matches(".card-link") && KEYS[event.key];
    const to = neighborOf(this.cards, card, event.key);
    if (control && (control === "enlarge" || element("help-keys").checked)) this.actions[control](this.#item(card));
    else if (to === undefined) return;
    else to?.querySelector(".card-link").focus();
    event.preventDefault();
  }
}

export const nameOf = (item) => item.name;

// Relative to the page, which a proxy may publish under any path.
export const thumbnail = (item, side) => `v1/images/${item.id}/thumbnail?side=${side}`;
