const table = document.getElementById("trials"), bar = document.getElementById("picked");
const curves = () => document.querySelector("#curves .plot");

// Sorting: numbers as numbers, the rest as text with its numbers in order; empty cells last.
for (const [column, head] of table.querySelectorAll("th").entries()) {
  head.firstChild.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map(row => [row.cells[column].textContent.trim(), row]);
    keyed.sort(([x], [y]) => {
      if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
      return (up ? 1 : -1) * (isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  });
}

// A clicked trial: its curve on top, its row marked, its point in the bar below.
function pick(number) {
  const row = document.getElementById(`t${number}`), isDrawn = curves()?.data && highlight(number);
  table.querySelector(".picked")?.classList.remove("picked");
  row?.classList.add("picked");
  bar.textContent = row ? facts(row) : `${drawn.labels[number] ? plain(drawn.labels[number]) : `trial ${number}`} · its row is in trials.csv`;
  for (const [text, target] of [...(isDrawn ? [["its curve", "#curves"]] : []), ...(row ? [["its row", `#t${number}`]] : [])]) {
    bar.append(Object.assign(document.createElement("a"), { textContent: text, href: target }));
  }
  bar.append(Object.assign(document.createElement("button"), { textContent: "close", onclick: () => { bar.hidden = true; highlight(null); } }));
  bar.hidden = false;
}
function facts(row) {
  const heads = [...table.querySelectorAll("th")].map(head => head.textContent);
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

