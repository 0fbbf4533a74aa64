// The dialog that shows one image enlarged, with its actions.

import { nameOf } from "./grid.js";

const element = (name) => document.getElementById(`viewer-${name}`);

export class Viewer {
  /** neighbor(item, step) → promise of an adjacent item, or null; search(item); remove(item, key) → promise. */
  constructor({ neighbor, search, remove }) {
    this.dialog = document.getElementById("viewer");
    this.actions = { neighbor, search, remove };
    this.changes = "off";
    this.item = null;
    element("close").addEventListener("click", () => this.dialog.close());
    element("previous").addEventListener("click", () => this.#step(-1));
    element("next").addEventListener("click", () => this.#step(1));
    element("search").addEventListener("click", () => {
      const { item } = this;
      this.dialog.close();
      search(item);
    });
    element("remove").addEventListener("click", () => this.#confirm(true));
    element("keep").addEventListener("click", () => this.#confirm(false));
    element("confirm").addEventListener("submit", (event) => this.#remove(event));
    element("image").addEventListener("load", () => element("image").classList.remove("loading"));
    element("image").addEventListener("error", () => this.#fail("The file of this image is missing."));
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target.matches("input") || event.altKey || event.ctrlKey || event.metaKey) return;
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
    element("search").focus();
  }

  #show(item) {
    this.item = item;
    this.#fail("");
    this.#confirm(false);
    element("title").textContent = nameOf(item);
    const image = element("image");
    image.classList.add("loading");
    image.src = `api/images/${item.id}/file`;
    image.alt = `${nameOf(item)}, ${item.class_name ?? "no class"}`;
    const facts = [item.class_name ?? "no class"];
    if (item.score !== undefined) facts.push(`score ${item.score.toFixed(3)}`, `rank ${item.rank}`);
    facts.push(item.key);
    element("facts").textContent = facts.join(" · ");
    element("remove").hidden = this.changes === "off";
  }

  async #step(step) {
    const item = await this.actions.neighbor(this.item, step);
    if (item && this.dialog.open) this.#show(item);
  }

  #confirm(open) {
    const form = element("confirm");
    const wasOpen = !form.hidden;
    form.hidden = !open;
    element("remove").hidden = open || this.changes === "off";
    const field = form.querySelector(".key");
    field.hidden = this.changes !== "key";
    form.elements.key.disabled = field.hidden;
    form.elements.key.value = this.key ?? "";
    if (open) (field.hidden || this.key ? form.querySelector("[type=submit]") : form.elements.key).focus();
    else if (wasOpen) (element("remove").hidden ? element("search") : element("remove")).focus();
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
    element("error").textContent = text;
    element("error").hidden = !text;
    if (text) element("image").classList.remove("loading");
  }
}
