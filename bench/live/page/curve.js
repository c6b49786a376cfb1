// The curve of this one example, point by point while nothing moves.
/* global chart */
import { Superseded, answer } from "./backend.js";
import { current, element, fail, find, question, shown, state, valueAt } from "./state.js";

const POINTS = 9; // between a slider's ends
const PAUSE = 500; // ms: a slider that moves on soon shall not wait for a point
const COEFFICIENT = "@";

export function listCurves() {
  const select = find("select", element.chart);
  const { fronts, measures, rising } = state.now;
  const against = rising.length ? [...rising] : Object.keys(measures).filter((name) => name !== "loss");
  if (measures.loss) against.push("loss");
  const along = against.map((name) => [COEFFICIENT, name]);
  const options = rising.length ? [...along, ...fronts] : [...fronts, ...along];
  const axis = state.now.axes[state.axis];
  const label = (name) => (name === COEFFICIENT ? axis.symbol : measures[name].label);
  const before = select.value;
  element.chart.hidden = options.length === 0;
  select.replaceChildren(...options.map(([x, y]) =>
    new Option(`${label(y)} against ${label(x)}`, JSON.stringify([x, y]))));
  if ([...select.options].some((option) => option.value === before)) select.value = before;
}

export function clearCurve() {
  state.points.clear();
  find("svg", element.chart).replaceChildren();
  find("figcaption", element.chart).textContent = "";
}

const near = (one, other) =>
  one.every((value, i) => i === state.axis || Math.abs(Math.log(value / other[i])) < 0.01);

// Along the slider that moved last.
export async function curve(version) {
  if (state.latents !== null || element.chart.hidden) return;
  drawCurve();
  await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  const axis = state.now.axes[state.axis];
  const { reference } = state.now;
  const fixed = (reference?.settings ?? []).filter((setting) => near(setting, state.setting));
  const places = [...Array(POINTS).keys()].map((i) => i / (POINTS - 1));
  const asked = [
    ...places.map((at) => ["own", state.method.label, state.setting.with(state.axis, valueAt(axis, at))]),
    ...fixed.map((setting) => ["beside", reference.label, setting]),
  ];
  for (const [side, method, setting] of asked) {
    if (version !== state.version) return;
    const key = `${side} ${method} ${setting}`;
    if (state.points.has(key)) continue;
    const base = question();
    try {
      const more = { method, setting, rest: true, beside: false, pictures: false };
      const reply = await answer({ ...base, ...more }, "curve");
      if (version !== state.version || !current(base)) return;
      state.points.set(key, point(side, method, setting, reply.own.measures));
    } catch (error) {
      if (!(error instanceof Superseded) && version === state.version) fail(error);
      return;
    }
    drawCurve();
  }
}

const point = (side, method, setting, measures) => ({
  side, method, setting, at: [setting[state.axis]], kind: "compared",
  numbers: { ...measures, [COEFFICIENT]: setting[state.axis] },
});

export function drawCurve() {
  const select = find("select", element.chart);
  if (!select.value || !state.reply?.own.measures) return;
  const pair = JSON.parse(select.value);
  const axis = state.now.axes[state.axis];
  const measures = { ...state.now.measures, [COEFFICIENT]: { label: axis.symbol, name: axis.symbol } };
  const { own, asked, written: name } = state.reply;
  const of = (side, method) => [...state.points.values()].filter((each) =>
    each.side === side && each.method === method && near(each.setting, asked.setting));
  chart(find("svg", element.chart), pair, measures,
    { own: of("own", asked.method), beside: of("beside", state.now.reference?.label) },
    { own: point("own", asked.method, asked.setting, own.measures) }, "");
  find("figcaption", element.chart).textContent =
    `This example, ${axis.symbol} from ${shown(axis.low)} to ${shown(axis.high)}: ${name} (line)` +
    (state.now.reference ? ", the fixed networks (dots), each at its own setting." : ".");
}
