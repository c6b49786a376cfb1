// What all parts of the live page know: its elements, what is chosen, and how numbers are written.
// make, draw, plain, written and chart are chart.js'.
/* global plain */

export const NARROW = 1.01; // a range that is hardly one gets no slider

export const find = (selector, within = document) => within.querySelector(selector);
export const element = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((each) => [each.id, each]),
);

// turn: counts what was chosen, so that what was asked for before is told apart. code: the latents
// that the network gave the input; latents: those moved by hand, or null.
export const state = {
  all: [], now: null, method: null, examples: [], input: "example:0", setting: [], shares: [],
  latents: null, code: null, axis: 0, other: "beside", original: null, shape: null, reply: null,
  points: new Map(), version: 0, turn: 0, upload: null,
};

// A question about what is chosen now.
export function question(more = {}) {
  return {
    exhibit: state.now.exhibit, input: state.input, method: state.method.label,
    setting: state.setting, shares: state.shares, latents: state.latents, ...more,
  };
}

// Whether an answer is still about what is chosen, wherever its slider has moved to.
export function current({ exhibit, input, method, shares, latents }) {
  return exhibit === state.now.exhibit && input === state.input &&
    method === state.method.label && String(shares) === String(state.shares) &&
    (latents === null) === (state.latents === null);
}

export const rounded = (value) => Number(value.toPrecision(3));
export const shown = (value) => plain(rounded(value));
export const bytes = (count) =>
  count < 1e6 ? `${plain((count / 1e3).toPrecision(3))} kB` : `${plain((count / 1e6).toFixed(1))} MB`;
export const took = (seconds) =>
  seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`;
export const networks = (count) => `${count} network${count === 1 ? "" : "s"}`;

// The value at a place of a slider, 0 and 1 being the ends of the range, and the other way round.
export const valueAt = (axis, place) =>
  ({ 0: axis.low, 0.5: axis.start, 1: axis.high })[place] ??
  rounded(axis.low * (axis.high / axis.low) ** place);
export const placeOf = (axis, value) =>
  Math.log(value / axis.low) / Math.log(axis.high / axis.low);

export const settingText = (setting) =>
  state.now.axes
    .map((axis, i) => [axis, setting[i]])
    .filter(([axis]) => axis.high / axis.low > NARROW)
    .map(([axis, value]) => `${axis.symbol} ${shown(value)}`)
    .join(", ");

export function fail(error) {
  element.pace.textContent = "";
  element.status.textContent = error.message;
  element.status.classList.add("error");
}

export function say(text) {
  element.status.classList.remove("error");
  element.status.textContent = text;
}
