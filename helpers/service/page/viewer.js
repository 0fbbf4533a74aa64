// The dialog that shows one image enlarged, with its details and its actions.

import { call } from "./api.js";
import { nameOf } from "./grid.js";
import { keyField } from "./key_field.js";
import { matchText, resultOutlines } from "./objects.js";
import { fileSize } from "./text.js";
import { element, hide, make, on, whileDisabled, write } from "./web/dom.js";
import { icon } from "./web/icons.js";
import { ImageViewer } from "./web/image_viewer.js";
import { BUTTONS, CONTROLS, NO_CLASS, scoreNumber } from "./web/words.js";

// Differences of similarities that are only rounding.
const ROUNDING = 0.005;

export class Viewer {
  /**
   * neighbor(item, step) → promise of an adjacent item, or null; search(item); add(item) to the query; remove(item) and
   * setClass(item, name) → promises; why(item) → promise; state(item) → {changes, key, canExplain, isSearch, mark};
   * mark(item, good).
   */
  constructor(actions) {
    this.actions = actions;
    this.frame = new ImageViewer({
      actions: [element("viewer-actions").content],
      neighbor: async ({ item }, step) => this.#framed(await actions.neighbor(item, step)),
      shown: ({ item }) => this.#showActions(item),
    });
    this.dialog = this.frame.dialog;
    document.body.append(this.dialog);
    write("viewer-search", BUTTONS.search);
    for (const name of ["add", "good", "bad", "why"]) write(`viewer-${name}`, CONTROLS[name][0]);
    for (const name of ["good", "bad"]) element(`viewer-${name}`).prepend(icon(name));
    const leave = (action) => () => {
      const { item } = this;
      this.dialog.close();
      action(item);
    };
    on("viewer-search", "click", leave(actions.search));
    on("viewer-add", "click", leave(actions.add));
    on("viewer-good", "click", () => this.#mark(true));
    on("viewer-bad", "click", () => this.#mark(false));
    on("viewer-why", "click", () => this.#explain());
    on("viewer-remove", "click", () => this.#confirm(true));
    on("viewer-keep", "click", () => this.#confirm(false));
    on("viewer-confirm", "submit", (event) => this.#remove(event));
    on("viewer-class-form", "submit", (event) => this.#setClass(event));
  }

  get item() {
    return this.frame.item?.item ?? null;
  }

  open(item) {
    this.frame.open(this.#framed(item));
    element("viewer-search").focus();
  }

  /** An image of the gallery as `ImageViewer` shows it. */
  #framed(item) {
    if (!item) return null;
    const className = item.class_name ?? NO_CLASS;
    const score = item.score === undefined ? [] : [`score ${scoreNumber(item.score)}`, `rank ${item.rank}`];
    return {
      item, name: nameOf(item), alt: `${nameOf(item)}, ${className}`,
      facts: [className, ...score, matchText(item), item.key].filter(Boolean).join(" · "),
      source: `v1/images/${item.id}/file`, outlines: resultOutlines(item),
    };
  }

  #showActions(item) {
    this.state = this.actions.state(item);
    const { changes, canExplain, isSearch, canCombine } = this.state;
    this.#confirm(false);
    element("viewer-download").href = `v1/images/${item.id}/original`;
    hide("viewer-remove", changes === "off");
    hide("viewer-class-form", changes === "off");
    element("viewer-class").value = item.class_name ?? "";
    hide("viewer-why", !canExplain);
    hide("viewer-maps");
    hide("viewer-add", !isSearch || !canCombine);
    for (const name of ["good", "bad"]) hide(`viewer-${name}`, !isSearch);
    this.#showMark(item);
    this.#showDetails(item);
  }

  async #showDetails(item) {
    const list = element("viewer-details");
    list.replaceChildren();
    this.detailsOf = item;
    let details;
    try {
      details = await call(`v1/images/${item.id}/details`);
    } catch {
      return; // The image itself reports a missing file.
    }
    if (this.detailsOf !== item) return;
    const { width, height, bytes, format, taken, camera, modified } = details;
    const date = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    const rows = [
      ["Size", `${width} × ${height} pixels, ${fileSize(bytes)}, ${format}`],
      ["Taken", taken && date(taken)],
      ["File date", date(modified)],
      ["Camera", camera],
      ["Path", item.key],
    ];
    const known = rows.filter(([, value]) => value);
    list.append(...known.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }

  #mark(good) {
    this.actions.mark(this.item, good);
    this.#showMark(this.item);
  }

  #showMark(item) {
    const { mark } = this.actions.state(item);
    element("viewer-good").setAttribute("aria-pressed", String(mark === true));
    element("viewer-bad").setAttribute("aria-pressed", String(mark === false));
  }

  #explain() {
    const { item } = this;
    this.frame.fail("");
    return this.#run(element("viewer-why"), async () => {
      const { similarity, shows, query, result } = await this.actions.why(item);
      if (this.item !== item) return;
      const maps = [["viewer-map-query", query], ["viewer-map-result", result]];
      // Before an image is decoded it has no height, and the dialog would scroll too little.
      await Promise.all(maps.map(([id, url]) => Object.assign(element(id), { src: url }).decode()));
      if (this.item !== item) return;
      const differs = item.score !== undefined && Math.abs(similarity - item.score) > ROUNDING;
      const reason = differs ? " The score above differs, because the search re-ranked, used marks or compared parts." : "";
      write("viewer-map-text", `Bright: ${shows}. The similarity of the two images is ${similarity.toFixed(3)}.${reason}`);
      hide("viewer-maps", false);
      element("viewer-maps").scrollIntoView({ block: "nearest" });
    });
  }

  async #setClass(event) {
    event.preventDefault();
    const button = event.submitter ?? element("viewer-class-save");
    const name = element("viewer-class").value.trim();
    if (name === (this.item.class_name ?? "")) return;
    this.frame.fail("");
    await this.#run(button, async () => this.frame.show(this.#framed(await this.actions.setClass(this.item, name))));
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
    await this.#run(event.target.querySelector("[type=submit]"), async () => {
      await this.actions.remove(this.item, key);
      this.dialog.close();
    });
  }

  /** Run an action of a button, and show its error. */
  #run(button, action) {
    return whileDisabled(button, action, (message) => this.frame.fail(message));
  }
}
