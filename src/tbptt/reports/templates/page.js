// What is drawn, and how. Plotly and the figures are compressed: `drawn` is {figures, labels, config}.
const ready = (async () => {
  const script = document.createElement("script");
  script.textContent = await unpacked("plotly");
  document.head.append(script);
  if (document.readyState === "loading") await new Promise(parsed => addEventListener("DOMContentLoaded", parsed));
  return JSON.parse(await unpacked("drawn"));
})();
let drawn;
const plots = () => [...document.querySelectorAll(".plot")].filter(plot => !plot.closest("[hidden]"));

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function draw(plot) {
  if (plot.dataset.figure === "loss-curves") return drawCurves();
  if (!(plot.dataset.figure in drawn.figures)) return;  // it has not come yet
  const { data, layout } = structuredClone(drawn.figures[plot.dataset.figure]);
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

// One plot at a time, so that a page of many can be scrolled at once.
const waiting = [];
function drawFor(milliseconds) {
  const end = performance.now() + milliseconds;
  while (waiting.length && performance.now() < end) draw(waiting.shift());
  if (waiting.length) setTimeout(drawFor, 0, 1);
}
const types = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };
function list(values) {  // an array, or Plotly's form of a NumPy array
  if (!values?.bdata) return [...values ?? []];
  return [...new types[values.dtype](Uint8Array.from(atob(values.bdata), letter => letter.charCodeAt(0)).buffer)];
}

// On paper a plot is as wide as the page, not as the screen.
addEventListener("beforeprint", () => {
  drawFor(Infinity);
  for (const plot of plots()) Plotly.relayout(plot, { width: Math.min(plot.offsetWidth, 680) });
});
addEventListener("afterprint", () => plots().forEach(plot => Plotly.relayout(plot, { width: null, autosize: true })));
ready.then(content => {
  drawn = content;
  if (drawn.curves) fillControls();
  waiting.push(...plots());
  drawFor(1500);
});
