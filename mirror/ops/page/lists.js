// What went wrong lately: errors with their cures, rows that are parked, drift.
const DIRECTIONS = {
  missing: "was missing in the copy",
  extra: "was in the copy, but not in the primary",
  changed: "differed from the primary",
};
const LISTED_AT_ONCE = 8;

function parked(entries, now) {
  return listing(entries, "None: Supabase takes every row.", (entry) => [
    paragraph(bold(foreign(entry.table)), " ", code(foreign(key(entry.key ?? [])))),
    paragraph(foreign(entry.reason)),
    detail(
      "since ",
      moment(entry.since, now),
      `, tried ${many(entry.tries, "time")}`,
      known(entry.retry_at) ? [", again ", entry.retry_at <= now ? "now" : moment(entry.retry_at, now)] : null,
    ),
  ]);
}

function drift(entries, now) {
  return listing(newestFirst(entries), "None found since this daemon started.", (entry) => [
    paragraph(
      bold(foreign(entry.table)),
      " ",
      code(foreign(key(entry.key ?? []))),
      " ",
      DIRECTIONS[entry.direction] ?? foreign(entry.direction),
    ),
    detail("found ", moment(entry.at, now)),
  ]);
}

function errors(entries, now) {
  return listing(newestFirst(entries), "None since this daemon started.", (entry) => [
    paragraph(foreign(capital(String(entry.message ?? "")))),
    entry.cure ? cure(entry) : null,
    detail(
      moment(entry.at, now),
      " · ",
      foreign(entry.kind),
      entry.times > 1 ? ` · ${many(entry.times, "time")}` : null,
    ),
  ]);
}

const cure = (entry) => element("p", { class: "cure" }, bold("Cure: "), foreign(entry.cure));
const newestFirst = (entries) => [...(entries ?? [])].sort((a, b) => b.at - a.at);

/** The first few at once, the others behind a click. */
function listing(entries, none, told) {
  if (!entries?.length) return [element("p", { class: "quiet" }, none)];
  const items = entries.map((entry) => item(told(entry)));
  const rest = items.slice(LISTED_AT_ONCE);
  return [
    element("ul", { class: "list" }, items.slice(0, LISTED_AT_ONCE)),
    rest.length
      ? element(
          "details",
          {},
          element("summary", {}, `${number(rest.length)} more`),
          element("ul", { class: "list" }, rest),
        )
      : null,
  ];
}
