// What the page shows of an answer: two pictures under one handle, numbers, costs.
/* global make, written */
import { codes } from "./inputs.js";
import { bytes, element, find, networks, say, settingText, state, took } from "./state.js";

export function show(asked, reply, milliseconds) {
  const { own, beside } = reply;
  state.reply = { ...reply, asked, written: state.method.written };
  if (own.latents && asked.latents === null) {
    state.code = own.latents;
    codes(own.latents);
  }
  element.latents.hidden = !own.latents;
  pictures();
  const size = own.width ? ` at ${own.width} × ${own.height}` : "";
  const pass = own.seconds === undefined ? "" : `; one pass ${took(own.seconds)}`;
  if (reply.rest) {
    const whole = own.picture ? `Whole picture${size}` : "Whole answer";
    const measured = own.measuring === undefined ? "" : `, measured in ${took(own.measuring)}`;
    const lacking = own.missing ? `. ${own.missing}` : "";
    element.pace.textContent = "";
    say(`${whole}${measured}${own.seconds === own.measuring ? "" : pass}${lacking}.`);
    numbers();
  } else {
    say("");
    element.pace.textContent = `Answered in ${Math.round(milliseconds)} ms${size}${pass}.`;
  }
  costs();
  for (const also of document.querySelectorAll(".also")) also.textContent = reply.also;
  place(reply.outside);
}

// The numbers are of an answer before.
export function stale() {
  element.numbers.classList.add("stale");
}

// Of the last answer, and what is to be seen beside it.
export function pictures() {
  const { own, beside, asked, written: name } = state.reply;
  element.wipe.hidden = !own.picture;
  if (!own.picture) return;
  const [left, right] = [find("img.left"), find("img.right")];
  const small = Math.max(own.width, own.height) <= 128;
  left.src = own.picture;
  if (state.reply.rest || !state.shape) state.shape = own.width / own.height;
  element.wipe.style.setProperty("--shape", state.shape);
  const fixed = state.other === "beside" && beside?.picture;
  const source = fixed ? beside.picture : state.original;
  if (source) right.src = source;
  else right.removeAttribute("src");
  element.wipe.classList.toggle("alone", !source);
  for (const image of [left, right]) image.classList.toggle("pixels", small);
  find(".label.left").textContent = asked.latents === null
    ? `${name}, ${settingText(own.setting)}` : `${name}, a code moved by hand, ${settingText(own.setting)}`;
  find(".label.right").textContent = fixed
    ? `network trained for ${settingText(beside.setting)}` : source ? "original" : "";
  const choice = find("[value=beside] + span", element.beside);
  if (choice && beside) {
    choice.textContent = `the fixed network nearest: ${settingText(beside.setting)}`;
  }
}

function numbers() {
  const { own, beside, asked, written: name } = state.reply;
  const { measures, reference } = state.now;
  const rows = Object.keys(measures).filter((key) => own.measures?.[key] !== undefined);
  element.numbers.classList.remove("stale");
  find(".numbers thead .own").textContent = name;
  find(".numbers thead .other").textContent = beside ? reference.written : "";
  element.numbers.replaceChildren(...rows.map((key) => {
    const { label, unit, better, decimals } = measures[key];
    const arrow = { lower: " ↓", higher: " ↑" }[better] ?? "";
    const title = make("th", label + (unit && !label.includes(unit) ? `, ${unit}` : "") + arrow);
    title.scope = "row";
    const value = (side) => written(side?.measures?.[key], decimals);
    return make("tr", [title, make("td", value(own), "n own"), make("td", beside ? value(beside) : "", "n")]);
  }));
  const both = beside && rows.includes("loss")
    ? `; both losses weighted at ${settingText(asked.setting)}` : "";
  element.basis.textContent = asked.latents !== null
    ? "A code moved by hand has no numbers." : rows.length ? `This one example${both}.` : "";
}

function costs() {
  const { own, beside, written: name } = state.reply;
  const { reference } = state.now;
  const line = (entry, seconds, verb) =>
    `${networks(entry.networks)}, ${bytes(entry.bytes)}` +
    (seconds === undefined ? "" : `; ${verb} in ${took(seconds)}`);
  const verb = state.method.settings.length ? "one loaded" : "switched";
  const rows = [[name, line(state.method, own.switch, verb)]];
  if (reference && beside) {
    rows.push([reference.written, line(reference, beside.switch, "one loaded")]);
  }
  element.costs.replaceChildren(
    ...rows.flatMap(([title, text]) => [make("dt", title), make("dd", text)]));
}

// Whether the setting lies in the range trained for.
function place(outside) {
  element.place.classList.toggle("outside", outside.length > 0);
  element.place.replaceChildren(...(outside.length
    ? [make("strong", "Outside the range trained with"), `: ${outside.join("; ")}`] : []));
}
