const table = () => document.getElementById("trials"), bar = document.getElementById("picked");
const curves = () => document.querySelector("#curves .plot");

// Sorting: numbers as numbers, the rest as text with its numbers in order; empty cells last.
let sorted = null;  // what the user chose: {title, up}
document.addEventListener("click", event => {
  const head = event.target.closest("#trials th");
  if (!head) return;
  sorted = { title: head.textContent, up: head.getAttribute("aria-sort") !== "ascending" };
  sort();
});
function sort() {
  const heads = [...table().querySelectorAll("th")], column = heads.findIndex(head => head.textContent === sorted.title);
  if (column < 0) return;
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[column].setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
  const keyed = [...table().tBodies[0].rows].map(row => [row.cells[column].textContent.trim(), row]);
  keyed.sort(([x], [y]) => {
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    return (sorted.up ? 1 : -1) * (isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
  });
  inOrder(keyed.map(([, row]) => row));
}
function inOrder(rows) {  // only what is not in its place moves, as moving a row loses the focus in it
  const body = table().tBodies[0];
  rows.forEach((row, i) => { if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null); });
}

// A clicked trial: its curve on top, its row marked, its point in the bar below.
function pick(number) {
  const row = document.getElementById(`t${number}`), isDrawn = curves()?.data && highlight(number);
  table().querySelector(".picked")?.classList.remove("picked");
  row?.classList.add("picked");
  bar.textContent = row ? facts(row) : `${drawn.labels[number] ? plain(drawn.labels[number]) : `trial ${number}`} · its row is in trials.csv`;
  for (const [text, target] of [...(isDrawn ? [["its curve", "#curves"]] : []), ...(row ? [["its row", `#t${number}`]] : [])]) {
    bar.append(Object.assign(document.createElement("a"), { textContent: text, href: target }));
  }
  bar.append(Object.assign(document.createElement("button"), { textContent: "close", onclick: () => { bar.hidden = true; highlight(null); } }));
  bar.hidden = false;
}
function facts(row) {
  const heads = [...table().querySelectorAll("th")].map(head => head.textContent);
  const found = [...row.cells].slice(0, -1).map((cell, i) => [heads[i], cell.textContent]).filter(([, text]) => text);
  return found.map(fact => fact.join(" ")).join(" · ");
}
function plain(label) {  // of a trial that has no row
  return new DOMParser().parseFromString(label.replaceAll("<br>", " · "), "text/html").body.textContent;
}
function highlight(number) {  // whether it has a curve here; null takes the best trial again
  return showTrial(number);
}
document.addEventListener("click", event => { if (event.target.dataset?.trial) pick(Number(event.target.dataset.trial)); });

