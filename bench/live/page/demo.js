// The live page: sliders, two pictures under one handle, numbers, a curve. Answers come from
// backend.js; while a slider moves there is one question at a time and the newest is asked next.
// make, draw, plain, written and chart are chart.js'.
/* global make, plain, written, chart */
import { Superseded, about, answer, exhibits, inputs, original, receive } from "./backend.js";

const REST = 180; // ms without a movement after which the whole answer is asked for
const BEYOND = 0.25; // of a slider's length, on either side of the range
const FILM = { frames: 25, perSecond: 10 };
const NARROW = 1.01; // a range that is hardly one gets no slider
const CLOSE = 0.18; // of a slider's length: labels nearer to one another overlap
const CURVE = 9; // points of a curve between a slider's ends

const find = (selector, within = document) => within.querySelector(selector);
const element = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((each) => [each.id, each]),
);
const state = {
  all: [], now: null, method: null, input: "example:0", setting: [], shares: [], latents: null,
  axis: 0, other: "beside", points: new Map(), version: 0, sizes: {},
};
const rounded = (value) => Number(value.toPrecision(3));
const shown = (value) => plain(rounded(value));
const bytes = (count) =>
  count < 1e6 ? `${plain((count / 1e3).toPrecision(3))} kB` : `${plain((count / 1e6).toFixed(1))} MB`;
const took = (seconds) =>
  seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`;
const networks = (count) => `${count} network${count === 1 ? "" : "s"}`;
const at = (axis, place) =>
  ({ 0: axis.low, 0.5: axis.start, 1: axis.high })[place] ??
  rounded(axis.low * (axis.high / axis.low) ** place);
const placeOf = (axis, value) => Math.log(value / axis.low) / Math.log(axis.high / axis.low);
const settingText = (setting) =>
  state.now.axes
    .map((axis, i) => [axis, setting[i]])
    .filter(([axis]) => axis.high / axis.low > NARROW)
    .map(([axis, value]) => `${axis.symbol} ${shown(value)}`)
    .join(", ");

// What is asked -----------------------------------------------------------------------------------

function asked(more = {}) {
  return {
    exhibit: state.now.exhibit, input: state.input, method: state.method.label,
    setting: state.setting, shares: state.shares, latents: state.latents, ...more,
  };
}

let moving = false; // a question is on its way whose answer is shown
let restTimer = 0;

// Something moved: show it, at once if nothing is on its way, and whole when it rests.
async function moved() {
  state.version += 1;
  clearTimeout(restTimer);
  element.numbers.classList.add("stale");
  place();
  if (moving) return;
  moving = true;
  let version;
  do {
    version = state.version;
    await attempt(() => answer(asked({ rest: false })), version);
  } while (version !== state.version);
  moving = false;
  restTimer = setTimeout(rest, REST);
}

async function rest() {
  const version = state.version;
  document.body.classList.add("busy");
  const answered = await attempt(() => answer(asked({ rest: true })), version);
  if (version !== state.version) return;
  document.body.classList.remove("busy");
  if (answered) curve(version);
}

// Shows an answer, or its error; true where it was shown.
async function attempt(question, version) {
  const begun = performance.now();
  try {
    const reply = await question();
    if (version === state.version || !reply.rest) show(reply, performance.now() - begun);
    return true;
  } catch (error) {
    document.body.classList.remove("busy");
    if (!(error instanceof Superseded)) fail(error);
    return false;
  }
}

function fail(error) {
  element.status.textContent = error.message;
  element.status.classList.add("error");
}

// What is shown -----------------------------------------------------------------------------------

function show(reply, milliseconds) {
  element.status.classList.remove("error");
  const { own, beside } = reply;
  state.reply = reply;
  picture(find(".left", element.wipe), own.picture, own);
  if (beside?.picture) state.besideSource = beside;
  right();
  labels(reply);
  if (own.latents && state.latents === null) codes(own.latents);
  const size = own.width ? ` at ${own.width} × ${own.height}` : "";
  const parts = [];
  if (reply.rest && own.measuring !== undefined) {
    parts.push(`${own.picture ? `Whole picture${size}, measured` : "Measured"} in ${took(own.measuring)}`);
  } else {
    parts.push(`Answered in ${Math.round(milliseconds)} ms${size}`);
  }
  if (own.seconds !== undefined && own.seconds !== own.measuring) parts.push(`one pass ${took(own.seconds)}`);
  if (own.missing) parts.push(own.missing);
  element.status.textContent = parts.join("; ") + ".";
  if (reply.rest) numbers(reply);
  costs(reply);
  for (const also of document.querySelectorAll(".also")) also.textContent = reply.also;
}

function picture(image, source, { width, height } = {}) {
  if (!source) {
    image.removeAttribute("src");
    return;
  }
  image.src = source;
  image.classList.toggle("pixels", width !== undefined && Math.max(width, height) <= 128);
  if (width) element.wipe.style.setProperty("--shape", width / height);
  element.wipe.hidden = false;
}

function right() {
  const image = find(".right", element.wipe);
  if (state.other === "original" && state.original) {
    image.src = state.original;
    image.classList.toggle("pixels", find(".left", element.wipe).classList.contains("pixels"));
  } else if (state.besideSource) picture(image, state.besideSource.picture, state.besideSource);
  else if (state.original) image.src = state.original;
}

function labels(reply) {
  const beside = reply.beside && state.other === "beside";
  find(".label.left").textContent = `${state.method.written}, ${settingText(state.setting)}`;
  find(".label.right").textContent = beside
    ? `network trained for ${settingText(reply.beside.setting)}` : "original";
  const other = element.beside.querySelector("[value=beside] + span");
  if (other && reply.beside) other.textContent = `the fixed network nearest: ${settingText(reply.beside.setting)}`;
}

function numbers({ own, beside }) {
  element.numbers.classList.remove("stale");
  const { measures } = state.now;
  const rows = Object.keys(measures).filter((name) => own.measures?.[name] !== undefined);
  const head = find(".numbers thead");
  find(".own", head).textContent = state.method.written;
  find(".other", head).textContent = beside ? state.now.reference.written : "";
  element.numbers.replaceChildren(...rows.map((name) => {
    const { label, unit, better, decimals } = measures[name];
    const arrow = { lower: " ↓", higher: " ↑" }[better] ?? "";
    const title = make("th", label + (unit && !label.includes(unit) ? `, ${unit}` : "") + arrow);
    title.scope = "row";
    const value = (side) => written(side?.measures?.[name], decimals);
    return make("tr", [title, make("td", value(own), "n own"), make("td", beside ? value(beside) : "", "n")]);
  }));
  element.basis.textContent = state.latents !== null
    ? "A code moved by hand has no numbers."
    : beside && rows.includes("loss")
      ? `This one example; both losses weighted at ${settingText(state.setting)}.`
      : rows.length ? "This one example." : "";
}

function costs({ own, beside }) {
  const reference = state.now.reference;
  const line = (entry, seconds, verb) =>
    `${networks(entry.networks)}, ${bytes(entry.bytes)}` +
    (seconds === undefined ? "" : `; ${verb} in ${took(seconds)}`);
  const rows = [[state.method.written, line(state.method, own.switch, state.method.settings.length ? "one loaded" : "switched")]];
  if (reference && beside) {
    rows.push([reference.written, line(reference, beside.switch, "one loaded")]);
  }
  element.costs.replaceChildren(...rows.flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
}

// Sliders -----------------------------------------------------------------------------------------

function sliders() {
  const fixed = state.now.reference?.settings ?? [];
  element.sliders.replaceChildren();
  state.now.axes.forEach((axis, i) => {
    if (axis.high / axis.low <= NARROW) return;
    const input = make("input");
    Object.assign(input, { type: "range", min: -BEYOND, max: 1 + BEYOND, step: 0.01 });
    input.value = placeOf(axis, state.setting[i]);
    const value = make("span", shown(state.setting[i]), "value");
    const title = make("p", [make("span", `${axis.symbol} = `, "symbol"), value, make("span", "", "also"), axis.symbol === axis.name ? "" : ` ${axis.name}`]);
    const ticks = make("div", [make("span", "", "range")], "ticks");
    const across = (place) => `${(100 * (place + BEYOND)) / (1 + 2 * BEYOND)}%`;
    const range = find(".range", ticks);
    range.style.left = across(0);
    range.style.right = across(0);
    const places = new Set([axis.low, axis.high, ...fixed.map((setting) => setting[i])]);
    const sorted = [...places].sort((a, b) => a - b);
    let labelled = -1;
    for (const tick of sorted) {
      const compared = fixed.some((setting) => setting[i] === tick);
      const mark = make("span", [make("span", shown(tick))], `tick ${compared ? "compared" : "between"}`);
      const where = placeOf(axis, tick);
      const end = tick === axis.low || tick === axis.high;
      if (end || (where - labelled > CLOSE && 1 - where > CLOSE)) labelled = where;
      else mark.classList.add("unlabelled");
      mark.style.left = across(where);
      ticks.append(mark);
    }
    input.setAttribute("aria-label", axis.name === axis.symbol ? axis.name : `${axis.symbol}, ${axis.name}`);
    const speak = () => {
      const outside = input.value < 0 || input.value > 1;
      value.textContent = shown(state.setting[i]);
      input.setAttribute("aria-valuetext", value.textContent + (outside ? ", outside the range" : ""));
    };
    input.addEventListener("input", () => {
      state.axis = i;
      state.setting = state.setting.with(i, at(axis, Number(input.value)));
      speak();
      moved();
    });
    speak();
    element.sliders.append(make("div", [title, make("div", [input, ticks], "rail")], "slider"));
  });
}

// Whether the setting lies in the range trained for, and whether a network was trained just for it.
function place() {
  const beyond = state.now.axes.filter((axis, i) => {
    const where = placeOf(axis, state.setting[i]);
    return where < -1e-6 || where > 1 + 1e-6;
  });
  element.place.classList.toggle("outside", beyond.length > 0);
  element.place.replaceChildren(...(beyond.length
    ? [make("strong", "Outside the range"), ` trained with: ${beyond.map((axis) => axis.symbol).join(", ")}`]
    : []));
}

// Latents and paintings ---------------------------------------------------------------------------

function codes(values) {
  element.latents.hidden = false;
  const holder = find(".codes", element.latents);
  if (holder.children.length !== values.length) {
    holder.replaceChildren(...values.map((_, i) => {
      const input = make("input");
      Object.assign(input, { type: "range", min: -3, max: 3, step: 0.05 });
      input.setAttribute("aria-label", `latent ${i + 1}`);
      input.addEventListener("input", () => {
        state.latents = [...holder.querySelectorAll("input")].map((each) => Number(each.value));
        moved();
      });
      return make("label", [`z${i + 1}`, input], "fine");
    }));
  }
  [...holder.querySelectorAll("input")].forEach((input, i) => { input.value = values[i]; });
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

function blends() {
  const names = state.now.blends;
  element.blend.hidden = names.length < 2;
  state.shares = names.map((_, i) => Number(i === 0));
  element.blend.querySelectorAll("select").forEach((select, i) => {
    select.replaceChildren(...names.map((name, j) => new Option(name, j)));
    select.value = Math.min(i, names.length - 1);
  });
  find("input", element.blend).value = 0;
}

function blended() {
  const [one, other] = [...element.blend.querySelectorAll("select")].map((each) => Number(each.value));
  const share = Number(find("input", element.blend).value);
  state.shares = state.now.blends.map((_, i) =>
    Number(i === one) * (1 - share) + Number(i === other) * share);
  state.points.clear();
  moved();
}

// Inputs ------------------------------------------------------------------------------------------

async function take(input, note = "") {
  state.input = input;
  state.latents = null;
  state.besideSource = null;
  state.points.clear();
  find(".codes").replaceChildren();
  element.latents.hidden = true;
  if (state.original) URL.revokeObjectURL(state.original);
  state.original = null;
  const version = (state.version += 1);
  try {
    const source = await original(asked());
    if (version !== state.version && input !== state.input) return;
    state.original = source;
  } catch (error) {
    if (!(error instanceof Superseded)) return fail(error);
  }
  if (!state.original) element.wipe.hidden = true;
  element.film.hidden = !state.original;
  find(state.original ? ".panel" : ".view").append(element.chart);
  choicesBeside();
  const example = state.examples?.[Number(input.split(":")[1])];
  element.row.hidden = !example?.text;
  element.row.textContent = example?.text ?? "";
  element.foot.textContent = [note, about].filter(Boolean).join(" ");
  await moved();
}

async function upload(file) {
  if (!state.now.takes) return fail(new Error("this task takes no picture: choose one of its test examples"));
  element.status.classList.remove("error");
  element.status.textContent = "Reading the picture …";
  try {
    const got = await receive(state.now.exhibit, file);
    const smaller = got.taken[0] < got.width
      ? `Your picture of ${got.width} × ${got.height} pixels is taken at ${got.taken.join(" × ")}.` : "";
    if (!element.example.querySelector("[value=own]")) {
      element.example.prepend(new Option("your picture", "own"));
    }
    element.example.value = "own";
    state.upload = got.input;
    await take(got.input, smaller);
  } catch (error) {
    fail(error);
  }
}

function choicesBeside() {
  const choices = [];
  if (state.now.reference) choices.push(["beside", "the fixed network nearest"]);
  if (state.original) choices.push(["original", "the original"]);
  if (!choices.some(([value]) => value === state.other)) state.other = choices[0]?.[0] ?? "";
  const legend = find("legend", element.beside);
  element.beside.replaceChildren(legend, ...(choices.length > 1 ? choices : []).map(([value, text]) => {
    const input = make("input");
    Object.assign(input, { type: "radio", name: "beside", value, checked: value === state.other });
    input.addEventListener("change", () => {
      state.other = value;
      right();
      if (state.reply) labels(state.reply);
    });
    return make("label", [input, make("span", text)]);
  }));
}

// The curve ---------------------------------------------------------------------------------------

const COEFFICIENT = "@";

function listCurves() {
  const select = find("select", element.chart);
  const { fronts, measures, rising } = state.now;
  const options = fronts.map(([x, y]) => [x, y]);
  const against = rising.length ? [...rising] : Object.keys(measures).filter((name) => name !== "loss");
  if (measures.loss) against.push("loss");
  for (const name of against) options.push([COEFFICIENT, name]);
  if (rising.length) options.unshift(options.splice(fronts.length, 1)[0]);
  const axis = state.now.axes[state.axis];
  const label = (name) => (name === COEFFICIENT ? axis.symbol : measures[name].label);
  element.chart.hidden = options.length === 0;
  select.replaceChildren(...options.map(([x, y]) => new Option(`${label(y)} against ${label(x)}`, JSON.stringify([x, y]))));
}

// Points of the curve along the slider that moved last, asked for one by one while nothing moves.
async function curve(version) {
  if (state.latents !== null || element.chart.hidden) return;
  const axis = state.now.axes[state.axis];
  const reference = state.now.reference;
  const along = (setting) => state.setting.every((value, i) => i === state.axis || Math.abs(Math.log(setting[i] / value)) < 0.01);
  const fixed = (reference?.settings ?? []).filter(along);
  const places = [...Array(CURVE).keys()].map((i) => i / (CURVE - 1));
  const questions = [
    ...places.map((where) => ["own", state.method.label, state.setting.with(state.axis, at(axis, where))]),
    ...fixed.map((setting) => ["beside", reference.label, setting]),
  ];
  for (const [side, method, setting] of questions) {
    const key = `${side} ${method} ${setting} ${state.shares}`;
    if (!state.points.has(key)) {
      try {
        const reply = await answer(asked({ method, setting, rest: true, beside: false, pictures: false }));
        if (version !== state.version) return;
        state.points.set(key, { side, method, at: [setting[state.axis]], kind: "compared", setting,
          numbers: { ...reply.own.measures, [COEFFICIENT]: setting[state.axis] } });
      } catch (error) {
        if (!(error instanceof Superseded) && version === state.version) fail(error);
        return;
      }
    }
    drawCurve();
  }
}

function drawCurve() {
  const select = find("select", element.chart);
  if (!select.value || !state.reply) return;
  const pair = JSON.parse(select.value);
  const axis = state.now.axes[state.axis];
  const measures = { ...state.now.measures, [COEFFICIENT]: { label: axis.symbol, name: axis.symbol } };
  const along = ({ setting }) => setting.every((value, i) => i === state.axis || Math.abs(Math.log(value / state.setting[i])) < 0.01);
  const of = (side, method) => [...state.points.values()].filter((point) => point.side === side && point.method === method && along(point));
  const now = (side, setting) => side?.measures && {
    at: [setting[state.axis]], kind: "compared", numbers: { ...side.measures, [COEFFICIENT]: setting[state.axis] },
  };
  const { own, beside } = state.reply;
  chart(find("svg", element.chart), pair, measures,
    { own: of("own", state.method.label), beside: of("beside", state.now.reference?.label) },
    { own: now(own, state.setting) }, "");
  find("figcaption", element.chart).textContent =
    `This example, ${axis.symbol} from ${shown(axis.low)} to ${shown(axis.high)}: ${state.method.written} (line)` +
    (state.now.reference ? `, the fixed networks (dots), each at its own setting.` : ".");
}

// The film ----------------------------------------------------------------------------------------

async function film() {
  const kind = ["video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp9", "video/webm"]
    .find((each) => window.MediaRecorder?.isTypeSupported(each));
  if (!kind) return fail(new Error("this browser cannot record films"));
  element.film.disabled = true;
  const axis = state.now.axes[state.axis];
  try {
    const frames = [];
    for (let i = 0; i < FILM.frames; i++) {
      const value = at(axis, i / (FILM.frames - 1));
      element.status.textContent = `Film: picture ${i + 1} of ${FILM.frames} …`;
      const reply = await again(() => answer(asked({ setting: state.setting.with(state.axis, value), beside: false })));
      const image = new Image();
      image.src = reply.own.picture;
      await image.decode();
      frames.push([image, value]);
    }
    save(await recorded(frames, axis, kind), `${state.now.task}-${axis.name}.${kind.slice(6, 10).replace(";", "")}`);
    element.status.textContent = "The film is saved.";
  } catch (error) {
    fail(error);
  } finally {
    element.film.disabled = false;
  }
}

async function again(question) {
  for (;;) {
    try {
      return await question();
    } catch (error) {
      if (!(error instanceof Superseded)) throw error;
    }
  }
}

async function recorded(frames, axis, kind) {
  const [{ naturalWidth: width, naturalHeight: height }] = frames[0];
  const scale = Math.max(1, Math.round(512 / Math.max(width, height)));
  const canvas = make("canvas");
  canvas.width = 2 * Math.ceil((scale * width) / 2);
  canvas.height = 2 * Math.ceil((scale * height + 36) / 2);
  const paper = canvas.getContext("2d");
  paper.imageSmoothingEnabled = false;
  const stream = canvas.captureStream(0);
  const recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: 12e6 });
  const parts = [];
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  const ended = new Promise((resolve) => { recorder.addEventListener("stop", resolve); });
  recorder.start();
  for (const [image, value] of [...frames, ...frames.slice(1, -1).reverse()]) {
    paper.fillStyle = "#fff";
    paper.fillRect(0, 0, canvas.width, canvas.height);
    paper.drawImage(image, 0, 0, scale * image.naturalWidth * (width / image.naturalWidth), scale * height);
    const left = 120, long = canvas.width - left - 20, level = scale * height + 18;
    paper.fillStyle = "#1d1b18";
    paper.font = "16px sans-serif";
    paper.textBaseline = "middle";
    paper.fillText(`${axis.symbol} = ${shown(value)}`, 8, level);
    paper.fillRect(left, level - 1, long, 2);
    paper.beginPath();
    paper.arc(left + long * placeOf(axis, value), level, 7, 0, 7);
    paper.fillStyle = "#00629e";
    paper.fill();
    stream.getVideoTracks()[0].requestFrame();
    await new Promise((resolve) => { setTimeout(resolve, 1000 / FILM.perSecond); });
  }
  recorder.stop();
  await ended;
  return new Blob(parts, { type: kind });
}

function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// Choices -----------------------------------------------------------------------------------------

async function choose(index) {
  state.now = state.all[index];
  const { axes, methods, measures, takes } = state.now;
  for (const measure of Object.values(measures)) measure.name = measure.label;
  state.setting = axes.map((axis) => axis.start);
  state.axis = axes.findIndex((axis) => axis.high / axis.low > NARROW);
  state.method = methods[0];
  state.reply = null;
  state.upload = null;
  element.method.replaceChildren(...methods.map((method, i) => new Option(method.label === method.written ? method.label : `${method.written} (${method.label})`, i)));
  element.about.textContent = `${state.now.line}. ${takes ? `Takes ${takes}.` : ""}`;
  find(".own-picture").hidden = !takes;
  element.numbers.replaceChildren();
  find("svg", element.chart).replaceChildren();
  element.example.replaceChildren();
  blends();
  sliders();
  listCurves();
  try {
    state.examples = await inputs(state.now.exhibit);
  } catch (error) {
    state.examples = [];
    element.wipe.hidden = true;
    return fail(error);
  }
  element.example.replaceChildren(...state.examples.map(({ name }, i) => new Option(`example: ${name}`, `example:${i}`)));
  await take("example:0");
}

function listen() {
  element.task.addEventListener("change", () => choose(Number(element.task.value)));
  element.method.addEventListener("change", () => {
    state.method = state.now.methods[Number(element.method.value)];
    state.latents = null;
    moved();
  });
  element.example.addEventListener("change", () =>
    take(element.example.value === "own" ? state.upload : element.example.value));
  element.file.addEventListener("change", () => {
    if (element.file.files[0]) upload(element.file.files[0]);
    element.file.value = "";
  });
  find("input", element.wipe).addEventListener("input", (event) =>
    element.wipe.style.setProperty("--at", `${event.target.value / 10}%`));
  find("select", element.chart).addEventListener("change", drawCurve);
  element.film.addEventListener("click", film);
  element.blend.addEventListener("input", blended);
  find(".sample", element.latents).addEventListener("click", () => {
    state.latents = [...find(".codes").children].map(() => Math.round(1e4 * normal()) / 1e4);
    codes(state.latents);
    moved();
  });
  find(".reset", element.latents).addEventListener("click", () => {
    state.latents = null;
    moved();
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", kind === "dragover");
      const file = kind === "drop" && event.dataTransfer.files[0];
      if (file) upload(file);
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files[0]) upload(event.clipboardData.files[0]);
  });
  camera();
}

function camera() {
  const video = find("video", element.shot);
  const end = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    element.shot.close();
  };
  element.camera.hidden = !navigator.mediaDevices?.getUserMedia;
  element.camera.addEventListener("click", async () => {
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      await video.play();
      element.shot.showModal();
    } catch (error) {
      fail(new Error(`no camera: ${error.message}`));
    }
  });
  find(".take", element.shot).addEventListener("click", () => {
    const canvas = make("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    end();
    canvas.toBlob(upload, "image/png");
  });
  find(".cancel", element.shot).addEventListener("click", end);
  element.shot.addEventListener("cancel", end);
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
