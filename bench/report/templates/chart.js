"use strict";
// What the page's scripts share: elements, numbers as text, and one drawn trade-off.

const SVG = "http://www.w3.org/2000/svg";
const WIDE_RANGE = 20; // beyond this factor an axis is logarithmic, as in the figures
const FRAME = { left: 52, right: 354, top: 10, bottom: 248 }; // of the plotted area, in pixels

const make = (name, content = "", kind = "") => {
  const element = document.createElement(name);
  element.append(...[content].flat());
  if (kind) element.className = kind;
  return element;
};
const draw = (parent, name, attributes, text = "") => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  parent.append(element);
  return element;
};
const plain = (value) => String(value).replace("-", "−");
const written = (value, digits) => {
  if (value === undefined) return "—";
  const text = value.toFixed(digits);
  return plain(/[1-9]/.test(text) ? text : text.replace("-", "")); // no signed zero
};

// The marks of the figures (`bench/report/appearance.py`), about a unit wide on each side.
const SHAPES = {
  s: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  d: [[0, -1.5], [0.9, 0], [0, 1.5], [-0.9, 0]],
  D: [[0, -1.35], [1.35, 0], [0, 1.35], [-1.35, 0]],
  "^": [[0, -1.2], [1.2, 1], [-1.2, 1]],
  v: [[0, 1.2], [1.2, -1], [-1.2, -1]],
  ">": [[1.2, 0], [-1, 1.2], [-1, -1.2]],
  "<": [[-1.2, 0], [1, 1.2], [1, -1.2]],
  p: polygon(5),
  h: polygon(6),
  P: cross(0),
  X: cross(Math.PI / 4),
};

function polygon(corners) {
  return Array.from({ length: corners }, (_, i) => {
    const angle = (2 * Math.PI * i) / corners;
    return [1.25 * Math.sin(angle), -1.25 * Math.cos(angle)];
  });
}

function cross(turn) {
  const arm = [[0.45, -0.45], [0.45, -1.3], [-0.45, -1.3]];
  return [0, 1, 2, 3].flatMap((side) =>
    arm.map(([x, y]) => {
      const angle = turn - (side * Math.PI) / 2;
      const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
      return [x * cos - y * sin, x * sin + y * cos];
    }),
  );
}

// Two measures, one against the other: `own` and `beside` are points of a method and of the fixed
// networks, each with `numbers` by measure, `at` and `kind`; `pair` has the one of each shown now;
// `shape` is that of `own`.
function chart(svg, [x, y], measures, { own, beside }, pair, shape, about) {
  const has = (point) => point?.numbers[x] !== undefined && point.numbers[y] !== undefined;
  const series = { beside: beside.filter(has), own: own.filter(has) };
  const all = Object.values(series).flat();
  svg.replaceChildren();
  if (!all.length) return;
  const across = scale(all.map((point) => point.numbers[x]), FRAME.left, FRAME.right);
  const up = scale(all.map((point) => point.numbers[y]), FRAME.bottom, FRAME.top);
  const spot = (point) => [across.at(point.numbers[x]), up.at(point.numbers[y])];
  const labels = [x, y].map((name) => measures[name].label);
  axes(svg, across, up, labels);
  for (const [who, points] of Object.entries(series)) {
    if (points.length > 1 && points[0].at.length === 1) {
      const line = [...points].sort((a, b) => a.at[0] - b.at[0]).map(spot);
      draw(svg, "path", { class: who, d: `M${line.join("L")}` });
    }
    for (const point of points) {
      const kind = who === "beside" && point.fails ? "fails" : point.kind;
      mark(svg, spot(point), who, kind, who === "own" ? shape : "o");
    }
  }
  const ends = Object.entries(pair).filter(([, point]) => has(point));
  if (ends.length === 2) {
    const [[x1, y1], [x2, y2]] = ends.map(([, point]) => spot(point));
    draw(svg, "line", { class: "join", x1, y1, x2, y2 });
  }
  for (const [who, point] of ends) {
    const [cx, cy] = spot(point);
    draw(svg, "circle", { class: `now ${who}`, cx, cy, r: 8 });
  }
  svg.setAttribute("aria-label", `${labels[1]} against ${labels[0]}: ${about}`);
}

function axes(svg, across, up, [below, left]) {
  for (const value of across.ticks) {
    const px = across.at(value);
    draw(svg, "line", { class: "grid", x1: px, x2: px, y1: FRAME.top, y2: FRAME.bottom });
    draw(svg, "text", { x: px, y: FRAME.bottom + 18, "text-anchor": "middle" }, plain(value));
  }
  for (const value of up.ticks) {
    const py = up.at(value);
    draw(svg, "line", { class: "grid", x1: FRAME.left, x2: FRAME.right, y1: py, y2: py });
    draw(svg, "text", { x: FRAME.left - 6, y: py + 4, "text-anchor": "end" }, plain(value));
  }
  draw(svg, "text", { x: 203, y: FRAME.bottom + 44, "text-anchor": "middle" }, below);
  draw(svg, "text", { transform: "translate(10 129) rotate(-90)", "text-anchor": "middle" }, left);
}

function mark(svg, [cx, cy], who, kind, shape) {
  const r = kind === "between" ? 2.5 : 4;
  const attributes = { class: `${who} ${kind}` };
  if (kind === "outside") {
    const d = `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8`;
    draw(svg, "path", { class: who, d });
  } else if (SHAPES[shape]) {
    const corners = SHAPES[shape].map(([x, y]) => `${cx + r * x} ${cy + r * y}`);
    draw(svg, "path", { ...attributes, d: `M${corners.join("L")}Z` });
  } else draw(svg, "circle", { ...attributes, cx, cy, r });
}

function scale(values, low, high) {
  const least = Math.min(...values);
  const most = Math.max(...values);
  const wide = least > 0 && most / least > WIDE_RANGE;
  const bend = wide ? Math.log10 : (value) => value;
  const room = 0.08 * (bend(most) - bend(least)) || 0.05 * Math.abs(bend(most)) || 1;
  const from = bend(least) - room;
  const span = bend(most) + room - from;
  const at = (value) => low + ((high - low) * (bend(value) - from)) / span;
  return { at, ticks: wide ? decades(from, from + span) : steps(from, from + span) };
}

function steps(from, to) {
  const rough = (to - from) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(from / step);
  const count = Math.floor(to / step) - first + 1;
  return Array.from({ length: count }, (_, i) => tidy((first + i) * step));
}

function decades(from, to) {
  const factors = to - from < 1.6 ? [1, 2, 5] : to - from < 3 ? [1, 3] : [1];
  const powers = Array.from({ length: Math.ceil(to - from) + 1 }, (_, i) => Math.floor(from) + i);
  return powers
    .flatMap((power) => factors.map((factor) => tidy(factor * 10 ** power)))
    .filter((value) => Math.log10(value) >= from && Math.log10(value) <= to);
}

const tidy = (value) => Number(value.toPrecision(6));
