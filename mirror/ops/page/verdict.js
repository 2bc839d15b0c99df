// The answer itself: is the copy fresh, what that means, why it is not ready, and the four figures below.
const VERDICTS = {
  fresh: { word: "Fresh", tone: "good", shape: "good" },
  stale: { word: "Stale", tone: "bad", shape: "stale" },
  "not primed": { word: "Not primed", tone: "warn", shape: "loading" },
  standby: { word: "Standing by", tone: "calm", shape: "standby" },
  unknown: { word: "Unknown", tone: "warn", shape: "unknown" },
  silent: { word: "No answer", tone: "bad", shape: "bad" },
  asking: { word: "Asking …", tone: "calm", shape: "unknown" },
};
const CURE_SHOWN_S = 300; // an error that is older has perhaps nothing to do with what is wrong now

function sentence(status) {
  switch (status.verdict) {
    case "fresh":
      return `Supabase equals your primary as of ${aged(status.staleness_seconds)}.`;
    case "stale":
      return `Supabase shows your primary as it was ${aged(status.staleness_seconds)}.`;
    case "not primed":
      return "The first load is not complete.";
    case "standby":
      return "Another daemon leads. This one takes over when that one ends.";
    default:
      return "How fresh the copy is cannot be told.";
  }
}

function aged(seconds) {
  return known(seconds) ? (seconds < 90 ? `${span(seconds)} ago` : ago(seconds)) : "a time not known";
}

function meaning(status) {
  switch (status.verdict) {
    case "fresh":
      return "Whoever was added may enter; whoever was removed may not.";
    case "stale":
      return "Who was removed since then may still read; who was added since then may meet a 403.";
    case "not primed":
      return "Until it is, people who are members may meet a 403.";
    case "standby":
      return "Ask the one that leads how fresh the copy is.";
    default:
      return "It is as fresh as it was when both sides answered last.";
  }
}

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

function reasons(status, now) {
  const title = status.verdict === "fresh" ? "Fresh, but somebody should look" : "Why it is not ready";
  const items = status.reasons.map((reason) => item(foreign(capital(String(reason)))));
  const [latest] = newestFirst(status.errors);
  const helps = !status.ready && latest?.cure && now - latest.at < CURE_SHOWN_S;
  return [element("h2", {}, title), element("ul", {}, items), helps ? cure(latest) : null];
}
