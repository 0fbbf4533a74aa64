// Short forms for elements. An element is given as itself or by its id. The page and the query picker use this module.

export const element = (id) => document.getElementById(id);

const found = (target) => (typeof target === "string" ? element(target) : target);

export const on = (target, type, action, options) => found(target).addEventListener(type, action, options);

/** Set a text. The same text is not set again: a screen reader would repeat it. */
export const write = (target, text) => {
  const at = found(target);
  if (at.textContent !== String(text)) at.textContent = text;
};

export const hide = (target, hidden = true) => {
  found(target).hidden = hidden;
};

/** Write a text, and hide the element if it is "". */
export const tell = (target, text) => {
  write(target, text);
  hide(target, !text);
};

export const isModified = (event) => event.ctrlKey || event.metaKey || event.altKey;

/** Let the close button of a dialog, and a press outside of it, close it. */
export function letClose(dialog) {
  on(dialog.querySelector(".close"), "click", () => dialog.close());
  on(dialog, "pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const outside = event.clientX < left || event.clientX > right || event.clientY < top || event.clientY > bottom;
    if (event.target === dialog && outside) dialog.close();
  });
}

/** Disable a button until an action is done. fail(message) is called if it throws an error. */
export async function whileDisabled(button, action, fail) {
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    fail(error.message);
  } finally {
    button.disabled = false;
  }
}

/** A new element. given: attributes, properties that are no texts, and listeners (onclick, …); null is left out. */
export function make(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A new SVG element. */
export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}
