// Scores as text.

// Distances are negated, so that higher is better with every metric.
export const isDistance = ({ index }) => /euclid|manhattan|:l[12]\b/i.test(index);

/** The tooltip of a score. info: from /v1/info; isCombined: whether the query has a text or further images. */
export function scoreText(info, score, isCombined = false) {
  if (isCombined) return `${score.toFixed(4)}: mean similarity to the parts of the query. Compare it within one search.`;
  const [measure, best] = isDistance(info) ? ["negative distance", 0] : ["similarity", 1];
  const what = info.regions ? "the best parts of the two images" : "the two images";
  return `${score.toFixed(4)}: ${measure} of ${what} according to ${info.extractor}. ${best} means no difference.`;
}
