// The live page: a task and a network are chosen here, and their sliders made. ask.js asks,
// show.js shows, inputs.js has the pictures, latents and paintings, curve.js and film.js the rest;
// answers come from backend.js, a server's or this browser's own.
/* global make */
import { moved, stop } from "./ask.js";
import { Superseded, exhibits, inputs } from "./backend.js";
import { clearCurve, drawCurve, listCurves } from "./curve.js";
import { film } from "./film.js";
import { blends, forget, listenToInputs, take } from "./inputs.js";
import { NARROW, element, fail, find, placeOf, say, shown, state, valueAt } from "./state.js";

const BEYOND = 0.25; // of a slider's length, on either side of the range
const CLOSE = 0.18; // of a slider's length: labels nearer to one another overlap

function sliders() {
  element.sliders.replaceChildren(
    ...state.now.axes.flatMap((axis, i) => (axis.high / axis.low > NARROW ? [slider(axis, i)] : [])));
}

function slider(axis, i) {
  const input = make("input");
  Object.assign(input, { type: "range", min: -BEYOND, max: 1 + BEYOND, step: 0.01 });
  input.value = placeOf(axis, state.setting[i]);
  const value = make("span", "", "value");
  const title = make("p", [
    make("span", `${axis.symbol} = `, "symbol"), value, make("span", "", "also"),
    axis.symbol === axis.name ? "" : ` ${axis.name}`,
  ]);
  input.setAttribute("aria-label", axis.name === axis.symbol ? axis.name : `${axis.symbol}, ${axis.name}`);
  const speak = () => {
    const outside = input.value < 0 || input.value > 1;
    value.textContent = shown(state.setting[i]);
    input.setAttribute("aria-valuetext", value.textContent + (outside ? ", outside the range" : ""));
  };
  input.addEventListener("input", () => {
    if (state.axis !== i) {
      state.axis = i;
      listCurves();
      clearCurve();
    }
    state.setting = state.setting.with(i, valueAt(axis, Number(input.value)));
    speak();
    moved();
  });
  speak();
  return make("div", [title, make("div", [input, ticks(axis, i)], "rail")], "slider");
}

function ticks(axis, i) {
  const holder = make("div", [make("span", "", "range")], "ticks");
  const across = (place) => `${(100 * (place + BEYOND)) / (1 + 2 * BEYOND)}%`;
  const range = find(".range", holder);
  range.style.left = across(0);
  range.style.right = across(0);
  const fixed = (state.now.reference?.settings ?? []).map((setting) => setting[i]);
  let labelled = -1;
  for (const value of [...new Set([axis.low, axis.high, ...fixed])].sort((a, b) => a - b)) {
    const kind = fixed.includes(value) ? "compared" : "between";
    const mark = make("span", [make("span", shown(value))], `tick ${kind}`);
    const where = placeOf(axis, value);
    const end = value === axis.low || value === axis.high;
    if (end || (where - labelled > CLOSE && 1 - where > CLOSE)) labelled = where;
    else mark.classList.add("unlabelled");
    if (!end && holder.children.length % 2 === 0) mark.classList.add("second");
    mark.style.left = across(where);
    holder.append(mark);
  }
  return holder;
}

async function choose(index) {
  const turn = (state.turn += 1);
  stop();
  state.version += 1;
  state.now = state.all[index];
  const chosen = state.now;
  const { axes, methods, measures, takes, line } = state.now;
  for (const measure of Object.values(measures)) measure.name = measure.label;
  Object.assign(state, {
    setting: axes.map((axis) => axis.start), method: methods[0], input: "example:0",
    axis: Math.max(0, axes.findIndex((axis) => axis.high / axis.low > NARROW)),
    latents: null, code: null, reply: null, upload: null, examples: [],
  });
  element.method.replaceChildren(...methods.map(({ label, written }, i) =>
    new Option(label === written ? label : `${written} (${label})`, i)));
  element.about.textContent = `${line}.${takes ? ` Takes ${takes}.` : ""}`;
  find(".own-picture").hidden = !takes;
  element.example.replaceChildren();
  forget();
  blends();
  sliders();
  listCurves();
  clearCurve();
  try {
    const examples = await inputs(chosen.exhibit);
    if (state.now !== chosen) return;
    state.examples = examples;
  } catch (error) {
    if (state.now === chosen && !(error instanceof Superseded)) fail(error);
    return;
  }
  element.example.append(...state.examples.map(({ name }, i) =>
    new Option(`example: ${name}`, `example:${i}`)));
  if (turn !== state.turn) return; // an upload was faster
  if (state.examples.length) await take("example:0");
  else say(`There are no test examples here${chosen.takes ? ": give a picture" : ""}.`);
}

function listen() {
  element.task.addEventListener("change", () => choose(Number(element.task.value)));
  element.method.addEventListener("change", () => {
    state.method = state.now.methods[Number(element.method.value)];
    Object.assign(state, { latents: null, code: null });
    element.latents.hidden = true;
    clearCurve();
    moved();
  });
  find("input", element.wipe).addEventListener("input", ({ target }) => {
    element.wipe.style.setProperty("--at", `${target.value}%`);
    target.setAttribute("aria-valuetext", `${Math.round(target.value)} % of ${find(".label.left").textContent}`);
  });
  find("select", element.chart).addEventListener("change", drawCurve);
  element.film.addEventListener("click", film);
  listenToInputs();
}

async function begin() {
  listen();
  try {
    state.all = await exhibits();
  } catch (error) {
    return fail(error);
  }
  element.task.replaceChildren(...state.all.map(({ task, preset }, i) => new Option(`${task}, ${preset}`, i)));
  await choose(0);
}

begin();
