// Short forms for elements of the page. An element is given as itself or by its id.

export const element = (id) => document.getElementById(id);

const found = (target) => (typeof target === "string" ? element(target) : target);

export const on = (target, type, action, options) => found(target).addEventListener(type, action, options);

export const write = (target, text) => {
  found(target).textContent = text;
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

/** Show the field for the key of a form, if changes need it; returns the field, or null. */
export function keyField(form, changes, key) {
  const { key: field } = form.elements;
  field.disabled = changes !== "key";
  field.closest(".key").hidden = field.disabled;
  field.value = key ?? "";
  return field.disabled ? null : field;
}
