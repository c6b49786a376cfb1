// What the networks are given: an example, a picture of one's own, latents, a mixture of paintings.
/* global make */
import { moved, stop } from "./ask.js";
import { Superseded, about, original, receive } from "./backend.js";
import { clearCurve } from "./curve.js";
import { pictures } from "./show.js";
import { element, fail, find, question, say, state } from "./state.js";

let uploads = 0;

// Nothing is shown any more of the input before.
export function forget() {
  Object.assign(state, { latents: null, code: null, reply: null, shape: null });
  if (state.original) URL.revokeObjectURL(state.original);
  state.original = null;
  for (const each of [element.wipe, element.row, element.latents, element.film, element.beside]) {
    each.hidden = true;
  }
  for (const each of [element.numbers, element.costs, element.place, find(".codes")]) {
    each.replaceChildren();
  }
  element.basis.textContent = "";
  clearCurve();
}

// Take an example or an upload. What was on its way for another one is dropped.
export async function take(input, note = "") {
  const turn = (state.turn += 1);
  stop();
  state.input = input;
  forget();
  let source = null;
  try {
    source = await original(question());
  } catch (error) {
    if (turn === state.turn && !(error instanceof Superseded)) fail(error);
    return;
  }
  if (turn !== state.turn) {
    if (source) URL.revokeObjectURL(source);
    return;
  }
  state.original = source;
  element.film.hidden = !source;
  find(source ? ".panel" : ".view").append(element.chart);
  choicesBeside();
  const text = state.examples[Number(input.split(":")[1])]?.text ?? "";
  element.row.hidden = !text;
  element.row.textContent = text;
  element.foot.textContent = [note, about].filter(Boolean).join(" ");
  await moved();
}

async function upload(file) {
  if (!state.now?.takes) return fail(new Error("this task takes no picture: choose one of its test examples"));
  const mine = (uploads += 1);
  const { exhibit } = state.now;
  say("Reading the picture …");
  try {
    const got = await receive(exhibit, file);
    if (mine !== uploads || exhibit !== state.now.exhibit) return;
    const [width, height] = got.taken;
    const note = width === got.width && height === got.height ? ""
      : `Your picture of ${got.width} × ${got.height} pixels is taken at ${width} × ${height}.`;
    if (!find("[value=own]", element.example)) {
      element.example.prepend(new Option("your picture", "own"));
    }
    element.example.value = "own";
    state.upload = { input: got.input, note };
    await take(got.input, note);
  } catch (error) {
    const wanted = mine === uploads && exhibit === state.now.exhibit;
    if (wanted && !(error instanceof Superseded)) fail(error);
  }
}

function choicesBeside() {
  const choices = [];
  if (state.now.reference) choices.push(["beside", "the fixed network nearest"]);
  if (state.original) choices.push(["original", "the original"]);
  if (!choices.some(([value]) => value === state.other)) state.other = choices[0]?.[0] ?? "";
  element.beside.hidden = choices.length < 2;
  const legend = find("legend", element.beside);
  element.beside.replaceChildren(legend, ...(choices.length > 1 ? choices : []).map(([value, text]) => {
    const input = make("input");
    Object.assign(input, { type: "radio", name: "beside", value, checked: value === state.other });
    input.addEventListener("change", () => {
      state.other = value;
      if (state.reply) pictures();
    });
    return make("label", [input, make("span", text)]);
  }));
}

// Latents -----------------------------------------------------------------------------------------

export function codes(values) {
  const holder = find(".codes", element.latents);
  if (holder.children.length !== values.length) {
    holder.replaceChildren(...values.map((_, i) => {
      const input = make("input");
      Object.assign(input, { type: "range", step: 0.01 });
      input.setAttribute("aria-label", `latent ${i + 1}`);
      input.addEventListener("input", () => {
        if (!state.code) return;
        state.latents = (state.latents ?? state.code).with(i, Number(input.value));
        moved();
      });
      return make("label", [`z${i + 1}`, input], "fine");
    }));
  }
  [...holder.querySelectorAll("input")].forEach((input, i) => {
    const most = Math.max(3, Math.ceil(Math.abs(values[i])));
    Object.assign(input, { min: -most, max: most, value: values[i] });
  });
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

// Paintings ---------------------------------------------------------------------------------------

export function blends() {
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
  clearCurve();
  moved();
}

// What is listened to -----------------------------------------------------------------------------

export function listenToInputs() {
  element.example.addEventListener("change", () => {
    uploads += 1; // one on its way is no longer wanted
    if (element.example.value === "own") take(state.upload.input, state.upload.note);
    else take(element.example.value);
  });
  element.file.addEventListener("change", () => {
    if (element.file.files[0]) upload(element.file.files[0]);
    element.file.value = "";
  });
  element.blend.addEventListener("input", blended);
  find(".sample", element.latents).addEventListener("click", () => {
    if (!state.code) return;
    state.latents = state.code.map(() => Math.round(1e4 * normal()) / 1e4);
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
  listenToCamera();
}

function listenToCamera() {
  const video = find("video", element.shot);
  const end = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    element.shot.close();
  };
  element.camera.hidden = !navigator.mediaDevices?.getUserMedia;
  element.camera.addEventListener("click", async () => {
    element.camera.disabled = true;
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({ video: true });
      await video.play();
      element.shot.showModal();
    } catch (error) {
      video.srcObject?.getTracks().forEach((track) => track.stop());
      fail(new Error(`no camera: ${error.message}`));
    } finally {
      element.camera.disabled = false;
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
