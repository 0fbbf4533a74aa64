// The key that changes of the gallery, or all requests, may need.

import { element, on } from "./web/dom.js";

let resolve = null; // of the promise of `askKey`

on("key-form", "submit", (event) => {
  event.preventDefault();
  resolve?.(event.target.elements.key.value);
  element("key-dialog").close();
});
on("key-dialog", "close", () => resolve?.(""));

/** Ask the user for the key; resolves to "" if the dialog is closed. */
export async function askKey() {
  element("key-form").reset();
  const key = await new Promise((done) => {
    resolve = done;
    element("key-dialog").showModal();
  });
  resolve = null;
  return key;
}

/** Show the field for the key of a form, if changes need it; returns the field, or null. */
export function keyField(form, changes, key) {
  const { key: field } = form.elements;
  field.disabled = changes !== "key";
  field.closest(".key").hidden = field.disabled;
  field.value = key ?? "";
  return field.disabled ? null : field;
}
