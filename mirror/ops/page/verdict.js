// The answer itself, in the daemon's words; nothing here decides what may be said. And the four figures below.
const VERDICTS = {
  fresh: { word: "Fresh", tone: "good", shape: "good" },
  stale: { word: "Stale", tone: "bad", shape: "stale" },
  "not primed": { word: "Not primed", tone: "warn", shape: "loading" },
  standby: { word: "Standing by", tone: "calm", shape: "standby" },
  unknown: { word: "Unknown", tone: "warn", shape: "unknown" },
  silent: { word: "No answer", tone: "bad", shape: "bad" },
  asking: { word: "Asking …", tone: "calm", shape: "unknown" },
};

function figures(status, points) {
  return [
    figure("Lag", span(status.lag_seconds), waiting(status)),
    figure("Staleness", span(status.staleness_seconds), `stale above ${span(status.stale_after_seconds)}`),
    figure("A change arrives in", ...arrival(points)),
    figure("Rows applied", number(points.reduce((sum, point) => sum + (point[ROWS] ?? 0), 0)), "in 15 minutes"),
  ];
}

function waiting({ state, outbox }) {
  if (state !== "leading" || !known(outbox?.entries)) return "not known what waits";
  const size = known(outbox.bytes) ? `, outbox ${bytes(outbox.bytes)}` : "";
  return `${outbox.entries ? `${many(outbox.entries, "change")} waiting` : "no change waits"}${size}`;
}

function arrival(points) {
  const medians = points
    .map((point) => point[MEDIAN])
    .filter(known)
    .sort((a, b) => a - b);
  if (!medians.length) return ["—", "no change in 15 minutes"];
  const slowest = points.reduce((most, point) => Math.max(most, point[SLOWEST] ?? 0), 0);
  return [span(medians[Math.floor(medians.length / 2)]), `median; slowest ${span(slowest)}`];
}

function figure(title, value, note) {
  return element("div", {}, element("dt", {}, title), element("dd", {}, value, element("small", {}, note)));
}

/** What takes something away from what may be claimed, as the daemon says it. */
function doubts(told) {
  const items = told.map((doubt) =>
    item([paragraph(foreign(capital(String(doubt.reason ?? "")))), doubt.cure ? cure(doubt) : null]),
  );
  return [element("h2", {}, "What stands against it"), element("ul", {}, items)];
}
