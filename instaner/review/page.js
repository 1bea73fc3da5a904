// The review page. Text is only ever set as text, never as HTML.

const $ = (id) => document.getElementById(id);
const saved = (key, value) =>
  value === undefined ? localStorage.getItem(`instaner.${key}`) : localStorage.setItem(`instaner.${key}`, value);

let session = null;
let item = null; // the text that is shown
let marks = []; // {first, last, label}: tokens from first to before last
let past = []; // marks before each change
let chosen = null; // {first, last, span}: span is an index of marks, or null
let anchor = null; // token on which a drag began
let shownAt = 0;
let away = 0; // milliseconds in which the page was not seen
let hiddenAt = null;
let busy = false;
let waiting = null;
let stage = "reading"; // how far the index is

const isCats = () => session.attr === "cats";

function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  const { dataset, ...rest } = values;
  Object.assign(element, rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

function say(notice = "", trouble = "") {
  $("notice").textContent = notice;
  $("trouble").textContent = trouble;
}

async function call(path, body) {
  let response;
  try {
    response = await fetch(path, body === undefined ? {} : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("The server does not answer. Start it again: what was decided is kept. Then go on here.");
  }
  const found = await response.json().catch(() => ({ trouble: `The server failed (${response.status}). See its messages.` }));
  if (!response.ok) throw new Error(found.trouble ?? `The server failed (${response.status}).`);
  return found;
}

// One action at a time; what goes wrong is said, and nothing on the page is lost. A key
// that is pressed meanwhile was not meant for the next text; a filter waits.
async function act(action, { waits = false } = {}) {
  if (busy) {
    if (waits) waiting = action;
    return;
  }
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  try {
    await action();
  } catch (error) {
    say("", error.message);
  } finally {
    busy = false;
    document.body.setAttribute("aria-busy", "false");
  }
  if (waiting) {
    const later = waiting;
    waiting = null;
    await act(later);
  }
}

// ---- Which text

function getFilter() {
  const query = new URLSearchParams({ reviewer: $("reviewer").value.trim() });
  for (const name of ["queue", "status", "label", "voter", "search"]) query.set(name, $(name).value);
  return query;
}

function byChance() { // drawn from all texts, and not chosen otherwise
  const reviewer = $("reviewer").value.trim();
  return new URLSearchParams({ reviewer, queue: "random", status: "to do", label: "", voter: "", search: "" });
}

async function next({ start = false } = {}) {
  const query = getFilter();
  const wanted = () => call(`/api/next?${query}`);
  if (!start && item) query.set("after", `${item.place},${item.n}`);
  let found = await wanted();
  if (!found && query.has("after")) { // others may have come in before it
    query.delete("after");
    found = await wanted();
  }
  show(found);
  tellProgress();
}

function show(found) {
  item = found;
  $("work").hidden = !item;
  $("nothing").hidden = Boolean(item);
  if (!item) {
    $("nothing").textContent = stage === "reading"
      ? "The texts are being read …"
      : "No text is left here. Choose another order, status, label, voter or search.";
    return;
  }
  marks = item.marks.map(({ first, last, label }) => ({ first, last, label }));
  past = [];
  chosen = null;
  anchor = null;
  shownAt = performance.now();
  away = 0;
  const others = item.others.length ? ` · decided by ${item.others.join(", ")}, too` : "";
  const mine = item.answer ? ` · you said ${item.answer}` : "";
  $("why").replaceChildren(
    make("span", { className: `badge ${item.queue}`, textContent: item.queue }),
    ` ${item.id}${mine}${others}`,
  );
  $("text").scrollTop = 0;
  render();
}

async function showProgress() {
  const found = await call(`/api/progress?${new URLSearchParams({ reviewer: $("reviewer").value.trim() })}`);
  const { state } = found;
  stage = state.stage;
  const total = state.total ?? state.done ?? 0;
  $("bar").max = Math.max(1, total);
  $("bar").value = found.texts;
  const mine = found.accepted + found.rejected;
  const parts = [`${found.texts} of ${total} texts decided`];
  if (mine || found.skipped) parts.push(`you: ${found.accepted} accepted, ${found.rejected} rejected, ${found.skipped} skipped`);
  if (found.accepted) parts.push(`${Math.round((100 * found.unchanged) / found.accepted)} % as proposed`);
  if (found.seconds) parts.push(`${found.seconds.toFixed(1)} s a text`);
  $("progress").textContent = parts.join(" · ");
  const stages = { reading: "reading the texts", student: "asking the student", checking: "looking for label errors" };
  const of = state.total ? ` of ${state.total}` : "";
  $("stage").textContent = state.trouble ?? (state.stage in stages ? `${stages[state.stage]}: ${state.done}${of} …` : "");
  return state;
}

// Nobody has to wait for it.
const tellProgress = () => showProgress().catch((error) => say("", error.message));

async function watch() { // while the index is made
  try {
    const state = await showProgress();
    const found = await call("/api/session");
    if (JSON.stringify(found) !== JSON.stringify(session)) fill(found); // more labels
    if (!item && !busy) await act(() => next({ start: true }));
    if (state.stage === "done" || state.trouble) return;
  } catch { /* said when something is done */ }
  setTimeout(watch, 1500);
}

// ---- Drawing

const colour = (label) => `l${Math.max(0, session.labels.indexOf(label)) % 10}`;
const surface = ({ first, last }) => item.tokens.slice(first, last).map(([text, space]) => text + space).join("").trim();
const tag = (label) => make("small", { textContent: label, dir: "ltr" }); // says nothing of the text's direction
const same = (one, other) => one.label === other.label && one.first === other.first && one.last === other.last;

function render() {
  const text = $("text");
  const top = text.scrollTop;
  // One element: for each that comes into it, #text would look for its direction again.
  const drawn = make("span", {}, item.before);
  const spans = isCats() ? [] : marks;
  const disputed = isCats() ? [] : item.candidates.filter((row) => row.standing === "disputed");
  const at = new Map(spans.map((span, index) => [span.first, index]));
  for (let k = 0; k < item.tokens.length;) {
    const index = at.get(k) ?? -1;
    const end = index < 0 ? k + 1 : spans[index].last;
    const pieces = [];
    for (let i = k; i < end; i++) {
      const isDisputed = index < 0 && disputed.some((row) => row.first <= i && i < row.last);
      const className = `token${isDisputed ? " disputed" : ""}`;
      pieces.push(make("span", { className, textContent: item.tokens[i][0], dataset: { k: i } }));
      if (i < end - 1) pieces.push(item.tokens[i][1]);
    }
    if (index >= 0) {
      drawn.append(make("mark", { className: colour(spans[index].label) }, ...pieces,
        tag(spans[index].label)));
    } else drawn.append(...pieces);
    drawn.append(item.tokens[end - 1][1]);
    k = end;
  }
  text.replaceChildren(drawn);
  text.scrollTop = top;
  renderOpinions();
  renderChosen();
}

function renderChosen() { // without drawing the text again, which may be long
  for (const element of $("text").querySelectorAll(".chosen")) element.classList.remove("chosen");
  if (chosen) {
    const tokens = $("text").getElementsByClassName("token");
    const elements = chosen.span === null ? [...tokens].slice(chosen.first, chosen.last) : [tokens[chosen.first].parentElement];
    for (const element of elements) element.classList.add("chosen");
  }
  const current = isCats() ? marks.map((mark) => mark.label) : chosen?.span != null ? [marks[chosen.span].label] : [];
  [...$("labels").children].forEach((button, k) => button.setAttribute("aria-pressed", current.includes(session.labels[k])));
  $("edges").classList.toggle("off", !chosen);
  $("delete").setAttribute("aria-disabled", chosen?.span == null); // and keeps the focus
}

function renderLabels() {
  $("labels").replaceChildren(...session.labels.map((label, k) => {
    const button = make("button", { type: "button", className: colour(label), title: session.definitions[label] ?? "" }, `${label} `);
    if (k < 10) button.append(make("kbd", { textContent: (k + 1) % 10 }));
    button.onclick = () => setLabel(label);
    return button;
  }));
}

function renderOpinions() {
  const givesReasons = item.candidates.some((row) => row.reasons);
  const rows = item.candidates.map((row) => {
    const here = marks.some((mark) => same(mark, row));
    const use = make("button", { type: "button", textContent: here ? "Take out" : "Take" });
    use.setAttribute("aria-label", `${use.textContent} ${isCats() ? "" : surface(row)} ${row.label}`);
    use.onclick = () => take(row, here);
    const voters = Object.keys(row.votes).map((voter) => {
      const status = row.votes[voter];
      return status && status !== "exact" ? `${voter} (${status})` : voter;
    });
    const reasons = Object.entries(row.reasons ?? {}).map(([voter, reason]) => make("div", { textContent: `${voter}: ${reason}` }));
    const cells = [
      make("td", {}, make("mark", { className: colour(row.label) }, isCats() ? "" : surface(row), tag(row.label))),
      make("td", {}, make("span", { className: `badge ${row.standing}`, textContent: row.standing || (voters.length ? "opinion" : "annotated") })),
      make("td", { textContent: row.standing ? `${Math.round(row.score * 100)} %` : "" }),
      make("td", { textContent: voters.join(", ") }),
      ...(givesReasons ? [make("td", { className: "why" }, ...reasons)] : []),
      make("td", {}, use),
    ];
    return make("tr", {}, ...cells);
  });
  const names = [isCats() ? "Category" : "Span", "Standing", "Votes", "Named by", ...(givesReasons ? ["Reason"] : []), ""];
  const head = make("tr", {}, ...names.map((textContent) => make("th", { scope: "col", textContent })));
  const focused = [...$("opinions").querySelectorAll("button")].indexOf(document.activeElement);
  $("opinions").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  if (focused >= 0) $("opinions").querySelectorAll("button")[focused]?.focus();
  $("opinions").hidden = !rows.length;
}

// ---- Changing marks

function change(changed, select = null) {
  past.push(marks);
  marks = changed.sort((one, other) => one.first - other.first);
  chosen = null;
  if (select) {
    const span = marks.findIndex((mark) => same(mark, select));
    chosen = { first: select.first, last: select.last, span: span < 0 ? null : span };
  }
  say();
  render();
}

const apart = (one, other) => one.last <= other.first || other.last <= one.first;

const isSpace = (k) => !item.tokens[k][0].trim();

function put(mark, instead = null) { // in the place of what it overlaps
  if (!isCats()) { // spaCy learns no entity that begins or ends with white space
    while (mark.first < mark.last && isSpace(mark.first)) mark.first += 1;
    while (mark.first < mark.last && isSpace(mark.last - 1)) mark.last -= 1;
    if (mark.first === mark.last) return say("There is only white space.");
    const here = marks.findIndex((other) => same(other, mark));
    if (here >= 0) return chooseSpan(here);
  }
  const kept = isCats()
    ? marks.filter((other) => !session.exclusive && other.label !== mark.label)
    : marks.filter((other, k) => k !== instead && apart(other, mark));
  change([...kept, mark], isCats() ? null : mark);
}

function setLabel(label) {
  if (isCats()) {
    const here = marks.some((mark) => mark.label === label);
    if (here && !session.exclusive) change(marks.filter((mark) => mark.label !== label));
    else if (!here) put({ first: -1, last: -1, label });
  } else if (chosen) put({ first: chosen.first, last: chosen.last, label }, chosen.span);
  else say("Choose a span or words first: N, the arrow keys, or the mouse.");
}

function take(row, here) {
  const mark = { first: row.first, last: row.last, label: row.label };
  if (here) change(marks.filter((other) => !same(other, mark)));
  else put(mark);
}

function remove() {
  if (chosen?.span != null) change(marks.filter((_, k) => k !== chosen.span), { first: chosen.first, last: chosen.last });
}

function moveEdge(edge, by) {
  if (!chosen) return;
  const moved = { ...chosen, [edge]: chosen[edge] + by };
  const isInside = () => moved.first >= 0 && moved.last <= item.tokens.length && moved.first < moved.last;
  while (isInside() && isSpace(edge === "first" ? moved.first : moved.last - 1)) moved[edge] += Math.sign(by);
  if (!isInside()) return;
  if (chosen.span == null) choose(moved);
  else put({ first: moved.first, last: moved.last, label: marks[chosen.span].label }, chosen.span);
}

function choose(place) {
  chosen = place;
  renderChosen();
  const element = document.querySelector("#text .chosen");
  element?.scrollIntoView({ block: "nearest" });
}

const chooseSpan = (k) => choose({ first: marks[k].first, last: marks[k].last, span: k });

function chooseToken(k) {
  if (k < 0 || k >= item.tokens.length) return;
  const span = marks.findIndex((mark) => mark.first <= k && k < mark.last);
  if (span >= 0) chooseSpan(span);
  else choose({ first: k, last: k + 1, span: null });
}

function stepToken(by) {
  if (isCats() || !item.tokens.length) return;
  if (!chosen) chooseToken(by > 0 ? 0 : item.tokens.length - 1);
  else chooseToken(by > 0 ? chosen.last : chosen.first - 1);
}

function stepSpan(by) {
  if (isCats() || !marks.length) return;
  let k = by > 0 ? 0 : marks.length - 1;
  if (chosen?.span != null) k = (chosen.span + by + marks.length) % marks.length;
  else if (chosen) {
    const later = marks.findIndex((mark) => mark.first >= chosen.first);
    k = by > 0 ? Math.max(0, later) : (later < 0 ? marks.length : later + marks.length) - 1;
  }
  chooseSpan(k % marks.length);
}

// ---- Deciding

const decide = (answer) => act(async () => {
  if (!item) return;
  const now = performance.now();
  await call("/api/decisions", {
    n: item.n,
    key: item.key,
    reviewer: $("reviewer").value.trim(),
    answer,
    marks: answer === "accept" ? marks : [],
    seconds: (now - shownAt - away) / 1000,
    by_chance: getFilter().toString() === byChance().toString(),
  });
  say();
  await next();
});

const undo = () => act(async () => {
  if (item && past.length) {
    marks = past.pop();
    chosen = null;
    render();
    return;
  }
  show(await call("/api/undo", { reviewer: $("reviewer").value.trim() }));
  say("The last decision is taken back.");
  tellProgress();
});

// ---- Showing a text to the teacher

function openLesson() {
  if (!item) return;
  if (!session.examples) {
    say("", "The page knows no file of prompt examples. Start it with --teacher CONFIG, or --examples FILE.");
    return;
  }
  const gone = item.proposed.filter((mark) => !marks.some((other) => same(mark, other)));
  const rows = [...marks.map((mark) => [mark, false]), ...gone.map((mark) => [mark, true])];
  $("lesson-file").textContent = session.examples;
  $("lesson-rows").replaceChildren(...rows.map(([mark, isGone]) => {
    const candidate = item.candidates.find((row) => same(row, mark));
    const reason = isGone ? "" : Object.values(candidate?.reasons ?? {})[0] ?? "";
    const what = `${isCats() ? "" : `${surface(mark)} `}${isGone ? `is no ${mark.label}` : mark.label}`;
    const input = make("input", { value: reason, dataset: { mark: JSON.stringify(mark), gone: isGone ? "1" : "" } });
    return make("label", {}, what, input);
  }));
  $("lesson").showModal();
}

const teach = (isRemoval) => act(async () => {
  const rows = [...$("lesson-rows").querySelectorAll("input")].map((input) => ({
    ...JSON.parse(input.dataset.mark), reason: input.value, gone: Boolean(input.dataset.gone),
  }));
  $("lesson").close();
  const found = await call("/api/examples", {
    n: item.n,
    key: item.key,
    reviewer: $("reviewer").value.trim(),
    marks: rows.filter((row) => !row.gone),
    deleted: rows.filter((row) => row.gone),
    remove: isRemoval,
  });
  say(`${found.file}: ${found.done}. The next annotation asks with the new prompt.`);
});

// ---- Panels

function toggle(name) {
  const panel = $(name);
  panel.hidden = !panel.hidden;
  document.querySelector(`[data-panel="${name}"]`).setAttribute("aria-expanded", !panel.hidden);
  if (name === "agreement" && !panel.hidden) act(showAgreement);
  if (name === "try" && !panel.hidden) $("try-text").focus();
}

async function showAgreement() {
  const found = await call("/api/agreement");
  const number = (value) => (value == null ? "unknown" : value.toFixed(3));
  const lines = Object.entries(found.teacher).map(
    ([name, { f1, alpha }]) => `${name} and what was proposed: F1 ${number(f1)}, Krippendorff’s alpha ${number(alpha)}`,
  );
  lines.push(found.texts
    ? `Reviewers among each other, on ${found.texts} ${found.texts === 1 ? "text" : "texts"}: F1 ${number(found.people.f1)}, alpha ${number(found.people.alpha)}`
    : "No text was decided about by two reviewers so far.");
  $("agreement").replaceChildren(...lines.map((line) => make("p", { className: "plain", textContent: line })));
}

async function tryText() {
  $("try-answers").textContent = "…";
  const answers = await call("/api/try", { text: $("try-text").value });
  const blocks = Object.entries(answers).map(([name, { parts, cats, trouble }]) => {
    const body = make("div", { className: "answer", dir: "auto" });
    if (trouble) body.textContent = trouble;
    else {
      for (const [text, label] of parts) {
        body.append(label ? make("mark", { className: colour(label) }, text, tag(label)) : text);
      }
      if (cats.length) body.append(make("div", { textContent: cats.map(([label, score]) => `${label} ${score.toFixed(2)}`).join(" · ") }));
    }
    return make("div", {}, make("h2", { textContent: name }), body);
  });
  $("try-answers").replaceChildren(...blocks);
  if (!blocks.length) $("try-answers").textContent = "Start the page with --teacher CONFIG or --student MODEL to try them.";
}

// ---- Keys and mouse

const keys = {
  a: () => decide("accept"), Enter: () => decide("accept"), x: () => decide("reject"), s: () => decide("skip"),
  u: undo, n: () => stepSpan(1), p: () => stepSpan(-1), t: openLesson, g: () => toggle("guidelines"),
  y: () => toggle("try"), "?": () => toggle("help"), "/": () => $("search").focus(),
  Delete: remove, Backspace: remove, Escape: () => choose(null),
  ArrowRight: () => stepToken(1), ArrowLeft: () => stepToken(-1),
};
const inText = new Set(["n", "p", "Delete", "Backspace", "Escape", "ArrowLeft", "ArrowRight", "a", "x", "s", "u", "t", "Enter"]);

document.addEventListener("keydown", (event) => {
  const field = event.target.closest("input, textarea, select, dialog");
  if (field) {
    const leaves = event.key === "Escape" || (event.key === "Enter" && event.target.tagName === "INPUT");
    if (leaves && !event.target.closest("dialog")) {
      event.preventDefault(); // Escape would empty the search
      field.blur();
    }
    return;
  }
  const { key } = event;
  const arrow = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const control = event.ctrlKey || event.metaKey;
  let run = null;
  if (control && key.toLowerCase() === "z") run = undo;
  else if (arrow && item && event.shiftKey) run = () => moveEdge("last", arrow);
  else if (arrow && item && (control || event.altKey)) run = () => moveEdge("first", arrow);
  else if (control || event.altKey) return;
  else if (/^[0-9]$/.test(key)) {
    const label = session?.labels[(Number(key) + 9) % 10];
    if (label && item) run = () => setLabel(label);
  } else {
    // Of a key that is held, only what moves is done again.
    if (event.repeat && /^[axsu]$|^Enter$/i.test(key)) return;
    // A button that has the focus is pressed by Enter.
    if (key === "Enter" && event.target.closest("button")) return;
    const name = key.length === 1 ? key.toLowerCase() : key;
    if (item || !inText.has(name)) run = keys[name];
  }
  if (run) {
    event.preventDefault();
    run();
  }
});

const tokenAt = (event) => {
  const element = document.elementFromPoint(event.clientX, event.clientY)?.closest("#text .token, #text mark");
  if (!element) return null;
  const token = element.classList.contains("token") ? element : element.querySelector(".token");
  return Number(token.dataset.k);
};

$("text").addEventListener("pointerdown", (event) => {
  if (isCats() || event.button) return;
  const k = tokenAt(event);
  if (k === null) {
    choose(null);
  } else if (event.shiftKey && chosen) { // the nearer edge comes here
    const atBegin = Math.abs(k - chosen.first) < Math.abs(k - chosen.last + 1);
    if (atBegin) moveEdge("first", k - chosen.first);
    else moveEdge("last", k + 1 - chosen.last);
  } else {
    anchor = k;
    chooseToken(k);
  }
});
document.addEventListener("pointermove", (event) => {
  if (anchor === null || event.pointerType === "touch") return;
  const k = tokenAt(event);
  if (k === null || k === anchor) return;
  choose({ first: Math.min(anchor, k), last: Math.max(anchor, k) + 1, span: null });
});
document.addEventListener("pointerup", () => { anchor = null; });
document.addEventListener("pointercancel", () => { anchor = null; });
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenAt = performance.now();
  else if (hiddenAt !== null) away += performance.now() - Math.max(hiddenAt, shownAt);
});

// ---- Start

function fill(found) {
  session = found;
  document.body.classList.toggle("cats", isCats());
  $("source").textContent = session.source;
  const options = {
    queue: [["", "by use"], ...session.queues.map((name) => [name, name])],
    status: session.statuses.map((name) => [name, name]),
    label: [["", "any"], ...session.labels.map((name) => [name, name])],
    voter: [["", "any"], ...session.voters.map((name) => [name, name])],
  };
  for (const [id, pairs] of Object.entries(options)) {
    const before = $(id).value;
    $(id).replaceChildren(...pairs.map(([value, text]) => make("option", { value, textContent: text })));
    if (pairs.some(([value]) => value === before)) $(id).value = before;
  }
  const defined = Object.entries(session.definitions).flatMap(([label, text]) => [make("dt", { textContent: label }), make("dd", { textContent: text })]);
  $("guidelines").replaceChildren(make("dl", {}, ...defined), make("p", { className: "plain", textContent: session.guidelines }));
  if (!defined.length && !session.guidelines) $("guidelines").textContent = "There are none. Start the page with --teacher CONFIG, for its definitions, or with --guidelines FILE.";
  $("teach").disabled = !session.examples;
  renderLabels();
  if (item) render();
}

document.querySelectorAll("[data-panel]").forEach((button) => { button.onclick = () => toggle(button.dataset.panel); });
document.querySelectorAll("[data-edge]").forEach((button) => {
  const [edge, by] = button.dataset.edge.split(",");
  button.onclick = () => moveEdge(edge, Number(by));
});
$("delete").onclick = remove;
$("accept").onclick = () => decide("accept");
$("reject").onclick = () => decide("reject");
$("skip").onclick = () => decide("skip");
$("undo").onclick = undo;
$("teach").onclick = openLesson;
$("lesson-close").onclick = () => $("lesson").close();
$("lesson-remove").onclick = () => teach(true);
$("lesson-form").onsubmit = (event) => { event.preventDefault(); teach(false); };
$("try-form").onsubmit = (event) => { event.preventDefault(); act(tryText); };
$("filters").onsubmit = (event) => event.preventDefault();
$("filters").onchange = () => act(() => next({ start: true }), { waits: true });
$("reviewer").onchange = () => {
  saved(`reviewer ${session.reviewer}`, $("reviewer").value.trim());
  act(() => next({ start: true }), { waits: true });
};

act(async () => {
  fill(await call("/api/session"));
  $("reviewer").value = saved(`reviewer ${session.reviewer}`) || session.reviewer;
  await next({ start: true });
});
setTimeout(watch, 300);
