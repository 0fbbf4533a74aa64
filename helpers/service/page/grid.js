// The grid of images: one card per image, arrow keys move between cards. Names are inserted as text, never as HTML.

export class Grid {
  /** actions: href(item) → URL of the search with it; search(item); open(item); add(item) to the query. */
  constructor(list, template, actions) {
    this.list = list;
    this.template = template;
    this.actions = actions;
    this.items = [];
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#keyPressed(event));
    list.addEventListener("focusin", (event) => this.#makeCurrent(event.target.closest(".card")));
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
    card.dataset.id = item.id;
    const link = card.querySelector(".card-link");
    link.href = this.actions.href(item);
    link.tabIndex = -1;
    link.title = item.key;
    const image = card.querySelector("img");
    image.addEventListener("error", () => card.classList.add("missing"), { once: true });
    image.srcset = `${thumbnail(item, 256)} 1x, ${thumbnail(item, 512)} 2x`;
    image.src = thumbnail(item, 256);
    card.querySelector(".class-name").textContent = item.class_name ?? "no class";
    card.querySelector(".class-name").classList.toggle("none", item.class_name === null);
    card.querySelector(".file-name").textContent = nameOf(item);
    const score = card.querySelector(".score");
    if (item.score === undefined) score.remove();
    else {
      score.textContent = item.score.toFixed(3);
      score.title = item.scoreText;
    }
    const enlarge = card.querySelector(".enlarge");
    enlarge.tabIndex = -1;
    enlarge.setAttribute("aria-label", `Enlarge ${nameOf(item)}`);
    const add = card.querySelector(".add-part");
    add.tabIndex = -1;
    add.setAttribute("aria-label", `Add ${nameOf(item)} to the query`);
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
    if (!card || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (event.target.closest(".enlarge")) this.actions.open(this.#item(card));
    else if (event.target.closest(".add-part")) this.actions.add(this.#item(card));
    else if (event.target.closest(".card-link")) {
      event.preventDefault();
      this.actions.search(this.#item(card));
    }
  }

  #keyPressed(event) {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === " " && event.target.matches(".card-link")) {
      event.preventDefault();
      this.actions.open(this.#item(card));
      return;
    }
    const cards = this.cards;
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

export function nameOf(item) {
  return item.name;
}

// Relative to the page, which a proxy may publish under any path.
export const thumbnail = (item, side) => `api/images/${item.id}/thumbnail?side=${side}`;
