// What is drawn, and how. Plotly and the figures are compressed: `drawn` is {figures, labels, config}.
const ready = (async () => {
  if (!("DecompressionStream" in window)) return undrawn("its DecompressionStream is missing");
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
  if (document.readyState === "loading") await new Promise(parsed => addEventListener("DOMContentLoaded", parsed));
  return JSON.parse(await unpacked("drawn"));
})();
let drawn;
const plots = () => [...document.querySelectorAll(".plot")].filter(plot => !plot.closest("[hidden]"));

function undrawn(why) {  // a promise that is never kept: nothing waits for it in vain but drawing
  const said = `This browser is too old to draw the figures (${why}). The trials' numbers are in the table below and in trials.csv.`;
  document.querySelector("main").prepend(Object.assign(document.createElement("p"), { className: "warning", textContent: said }));
  return new Promise(() => {});
}
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function draw(plot) {
  if (plot.dataset.figure === "loss-curves" && window.drawCurves) drawCurves(); else drawFigure(plot);
  // One image with a name: its buttons stay outside it.
  for (const [i, svg] of plot.querySelectorAll(".main-svg").entries()) {
    for (const [name, value] of Object.entries(i ? { "aria-hidden": true } : { role: "img", "aria-label": plot.dataset.label })) {
      svg.setAttribute(name, value);
    }
  }
}
function drawFigure(plot) {
  if (!(plot.dataset.figure in drawn.figures)) return;  // it has not come yet
  const { data, layout } = inTheme(figureOf(plot.dataset.figure));
  for (const trace of data) {
    const own = trace.meta?.trial, numbers = list(trace.customdata);
    if (Number.isInteger(own)) trace.text = drawn.labels[own];
    else if (!trace.text && Number.isInteger(numbers[0])) trace.text = numbers.map(number => drawn.labels[number]);
  }
  if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;  // a finger on a plot scrolls the page
  Plotly.newPlot(plot, data, layout, drawn.config);
  plot.on("plotly_click", event => {
    const point = event.points[0], number = point.data.meta?.trial ?? point.customdata;
    if (Number.isInteger(number)) pick(number);
  });
}
function figureOf(id) {
  const figure = drawn.figures[id];
  return typeof figure === "string" ? JSON.parse(figure) : structuredClone(figure);
}
const types = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
function list(values) {  // an array, or Plotly's form of a NumPy array
  if (!values?.bdata) return [...values ?? []];
  return [...new types[values.dtype](Uint8Array.from(atob(values.bdata), letter => letter.charCodeAt(0)).buffer)];
}

// --- colours: figures are written for a light page ---------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const BLUES = [[247, 251, 255], [222, 235, 247], [198, 219, 239], [158, 202, 225], [107, 174, 214], [66, 146, 198], [33, 113, 181], [8, 81, 156], [8, 48, 107]];

function inTheme(figure) {
  const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(`--${name}`).trim();
  const [page, ink, soft, grid, axis] = ["page", "ink", "soft", "grid", "axis"].map(of);
  const isDark = dark.matches && !document.documentElement.classList.contains("printing");
  const swapped = { "#334155": axis, white: page, black: ink, "#555": soft, "#d55e00": of("best"), "rgba(255,255,255,0.75)": `${page}bf`, "rgba(51, 65, 85, 0.8)": axis };
  recolour(figure.data, swapped, isDark);
  const { template, ...layout } = figure.layout;
  recolour(layout, swapped, isDark);
  const clear = "rgba(0,0,0,0)", lines = { gridcolor: grid, linecolor: grid, zerolinecolor: grid };
  Object.assign(layout, { template, paper_bgcolor: clear, plot_bgcolor: clear, font: { ...layout.font, color: axis } });
  layout.modebar = { ...layout.modebar, bgcolor: clear, color: soft, activecolor: ink };
  layout.hoverlabel = { ...layout.hoverlabel, bgcolor: of("pale"), bordercolor: soft, font: { ...layout.hoverlabel?.font, color: ink } };
  for (const name of Object.keys(layout)) if (/^[xy]axis\d*$/.test(name)) Object.assign(layout[name], lines);
  if (layout.scene) {
    for (const name of ["xaxis", "yaxis", "zaxis"]) layout.scene[name] = { ...layout.scene[name], ...lines, backgroundcolor: page };
  }
  return { data: figure.data, layout };
}
// Only what is a colour, as texts of a study may be `white` too. On a dark page, what was dark to stand out is light.
function recolour(part, swapped, isDark) {
  if (!part || typeof part !== "object") return;
  if (isDark && part.colorscale) part.reversescale = !part.reversescale;
  for (const [name, value] of Object.entries(part)) {
    if (typeof value === "object" && name !== "customdata") recolour(value, swapped, isDark);
    else if (typeof value !== "string" || !/color$/.test(name)) continue;
    else if (value in swapped) part[name] = swapped[value];
    else if (isDark && value.startsWith("rgb(")) part[name] = mirrored(value);
  }
}
function mirrored(colour) {  // of Optuna's scale of blues, the colour as far from its other end
  const green = Number(colour.match(/[\d.]+/g)[1]), at = BLUES.findIndex(stop => stop[1] <= green);
  if (at < 1) return at ? colour : `rgb(${BLUES.at(-1)})`;
  const part = (BLUES[at - 1][1] - green) / (BLUES[at - 1][1] - BLUES[at][1]), [from, to] = [BLUES.at(-at), BLUES.at(-at - 1)];
  return `rgb(${from.map((level, i) => Math.round(level + part * (to[i] - level)))})`;
}
function drawAgain() {
  for (const plot of plots()) if (plot.classList.contains("js-plotly-plot")) draw(plot);
}
dark.addEventListener("change", drawAgain);

// --- when: plots that are near at once, the others while nothing else is to be done ------------------------------

const waiting = new Set();
const near = new IntersectionObserver(entries => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) drawWaiting(target);
}, { rootMargin: "300px" });
const whenIdle = window.requestIdleCallback ?? (wanted => setTimeout(wanted, 50));

function drawWaiting(plot) {
  if (!waiting.delete(plot)) return;
  near.unobserve(plot);
  if (plot.isConnected) draw(plot);
}
function drawIdle() {
  for (const plot of waiting) { drawWaiting(plot); break; }
  if (waiting.size) whenIdle(drawIdle);
}
ready.then(content => {
  drawn = content;
  if (drawn.curves) fillControls();
  for (const plot of plots()) { waiting.add(plot); near.observe(plot); }
  whenIdle(drawIdle);
});

// --- on paper: all plots, light, as wide as the page and so low that no half of one stays empty --------------

const WIDE = 680, NARROW = 335, HIGH = 280, root = document.documentElement;
addEventListener("beforeprint", () => {
  if (!drawn) return;
  root.classList.add("printing");
  for (const plot of [...waiting]) drawWaiting(plot);
  for (const closed of document.querySelectorAll("#searched:not([open])")) { closed.open = true; closed.dataset.closed = ""; }
  if (dark.matches) drawAgain();
  for (const plot of plots()) {
    const beside = plot.closest(".figures")?.querySelectorAll(".plot").length > 1;
    plot.dataset.high ??= plot.style.height;
    const height = Math.min(parseFloat(plot.dataset.high), HIGH);
    plot.style.height = `${height}px`;
    Plotly.relayout(plot, { width: beside ? NARROW : WIDE, height });
  }
});
addEventListener("afterprint", () => {
  if (!drawn) return;
  root.classList.remove("printing");
  for (const opened of document.querySelectorAll("details[data-closed]")) { opened.open = false; delete opened.dataset.closed; }
  for (const plot of plots()) {
    plot.style.height = plot.dataset.high;
    Plotly.relayout(plot, { width: null, height: parseFloat(plot.dataset.high), autosize: true });
  }
  if (dark.matches) drawAgain();
});
