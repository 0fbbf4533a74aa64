// The field for the key that changes of the gallery may need.

/** Show the field for the key of a form, if changes need it; returns the field, or null. */
export function keyField(form, changes, key) {
  const { key: field } = form.elements;
  field.disabled = changes !== "key";
  field.closest(".key").hidden = field.disabled;
  field.value = key ?? "";
  return field.disabled ? null : field;
}
