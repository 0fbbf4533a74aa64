// The icons of buttons: lines in a square of 20 × 20, in the color of the text. The page and the query picker use them.

import { svg } from "./dom.js";

const PATHS = {
  add: "M10 4v12M4 10h12",
  bad: "M5 5l10 10M15 5L5 15",
  crop: "M6 2v12h12M2 6h12v12",
  enlarge: "M12 3h5v5M8 17H3v-5M17 3l-6 6M3 17l6-6",
  good: "M4 10.5l4 4 8-9",
  link: "M8 12l4-4M9 6l2-2a3.5 3.5 0 0 1 5 5l-2 2M11 14l-2 2a3.5 3.5 0 0 1-5-5l2-2",
  next: "M7 3l7 7-7 7",
  previous: "M13 3l-7 7 7 7",
  undo: "M4 8h8a4 4 0 0 1 0 8H8M4 8l4-4M4 8l4 4",
  why: "M7 7a3 3 0 1 1 4 3c-1 .5-1 1-1 2M10 15.5v.5",
};

/** An icon by its name; the button itself needs a label. */
export const icon = (name) => svg("svg", { viewBox: "0 0 20 20", class: "icon", "aria-hidden": true }, svg("path", { d: PATHS[name] }));
