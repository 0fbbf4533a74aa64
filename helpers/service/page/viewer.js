// The dialog that shows one image enlarged, with its actions.

import { element, hide, isModified, keyField, on, tell, write } from "./dom.js";
import { nameOf } from "./grid.js";
import { matchText, outlines } from "./objects.js";

export class Viewer {
  /** neighbor(item, step) → promise of an adjacent item, or null; search(item); remove(item, key) → promise. */
  constructor({ neighbor, search, remove }) {
    this.dialog = element("viewer");
    this.actions = { neighbor, search, remove };
    this.changes = "off";
    this.item = null;
    on("viewer-previous", "click", () => this.#step(-1));
    on("viewer-next", "click", () => this.#step(1));
    on("viewer-search", "click", () => {
      const { item } = this;
      this.dialog.close();
      search(item);
    });
    on("viewer-remove", "click", () => this.#confirm(true));
    on("viewer-keep", "click", () => this.#confirm(false));
    on("viewer-confirm", "submit", (event) => this.#remove(event));
    on("viewer-image", "load", () => element("viewer-image").classList.remove("loading"));
    on("viewer-image", "error", () => this.#fail("The file of this image is missing."));
    on(this.dialog, "keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target.matches("input") || isModified(event)) return;
      event.preventDefault();
      this.#step(step);
    });
  }

  /** changes: "open", "key" or "off"; key: entered earlier, or "". */
  open(item, changes, key) {
    this.changes = changes;
    this.key = key;
    this.#show(item);
    if (!this.dialog.open) this.dialog.showModal();
    element("viewer-search").focus();
  }

  #show(item) {
    this.item = item;
    this.#fail("");
    this.#confirm(false);
    write("viewer-title", nameOf(item));
    const image = element("viewer-image");
    image.classList.add("loading");
    image.src = `v1/images/${item.id}/file`;
    image.alt = `${nameOf(item)}, ${item.class_name ?? "no class"}`;
    const facts = [item.class_name ?? "no class"];
    if (item.score !== undefined) facts.push(`score ${item.score.toFixed(3)}`, `rank ${item.rank}`);
    write("viewer-facts", [...facts, matchText(item), item.key].filter(Boolean).join(" · "));
    image.parentElement.replaceChildren(image, outlines(item));
    hide("viewer-remove", this.changes === "off");
  }

  async #step(step) {
    const item = await this.actions.neighbor(this.item, step);
    if (item && this.dialog.open) this.#show(item);
  }

  #confirm(open) {
    const form = element("viewer-confirm");
    const wasOpen = !form.hidden;
    form.hidden = !open;
    hide("viewer-remove", open || this.changes === "off");
    const field = keyField(form, this.changes, this.key);
    if (open) (field && !this.key ? field : form.querySelector("[type=submit]")).focus();
    else if (wasOpen) element(element("viewer-remove").hidden ? "viewer-search" : "viewer-remove").focus();
  }

  async #remove(event) {
    event.preventDefault();
    const key = event.target.elements.key.value;
    const button = event.target.querySelector("[type=submit]");
    button.disabled = true;
    try {
      await this.actions.remove(this.item, key);
      this.dialog.close();
    } catch (error) {
      this.#fail(error.message);
    } finally {
      button.disabled = false;
    }
  }

  #fail(text) {
    tell("viewer-error", text);
    if (text) element("viewer-image").classList.remove("loading");
  }
}
