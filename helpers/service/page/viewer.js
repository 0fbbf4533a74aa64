// The dialog that shows one image enlarged, with its details and its actions.

import { call } from "./api.js";
import { element, hide, isModified, keyField, on, tell, write } from "./dom.js";
import { nameOf } from "./grid.js";
import { matchText, outlines } from "./objects.js";
import { fileSize } from "./text.js";

// Differences of similarities that are only rounding.
const ROUNDING = 0.005;

export class Viewer {
  /**
   * neighbor(item, step) → promise of an adjacent item, or null; search(item); add(item) to the query; remove(item) and
   * setClass(item, name) → promises; why(item) → promise; state(item) → {changes, key, canExplain, isSearch, mark};
   * mark(item, good).
   */
  constructor(actions) {
    this.dialog = element("viewer");
    this.actions = actions;
    this.item = null;
    const leave = (action) => () => {
      const { item } = this;
      this.dialog.close();
      action(item);
    };
    on("viewer-previous", "click", () => this.#step(-1));
    on("viewer-next", "click", () => this.#step(1));
    on("viewer-search", "click", leave(actions.search));
    on("viewer-add", "click", leave(actions.add));
    on("viewer-good", "click", () => this.#mark(true));
    on("viewer-bad", "click", () => this.#mark(false));
    on("viewer-why", "click", () => this.#explain());
    on("viewer-remove", "click", () => this.#confirm(true));
    on("viewer-keep", "click", () => this.#confirm(false));
    on("viewer-confirm", "submit", (event) => this.#remove(event));
    on("viewer-class-form", "submit", (event) => this.#setClass(event));
    on("viewer-image", "load", () => element("viewer-image").classList.remove("loading"));
    on("viewer-image", "error", () => this.#fail("The file of this image is missing."));
    on(this.dialog, "keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target.matches("input") || isModified(event)) return;
      event.preventDefault();
      this.#step(step);
    });
  }

  open(item) {
    this.#show(item);
    if (!this.dialog.open) this.dialog.showModal();
    element("viewer-search").focus();
  }

  #show(item) {
    this.item = item;
    this.state = this.actions.state(item);
    const { changes, canExplain, isSearch, canCombine } = this.state;
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
    element("viewer-download").href = `v1/images/${item.id}/original`;
    hide("viewer-remove", changes === "off");
    hide("viewer-class-form", changes === "off");
    element("viewer-class").value = item.class_name ?? "";
    hide("viewer-why", !canExplain);
    hide("viewer-maps");
    hide("viewer-add", !isSearch || !canCombine);
    for (const name of ["good", "bad"]) hide(`viewer-${name}`, !isSearch);
    this.#showMark();
    this.#showDetails(item);
  }

  async #showDetails(item) {
    const list = element("viewer-details");
    list.replaceChildren();
    let details;
    try {
      details = await call(`v1/images/${item.id}/details`);
    } catch {
      return; // The image itself reports a missing file.
    }
    if (this.item !== item) return;
    const { width, height, bytes, format, taken, camera, modified } = details;
    const date = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    const rows = [
      ["Size", `${width} × ${height} pixels, ${fileSize(bytes)}, ${format}`],
      ["Taken", taken && date(taken)],
      ["File date", date(modified)],
      ["Camera", camera],
      ["Path", item.key],
    ];
    for (const [name, value] of rows) {
      if (!value) continue;
      const row = document.createElement("div");
      for (const [tag, text] of [["dt", name], ["dd", value]]) row.append(Object.assign(document.createElement(tag), { textContent: text }));
      list.append(row);
    }
  }

  #mark(good) {
    this.actions.mark(this.item, good);
    this.#showMark();
  }

  #showMark() {
    const { mark } = this.actions.state(this.item);
    element("viewer-good").setAttribute("aria-pressed", String(mark === true));
    element("viewer-bad").setAttribute("aria-pressed", String(mark === false));
  }

  async #explain() {
    const { item } = this;
    const button = element("viewer-why");
    button.disabled = true;
    this.#fail("");
    try {
      const { similarity, shows, query, result } = await this.actions.why(item);
      if (this.item !== item) return;
      element("viewer-map-query").src = query;
      element("viewer-map-result").src = result;
      const differs = item.score !== undefined && Math.abs(similarity - item.score) > ROUNDING;
      const reason = differs ? " The score above differs, because the search re-ranked, used marks or compared parts." : "";
      write("viewer-map-text", `Bright: ${shows}. The similarity of the two images is ${similarity.toFixed(3)}.${reason}`);
      hide("viewer-maps", false);
      element("viewer-maps").scrollIntoView({ block: "nearest" });
    } catch (error) {
      this.#fail(error.message);
    } finally {
      button.disabled = false;
    }
  }

  async #setClass(event) {
    event.preventDefault();
    const button = event.submitter ?? element("viewer-class-save");
    const name = element("viewer-class").value.trim();
    if (name === (this.item.class_name ?? "")) return;
    button.disabled = true;
    this.#fail("");
    try {
      this.#show(await this.actions.setClass(this.item, name));
    } catch (error) {
      this.#fail(error.message);
    } finally {
      button.disabled = false;
    }
  }

  async #step(step) {
    const item = await this.actions.neighbor(this.item, step);
    if (item && this.dialog.open) this.#show(item);
  }

  #confirm(open) {
    const form = element("viewer-confirm");
    const wasOpen = !form.hidden;
    const { changes, key } = this.state;
    form.hidden = !open;
    hide("viewer-remove", open || changes === "off");
    const field = keyField(form, changes, key);
    if (open) (field && !key ? field : form.querySelector("[type=submit]")).focus();
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
