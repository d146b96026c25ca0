// How does a marketer see the counters move?
//
// The page reads one stream of server-sent events with fetch, because EventSource cannot send the
// API key as a header. Each event holds every counter; only cells that changed are written.

const STREAM = "/v1/campaigns/stream";
const VERIFICATION = "/v1/verification";
const VERIFIED_EVERY_MS = 5_000;
const SILENT_FOR_MS = 25_000; // the server gives a sign of life every 10 s
const LONGEST_PAUSE_MS = 8_000;
const STORED_AS = "headwater.key";
const NONE = "(none)";

const at = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

const count = (name, label, options = {}) => ({
  label,
  value: (campaign) => campaign.counters[name] ?? 0,
  text: (value) => whole.format(value),
  adds: true,
  ...options,
});
const people = (name, label, options = {}) => count(name, label, {
  value: (campaign) => campaign.counters[name] ?? null, // null: facts went with age
  text: (value) => (value === null ? "–" : whole.format(value)),
  adds: false,
  ...options,
});
const money = (read, label) => ({ label, value: read, text: moneyText, adds: true, isMoney: true });
const rate = (name, label, options = {}) => ({
  label,
  value: (campaign) => campaign.rates[name] ?? null,
  text: (value) => (value === null ? "–" : percent.format(value)),
  ...options,
});
const more = { isMore: true };

const GROUPS = [
  ["E-mail", [
    count("sent", "Sent"), count("delivered", "Delivered"),
    people("unique_opened", "Openers"), people("unique_clicked", "Clickers"),
    count("unsubscribed", "Unsubscribed"), count("bounced", "Bounced", more),
    count("opened", "Opens", more), count("machine_opened", "Machine opens", more),
    count("clicked", "Clicks", more), count("spam_reported", "Marked as spam", more),
    count("suppressed", "Suppressed", more),
  ]],
  ["Rates", [
    rate("open_rate", "Open"), rate("click_rate", "Click"), rate("conversion_rate", "Conversion"),
    rate("click_to_open", "Click to open", more), rate("bounce_rate", "Bounce", more),
    rate("unsubscribe_rate", "Unsubscribe", more),
  ]],
  ["Site", [
    people("visitors", "Visitors"), count("visits", "Visits"),
    count("page_views", "Page views", more), count("product_views", "Product views", more),
    count("cart_adds", "Added to cart", more), count("checkouts", "Checkouts", more),
  ]],
  ["Orders", [
    count("orders", "Orders"), people("buyers", "Buyers", more),
    money((campaign) => campaign.revenue, "Revenue"),
    count("refunds", "Refunds", more),
    money((campaign) => campaign.refunded, "Refunded"),
    { label: "Average order", value: (campaign) => campaign.rates.aov, text: moneyText },
  ]],
];
const TOTALS = ["Sent", "Delivered", "Unsubscribed", "Visits", "Orders", "Revenue", "Refunded"];

let shown = null; // the newest answer
let rows = new Map(); // campaign id -> { row, cells }
let attempt = null; // aborts the stream under way

function columns() {
  const isAll = at("all").checked;
  return GROUPS.map(([group, all]) => [group, all.filter((column) => isAll || !column.isMore)]);
}

function moneyText(amounts) {
  if (!amounts || amounts.length === 0) return "–";
  return amounts.map(({ amount, currency }) => {
    try {
      return new Intl.NumberFormat(undefined, { style: "currency", currency }).format(amount);
    } catch {
      return `${amount} ${currency}`; // not a code that this browser knows
    }
  }).join("\n");
}

// Sums decimal strings exactly, in millionths: money never passes through a double.
function addMoney(lists) {
  const sums = new Map();
  for (const { amount, currency } of lists.flat()) {
    const [units, parts = ""] = amount.replace("-", "").split(".");
    const micro = BigInt(units + parts.padEnd(6, "0"));
    sums.set(currency, (sums.get(currency) ?? 0n) + (amount.startsWith("-") ? -micro : micro));
  }
  return [...sums.keys()].sort().map((currency) => {
    const micro = sums.get(currency);
    const digits = String(micro < 0n ? -micro : micro).padStart(7, "0");
    return { currency, amount: `${micro < 0n ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(-6)}` };
  });
}

function total(column, campaigns) {
  const values = campaigns.map(column.value);
  return column.isMoney ? addMoney(values) : values.reduce((sum, value) => sum + value, 0);
}

function put(cell, text) {
  if (cell.textContent === text) return;
  const isNew = cell.textContent === "";
  cell.textContent = text;
  cell.classList.toggle("nil", text === "0" || text === "–");
  if (isNew) return;
  cell.classList.remove("moved");
  void cell.offsetWidth; // restarts the animation of a cell that moves again
  cell.classList.add("moved");
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function drawFrame() {
  const groups = columns();
  const names = element("tr");
  const heads = element("tr", {}, element("th", { scope: "col", className: "name", textContent: "Campaign" }));
  names.append(element("td"));
  for (const [group, chosen] of groups) {
    names.append(element("th", { scope: "colgroup", colSpan: chosen.length, textContent: group, className: "first" }));
    chosen.forEach((column, i) =>
      heads.append(element("th", { scope: "col", textContent: column.label, className: i ? "" : "first" })));
  }
  at("head").replaceChildren(names, heads);
  at("rows").replaceChildren();
  at("foot").replaceChildren();
  at("totals").replaceChildren();
  rows = new Map();
}

function makeRow(name, title) {
  const head = element("th", { scope: "row", textContent: name, title });
  const row = element("tr", {}, head);
  const cells = columns().flatMap(([, chosen]) =>
    chosen.map((_, i) => element("td", { className: i ? "" : "first" })));
  row.append(...cells);
  return { row, cells };
}

function draw(answer) {
  shown = answer;
  const { campaigns } = answer;
  at("ask").hidden = true;
  at("empty").hidden = campaigns.length > 0;
  at("counters").hidden = campaigns.length === 0;
  at("as-of").hidden = false;
  at("as-of-time").dateTime = answer.as_of;
  at("as-of-time").title = answer.as_of;
  at("as-of-time").textContent = new Date(answer.as_of).toLocaleTimeString();
  if (campaigns.length === 0) return;
  if (!at("head").hasChildNodes()) drawFrame();
  const chosen = columns().flatMap(([, some]) => some);
  drawRows(campaigns, chosen);
  drawTotals(campaigns, chosen);
}

function drawRows(campaigns, chosen) {
  const ordered = campaigns.toSorted((a, b) => (a.campaign_id === NONE) - (b.campaign_id === NONE));
  const present = new Set(ordered.map((campaign) => campaign.campaign_id));
  for (const [id, { row }] of rows) {
    if (!present.has(id)) {
      row.remove();
      rows.delete(id);
    }
  }
  ordered.forEach((campaign, i) => {
    const id = campaign.campaign_id;
    if (!rows.has(id)) rows.set(id, makeRow(id === NONE ? "No campaign" : id, id));
    const { row, cells } = rows.get(id);
    const body = at("rows");
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
    chosen.forEach((column, n) => put(cells[n], column.text(column.value(campaign))));
  });
}

function drawTotals(campaigns, chosen) {
  const foot = at("foot");
  if (!foot.hasChildNodes()) {
    foot.totals = makeRow("All campaigns", "");
    foot.append(foot.totals.row);
  }
  chosen.forEach((column, n) =>
    put(foot.totals.cells[n], column.adds ? column.text(total(column, campaigns)) : " "));
  const every = GROUPS.flatMap(([, all]) => all);
  for (const label of TOTALS) {
    const column = every.find((known) => known.label === label);
    const id = `total-${label}`;
    if (!at(id)) {
      at("totals").append(element("div", {}, element("dt", { textContent: label }), element("dd", { id })));
    }
    put(at(id), column.text(total(column, campaigns)));
  }
}

function say(state, text) {
  at("state").dataset.state = state;
  if (at("state-text").textContent !== text) at("state-text").textContent = text;
}

function ask(why) {
  attempt?.abort();
  if (why) at("ask-why").textContent = why;
  for (const id of ["empty", "counters", "as-of", "verified", "forget"]) at(id).hidden = true;
  at("ask").hidden = false;
  at("key").value = "";
  at("key").focus();
  say("waiting", "Waiting for a key");
}

async function follow(key) {
  attempt?.abort();
  const mine = (attempt = new AbortController());
  at("ask").hidden = true;
  at("forget").hidden = false;
  say("waiting", "Connecting");
  let isFirst = true;
  let pause_ms = 500;
  while (!mine.signal.aborted) {
    try {
      await readStream(key, mine, () => {
        pause_ms = 500;
        if (isFirst) followVerification(key, mine); // the key is good
        isFirst = false;
      });
    } catch (fault) {
      if (fault instanceof KeyRefused) {
        sessionStorage.removeItem(STORED_AS);
        return ask(fault.message);
      }
    }
    if (mine.signal.aborted) return;
    say("lost", "Connection lost, trying again");
    await new Promise((wake) => setTimeout(wake, pause_ms));
    pause_ms = Math.min(pause_ms * 2, LONGEST_PAUSE_MS);
  }
}

class KeyRefused extends Error {}

async function readStream(key, outer, onLife) {
  const silence = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENT_FOR_MS);
  };
  alive();
  try {
    const answer = await fetch(STREAM, {
      headers: { Authorization: `Bearer ${key}` },
      signal: AbortSignal.any([outer.signal, silence.signal]),
      cache: "no-store",
    });
    if (answer.status === 401) throw new KeyRefused("This key is not known here. Which one is it?");
    if (answer.status === 403) throw new KeyRefused("This key is of another role; the counters need the one of the role viewer.");
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    let text = "";
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      alive();
      onLife();
      text += part.value;
      const frames = text.split("\n\n");
      text = frames.pop();
      frames.forEach(take);
    }
  } finally {
    clearTimeout(timer);
  }
}

function take(frame) {
  const fields = Object.fromEntries(frame.split("\n").map((line) => {
    const colon = line.indexOf(": ");
    return [line.slice(0, colon), line.slice(colon + 2)];
  }));
  if (fields.event === "counters") {
    draw(JSON.parse(fields.data));
    say("live", "Live");
  } else if (fields.event === "stale") {
    say("lost", JSON.parse(fields.data).detail);
  }
}

// Whether the numbers on this page are what counting all facts again gives, and when they last were.
async function followVerification(key, outer) {
  while (!outer.signal.aborted) {
    try {
      const answer = await fetch(VERIFICATION, {
        headers: { Authorization: `Bearer ${key}` },
        signal: outer.signal,
        cache: "no-store",
      });
      if (answer.ok) drawVerification(await answer.json());
    } catch {
      // The stream beside it says that the connection is lost.
    }
    await new Promise((wake) => setTimeout(wake, VERIFIED_EVERY_MS));
  }
}

function drawVerification({ verified, differences, last_verified_at, overdue }) {
  const last = last_verified_at ? momentText(last_verified_at) : null;
  if (verified === null) {
    sayVerified("waiting", "not verified yet");
  } else if (!verified) {
    const counters = differences === 1 ? "1 number differs" : `${whole.format(differences)} numbers differ`;
    const since = last ? `live = verified was last true at ${last}` : "live = verified was not true so far";
    sayVerified("differs", `${counters} from the facts; ${since}`);
  } else if (overdue) {
    sayVerified("overdue", `live = verified was last true at ${last}; nobody compares any more`);
  } else {
    sayVerified("verified", `live = verified, last at ${last}`);
  }
}

function sayVerified(state, text) {
  const shownAt = at("verified");
  shownAt.hidden = false;
  shownAt.dataset.state = state;
  if (shownAt.textContent !== text) shownAt.textContent = text;
}

// UTC, as logs and the command line have it; the day only when it is another one.
function momentText(moment) {
  const [day, time] = moment.split("T");
  const isToday = day === new Date().toISOString().slice(0, 10);
  return `${isToday ? "" : `${day} `}${time.slice(0, 8)} UTC`;
}

function keyFromAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key) {
    sessionStorage.setItem(STORED_AS, key);
    history.replaceState(null, "", location.pathname); // no key in the address bar or the history
  }
}

function begin() {
  keyFromAddress();
  const key = sessionStorage.getItem(STORED_AS);
  if (key) follow(key);
  else ask();
}

at("first-event").textContent = `curl -u WRITE_KEY: ${location.origin}/v1/track \\
  -H 'Content-Type: application/json' \\
  -d '{"userId": "first", "event": "Email Opened",
       "properties": {"campaign_id": "spring"}}'`;
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  sessionStorage.setItem(STORED_AS, key);
  follow(key);
});
at("forget").addEventListener("click", () => {
  sessionStorage.removeItem(STORED_AS);
  ask();
});
at("all").addEventListener("change", () => {
  drawFrame();
  if (shown) draw(shown);
});
addEventListener("hashchange", begin);
begin();
