// A dialog that shows one image enlarged, with buttons to its neighbors. The page and the query picker use this module.

import { isModified, letClose, make, on, tell, write } from "./dom.js";
import { icon } from "./icons.js";

/** The elements of the dialog, with ids that begin with `prefix`. actions: elements below the image. */
function parts(prefix, actions) {
  const id = (name) => `${prefix}-${name}`;
  const button = (name, label, kind, content) =>
    make("button", { type: "button", class: `round ${kind}`, id: id(name), "aria-label": label }, content);
  const made = {
    title: make("h2", { id: id("title") }),
    close: button("close", "Close", "close", "✕"),
    previous: button("previous", "Previous image", "step", icon("previous")),
    next: button("next", "Next image", "step", icon("next")),
    image: make("img", { id: id("image"), alt: "" }),
    facts: make("p", { class: "muted", id: id("facts") }),
    error: make("p", { class: "message error inner", id: id("error"), role: "alert", hidden: true }),
  };
  made.dialog = make(
    "dialog", { class: "viewer", id: prefix, "aria-labelledby": made.title.id },
    make("div", { class: "dialog-head" }, made.title, made.close),
    make("div", { class: "viewer-image" }, made.previous, make("div", { class: "viewer-frame" }, made.image), made.next),
    made.facts, made.error, ...actions,
  );
  return made;
}

export class ImageViewer {
  /**
   * prefix: of the ids; actions: elements below the image; neighbor(item, step) → promise of an adjacent item, or null;
   * shown(item) is called before an item is shown.
   * An item: {name, facts, alt, source (the src of the image, or a function that sets it), outlines}.
   */
  constructor({ prefix = "viewer", actions = [], neighbor, shown = () => {} }) {
    Object.assign(this, parts(prefix, actions), { neighbor, shown, item: null });
    letClose(this.dialog);
    on(this.previous, "click", () => this.step(-1));
    on(this.next, "click", () => this.step(1));
    on(this.image, "load", () => this.image.classList.remove("loading"));
    on(this.image, "error", () => this.fail("The file of this image is missing."));
    on(this.dialog, "keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || event.target.matches("input") || isModified(event)) return;
      event.preventDefault();
      this.step(step);
    });
  }

  open(item) {
    this.show(item);
    if (!this.dialog.open) this.dialog.showModal();
  }

  show(item) {
    this.item = item;
    this.shown(item);
    this.fail("");
    write(this.title, item.name);
    write(this.facts, item.facts);
    this.image.classList.add("loading");
    this.image.alt = item.alt;
    if (typeof item.source === "function") item.source(this.image);
    else this.image.src = item.source;
    this.image.parentElement.replaceChildren(this.image, item.outlines ?? "");
  }

  async step(step) {
    const item = await this.neighbor(this.item, step);
    if (item && this.dialog.open) this.show(item);
  }

  fail(text) {
    tell(this.error, text);
    if (text) this.image.classList.remove("loading");
  }
}
