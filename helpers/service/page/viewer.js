// One image large, with what can be done with it.

import { nameOf } from "./grid.js";

const part = (name) => document.getElementById(`viewer-${name}`);

export class Viewer {
  /** neighbor(item, step) → promise of the item beside it, or null; search(item); remove(item, key) → promise. */
  constructor({ neighbor, search, remove }) {
    this.dialog = document.getElementById("viewer");
    this.actions = { neighbor, search, remove };
    this.changes = "off";
    this.item = null;
    part("close").addEventListener("click", () => this.dialog.close());
    part("previous").addEventListener("click", () => this.#step(-1));
    part("next").addEventListener("click", () => this.#step(1));
    part("search").addEventListener("click", () => {
      const { item } = this;
      this.dialog.close();
      search(item);
    });
    part("remove").addEventListener("click", () => this.#confirm(true));
    part("keep").addEventListener("click", () => this.#confirm(false));
    part("confirm").addEventListener("submit", (event) => this.#remove(event));
    part("image").addEventListener("load", () => part("image").classList.remove("coming"));
    part("image").addEventListener("error", () => this.#fail("This image’s file is no longer there."));
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target.matches("input") || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      this.#step(step);
    });
  }

  /** changes: "open", "key" or "off"; key: the one given before, or "". */
  open(item, changes, key) {
    this.changes = changes;
    this.key = key;
    this.#show(item);
    if (!this.dialog.open) this.dialog.showModal();
    part("search").focus();
  }

  #show(item) {
    this.item = item;
    this.#fail("");
    this.#confirm(false);
    part("title").textContent = nameOf(item);
    const image = part("image");
    image.classList.add("coming");
    image.src = `/api/images/${item.id}/file`;
    image.alt = `${nameOf(item)}, ${item.class_name ?? "no class"}`;
    const facts = [item.class_name ?? "no class"];
    if (item.score !== undefined) facts.push(`score ${item.score.toFixed(3)}`, `result ${item.rank}`);
    facts.push(item.key);
    part("facts").textContent = facts.join(" · ");
    part("remove").hidden = this.changes === "off";
  }

  async #step(step) {
    const item = await this.actions.neighbor(this.item, step);
    if (item && this.dialog.open) this.#show(item);
  }

  #confirm(asked) {
    const form = part("confirm");
    const had = !form.hidden;
    form.hidden = !asked;
    part("remove").hidden = asked || this.changes === "off";
    const field = form.querySelector(".key");
    field.hidden = this.changes !== "key";
    form.elements.key.disabled = field.hidden;
    form.elements.key.value = this.key ?? "";
    if (asked) (field.hidden || this.key ? form.querySelector("[type=submit]") : form.elements.key).focus();
    else if (had) (part("remove").hidden ? part("search") : part("remove")).focus();
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
    part("error").textContent = text;
    part("error").hidden = !text;
    if (text) part("image").classList.remove("coming");
  }
}
