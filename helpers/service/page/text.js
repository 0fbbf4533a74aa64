// Numbers, sizes and scores as text.

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

export const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;

// Distances are negated, so that higher is better with every metric.
export const isDistance = ({ index }) => /euclid|manhattan|:l[12]\b/i.test(index);

/** The tooltip of a score. info: from /api/info; isCombined: whether the query has several parts. */
export function scoreText(info, score, isCombined = false) {
  if (isCombined) return `${score.toFixed(4)}: mean similarity to the parts of the query. Compare it within one search.`;
  return isDistance(info)
    ? `${score.toFixed(4)}: negative distance of the two images according to ${info.extractor}. 0 means no difference.`
    : `${score.toFixed(4)}: similarity of the two images according to ${info.extractor}. 1 means no difference.`;
}

/** The explanation of scores in the help. */
export function scoreHelp(info) {
  const measure = isDistance(info)
    ? "negative distance between two images: 0 means no difference, and lower scores mean less similar images"
    : "similarity of two images: 1 means no difference, and values around 0 mean that they have nothing in common";
  return (
    `The score is the ${measure}. The features are those of ${info.extractor}. Compare scores only within one ` +
    "search. The class of an image comes from the gallery; the search does not use it."
  );
}
