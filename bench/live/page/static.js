// Where answers come from on a page without a server: the networks run in this browser.
// `server.js` has the same names.
import * as ort from "./ort.js";

ort.env.wasm.numThreads = 1; // more need headers that a static host may not send
ort.env.wasm.wasmPaths = {
  mjs: new URL("ort-wasm.js", location).href, wasm: new URL("ort.wasm", location).href,
};

export const about = "The networks run in this browser: no picture leaves it. Nothing is entropy coded here; rates are estimates.";
export class Superseded extends Error {}

const SIDE = 768; // the longer one of the largest picture taken whole
const QUICK = 0.06; // seconds that a pass may take while a slider moves
const FIRST = 192 ** 2; // pixels taken while no pass was timed
const KEPT = 8; // networks

let listing;
const sessions = new Map();
const pictures = new Map();
const pace = new Map();
let turn = Promise.resolve();
let uploads = 0;
const newest = new Map(); // question of a kind

async function fetched(name) {
  const reply = await fetch(name);
  if (!reply.ok) throw new Error(`${name} cannot be loaded (${reply.status})`);
  return reply;
}

export async function exhibits() {
  try {
    listing = (await (await fetched("networks.json")).json()).exhibits;
  } catch (error) {
    throw new Error(
      location.protocol === "file:"
        ? "opened as a file, this page may not load its networks: python -m http.server, then open what it prints"
        : error.message);
  }
  for (const { own, fixed, methods, reference } of listing) {
    methods[0].bytes = own.bytes; // of these files
    if (reference) reference.bytes = fixed.reduce((sum, each) => sum + each.bytes, 0);
    if (reference?.label === methods[0].label) methods[0].bytes = reference.bytes;
  }
  return listing;
}

export const inputs = async (exhibit) => listing[exhibit].examples;

export async function receive(exhibit, file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("this picture cannot be used: it is none that this browser can read");
  }
  const refused = bitmap.width * bitmap.height > 4e7 ? "it has more than 40,000,000 pixels"
    : Math.min(bitmap.width, bitmap.height) < 16 ? "it has a side of fewer than 16 pixels" : "";
  if (refused) {
    bitmap.close();
    throw new Error(`this picture cannot be used: ${refused}`);
  }
  const before = [...pictures.keys()].filter((name) => name.startsWith("own:"));
  for (const name of before.slice(0, -3)) pictures.delete(name); // not closed: it may be in use
  const input = `own:${(uploads += 1)}`;
  pictures.set(input, bitmap);
  const [width, height] = size(listing[exhibit], bitmap, Infinity);
  return { input, width: bitmap.width, height: bitmap.height, taken: [width, height] };
}

async function bitmapOf(exhibit, input) {
  const [kind, number] = input.split(":");
  if (kind === "own") {
    if (!pictures.has(input)) throw new Error("this picture is no longer kept: give it again");
    return pictures.get(input);
  }
  const { file } = listing[exhibit].examples[Number(number)];
  if (!pictures.has(file)) {
    pictures.set(file, await createImageBitmap(await (await fetched(file)).blob()));
  }
  return pictures.get(file);
}

// Width and height that a picture is taken at, and its scale: what the network takes, or as many
// pixels as allowed, of which the middle whose sides are multiples of what the network needs.
function size(exhibit, { width, height }, pixels) {
  const { size: fixed, multiple } = exhibit.own;
  if (fixed) return [fixed[1], fixed[0], Math.max(fixed[1] / width, fixed[0] / height)];
  const least = Math.max(multiple, 16);
  const wanted = Math.min(1, Math.sqrt(pixels / (width * height)), SIDE / Math.max(width, height));
  const scale = Math.max(wanted, least / Math.min(width, height));
  const most = (side) => Math.max(least, multiple * Math.floor((side * scale + 0.01) / multiple));
  return [most(width), most(height), scale];
}

// The middle of a picture, over white, and its pixels.
function drawn(bitmap, [width, height, scale]) {
  const canvas = new OffscreenCanvas(width, height);
  const paper = canvas.getContext("2d", { willReadFrequently: true });
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, width, height);
  paper.imageSmoothingQuality = "high";
  const [across, down] = [bitmap.width * scale, bitmap.height * scale];
  paper.drawImage(bitmap, (width - across) / 2, (height - down) / 2, across, down);
  return [canvas, paper.getImageData(0, 0, width, height).data];
}

function tensorOf(bytes, [width, height]) {
  const count = width * height;
  const values = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) values[c * count + i] = bytes[4 * i + c] / 255;
  }
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}

async function addressOf(tensor) {
  const [, , height, width] = tensor.dims;
  const count = width * height;
  const bytes = new Uint8ClampedArray(4 * count); // which rounds
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) bytes[4 * i + c] = 255 * tensor.data[c * count + i];
    bytes[4 * i + 3] = 255;
  }
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").putImageData(new ImageData(bytes, width, height), 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/png" });
  return new Promise((resolve) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.readAsDataURL(blob);
  });
}

// A network ready to run, and the seconds that loading it took.
async function session(file) {
  if (!sessions.has(file)) {
    const begun = performance.now();
    const model = new Uint8Array(await (await fetched(file)).arrayBuffer());
    const made = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
    sessions.set(file, [made, (performance.now() - begun) / 1000]);
  }
  const used = sessions.get(file);
  sessions.delete(file); // the one used last comes last
  sessions.set(file, used);
  if (sessions.size > KEPT) {
    const [oldest, [unused]] = sessions.entries().next().value;
    sessions.delete(oldest);
    await unused.release();
  }
  return used;
}

export async function original(asked) {
  const bitmap = await bitmapOf(asked.exhibit, asked.input);
  const exhibit = listing[asked.exhibit];
  const [canvas] = drawn(bitmap, size(exhibit, bitmap, Infinity));
  return URL.createObjectURL(await canvas.convertToBlob({ type: "image/png" }));
}

// One question at a time; of those of a kind that wait the newest.
export function answer(asked, kind = "") {
  const number = (newest.get(kind) ?? 0) + 1;
  newest.set(kind, number);
  const mine = turn.then(() => {
    if (number !== newest.get(kind)) throw new Superseded();
    return answered(asked);
  });
  turn = mine.catch(() => {});
  return mine;
}

// The fixed network nearest to a setting: what an answer of it begins with.
function nearest({ axes, reference, fixed }, setting) {
  const far = (at) =>
    Math.hypot(...axes.map(({ low, high }, i) => Math.log(at[i] / setting[i]) / Math.log(high / low)));
  const distances = reference.settings.map(far);
  const place = distances.indexOf(Math.min(...distances));
  return [reference.label, fixed[place], null, reference.settings[place]];
}

async function answered({ exhibit: place, input, method, setting, shares, latents, rest, beside = true, pictures: wanted = true }) {
  const exhibit = listing[place];
  const bitmap = await bitmapOf(place, input);
  const told = method !== exhibit.reference?.label;
  const sides = { own: told ? [method, exhibit.own, setting, setting] : nearest(exhibit, setting) };
  if (beside && exhibit.reference) sides.beside = nearest(exhibit, setting);
  const paces = Object.values(sides).map(([, { file }]) => pace.get(file) ?? 0);
  const pixels = rest ? Infinity : Math.max(...paces) ? QUICK / Math.max(...paces) : FIRST;
  const outside = exhibit.axes.flatMap(({ symbol, low, high }, i) =>
    (setting[i] < low || setting[i] > high ? [`${symbol} = ${setting[i]} is outside [${low}, ${high}]`] : []));
  const reply = { rest: Boolean(rest), also: "", outside };
  for (const [side, [label, about, coefficients, at]] of Object.entries(sides)) {
    reply[side] = { setting: at, method: label, ...await made(exhibit, about, bitmap, { told: coefficients, shares, latents, pixels, wanted, rest }) };
  }
  return reply;
}

async function made(exhibit, about, bitmap, { told, shares, latents, pixels, wanted, rest }) {
  const moved = latents !== null && about.decoder;
  const [run, loaded] = await session(moved ? about.decoder : about.file);
  const given = size(exhibit, bitmap, pixels);
  const values = {
    x: () => tensorOf(drawn(bitmap, given)[1], given),
    z: () => new ort.Tensor("float32", latents, [1, latents.length]),
    shares: () => new ort.Tensor("float32", shares, [1, shares.length]),
    coefficients: () => new ort.Tensor("float32", told, [1, told.length]),
  };
  const feeds = Object.fromEntries(run.inputNames.map((name) => [name, values[name]()]));
  const begun = performance.now();
  const outputs = await run.run(feeds);
  const seconds = (performance.now() - begun) / 1000;
  const picture = asPicture(outputs.picture, about.size);
  const [, , height, width] = picture.dims;
  if (!moved) pace.set(about.file, Math.min(pace.get(about.file) ?? Infinity, seconds / (width * height)));
  const reply = { seconds, width, height, ...(told ? {} : { switch: loaded }) };
  if (wanted) reply.picture = await addressOf(picture);
  if (outputs.latents && outputs.latents.dims[1] <= 16) {
    reply.latents = Array.from(outputs.latents.data, (value) => Number(value.toFixed(4)));
  }
  if (rest && !moved) {
    reply.measures = Object.fromEntries(Object.keys(exhibit.measures)
      .filter((name) => outputs[name]).map((name) => [name, outputs[name].data[0]]));
    reply.measuring = seconds;
  }
  return reply;
}

// A decoder may give rows of grey.
function asPicture(tensor, fixed) {
  if (tensor.dims.length === 4 && tensor.dims[1] === 3) return tensor;
  const [height, width] = fixed;
  const values = new Float32Array(3 * height * width);
  for (let c = 0; c < 3; c++) values.set(tensor.data, c * height * width);
  return new ort.Tensor("float32", values, [1, 3, height, width]);
}
