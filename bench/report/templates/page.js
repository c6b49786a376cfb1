"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDE_RANGE = 20; // beyond this factor an axis is logarithmic, as in the figures
  const PLACES = {
    compared: ["Compared setting", ""],
    between: ["Held out", "between the compared settings; "],
    outside: ["Outside the range", "beyond what the network was trained with; "],
  };

  const FAILS =
    "but another of the fixed networks does better here (the reference fails), so that nothing " +
    "is called better or worse";

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

  // The knob ------------------------------------------------------------------------------------

  function knob(section) {
    const data = JSON.parse(section.querySelector("script").textContent);
    section.append(document.getElementById("knob").content.cloneNode(true));
    const find = (selector) => section.querySelector(selector);
    const logs = (point) => point.at.map((value) => Math.log(Math.max(value, 1e-300)));
    const spans = data.axes.map((axis) => Math.log(axis.high / axis.low));
    const apart = (one, other) =>
      Math.hypot(...logs(one).map((value, i) => (value - logs(other)[i]) / spans[i]));
    const named = (at) =>
      data.axes.map((axis, i) => `${axis.symbol}\u00a0=\u00a0${plain(at[i])}`).join(", ");
    let method, point, sliders, speaking;

    const choice = find(".method");
    for (const [title, swept] of [
      ["also between and beyond the compared settings", true],
      ["at the compared settings alone", false],
    ]) {
      const group = make("optgroup");
      group.label = title;
      data.methods.forEach((each, i) => {
        if (each.swept === swept) group.append(new Option(each.label, i));
      });
      if (group.children.length) choice.append(group);
    }
    choice.value = data.first;
    choice.addEventListener("change", () => {
      choose(Number(choice.value));
      speak();
    });

    const front = find(".chart select");
    data.fronts.forEach(([x, y], i) =>
      front.append(new Option(`${data.measures[y].name} against ${data.measures[x].name}`, i)),
    );
    front.addEventListener("change", chart);
    if (!data.fronts.length) find(".chart").remove();

    function choose(index) {
      method = data.methods[index];
      const near = point || { at: data.start };
      build();
      move(nearest(method.points, near));
    }

    function nearest(points, from) {
      // Of equally near ones the compared setting, for which there is more to be said.
      const far = (each) => apart(each, from) + (each.kind === "compared" ? 0 : 1e-6);
      return points.reduce((best, each) => (far(each) < far(best) ? each : best));
    }

    function build() {
      const holder = find(".sliders");
      holder.replaceChildren();
      holder.classList.toggle("several", data.axes.length > 1);
      find(".together").hidden = data.axes.length < 2;
      sliders = data.axes.map((axis, i) => slider(holder, axis, i));
    }

    // One coefficient: a range input over the values that were measured, and what sets it.
    function slider(holder, axis, i) {
      const values = [...new Set(method.points.map((each) => each.at[i]))].sort((a, b) => a - b);
      const kinds = values.map((value) => {
        if (value < axis.low || value > axis.high) return "outside";
        const here = method.points.filter((each) => each.at[i] === value);
        return here.some((each) => each.kind === "compared") ? "compared" : "between";
      });
      const shown = make("span", "", "value");
      const input = make("input");
      Object.assign(input, { type: "range", min: 0, max: values.length - 1, step: 1 });
      input.ariaLabel = `${axis.symbol}, the coefficient of ${axis.name}`;
      input.disabled = values.length < 2;
      input.addEventListener("input", () => {
        const value = values[input.value];
        move(nearest(method.points.filter((each) => each.at[i] === value), point));
        speak();
      });
      const symbol = make("span", axis.symbol, "symbol");
      const head = make("p", [symbol, " = ", shown, ` coefficient of ${axis.name}`]);
      const rail = make("div", [input, scaleOf(values, kinds, i)], "rail");
      holder.append(make("div", [head, rail], "slider"));
      return (at) => {
        const place = values.indexOf(at[i]);
        input.value = place;
        shown.textContent = plain(values[place]);
        input.ariaValueText = `${plain(values[place])}, ${PLACES[kinds[place]][0]}`;
      };
    }

    // The rail, solid over the range trained for, with a mark and a label per value.
    function scaleOf(values, kinds, i) {
      const last = Math.max(1, values.length - 1);
      const left = (place) => `${(100 * place) / last}%`;
      const range = make("div", "", "range");
      const inside = kinds.flatMap((kind, place) => (kind === "outside" ? [] : [place]));
      range.hidden = !inside.length;
      range.style.left = left(inside[0] ?? 0);
      range.style.right = left(last - (inside.at(-1) ?? last));
      const ticks = values.map((value, place) => {
        const fails = method.points.some((each) => each.at[i] === value && each.fails);
        const label = make("span", plain(value));
        const tick = make("span", label, `tick ${kinds[place]}${fails ? " fails" : ""}`);
        tick.style.left = left(place);
        return tick;
      });
      const scale = make("div", [range, ...ticks], "ticks");
      scale.ariaHidden = "true";
      new ResizeObserver(() => thin(ticks)).observe(scale);
      return scale;
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

    function move(to) {
      point = to;
      section.dataset.place = point.kind;
      for (const set of sliders) set(point.at);
      const [head, why] = PLACES[point.kind];
      const fixed = point.beside;
      const which = fixed?.exact ? "a fixed network was" : "no fixed network was";
      const but = point.fails ? "; " + FAILS : "";
      find(".place").className = `place ${point.kind}`;
      find(".place strong").textContent = `${head}:`;
      find(".place span").textContent = `${why}${which} trained for it${but}.`;
      picture(".own", point, method.label, `told ${named(point.at)}`);
      const title = fixed?.exact ? "Fixed network" : "Nearest fixed network";
      picture(".beside", fixed, title, fixed && `trained for ${named(fixed.at)}`);
      for (const who of section.querySelectorAll(".who")) who.textContent = method.label;
      numbers(fixed);
      chart();
    }

    function picture(selector, from, title, detail) {
      const figure = find(`.picture${selector}`);
      const image = figure.querySelector("img");
      figure.hidden = !from || !data.pictures.length;
      if (figure.hidden) return;
      const source = data.pictures[from.picture];
      figure.querySelector("b").textContent = title;
      figure.querySelector("span").textContent = detail;
      image.alt = `${title}, ${detail}`;
      image.hidden = !source;
      if (source) image.src = source;
      image.nextSibling?.remove();
      if (!source) image.after(from.status === "done" ? "no picture" : from.status);
    }

    function numbers(fixed) {
      const rows = data.shown.map((name) => {
        const { label, digits } = data.measures[name];
        const head = make("th", label);
        head.scope = "row";
        const mine = make("td", written(point.numbers[name], digits), "own");
        const theirs = make("td", written(fixed?.numbers[name], digits), "beside");
        return make("tr", [head, mine, theirs, gap(point.gaps[name])]);
      });
      find(".numbers tbody").replaceChildren(...rows);
      const counted = (count, name) => `${count} ${name}${count === 1 ? "" : "s"}`;
      let basis = point.status === "done" ? "" : `${method.label} ${point.status} here. `;
      basis += `Means over ${counted(point.seeds, "seed")} and ${counted(point.examples, "example")}.`;
      if (fixed && !fixed.exact) {
        basis += ` The fixed network was trained for ${named(fixed.at)}`;
        basis += data.rescored
          ? `; its loss is scored with ${named(point.at)}, so that the two can be compared.`
          : ": its loss is that of its own coefficients.";
      }
      find(".basis").textContent = basis;
    }

    function gap(known) {
      if (!known) return make("td", "—");
      const ends = known.ends ? [make("small", known.ends), " "] : [];
      const mark = known.verdict ? [make("span", known.verdict, `v ${known.verdict}`)] : [];
      return make("td", [`${known.gap} `, ...ends, ...mark]);
    }

    // Once the slider rests: a reader should hear where it came to, not all that it passed.
    function speak() {
      clearTimeout(speaking);
      speaking = setTimeout(() => {
        const sentences = [...find(".numbers tbody").rows].map((row) => {
          const [name, mine, theirs, gap] = [...row.cells].map((cell) => cell.textContent.trim());
          return `${name}: ${mine}, fixed ${theirs}, gap ${gap}.`;
        });
        const place = `${named(point.at)}. ${PLACES[point.kind][0]}.`;
        find(".spoken").textContent = [place, ...sentences].join(" ");
      }, 400);
    }

    // The trade-off -------------------------------------------------------------------------------

    function chart() {
      if (!data.fronts.length) return;
      const [x, y] = data.fronts[front.value || 0];
      const svg = find(".chart svg");
      const has = (each) => each?.numbers[x] !== undefined && each.numbers[y] !== undefined;
      const series = { beside: data.grid.filter(has), own: method.points.filter(has) };
      const all = Object.values(series).flat();
      svg.replaceChildren();
      if (!all.length) return;
      const across = scale(all.map((each) => each.numbers[x]), 52, 354);
      const up = scale(all.map((each) => each.numbers[y]), 248, 10);
      const spot = (each) => [across.at(each.numbers[x]), up.at(each.numbers[y])];
      for (const value of across.ticks) {
        const px = across.at(value);
        draw(svg, "line", { class: "grid", x1: px, x2: px, y1: 10, y2: 248 });
        draw(svg, "text", { x: px, y: 266, "text-anchor": "middle" }, plain(value));
      }
      for (const value of up.ticks) {
        const py = up.at(value);
        draw(svg, "line", { class: "grid", x1: 52, x2: 354, y1: py, y2: py });
        draw(svg, "text", { x: 46, y: py + 4, "text-anchor": "end" }, plain(value));
      }
      const [below, left] = [x, y].map((name) => data.measures[name].label);
      draw(svg, "text", { x: 203, y: 292, "text-anchor": "middle" }, below);
      draw(svg, "text", { transform: "translate(10 129) rotate(-90)", "text-anchor": "middle" }, left);
      for (const [who, points] of Object.entries(series)) {
        if (data.axes.length === 1 && points.length > 1) {
          const line = [...points].sort((a, b) => a.at[0] - b.at[0]).map(spot);
          draw(svg, "path", { class: who, d: `M${line.join("L")}` });
        }
        for (const each of points) {
          mark(svg, spot(each), who, who === "beside" && each.fails ? "fails" : each.kind);
        }
      }
      // The fixed network's place is that of its own coefficients.
      const pair = { own: point, beside: data.grid[point.beside?.index] };
      const ends = Object.entries(pair).filter(([, each]) => has(each));
      if (ends.length === 2) {
        const [[x1, y1], [x2, y2]] = ends.map(([, each]) => spot(each));
        draw(svg, "line", { class: "join", x1, y1, x2, y2 });
      }
      for (const [who, each] of ends) {
        const [cx, cy] = spot(each);
        draw(svg, "circle", { class: `now ${who}`, cx, cy, r: 8 });
      }
      const about = `${left} against ${below}: ${method.label} and the fixed networks.`;
      svg.setAttribute("aria-label", `${about} The numbers stand in the table beside it.`);
    }

    function mark(svg, [cx, cy], who, kind) {
      if (kind === "outside") {
        const d = `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8`;
        draw(svg, "path", { class: who, d });
      } else draw(svg, "circle", { class: `${who} ${kind}`, cx, cy, r: kind === "between" ? 2.5 : 4 });
    }

    const original = data.original === null ? null : { picture: data.original };
    picture(".original", original, "Original", "what both were given");
    find(".preview").textContent = data.preview;
    for (const image of section.querySelectorAll(".picture img")) {
      image.addEventListener("load", () => {
        const { clientWidth, naturalWidth, naturalHeight } = image;
        image.classList.toggle("pixels", clientWidth > 2 * naturalWidth);
        image.parentElement.style.setProperty("--shape", naturalWidth / naturalHeight);
      });
    }
    choose(data.first);
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

  // Tables --------------------------------------------------------------------------------------

  function listing(section) {
    const body = section.querySelector("tbody");
    const rows = [...body.rows];
    const heads = [...section.querySelectorAll("thead th")];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...sorted(rows, column, down));
      });
    });
    const filter = section.querySelector("input");
    const count = section.querySelector("output");
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        left += !row.hidden;
      }
      count.textContent = left === rows.length ? `${left} rows` : `${left} of ${rows.length} rows`;
    };
    filter?.addEventListener("input", apply);
  }

  // Numbers by value, text by name; what is missing stays last in either direction.
  function sorted(rows, column, down) {
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
      const text = cell.textContent.toLowerCase();
      return cell.classList.contains("n") || text === "—" ? null : text;
    };
    const compare = (a, b) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const way = typeof a === "number" ? a - b : a.localeCompare(b);
      return down ? -way : way;
    };
    return rows
      .map((row) => [key(row), row])
      .sort(([a], [b]) => compare(a, b))
      .map(([, row]) => row);
  }

  document.querySelectorAll(".knob").forEach(knob);
  document.querySelectorAll(".listing").forEach(listing);
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
})();
