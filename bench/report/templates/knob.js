// The knob: a slider per coefficient, and what the method makes of them beside the fixed network.

const PLACES = {
  compared: ["Compared setting", ""],
  between: ["Held out", "between the compared settings; "],
  outside: ["Outside the range", "beyond what the network was trained with; "],
};
const FAILS =
  "but another of the fixed networks does better here (the reference fails), so that nothing " +
  "is called better or worse";
const SILENCE = 400; // ms before a reader is told where the slider came to

class Knob {
  constructor(section) {
    this.section = section;
    this.data = JSON.parse(section.querySelector("script").textContent);
    section.append(document.getElementById("knob").content.cloneNode(true));
    this.spans = this.data.axes.map((axis) => Math.log(axis.high / axis.low));
    this.listMethods();
    this.listFronts();
    const given = this.data.original === null ? null : { picture: this.data.original };
    this.picture(".original", given, "Original", "what both were given");
    this.find(".preview").textContent = this.data.preview;
    for (const image of section.querySelectorAll(".picture img")) {
      image.addEventListener("load", () => fit(image));
    }
    this.choose(this.data.first);
  }

  find(selector) {
    return this.section.querySelector(selector);
  }

  listMethods() {
    const choice = this.find(".method");
    for (const [title, swept] of [
      ["also between and beyond the compared settings", true],
      ["at the compared settings alone", false],
    ]) {
      const group = make("optgroup");
      group.label = title;
      this.data.methods.forEach((method, i) => {
        if (method.swept === swept) group.append(new Option(method.label, i));
      });
      if (group.children.length) choice.append(group);
    }
    choice.value = this.data.first;
    choice.addEventListener("change", () => {
      this.choose(Number(choice.value));
      this.speak();
    });
  }

  listFronts() {
    const { fronts, measures } = this.data;
    this.front = this.find(".chart select");
    fronts.forEach(([x, y], i) =>
      this.front.append(new Option(`${measures[y].name} against ${measures[x].name}`, i)),
    );
    this.front.addEventListener("change", () => this.chart());
    if (!fronts.length) this.find(".chart").remove();
  }

  choose(index) {
    this.method = this.data.methods[index];
    const holder = this.find(".sliders");
    holder.replaceChildren();
    holder.classList.toggle("several", this.data.axes.length > 1);
    this.find(".together").hidden = this.data.axes.length < 2;
    this.sliders = this.data.axes.map((axis, i) => this.slider(holder, axis, i));
    this.move(this.nearest(this.method.points, this.point || { at: this.data.start }));
  }

  nearest(points, from) {
    const logs = (point) => point.at.map((value) => Math.log(Math.max(value, 1e-300)));
    const apart = (one, other) =>
      Math.hypot(...logs(one).map((value, i) => (value - logs(other)[i]) / this.spans[i]));
    // Of equally near ones the compared setting, for which there is more to be said.
    const far = (point) => apart(point, from) + (point.kind === "compared" ? 0 : 1e-6);
    return points.reduce((best, point) => (far(point) < far(best) ? point : best));
  }

  named(at) {
    const { axes } = this.data;
    return axes.map((axis, i) => `${axis.symbol}\u00a0=\u00a0${plain(at[i])}`).join(", ");
  }

  // One coefficient: a range input over the values that were measured, and what sets it.
  slider(holder, axis, i) {
    const { points } = this.method;
    const values = [...new Set(points.map((point) => point.at[i]))].sort((a, b) => a - b);
    const kinds = values.map((value) => {
      if (value < axis.low || value > axis.high) return "outside";
      const here = points.filter((point) => point.at[i] === value);
      return here.some((point) => point.kind === "compared") ? "compared" : "between";
    });
    const silent = points.filter((point) => point.fails).map((point) => point.at[i]);
    const fails = values.map((value) => silent.includes(value));
    const shown = make("span", "", "value");
    const input = make("input");
    Object.assign(input, { type: "range", min: 0, max: values.length - 1, step: 1 });
    input.ariaLabel = `${axis.symbol}, the coefficient of ${axis.name}`;
    input.disabled = values.length < 2;
    input.addEventListener("input", () => {
      const value = values[input.value];
      this.move(this.nearest(points.filter((point) => point.at[i] === value), this.point));
      this.speak();
    });
    const symbol = make("span", axis.symbol, "symbol");
    const head = make("p", [symbol, " = ", shown, ` coefficient of ${axis.name}`]);
    const rail = make("div", [input, railOf(values, kinds, fails)], "rail");
    holder.append(make("div", [head, rail], "slider"));
    return (at) => {
      const place = values.indexOf(at[i]);
      input.value = place;
      shown.textContent = plain(values[place]);
      input.ariaValueText = `${plain(values[place])}, ${PLACES[kinds[place]][0]}`;
    };
  }

  move(point) {
    this.point = point;
    this.section.dataset.place = point.kind;
    for (const set of this.sliders) set(point.at);
    const { label } = this.method;
    const [head, why] = PLACES[point.kind];
    const fixed = point.beside;
    const which = fixed?.exact ? "a fixed network was" : "no fixed network was";
    const but = point.fails ? "; " + FAILS : "";
    this.find(".place").className = `place ${point.kind}`;
    this.find(".place strong").textContent = `${head}:`;
    this.find(".place span").textContent = `${why}${which} trained for it${but}.`;
    this.picture(".own", point, label, `told ${this.named(point.at)}`);
    const title = fixed?.exact ? "Fixed network" : "Nearest fixed network";
    this.picture(".beside", fixed, title, fixed && `trained for ${this.named(fixed.at)}`);
    for (const who of this.section.querySelectorAll(".who")) who.textContent = label;
    this.numbers();
    this.chart();
  }

  picture(selector, from, title, detail) {
    const figure = this.find(`.picture${selector}`);
    const image = figure.querySelector("img");
    figure.hidden = !from || !this.data.pictures.length;
    if (figure.hidden) return;
    const source = this.data.pictures[from.picture];
    figure.querySelector("b").textContent = title;
    figure.querySelector("span").textContent = detail;
    image.alt = `${title}, ${detail}`;
    image.hidden = !source;
    if (source) image.src = source;
    image.nextSibling?.remove();
    if (!source) image.after(from.status === "done" ? "no picture" : from.status);
  }

  numbers() {
    const { point, method, data } = this;
    const fixed = point.beside;
    const rows = data.shown.map((name) => {
      const { label, decimals } = data.measures[name];
      const head = make("th", label);
      head.scope = "row";
      const mine = make("td", written(point.numbers[name], decimals), "own");
      const theirs = make("td", written(fixed?.numbers[name], decimals), "beside");
      return make("tr", [head, mine, theirs, gapCell(point.gaps[name])]);
    });
    this.find(".numbers tbody").replaceChildren(...rows);
    const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;
    const means = `${counted(point.seeds, "seed")} and ${counted(point.examples, "example")}`;
    let basis = point.status === "done" ? "" : `${method.label} ${point.status} here. `;
    basis += `Means over ${means}.`;
    if (fixed && !fixed.exact) {
      basis += ` The fixed network was trained for ${this.named(fixed.at)}`;
      basis += data.rescored
        ? `; its loss is scored with ${this.named(point.at)}, so that the two can be compared.`
        : ": its loss is that of its own coefficients.";
    }
    this.find(".basis").textContent = basis;
  }

  chart() {
    const { data, point, method } = this;
    if (!data.fronts.length) return;
    const series = { own: method.points, beside: data.grid };
    // The fixed network's place is that of its own coefficients.
    const pair = { own: point, beside: data.grid[point.beside?.index] };
    const front = data.fronts[this.front.value || 0];
    const about =
      `${method.label} and the fixed networks. ` + "The numbers stand in the table beside it.";
    const svg = this.find(".chart > svg");
    this.find(".chart").style.setProperty("--mark", method.colour);
    chart(svg, front, data.measures, series, pair, method.marker, about);
    const key = this.find(".chart svg.key");
    key.replaceChildren();
    mark(key, [7, 7], "own", "compared", method.marker);
  }

  // Once the slider rests: a reader should hear where it came to, not all that it passed.
  speak() {
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => {
      const sentences = [...this.find(".numbers tbody").rows].map((row) => {
        const [name, mine, theirs, gap] = [...row.cells].map((cell) => cell.textContent.trim());
        return `${name}: ${mine}, fixed ${theirs}, gap ${gap}.`;
      });
      const place = `${this.named(this.point.at)}. ${PLACES[this.point.kind][0]}.`;
      this.find(".spoken").textContent = [place, ...sentences].join(" ");
    }, SILENCE);
  }
}

function gapCell(known) {
  if (!known) return make("td", "—");
  const ends = known.ends ? [make("small", known.ends), " "] : [];
  const verdict = known.verdict ? [make("span", known.verdict, `v ${known.verdict}`)] : [];
  return make("td", [`${known.gap} `, ...ends, ...verdict]);
}

// Under a slider, solid over the range trained for, with a mark and a label per value.
function railOf(values, kinds, fails) {
  const last = Math.max(1, values.length - 1);
  const left = (place) => `${(100 * place) / last}%`;
  const range = make("div", "", "range");
  const inside = kinds.flatMap((kind, place) => (kind === "outside" ? [] : [place]));
  range.hidden = !inside.length;
  range.style.left = left(inside[0] ?? 0);
  range.style.right = left(last - (inside.at(-1) ?? last));
  const ticks = values.map((value, place) => {
    const label = make("span", plain(value));
    const tick = make("span", label, `tick ${kinds[place]}${fails[place] ? " fails" : ""}`);
    tick.style.left = left(place);
    return tick;
  });
  const rail = make("div", [range, ...ticks], "ticks");
  rail.ariaHidden = "true";
  new ResizeObserver(() => thin(ticks)).observe(rail);
  return rail;
}

// Labels that would touch are left out, those of compared settings last.
function thin(ticks) {
  const taken = [];
  const order = ["compared", "outside", "between"];
  const rank = (tick) => order.findIndex((kind) => tick.classList.contains(kind));
  for (const tick of ticks) tick.firstChild.hidden = false;
  for (const tick of [...ticks].sort((a, b) => rank(a) - rank(b))) {
    const box = tick.firstChild.getBoundingClientRect();
    const free = taken.every(([from, to]) => box.right + 4 < from || box.left - 4 > to);
    if (free) taken.push([box.left, box.right]);
    tick.firstChild.hidden = !free;
  }
}

// A picture shown much larger than it is keeps its pixels' edges.
function fit(image) {
  const { clientWidth, naturalWidth, naturalHeight } = image;
  image.classList.toggle("pixels", clientWidth > 2 * naturalWidth);
  image.parentElement.style.setProperty("--shape", naturalWidth / naturalHeight);
}
