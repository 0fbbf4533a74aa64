// Numbers, sizes and scores as people say them.

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

// A distance comes with a minus, so that higher is better whatever the metric.
const isDistance = ({ index }) => /euclid|manhattan|:l[12]\b/i.test(index);

/** One score, for the title of its number. info: what the service says of itself. */
export function scoreWords(info, score) {
  return isDistance(info)
    ? `${score.toFixed(4)}: the distance of the two images, with a minus. 0 is no difference.`
    : `${score.toFixed(4)}: how alike the two images are to ${info.extractor}. 1 is no difference.`;
}

/** All scores, for the help. */
export function scoreHelp(info) {
  const measure = isDistance(info)
    ? "the distance between two images with a minus before it: 0 is no difference, and the lower, the less alike"
    : "how alike two images are: 1 is no difference, and around 0 is nothing in common";
  return (
    `A score says, as ${info.extractor} sees it, ${measure}. Compare scores within one search only: what is much in ` +
    "one is little in another. The class is the one that the gallery gives an image; the search does not look at it."
  );
}
