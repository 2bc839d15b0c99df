// What each part of the page says, made from one reply of the daemon.
const VERDICTS = {
  fresh: { word: "Fresh", tone: "good", shape: "good" },
  stale: { word: "Stale", tone: "bad", shape: "stale" },
  "not primed": { word: "Not primed", tone: "warn", shape: "loading" },
  standby: { word: "Standing by", tone: "calm", shape: "standby" },
  unknown: { word: "Unknown", tone: "warn", shape: "unknown" },
  silent: { word: "No answer", tone: "bad", shape: "bad" },
  asking: { word: "Asking …", tone: "calm", shape: "unknown" },
};
const BECAUSE = {
  start: "after the start", schedule: "on schedule", triggers: "because changes had not been captured",
  mark: "because a whole table was marked", resync: "because an operator asked", verify: "because an operator asked",
};
const DIRECTIONS = {
  missing: "was missing in the copy", extra: "was in the copy, but not in the primary", changed: "differed from the primary",
};
const LISTED_AT_ONCE = 8;
const CURE_SHOWN_S = 300;  // an error that is older has perhaps nothing to do with what is wrong now

function sentence(status) {
  switch (status.verdict) {
    case "fresh": return `Supabase equals your primary as of ${aged(status.staleness_seconds)}.`;
    case "stale": return `Supabase shows your primary as it was ${aged(status.staleness_seconds)}.`;
    case "not primed": return "The first load is not complete.";
    case "standby": return "Another daemon leads. This one takes over when that one ends.";
    default: return "How fresh the copy is cannot be told.";
  }
}

function aged(seconds) {
  return known(seconds) ? (seconds < 90 ? `${span(seconds)} ago` : ago(seconds)) : "a time not known";
}

function meaning(status) {
  switch (status.verdict) {
    case "fresh": return "Whoever was added may enter; whoever was removed may not.";
    case "stale": return "Who was removed since then may still read; who was added since then may meet a 403.";
    case "not primed": return "Until it is, people who are members may meet a 403.";
    case "standby": return "Ask the one that leads how fresh the copy is.";
    default: return "It is as fresh as it was when both sides answered last.";
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
  const medians = points.map((point) => point[MEDIAN]).filter(known).sort((a, b) => a - b);
  if (!medians.length) return ["—", "no change in 15 minutes"];
  const slowest = points.reduce((most, point) => Math.max(most, point[SLOWEST] ?? 0), 0);
  return [span(medians[Math.floor(medians.length / 2)]), `median; slowest ${span(slowest)}`];
}

function figure(title, value, note) {
  return element("div", {}, element("dt", {}, title), element("dd", {}, value, element("small", {}, note)));
}

function reasons(status, now) {
  const title = status.verdict === "fresh" ? "Fresh, but somebody should look" : "Why it is not ready";
  const items = status.reasons.map((reason) => element("li", {}, foreign(capital(String(reason)))));
  const [latest] = newestFirst(status.errors);
  const helps = !status.ready && latest?.cure && now - latest.at < CURE_SHOWN_S;
  return [element("h2", {}, title), element("ul", {}, items), helps ? cure(latest) : null];
}

function way(status) {
  const standby = status.state !== "leading";
  const through = status.target?.transport === "https" ? "Through HTTPS" : "Directly, as Postgres";
  return [
    station("Your primary", "source", side(status.source), sessions(status.source)),
    link(status.doorbell ? "good" : standby ? "standby" : "stale", status.doorbell ? "The doorbell rings" : "The doorbell is not proven",
      status.doorbell ? "changes are picked up at once" : standby ? "nobody listens while standing by" : "changes wait for the next poll"),
    station("This daemon", "mirror", leading(status), known(status.epoch) ? `epoch ${number(status.epoch)}` : "no epoch yet"),
    link(status.target?.up ? "good" : standby ? "standby" : "bad", through, ""),
    station("Supabase", "target", standby && !status.target?.up ? ["standby", "not in use"] : side(status.target), sessions(status.target)),
  ];
}

const side = (answer) => answer?.up ? ["good", "connected"] : ["bad", "does not answer"];
const sessions = ({ reconnects } = {}) => known(reconnects) && reconnects > 0 ? `${many(reconnects, "session")} so far` : "no session yet";

function leading({ state }) {
  return { leading: ["good", "leads"], standby: ["standby", "stands by"] }[state] ?? ["loading", "is starting"];
}

function station(title, name, [mark, said], detail) {
  return element("li", { class: `station ${mark}`, "data-side": name },
    element("span", { class: "of" }, title), element("span", { class: "state" }, shape(mark), said), element("span", { class: "detail" }, detail));
}

function link(mark, said, detail) {
  return element("li", { class: `link ${mark}` }, element("span", { class: "state" }, mark === "good" ? "" : shape(mark), said), element("span", { class: "detail" }, detail));
}

function proof(status, now) {
  const proven = status.proof;
  if (!proven) return ["Equality with your primary has not been proven yet."];
  return [
    shape("good"), element("span", {}, element("strong", {}, "Proven equal ", moment(proven.at, now)), `, ${because(proven.reason)}: every row of all three tables, `,
      "compared with your primary at its snapshot ", element("code", {}, foreign(proven.snapshot)), "."),
  ];
}

const because = (reason) => BECAUSE[reason] ?? foreign(reason);

function tables(status) {
  const heads = ["Table", "Rows proven", "Upserted", "Deleted", "State", "Digest"];
  const head = element("thead", {}, element("tr", {}, heads.map((name, n) => element("th", { scope: "col", class: n > 0 && n < 4 ? "count" : null }, name))));
  const rows = Object.entries(status.tables ?? {}).map(([name, table]) => element("tr", {},
    element("th", { scope: "row" }, foreign(name)),
    ...[["rows proven", table.rows], ["upserted", table.upserted], ["deleted", table.deleted]].map(([name, count]) => element("td", { class: "count", "data-name": name }, known(count) ? number(count) : "—")),
    element("td", { class: "condition" }, condition(table, status.state)),
    element("td", { "data-name": "digest" }, element("code", { class: "digest" }, foreign(status.proof?.tables?.[name]?.digest ?? "—")))));
  return [head, element("tbody", {}, rows)];
}

function condition(table, state) {
  const marked = (mark, ...said) => element("span", { class: `state ${mark}` }, shape(mark), element("span", {}, ...said));
  if (table.broken) return marked("bad", "cannot be read: ", foreign(table.broken));
  if (table.braked) return marked("stale", `the brake is on: a repair would delete ${number(table.braked.would_delete)} of ${number(table.braked.rows)} rows`);
  if (table.parked) return marked("stale", `${many(table.parked, "row")} refused`);
  return state === "leading" ? marked("good", "in order") : marked("standby", "not known here");
}

function work(resync) {
  if (!resync) return [];
  const what = resync.table ? ["comparing ", element("strong", {}, foreign(resync.table))] : ["comparing"];
  const title = ["resync", "verify"].includes(resync.reason) && known(resync.id) ? [`Request ${resync.id}: `, ...what] : [capital(what[0]), ...what.slice(1), ", ", because(resync.reason)];
  return [element("div", { class: "task" }, element("p", {}, title), bar(resync.percent, resync.done_rows, resync.total_rows))];
}

/** A progress without a value is a browser's way to say: it runs, and nobody knows how far it is. */
function bar(percent, done, total) {
  const share = known(percent) ? Math.max(0, Math.min(100, percent)) : null;
  const said = [share === null ? null : `${Math.floor(share)} %`, known(done) ? `${number(done)}${known(total) ? ` of ${number(total)}` : ""} rows` : null];
  return [element("progress", { max: 100, value: share, "aria-label": "progress" }), element("p", { class: "detail" }, said.filter(Boolean).join(" · "))];
}

function parked(entries, now) {
  return listing(entries, "None: Supabase takes every row.", (entry) => [
    element("p", {}, element("strong", {}, foreign(entry.table)), " ", element("code", {}, foreign(key(entry.key ?? [])))),
    element("p", {}, foreign(entry.reason)),
    element("p", { class: "detail" }, "since ", moment(entry.since, now), `, tried ${many(entry.tries, "time")}`, known(entry.retry_at) ? [", again ", entry.retry_at <= now ? "now" : moment(entry.retry_at, now)] : null),
  ]);
}

function drift(entries, now) {
  return listing(newestFirst(entries), "None found since this daemon started.", (entry) => [
    element("p", {}, element("strong", {}, foreign(entry.table)), " ", element("code", {}, foreign(key(entry.key ?? []))), " ", DIRECTIONS[entry.direction] ?? foreign(entry.direction)),
    element("p", { class: "detail" }, "found ", moment(entry.at, now)),
  ]);
}

function errors(entries, now) {
  return listing(newestFirst(entries), "None since this daemon started.", (entry) => [
    element("p", {}, foreign(capital(String(entry.message ?? "")))),
    entry.cure ? cure(entry) : null,
    element("p", { class: "detail" }, moment(entry.at, now), " · ", foreign(entry.kind), entry.times > 1 ? ` · ${many(entry.times, "time")}` : null),
  ]);
}

const cure = (entry) => element("p", { class: "cure" }, element("strong", {}, "Cure: "), foreign(entry.cure));
const newestFirst = (entries) => [...(entries ?? [])].sort((a, b) => b.at - a.at);

/** The first few at once, the others behind a click. */
function listing(entries, none, told) {
  if (!entries?.length) return [element("p", { class: "quiet" }, none)];
  const items = entries.map((entry) => element("li", {}, told(entry)));
  const rest = items.slice(LISTED_AT_ONCE);
  return [
    element("ul", { class: "list" }, items.slice(0, LISTED_AT_ONCE)),
    rest.length ? element("details", {}, element("summary", {}, `${number(rest.length)} more`), element("ul", { class: "list" }, rest)) : null,
  ];
}
