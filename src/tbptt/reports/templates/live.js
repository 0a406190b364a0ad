// A page of a study that runs: it asks its server for what changed. Scrolling, sorting, the picked trial, a zoom and an
// open <details> stay as they are.
const live = { version: 0, again: {{ again | tojson }}, rows: new Map(), order: [], failed: 0 };
const EVERY = 2000, HIDDEN_EVERY = 15000, SLOWEST = 30000;  // milliseconds

function say(text) {
  const line = document.getElementById("as-of");
  if (line.textContent !== text) line.textContent = text;
}

async function ask() {
  let pause = document.hidden ? HIDDEN_EVERY : EVERY;
  const news = await fetch(`changes?after=${live.version}`, { cache: "no-store" })
    .then(answer => answer.ok ? answer.json() : null, () => null);
  live.failed = news ? 0 : live.failed + 1;
  if (news) {
    performance.mark("update-begins");
    take(news.values);
    const curves = Object.keys(news.values).filter(name => name.startsWith("curve:")).length;
    performance.measure("update", { start: "update-begins", detail: { curves } });  // benchmarks/live_page.py reads it
    live.version = news.version;
    live.trouble = news.values.trouble ?? live.trouble;
    say(live.trouble ? `as of ${news.at}: ${live.trouble}` : `as of ${news.at}`);
  } else {
    pause = Math.min(SLOWEST, pause * 2 ** live.failed);
    if (live.failed > 1) say(`This page is not served any more, and stays as it is. To have it again: ${live.again}`);
  }
  setTimeout(ask, pause);
}

function take(values) {
  const named = start => Object.entries(values).filter(([name]) => name.startsWith(start)).map(([name, value]) => [name.slice(start.length), value]);
  for (const [name, text] of named("part:")) swap(name, text);
  takeRows(values.table, named("row:"), values.order);
  if (values.labels) drawn.labels = values.labels;
  for (const [id, text] of named("figure:").filter(([id]) => id !== "loss-curves")) {
    if (text === null) { delete drawn.figures[id]; continue; }
    drawn.figures[id] = text;  // read when it is drawn, as most are out of sight
    drawLater(id);
  }
  const curves = named("curve:").map(([, trial]) => trial);
  if (values.curves) drawn.curves = { ...values.curves, trials: drawn.curves.trials };
  if (curves.length || values.curve_order) {
    live.drawnOrder = values.curve_order ?? live.drawnOrder;
    takeCurves(curves, live.drawnOrder);
  }
}

// A part's new text. Its plots that are drawn already move into it, so that they are not drawn anew.
function swap(name, text) {
  const place = document.getElementById(`part-${name}`), made = document.createElement("template");
  made.innerHTML = text;
  const open = [...place.querySelectorAll("details")].map(each => each.open);
  [...made.content.querySelectorAll("details")].forEach((each, i) => { each.open = open[i] ?? each.open; });
  for (const plot of made.content.querySelectorAll(".plot")) {
    const old = place.querySelector(`.plot[data-figure="${CSS.escape(plot.dataset.figure)}"]`);
    if (old) plot.replaceWith(old); else made.drawn = true;
  }
  const focused = place.contains(document.activeElement) && document.activeElement.dataset.trial;
  place.replaceChildren(made.content);
  if (made.drawn) for (const plot of place.querySelectorAll(".plot:not(.js-plotly-plot)")) drawLater(plot.dataset.figure);
  if (focused) place.querySelector(`[data-trial="${focused}"]`)?.focus();
}

// Rows by number. As long as the user has not sorted the table, the best are first.
function takeRows(head, rows, order) {
  for (const [number, text] of rows) live.rows.set(Number(number), text);
  if (order) live.order = order;
  if (head && head !== live.head) {
    const isThere = live.head === undefined && table()?.tBodies[0].rows.length;  // the page came with this table
    live.head = head;
    if (!isThere) swap("trials", head);
    rows = [...live.rows];
  }
  if (!rows.length && !order) return;
  const body = table().tBodies[0], made = document.createElement("template");
  made.innerHTML = `<table><tbody>${rows.map(([, text]) => text).join("")}</tbody></table>`;
  for (const row of [...made.content.querySelectorAll("tr")]) {
    const old = document.getElementById(row.id);
    if (!old) body.append(row);
    else if (old.outerHTML !== row.outerHTML) {
      if (old.classList.contains("picked")) row.classList.add("picked");
      const focused = old.contains(document.activeElement);
      old.replaceWith(row);
      if (focused) row.querySelector("button")?.focus();
    }
  }
  if (sorted) sort(); else inOrder(live.order.map(number => document.getElementById(`t${number}`)).filter(Boolean));
}

// A figure that changed is drawn anew when it is near what is seen, or printed.
function drawLater(id) {
  for (const plot of plots()) if (plot.dataset.figure === id) { waiting.add(plot); near.unobserve(plot); near.observe(plot); }
}

ready.then(ask);
