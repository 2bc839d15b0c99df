// The way of a change, and the copy: what each part says, made from one reply of the daemon.
const BECAUSE = {
  start: "after the start",
  schedule: "on schedule",
  triggers: "because changes had not been captured",
  mark: "because a whole table was marked",
  resync: "because an operator asked",
  verify: "because an operator asked",
};

function way(status) {
  const standby = status.state !== "leading";
  const through = status.target?.transport === "https" ? "Through HTTPS" : "Directly, as Postgres";
  return [
    station("Your primary", "source", side(status.source), sessions(status.source)),
    link(
      status.doorbell ? "good" : standby ? "standby" : "stale",
      status.doorbell ? "The doorbell rings" : "The doorbell is not proven",
      status.doorbell
        ? "changes are picked up at once"
        : standby
          ? "nobody listens while standing by"
          : "changes wait for the next poll",
    ),
    station(
      "This daemon",
      "mirror",
      leading(status),
      known(status.epoch) ? `epoch ${number(status.epoch)}` : "no epoch yet",
    ),
    link(status.target?.up ? "good" : standby ? "standby" : "bad", through, ""),
    station(
      "Supabase",
      "target",
      standby && !status.target?.up ? ["standby", "not in use"] : side(status.target),
      sessions(status.target) + channels(status),
    ),
  ];
}

const side = (answer) => (answer?.up ? ["good", "connected"] : ["bad", "does not answer"]);
const sessions = ({ reconnects } = {}) =>
  known(reconnects) && reconnects > 0 ? `${many(reconnects, "session")} so far` : "no session yet";

function channels({ channels: said }) {
  return said === "ready" ? "; private channels are open" : said ? "; private channels are closed" : "";
}

function leading({ state }) {
  return { leading: ["good", "leads"], standby: ["standby", "stands by"] }[state] ?? ["loading", "is starting"];
}

function station(title, name, [mark, said], detail) {
  return element(
    "li",
    { class: `station ${mark}`, "data-side": name },
    element("span", { class: "of" }, title),
    element("span", { class: "state" }, shape(mark), said),
    element("span", { class: "detail" }, detail),
  );
}

function link(mark, said, detail) {
  return element(
    "li",
    { class: `link ${mark}` },
    element("span", { class: "state" }, mark === "good" ? "" : shape(mark), said),
    element("span", { class: "detail" }, detail),
  );
}

function proof(status, now) {
  const proven = status.proof;
  if (!proven) return ["Equality with your primary has not been proven yet."];
  return [
    shape("good"),
    element(
      "span",
      {},
      bold("Proven equal ", moment(proven.at, now)),
      `, ${because(proven.reason)}: ${status.words?.proven ?? "all three tables"}, `,
      "compared with your primary at its snapshot ",
      code(foreign(proven.snapshot)),
      ".",
    ),
  ];
}

const because = (reason) => BECAUSE[reason] ?? foreign(reason);

function tables(status) {
  const heads = ["Table", "Rows proven", "Upserted", "Deleted", "State", "Digest"];
  const head = element(
    "thead",
    {},
    element(
      "tr",
      {},
      heads.map((name, n) => element("th", { scope: "col", class: n > 0 && n < 4 ? "count" : null }, name)),
    ),
  );
  const rows = Object.entries(status.tables ?? {}).map(([name, table]) => row(status, name, table));
  return [head, element("tbody", {}, rows)];
}

function row(status, name, table) {
  const count = (title, value) =>
    element("td", { class: "count", "data-name": title }, known(value) ? number(value) : "—");
  const digest = foreign(status.proof?.tables?.[name]?.digest ?? "—");
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, foreign(name)),
    count("rows proven", table.rows),
    count("upserted", table.upserted),
    count("deleted", table.deleted),
    element("td", { class: "condition" }, condition(table, status.state)),
    element("td", { "data-name": "digest" }, element("code", { class: "digest" }, digest)),
  );
}

function condition(table, state) {
  const marked = (mark, ...said) =>
    element("span", { class: `state ${mark}` }, shape(mark), element("span", {}, ...said));
  if (table.doubts?.length) return marked(table.broken ? "bad" : "stale", foreign(table.doubts.join("; ")));
  return state === "leading" ? marked("good", "in order") : marked("standby", "not known here");
}

function work(resync) {
  if (!resync) return [];
  const what = resync.table ? ["comparing ", bold(foreign(resync.table))] : ["comparing"];
  const title =
    ["resync", "verify"].includes(resync.reason) && known(resync.id)
      ? [`Request ${resync.id}: `, ...what]
      : [capital(what[0]), ...what.slice(1), ", ", because(resync.reason)];
  return [
    element("div", { class: "task" }, paragraph(title), bar(resync.percent, resync.done_rows, resync.total_rows)),
  ];
}

/** A progress without a value is a browser's way to say: it runs, and nobody knows how far it is. */
function bar(percent, done, total) {
  const share = known(percent) ? Math.max(0, Math.min(100, percent)) : null;
  const said = [
    share === null ? null : `${Math.floor(share)} %`,
    known(done) ? `${number(done)}${known(total) ? ` of ${number(total)}` : ""} rows` : null,
  ];
  return [
    element("progress", { max: 100, value: share, "aria-label": "progress" }),
    detail(said.filter(Boolean).join(" · ")),
  ];
}
