// The dialog that shows one image enlarged, with its actions.

import { keyField } from "./key_field.js";
import { nameOf } from "./grid.js";
import { matchText, resultOutlines } from "./objects.js";
import { element, hide, on } from "./web/dom.js";
import { ImageViewer } from "./web/image_viewer.js";
import { NO_CLASS } from "./web/words.js";

export class Viewer {
  /** neighbor(item, step) → promise of an adjacent item, or null; search(item); remove(item, key) → promise. */
  constructor({ neighbor, search, remove }) {
    this.actions = { neighbor, search, remove };
    this.changes = "off";
    this.frame = new ImageViewer({
      actions: [element("viewer-actions").content],
      neighbor: async ({ item }, step) => this.#shown(await neighbor(item, step)),
      shown: () => this.#confirm(false),
    });
    this.dialog = this.frame.dialog;
    document.body.append(this.dialog);
    on("viewer-search", "click", () => {
      const { item } = this;
      this.dialog.close();
      search(item);
    });
    on("viewer-remove", "click", () => this.#confirm(true));
    on("viewer-keep", "click", () => this.#confirm(false));
    on("viewer-confirm", "submit", (event) => this.#remove(event));
  }

  get item() {
    return this.frame.item?.item ?? null;
  }

  /** changes: "open", "key" or "off"; key: entered earlier, or "". */
  open(item, changes, key) {
    this.changes = changes;
    this.key = key;
    this.frame.open(this.#shown(item));
    element("viewer-search").focus();
  }

  /** An image of the gallery as `ImageViewer` shows it. */
  #shown(item) {
    if (!item) return null;
    const facts = [item.class_name ?? NO_CLASS];
    if (item.score !== undefined) facts.push(`score ${item.score.toFixed(3)}`, `rank ${item.rank}`);
    return {
      item, name: nameOf(item), alt: `${nameOf(item)}, ${item.class_name ?? NO_CLASS}`,
      facts: [...facts, matchText(item), item.key].filter(Boolean).join(" · "),
      source: `v1/images/${item.id}/file`, outlines: resultOutlines(item),
    };
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
      this.frame.fail(error.message);
    } finally {
      button.disabled = false;
    }
  }
}
