// The sweep of one slider, saved as a film.
/* global make */
import { Superseded, answer } from "./backend.js";
import { element, fail, placeOf, question, say, shown, state, valueAt } from "./state.js";

const FRAMES = 25;
const PER_SECOND = 10;
const KINDS = ["video/mp4;codecs=avc1.42E01E", "video/webm;codecs=vp9", "video/webm"];

export async function film() {
  const kind = KINDS.find((each) => window.MediaRecorder?.isTypeSupported(each));
  if (!kind) return fail(new Error("this browser cannot record films"));
  const [place, { name, axes }] = [state.axis, state.now];
  const base = question({ beside: false }); // whatever is chosen meanwhile
  const axis = axes[place];
  element.film.disabled = true;
  try {
    const frames = [];
    for (let i = 0; i < FRAMES; i++) {
      const value = valueAt(axis, i / (FRAMES - 1));
      element.pace.textContent = `Film: picture ${i + 1} of ${FRAMES} …`;
      const reply = await again(() =>
        answer({ ...base, setting: base.setting.with(place, value) }, "film"));
      const image = new Image();
      image.src = reply.own.picture;
      await image.decode();
      frames.push([image, value]);
    }
    const ending = kind.startsWith("video/mp4") ? "mp4" : "webm";
    save(await recorded(frames, axis, kind), `${name}-${axis.name}.${ending}`);
    element.pace.textContent = "";
    say("The film is saved.");
  } catch (error) {
    fail(error);
  } finally {
    element.film.disabled = false;
  }
}

async function again(asking) {
  for (;;) {
    try {
      return await asking();
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
    frame(paper, image, [scale * width, scale * height], axis, value);
    stream.getVideoTracks()[0].requestFrame();
    await new Promise((resolve) => { setTimeout(resolve, 1000 / PER_SECOND); });
  }
  recorder.stop();
  await ended;
  return new Blob(parts, { type: kind });
}

// A picture, and below it where the slider is.
function frame(paper, image, [width, height], axis, value) {
  const [left, right, level] = [120, paper.canvas.width - 20, height + 18];
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, paper.canvas.width, paper.canvas.height);
  paper.drawImage(image, 0, 0, width, height);
  paper.fillStyle = "#1d1b18";
  paper.font = "16px sans-serif";
  paper.textBaseline = "middle";
  paper.fillText(`${axis.symbol} = ${shown(value)}`, 8, level);
  paper.fillRect(left, level - 1, right - left, 2);
  paper.beginPath();
  paper.arc(left + (right - left) * placeOf(axis, value), level, 7, 0, 7);
  paper.fillStyle = "#00629e";
  paper.fill();
}

function save(blob, name) {
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
