// One line of text on hover and focus, from `data-tip` of an element; Escape hides it.

import { make } from "./web/dom.js";

export class Tip {
  constructor(root, id) {
    this.root = root;
    this.box = make("div", { class: "tip", role: "tooltip", id, hidden: true });
    root.append(this.box);
    const over = (event) => {
      if (this.box.contains(event.target)) return clearTimeout(this.later);
      const owner = event.target.closest("[data-tip]");
      if (owner) this.show(owner);
      else this.hideSoon();
    };
    root.addEventListener("pointerover", over);
    root.addEventListener("pointerleave", () => this.hideSoon());
    root.addEventListener("focusin", (event) => {
      const owner = event.target.closest("[data-tip]");
      if (owner && owner.matches(":focus-visible")) this.show(owner);
      else this.hide();
    });
    root.addEventListener("focusout", () => this.hide());
    root.addEventListener("input", () => this.hide());
    root.addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
  }

  show(owner) {
    clearTimeout(this.later);
    if (this.owner !== owner) this.hide();
    this.owner = owner;
    this.box.textContent = owner.dataset.tip;
    this.box.hidden = false;
    owner.setAttribute("aria-describedby", this.box.id);
    const [around, at] = [this.root.getBoundingClientRect(), owner.getBoundingClientRect()];
    const left = Math.min(at.left - around.left, around.width - this.box.offsetWidth - 4);
    this.box.style.left = `${Math.max(0, left)}px`;
    this.box.style.top = `${at.bottom - around.top + 2}px`;
  }

  // The owner may show another image now.
  refresh() {
    if (this.owner) this.show(this.owner);
  }

  hideSoon() {
    clearTimeout(this.later);
    this.later = setTimeout(() => this.hide(), 150);
  }

  hide() {
    clearTimeout(this.later);
    this.owner?.removeAttribute("aria-describedby");
    this.owner = null;
    this.box.hidden = true;
  }
}
