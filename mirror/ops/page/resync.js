// The resync: what is wanted, the token, "is this what you want?", and then how the request goes. The token stands in
// its field and nowhere else; closing the window empties it.
const STATES = {
  waiting: ["standby", "waits for the daemon"],
  running: ["loading", "runs"],
  done: ["good", "done"],
  braked: ["stale", "stopped by the brake"],
  failed: ["bad", "failed"],
  cancelled: ["standby", "taken back"],
};
const FOLLOW_EVERY_MS = 1000;
const PAST_THE_BRAKE = "Look at your primary; if it is right, resync with force.";

let followed = null; // { id, answer, trouble } of the request that this page started last

function wanted() {
  const what = byId("ask").elements.what.value;
  const body = what === "everything" ? {} : { [what]: byId(what).value.trim() };
  if (what === "everything" || what === "table") {
    for (const option of ["rewrite", "force"]) if (byId(option).checked) body[option] = true;
  }
  return body;
}

function objection(body) {
  if (body.trip === "" || body.user === "") return ["Which one? Give its id.", "trip" in body ? "trip" : "user"];
  if (!byId("token").value) return ["The token is missing.", "token"];
  return null;
}

function deeds(body) {
  const what = body.table
    ? `the table ${body.table}`
    : body.trip
      ? `trip ${body.trip} and its memberships`
      : body.user
        ? `user ${body.user} and their memberships`
        : "all three tables";
  return [
    ["Compares ", foreign(what), " with your primary, and repairs what differs in Supabase."],
    body.rewrite ? ["Sends every row again, also where both sides are equal. Realtime sees them as updates."] : null,
    body.force
      ? [
          "Goes past the brake: what is not in your primary now is ",
          bold("deleted"),
          " from Supabase, however much that is.",
        ]
      : body.trip || body.user
        ? null
        : ["If that would delete a large part of a table, the brake stops it and nothing of that table is changed."],
    ["The tables of your primary are only read."],
  ]
    .filter(Boolean)
    .map((said) => item(said));
}

function complain(text, field) {
  byId("problem").textContent = text;
  byId("ask").hidden = false;
  byId("confirm").hidden = true;
  byId(field)?.focus();
}

function askForConfirmation() {
  const body = wanted();
  const wrong = objection(body);
  if (wrong) return complain(...wrong);
  byId("problem").textContent = "";
  show("deed", deeds(body));
  byId("start").classList.toggle("danger", body.force === true);
  byId("ask").hidden = true;
  byId("confirm").hidden = false;
  byId("title-confirm").focus();
}

async function start() {
  const button = byId("start");
  button.disabled = true;
  try {
    const headers = { "content-type": "application/json", authorization: `Bearer ${byId("token").value}` };
    const reply = await fetch("resync", {
      method: "POST",
      headers,
      body: JSON.stringify(wanted()),
      signal: AbortSignal.timeout(10_000),
    });
    const answer = await reply.json().catch(() => ({}));
    if (reply.status !== 202) return complain(...refusal(reply.status, answer));
    byId("resync").close();
    followed = { id: answer.id, answer: { state: "waiting" }, trouble: false };
    follow(followed);
  } catch {
    // a header that cannot be sent, no connection, no answer in time
    complain("The daemon did not answer. Whether it took the request is not known; another one does no harm.", "token");
  } finally {
    button.disabled = false;
  }
}

function refusal(status, answer) {
  const said = [answer.reason, answer.error, answer.detail].find((text) => typeof text === "string") ?? "";
  if (status === 401) return ["The daemon does not know this token.", "token"];
  if (status === 404)
    return ["The daemon has no MIRROR_ADMIN_TOKEN, so it takes no requests over HTTP. Use `mirror resync`.", "token"];
  if (status === 503) return [clipped(`The daemon cannot take it now. ${said}`).trim(), "token"];
  return [clipped(`The daemon refused (${status}). ${said}`).trim(), "what"];
}

async function follow(request) {
  while (followed === request && !ended(request.answer)) {
    try {
      const reply = await fetch(`api/resyncs/${encodeURIComponent(request.id)}`, {
        cache: "no-store",
        signal: AbortSignal.timeout(4000),
      });
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      request.answer = await reply.json();
      request.trouble = false;
    } catch {
      request.trouble = true; // said on the page; the request is durable, so asking on is right
    }
    showFollowed();
    await new Promise((resolve) => setTimeout(resolve, FOLLOW_EVERY_MS));
  }
}

const ended = ({ state }) => ["done", "braked", "failed", "cancelled"].includes(state);

function showFollowed() {
  show("followed", followed ? task(followed) : null);
}

function task({ id, answer, trouble }) {
  const [mark, said] = STATES[answer.state] ?? ["unknown", clipped(answer.state)];
  const title = element("p", { class: `state ${mark}` }, shape(mark), bold(`Request ${id} ${said}`));
  return element(
    "div",
    { class: "task", "data-state": answer.state },
    title,
    trouble
      ? paragraph("The daemon does not answer about it. The request is kept in your primary until the daemon is back.")
      : null,
    ended(answer) ? outcome(answer.result ?? {}) : advance(answer.progress ?? {}),
  );
}

function advance(progress) {
  const { rows_checked: done, rows_expected: total } = progress;
  const percent = known(progress.percent)
    ? progress.percent
    : known(done) && total > 0
      ? Math.min(100, (100 * done) / total)
      : null;
  return [progress.table ? paragraph("comparing ", foreign(progress.table)) : null, bar(percent, done, total || null)];
}

function outcome(result) {
  const lines = Object.entries(result.tables ?? {}).map(([name, found]) =>
    item(bold(foreign(name)), `: ${number(found.rows)} rows compared; `, foreign(difference(found))),
  );
  if (known(result.rows_changed)) lines.push(item(`${many(result.rows_changed, "row")} changed in Supabase.`));
  if (result.error) lines.push(item(foreign(result.error)));
  return lines.length ? element("ul", { class: "found" }, lines) : null;
}

function difference(found) {
  if (found.unreadable) return `not compared: ${found.unreadable}`;
  if (found.braked) {
    const much = `${number(found.extra)} of ${number(found.target_rows)} rows`;
    return `the brake is on: this would delete ${much}, and nothing was changed. ${PAST_THE_BRAKE}`;
  }
  const differ = ["missing", "extra", "changed"]
    .filter((way) => found[way])
    .map((way) => `${number(found[way])} ${way}`);
  return differ.length ? `${listed(differ)}${found.repaired ? ", repaired" : ""}` : "equal";
}

function showChoices() {
  const what = byId("ask").elements.what.value;
  for (const name of ["table", "trip", "user"]) byId(`more-${name}`).hidden = name !== what;
  byId("how").disabled = what === "trip" || what === "user";
}

function listenToOperator() {
  const dialog = byId("resync");
  const on = (id, event, act) =>
    byId(id).addEventListener(event, (happened) => {
      happened.preventDefault();
      act();
    });
  on("open-resync", "click", () => {
    showChoices();
    dialog.showModal();
  });
  on("ask", "submit", askForConfirmation);
  on("confirm", "submit", start);
  on("back", "click", () => complain("", "token"));
  byId("ask").addEventListener("change", showChoices);
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    byId("token").value = "";
    complain("", null);
  });
}
