// The numbers that curves.js draws: means and bands over runs, and the trials that have each value of a key.
const MOST_GROUPS = 8;  // values of a key that can be told apart by colour

const epochsOf = (run, length) => run.epochs ?? Array.from({ length }, (_, i) => i + 1);

const cut = (text, most) => text.length <= most ? text : `${text.slice(0, most - 1)}…`;
const short = (value, digits = 6) => Number.isFinite(+value) && value.trim() !== "" ? String(+(+value).toPrecision(digits)) : value;

// Mean, smallest and largest run (or the middle half of them) by epoch, where at least half of the runs have a value. A
// mean over a trial's runs (`whole`) has no value where a run that goes on was not measured.
function summary(runs, metric, whole) {
  const measured = runs.filter(run => run.curves[metric]), epochs = allEpochs(measured, metric), length = epochs.length;
  const place = epochs.at(-1) === length ? null : new Map(epochs.map((epoch, i) => [epoch, i]));
  const n = new Uint32Array(length), total = new Float64Array(length), going = new Int32Array(length + 1);
  const low = new Float64Array(length).fill(Infinity), high = new Float64Array(length).fill(-Infinity), values = [];
  if (!whole) for (let i = 0; i < length; i++) values.push(new Float64Array(measured.length));
  const found = { x: [], mean: [], low: [], high: [], count: [], runs: 0 };
  for (const run of measured) {
    const curve = run.curves[metric], its = run.epochs;
    let first = -1, last = -1;
    for (let k = 0; k < curve.length; k++) {
      const value = curve[k];
      if (value === null) continue;
      const i = place ? place.get(its ? its[k] : k + 1) : k;
      if (!whole) values[i][n[i]] = value;
      n[i] += 1; total[i] += value;
      if (value < low[i]) low[i] = value;
      if (value > high[i]) high[i] = value;
      if (first < 0) first = i;
      last = i;
    }
    if (last < 0) continue;
    found.runs += 1; going[first] += 1; going[last + 1] -= 1;
  }
  for (let i = 0, now = 0; i < length; i++) {
    now += going[i];
    if (!n[i] || 2 * n[i] < found.runs || (whole && n[i] < now)) continue;
    const sorted = whole ? null : values[i].subarray(0, n[i]).sort();
    found.x.push(epochs[i]); found.mean.push(total[i] / n[i]); found.count.push(n[i]);
    found.low.push(whole ? low[i] : quantile(sorted, .25)); found.high.push(whole ? high[i] : quantile(sorted, .75));
  }
  return found;
}
function allEpochs(runs, metric) {  // that any run has, in order
  if (!runs.some(run => run.epochs)) return epochsOf({}, Math.max(0, ...runs.map(run => run.curves[metric].length)));
  return [...new Set(runs.flatMap(run => epochsOf(run, run.curves[metric].length)))].sort((a, b) => a - b);
}
function quantile(sorted, share) {  // as NumPy's, linear between two values
  const place = share * (sorted.length - 1), below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

const kept = new WeakMap();  // by trial: the summaries of its metrics, as every drawing needs them
function summaryOf(trial, metric) {
  if (!kept.has(trial)) kept.set(trial, new Map());
  const its = kept.get(trial);
  if (!its.has(metric)) its.set(metric, summary(trial.runs, metric, true));
  return its.get(metric);
}
const withCurve = metric => drawn.curves.trials.filter(trial => summaryOf(trial, metric).x.length);
const isComplete = trial => trial.state === "complete";

// The values of a key, or quarters of many numbers: [{name, trials}], in the values' order.
function groupsOf(key, trials) {
  const having = trials.filter(trial => key in trial.point), byValue = new Map();
  for (const trial of having) {
    const value = trial.point[key];
    if (byValue.has(value)) byValue.get(value).push(trial); else byValue.set(value, [trial]);
  }
  const values = [...byValue.keys()], numeric = values.every(value => value.trim() !== "" && Number.isFinite(+value));
  values.sort(numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const gather = (name, some, isQuarter) => ({ name, isQuarter, trials: some.flatMap(value => byValue.get(value)) });
  if (values.length <= MOST_GROUPS) return values.map(value => gather(cut(short(value), 40), [value]));
  if (numeric) {
    const sorted = having.map(trial => +trial.point[key]).sort((a, b) => a - b);
    const ends = [.25, .5, .75].map(share => quantile(sorted, share));
    const quarters = [[], [], [], []];
    for (const value of values) quarters[ends.filter(end => +value > end).length].push(value);
    return quarters.filter(some => some.length).map(some => gather(`${short(some[0], 3)} to ${short(some.at(-1), 3)}`, some, true));
  }
  values.sort((a, b) => byValue.get(b).length - byValue.get(a).length);
  const rest = values.splice(MOST_GROUPS - 1);
  return [...values.map(value => gather(cut(value, 40), [value])), gather(`${rest.length} other values`, rest)];
}
