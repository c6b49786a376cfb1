// Questions and their answers: while a slider moves there is one at a time and the newest is asked
// next; when it rests, the whole answer is asked for, and then the points of the curve.
import { Superseded, answer } from "./backend.js";
import { curve } from "./curve.js";
import { show, stale } from "./show.js";
import { current, fail, question, state } from "./state.js";

const REST = 180; // ms without a movement after which the whole answer is asked for

let moving = false; // a question of a moving slider is on its way
let timer = 0;
let rests = 0;

// Something moved or was chosen.
export async function moved() {
  state.version += 1;
  stop();
  stale();
  if (moving) return;
  moving = true;
  let version;
  do {
    version = state.version;
    await attempt(question({ rest: false, beside: state.latents === null }));
  } while (version !== state.version);
  moving = false;
  timer = setTimeout(rest, REST);
}

// Ask for nothing whole any more until something moved.
export function stop() {
  clearTimeout(timer);
  rests += 1;
  document.body.classList.remove("busy");
}

async function rest() {
  const mine = (rests += 1);
  const { version } = state;
  document.body.classList.add("busy");
  const answered = await attempt(question({ rest: true, beside: state.latents === null }), version);
  if (mine !== rests) return;
  document.body.classList.remove("busy");
  if (answered) curve(version);
}

// Shows an answer, or its error, if it is still about what is chosen; true where it was shown.
async function attempt(asked, version = null) {
  const begun = performance.now();
  try {
    const reply = await answer(asked);
    if (!current(asked) || (version !== null && version !== state.version)) return false;
    show(asked, reply, performance.now() - begun);
    return true;
  } catch (error) {
    if (!(error instanceof Superseded) && current(asked)) fail(error);
    return false;
  }
}
