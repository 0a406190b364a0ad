// The curves of trials and runs, drawn from `drawn.curves`: {metrics, keys, objective, mean, note, trials}, the best trial
// first. A trial has runs, a run has a seed, a fold, and for each metric a value an epoch.
const MOST_OWN = 30;  // trials with a line of their own; the others share one, which is drawn as fast as a single line
const MOST_SHARED = 10000;  // points of the lines that are shared
const MOST_NAMED = 12;  // keys of a point that fit in a hover box
const LOG_FROM = 5;  // if the largest value / the smallest is above this, a linear axis hides the small ones
const DASHES = ["solid", "dot"];
// Okabe and Ito's colours, which colour-blind people tell apart, without the one of the highlighted trial.
const COLOURS = ["#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#a6761d", "#8a8f98"];
const VIRIDIS = ["#440154", "#472c7a", "#3b518b", "#2c718e", "#21908d", "#27ad81", "#5cc863", "#aadc32"];

const view = { metric: null, lines: "", colour: "", axis: null, bands: true, trial: null };
const control = name => document.getElementById(`curves-${name}`);
const curvesPlot = () => document.querySelector("#curves .plot");

// Texts of a study are data, and Plotly reads a little HTML in every text.
const safe = text => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// What the page's style says, so that a dark page has light lines.
function theme() {
  const style = getComputedStyle(document.documentElement);
  const found = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  const ink = found("--ink", "#0f172a"), rgb = channels(ink);
  return {
    ink, soft: found("--soft", "#526077"), line: found("--line", "#e2e8f0"), best: found("--best", "#d55e00"),
    dark: rgb[0] + rgb[1] + rgb[2] > 384,  // light ink is on a dark page
  };
}
function channels(colour) {
  const short = colour.length === 4 ? colour.replace(/[^#]/g, "$&$&") : colour;
  return [1, 3, 5].map(at => parseInt(short.slice(at, at + 2), 16) || 0);
}
const faint = (colour, opacity) => `rgba(${channels(colour)},${opacity})`;

// --- traces ---------------------------------------------------------------------------------------------------------

const labelOf = trial => drawn.labels[trial.number] ??= madeLabel(trial);
function madeLabel(trial) {
  const lines = Object.entries(trial.point).map(([key, value]) => `${safe(cut(key, 60))} = ${safe(cut(short(value), 60))}`);
  const more = lines.length > MOST_NAMED ? [`and ${lines.length - MOST_NAMED} more`] : [];
  return [`<b>trial ${trial.number}</b>`, ...lines.slice(0, MOST_NAMED), ...more].join("<br>");
}
const runName = run => [run.seed !== null && `seed ${run.seed}`, run.fold !== null && `fold ${run.fold}`].filter(Boolean).join(", ");

function meanLine(trial, metric, of) {
  const { x, mean, low, high, count, runs } = summaryOf(trial, metric);
  const name = runs > 1 ? "" : runName(trial.runs.find(run => run.curves[metric]) ?? trial.runs[0]);
  return {
    type: "scatter", x, y: mean, mode: x.length > 1 ? "lines" : "markers",
    customdata: runs > 1 ? x.map((_, i) => [low[i], high[i], count[i]]) : undefined,
    hovertemplate: "%{meta.label}<br>epoch %{x}: <b>%{y:.4g}</b>" + (runs > 1
      ? ", mean of %{customdata[2]} runs from %{customdata[0]:.4g} to %{customdata[1]:.4g}" : "") + "<extra></extra>",
    ...of, meta: { trial: trial.number, metric, label: labelOf(trial) + (name && `<br>${safe(name)}`), ...of.meta },
  };
}

// All bands of one colour as one trace, with gaps between them.
function band(summaries, colour, opacity, more) {
  const x = [], y = [];
  for (const { x: epochs, low, high, runs } of summaries) {
    if (runs < 2 || epochs.length < 2) continue;
    if (x.length) { x.push(null); y.push(null); }
    x.push(...epochs, ...epochs.toReversed(), epochs[0]);
    y.push(...high, ...low.toReversed(), high[0]);
  }
  return {
    type: "scatter", x, y, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor: faint(colour, opacity), hoverinfo: "skip",
    showlegend: false, ...more, meta: { band: true, ...more?.meta },
  };
}

// Many trials as one trace.
function sharedLine(trials, metric, every, of) {
  const x = [], y = [], text = [], customdata = [];
  for (const trial of trials) {
    const its = summaryOf(trial, metric), label = labelOf(trial);
    for (let i = 0; i < its.x.length; i++) {
      if (i % every && i !== its.x.length - 1) continue;
      x.push(its.x[i]); y.push(its.mean[i]); text.push(label); customdata.push(trial.number);
    }
    x.push(null); y.push(null); text.push(""); customdata.push(null);
  }
  const single = trials.every(trial => summaryOf(trial, metric).x.length === 1);
  return {
    type: "scatter", x, y, text, customdata, mode: single ? "markers" : "lines", marker: { size: 3 },
    hovertemplate: "%{text}<br>epoch %{x}: <b>%{y:.4g}</b><extra></extra>", ...of, meta: { shared: true, metric },
  };
}

// Where the schedule moves on to its next stage.
function stages(trials, metric, colours) {
  const x = [], y = [], text = [], hovertext = [], customdata = [];
  for (const trial of trials) {
    const run = trial.runs.find(run => run.curves["schedule/chunks"]), chunks = run?.curves["schedule/chunks"] ?? [];
    const epochs = run ? epochsOf(run, chunks.length) : [], its = summaryOf(trial, metric);
    for (let i = 1; i < chunks.length; i++) {
      if (chunks[i] === null || chunks[i - 1] === null || chunks[i] === chunks[i - 1]) continue;
      const at = its.x.indexOf(epochs[i]);
      if (at < 0) continue;
      x.push(epochs[i]); y.push(its.mean[at]); text.push(labelOf(trial)); customdata.push(trial.number);
      hovertext.push(`${chunks[i - 1]} → ${chunks[i]} chunks`);
    }
  }
  return {
    type: "scatter", x, y, text, hovertext, customdata, mode: "markers", name: "a stage begins", meta: { marks: true },
    showlegend: x.length > 0,
    marker: { symbol: "diamond", size: trials.length <= 12 ? 7 : 5, color: colours.dark ? "#0f172a" : "white", line: { color: colours.soft, width: 1 } },
    hovertemplate: "%{text}<br>epoch %{x}: <b>%{hovertext}</b><extra></extra>",
  };
}

// --- what is drawn --------------------------------------------------------------------------------------------------

// By trial: its colour, and the legend's name for it. Rank is told apart among the `own` ones, which have a line each.
function colouring(trials, own, colours) {
  const found = new Map(), complete = own.filter(isComplete), scale = colours.dark ? VIRIDIS.slice(2).toReversed() : VIRIDIS;
  if (view.colour) {
    const groups = groupsOf(view.colour, trials);
    for (const [i, group] of groups.entries()) {
      const look = { colour: COLOURS[i % COLOURS.length], name: safe(group.name), rank: i };
      for (const trial of group.trials) found.set(trial, look);
    }
  } else {
    for (const [i, trial] of complete.entries()) {
      const at = Math.floor(scale.length * i / complete.length);
      found.set(trial, { colour: scale[at], name: `complete, ${colours.dark ? "bright" : "dark"} is good`, rank: 0 });
    }
  }
  for (const trial of trials) {
    if (found.has(trial)) continue;
    const running = trial.state === "running";
    const name = isComplete(trial) ? `without ${safe(view.colour)}` : running ? "running" : "pruned, diverged or failed";
    found.set(trial, { colour: running ? "#56b4e9" : "#94a3b8", name, rank: MOST_GROUPS + running });
  }
  return found;
}

function ofTrials(metrics, colours) {
  const traces = [], most = Math.floor(MOST_OWN / metrics.length);
  let own = [], total = 0, runs = 0;
  for (const [m, metric] of metrics.entries()) {
    const trials = withCurve(metric), running = trials.filter(trial => trial.state === "running").slice(0, most / 4);
    const best = trials.filter(trial => !running.includes(trial)).slice(0, most - running.length);
    const shared = trials.filter(trial => !best.includes(trial) && !running.includes(trial));
    const looks = colouring(trials, best, colours), ending = m ? `, ${safe(labelOfMetric(metric))}` : "", dash = DASHES[m];
    const firsts = new Map([...best, ...running].reverse().map(trial => [looks.get(trial).name, trial]));
    traces.push(...ofShared(shared, metric, looks, firsts, ending, dash, metrics.length));
    if (!m) { own = [...best, ...running]; total = trials.length; runs = trials.reduce((sum, trial) => sum + summaryOf(trial, metric).runs, 0); }
    if (view.bands) {
      for (const [colour, some] of grouped([...best, ...running], trial => looks.get(trial).colour)) {
        traces.push(band(some.map(trial => summaryOf(trial, metric)), colour, colours.dark ? .16 : .1, { uid: `band${colour.slice(1)}m${m}` }));
      }
    }
    for (const trial of [...best, ...running].reverse()) {  // the best one last, so that it is above the others
      const { colour, name, rank } = looks.get(trial), first = firsts.get(name) === trial;
      traces.push(meanLine(trial, metric, {
        uid: `trial${trial.number}m${m}`, line: { color: colour, width: 1.5, dash }, marker: { color: colour }, opacity: isComplete(trial) || trial.state === "running" ? .9 : .55,
        name: name + ending, legendgroup: name + ending, legendrank: 10 + rank, showlegend: first,
      }));
    }
    if (metric !== "schedule/chunks") {
      traces.push({ ...stages([...best, ...running], metric, colours), uid: `stages${m}`, legendgroup: "stages", ...(m && { showlegend: false }) });
    }
  }
  return { traces, own, total, runs };
}
function ofShared(trials, metric, looks, firsts, ending, dash, parts) {
  if (!trials.length) return [];
  const total = trials.reduce((sum, trial) => sum + summaryOf(trial, metric).x.length + 1, 0);
  const every = Math.max(1, Math.ceil(total * parts / MOST_SHARED));
  const others = { colour: "#94a3b8", name: "the other trials", rank: 100 };
  const byName = grouped(trials, trial => (view.colour ? looks.get(trial) : others).name);
  return byName.map(([name, some]) => {
    const { colour, rank } = view.colour ? looks.get(some[0]) : others;
    return sharedLine(some, metric, every, {
      uid: `shared${rank}${dash}`,
      line: { color: colour, width: 1, dash }, marker: { color: colour, size: 3 }, opacity: view.colour ? .45 : .35,
      name: name + ending, legendgroup: name + ending, legendrank: 10 + rank, showlegend: !firsts.has(name),
    });
  });
}
function grouped(items, by) {
  const found = new Map();
  for (const item of items) {
    const key = by(item);
    if (found.has(key)) found.get(key).push(item); else found.set(key, [item]);
  }
  return [...found];
}

function ofGroups(metrics) {
  const traces = [], lines = [], names = [];
  for (const [m, metric] of metrics.entries()) {
    const groups = groupsOf(view.lines, withCurve(metric).filter(isComplete));
    names.quarters = groups.some(group => group.isQuarter);
    for (const [i, { name, trials }] of groups.entries()) {
      const its = summary(trials.flatMap(trial => trial.runs), metric, false), colour = COLOURS[i % COLOURS.length];
      const title = safe(name) + (m ? `, ${safe(labelOfMetric(metric))}` : ""), group = `${i} ${m}`;
      if (!m) names.push([trials.length, its.runs]);
      if (view.bands) traces.push(band([its], colour, .16, { uid: `spread${i}m${m}`, legendgroup: group, meta: { group: name } }));
      lines.push({
        type: "scatter", x: its.x, y: its.mean, mode: its.x.length > 1 ? "lines" : "markers", name: title, legendgroup: group, uid: `group${i}m${m}`,
        line: { color: colour, width: 2.5, dash: DASHES[m] }, marker: { color: colour },
        meta: { group: name, metric, label: `<b>${safe(view.lines)} = ${safe(name)}</b><br>${trials.length} trials, ${its.runs} runs` },
        customdata: its.x.map((_, k) => [its.low[k], its.high[k]]),
        hovertemplate: "%{meta.label}<br>epoch %{x}: mean <b>%{y:.4g}</b>, middle half %{customdata[0]:.4g} to %{customdata[1]:.4g}<extra></extra>",
      });
    }
  }
  return { traces: [...traces, ...lines], names };
}

// The trial on top, with its band; if it was picked, each of its runs too.
function onTop(trial, metrics, colours) {
  return metrics.flatMap((metric, m) => {
    const its = summaryOf(trial, metric), dash = DASHES[m], traces = [];
    if (!its.x.length) return [];
    if (view.bands) traces.push(band([its], colours.best, .2, { uid: `topband${m}`, meta: { highlight: true } }));
    if (view.trial !== null && its.runs > 1) {
      const few = its.runs <= MOST_GROUPS;  // their names fit on their lines, each at another epoch
      for (const [k, run] of trial.runs.filter(run => run.curves[metric]).entries()) {
        const curve = run.curves[metric], epochs = epochsOf(run, curve.length), there = curve.map((y, i) => i).filter(i => curve[i] !== null);
        traces.push({
          type: "scatter", x: there.map(i => epochs[i]), y: there.map(i => curve[i]), mode: `${there.length > 1 ? "lines" : "markers"}${few ? "+text" : ""}`,
          texttemplate: there.map((_, i) => few && i === Math.round((there.length - 1) * (1 - k / (its.runs + 1))) ? safe(runName(run)) : ""),
          textposition: "top left", textfont: { color: colours.best }, uid: `run${k}m${m}`,
          line: { color: colours.best, width: 1, dash }, marker: { color: colours.best }, showlegend: false, name: runName(run),
          meta: { trial: trial.number, run: runName(run), metric, label: `${labelOf(trial)}<br>${safe(runName(run))}` },
          hovertemplate: "%{meta.label}<br>epoch %{x}: <b>%{y:.4g}</b><extra></extra>",
        });
      }
    }
    const name = `trial ${trial.number}${view.trial === null ? ", the best" : ""}${m ? `, ${safe(labelOfMetric(metric))}` : ""}`;
    traces.push(meanLine(trial, metric, { line: { color: colours.best, width: 3.5, dash }, marker: { color: colours.best, size: 8 }, name, legendrank: 1, uid: `top${m}`, meta: { highlight: true } }));
    return traces;
  });
}

const labelOfMetric = name => drawn.curves.metrics.find(metric => metric.name === name)?.label ?? name;
const isLoss = name => drawn.curves.metrics.some(metric => metric.name === name && metric.is_loss);

function drawCurves() {
  const plot = curvesPlot();
  if (!plot || document.getElementById("curves").hidden) return;
  const metrics = view.metric.split("+"), colours = theme(), picked = drawn.curves.trials.find(trial => trial.number === view.trial);
  const best = drawn.curves.trials.find(isComplete), top = picked ?? (view.lines ? null : best);
  const made = view.lines ? ofGroups(metrics) : ofTrials(metrics, colours);
  const traces = [...made.traces, ...(top ? onTop(top, metrics, colours) : [])];
  const last = traces.reduce((most, trace) => trace.x.reduce((a, b) => Math.max(a, b ?? 0), most), 1);
  if (drawn.curves.mean !== null && metrics.every(isLoss)) {
    traces.push({
      type: "scatter", x: [1, last], y: [drawn.curves.mean, drawn.curves.mean], mode: "lines", name: "predicting the mean", uid: "mean", legendrank: 2000,
      line: { color: colours.ink, dash: "dash", width: 1 }, hovertemplate: "predicting the mean: <b>%{y:.4g}</b><extra></extra>", meta: {},
    });
  }
  const shows = `${view.metric} ${view.lines}`, isZoomed = plot.dataset.shows === shows && plot.layout?.yaxis.autorange === false;
  const axis = view.axis ?? (isZoomed ? plot.layout.yaxis.type : axisOf(traces));
  plot.dataset.shows = shows;
  control("axis").value = axis;
  const layout = structuredClone(drawn.figures[plot.dataset.figure].layout);
  const lines = { gridcolor: colours.line, zerolinecolor: colours.line, linecolor: colours.line };
  Object.assign(layout.font, { color: colours.ink });
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.soft, activecolor: colours.ink }, uirevision: `${shows} ${axis}` });
  Object.assign(layout.xaxis, lines, { zeroline: false, autorange: true, autorangeoptions: { include: [.8 - .02 * last, 1.02 * last + .2] }, dtick: last < 10 ? 1 : undefined });
  Object.assign(layout.yaxis, lines, { type: axis, autorange: true, ...(axis === "log" && { tickformat: "~g" }) });
  // Margins that fit every tick: Plotly draws all a second time where it has to find them itself.
  Object.assign(layout.margin, { l: 70, b: 50 });
  layout.xaxis.automargin = layout.yaxis.automargin = false;
  layout.yaxis.title = { text: safe(metrics.length > 1 ? "loss" : labelOfMetric(metrics[0])) };
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;  // a finger on a plot scrolls the page
  const isNew = !plot.classList.contains("js-plotly-plot");
  Plotly.react(plot, traces, layout, drawn.config);
  if (isNew) plot.on("plotly_click", event => {
    const point = event.points[0], number = point.data.meta?.trial ?? point.customdata;
    if (Number.isInteger(number)) pick(number);
  });
  control("said").textContent = sentence(made, metrics, picked, best);
}

function axisOf(traces) {
  let low = Infinity, high = -Infinity;
  for (const trace of traces) {
    for (const y of trace.y) if (Number.isFinite(y)) { low = Math.min(low, y); high = Math.max(high, y); }
  }
  return low > 0 && high > LOG_FROM * low ? "log" : "linear";
}

function sentence(made, metrics, picked, best) {
  const parts = [], some = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  if (view.lines) {
    const trials = made.names.reduce((sum, [n]) => sum + n, 0), runs = made.names.reduce((sum, [, n]) => sum + n, 0);
    parts.push(`A line for each ${made.names.quarters ? "quarter of the values" : "value"} of ${view.lines}: the mean over all runs of the complete trials with it, ${some(trials, "trial")} and ${some(runs, "run")} in all` +
               `${view.bands ? "; the band is the middle half of the runs" : ""}.`);
  } else {
    const most = Math.max(0, ...made.own.map(trial => summaryOf(trial, metrics[0]).runs)), others = made.total - made.own.length;
    parts.push(`${some(made.total, "trial")} with ${some(made.runs, "run")}${others ? `; ${made.own.length} have a line of their own, the others thin ones` : ""}.`);
    if (most > 1) {
      const uneven = made.own.some(trial => new Set(summaryOf(trial, metrics[0]).count).size > 1);
      parts.push(`A line is the mean over a trial's runs` +
                 `${view.bands ? ", its band goes from the smallest run to the largest" : ""}${uneven ? "; where runs have ended, it goes on while half of them do" : ""}.`);
    }
  }
  if (picked) {
    const runs = summaryOf(picked, metrics[0]).runs;
    parts.push(runs ? `On top is trial ${picked.number}${runs > 1 ? ` with its ${runs} runs` : ""}.` : `Trial ${picked.number} has no such curve.`);
  } else if (best && !view.lines) {
    parts.push(`On top is trial ${best.number}, the best: ${drawn.curves.objective} is judged at each run's best epoch, so its curve need not end ${drawn.curves.small_is_good ? "lowest" : "highest"}.`);
  }
  return parts.join(" ");
}

// --- controls -------------------------------------------------------------------------------------------------------

function fill(select, choices, chosen) {  // [[value, text]]
  const now = [...select.options].map(option => [option.value, option.textContent]);
  if (JSON.stringify(now) !== JSON.stringify(choices)) {
    select.replaceChildren(...choices.map(([value, text]) => new Option(text, value)));
  }
  select.value = chosen;
}

function fillControls() {
  const { metrics, keys, trials } = drawn.curves, there = new Set(trials.flatMap(trial => trial.runs.flatMap(run => Object.keys(run.curves))));
  const choices = metrics.filter(metric => there.has(metric.name)).map(metric => [metric.name, metric.label]);
  if (there.has("val/loss") && there.has("train/loss")) choices.splice(choices.filter(([name]) => isLoss(name)).length, 0, ["val/loss+train/loss", "held-out and online"]);
  if (!choices.some(([name]) => name === view.metric)) view.metric = choices[0]?.[0] ?? null;
  const named = keys.map(key => [key, cut(key, 50)]);
  fill(control("metric"), choices, view.metric);
  fill(control("lines"), [["", "each trial"], ...named.map(([key, name]) => [key, `each value of ${name}`])], view.lines);
  fill(control("colour"), [["", "rank"], ...named], view.colour);
  control("colour").disabled = view.lines !== "";
  trials.forEach(labelOf);  // the bar below a page names any of them
  return choices.length > 0;
}

for (const name of ["metric", "lines", "colour", "axis"]) {
  control(name).addEventListener("change", event => {
    view[name] = event.target.value;
    if (name === "metric" || name === "lines") view.axis = null;
    control("colour").disabled = view.lines !== "";
    drawCurves();
  });
}
control("bands").addEventListener("change", event => { view.bands = event.target.checked; drawCurves(); });

// A trial on top, with all of its runs; null for the best. Returns whether it has a curve.
function showTrial(number) {
  const trial = drawn.curves.trials.find(trial => trial.number === number);
  if (number !== null && !trial) return false;
  if (view.trial !== number) { view.trial = number; drawCurves(); }
  return number !== null;
}

// New curves of some trials, and the numbers of all, best first. What is chosen, zoomed and highlighted stays.
function takeCurves(trials, order) {
  const of = new Map([...drawn.curves.trials, ...trials].map(trial => [trial.number, trial]));
  drawn.curves.trials = order.map(number => of.get(number)).filter(Boolean);
  const section = document.getElementById("curves");
  section.hidden = !fillControls();
  if (!section.hidden) draw(section.querySelector(".plot"));
}
