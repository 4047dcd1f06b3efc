"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const COLOURS = ["var(--first)", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#8a8a8a", "#b58900", "#6a51a3"];
  const SHAPES = ["circle", "square", "diamond", "up", "down", "cross"];
  const codecs = [...new Set(data.points.map((point) => point.codec))];
  const hidden = new Set();
  let dataset = data.datasets[0];

  // Texts come out of files and folders: they are only ever set as text.
  function element(name, attributes = {}, ...children) {
    const svg = ["svg", "g", "path", "line", "text", "polyline"].includes(name);
    const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== undefined && value !== null) node.setAttribute(key, value);
    }
    node.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
    return node;
  }

  // Control and direction characters are shown as their numbers.
  function visible(text) {
    return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
      (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  }

  const number = (value, digits) => (value === null || value === undefined ? "" : value.toFixed(digits));
  function shown(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value)) return String(value);
    return Math.abs(value) >= 100 ? value.toFixed(1) : Math.abs(value) >= 10 ? value.toFixed(2)
      : value.toFixed(4);
  }
  function named(measure) {
    const about = data.measures[measure];
    return about.label + (about.unit ? " (" + about.unit + ")" : "");
  }
  const here = (items) => items.filter((item) => item.dataset === dataset);

  // Theme: the system's, until the button is pressed.
  function setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    byId("theme").setAttribute("aria-pressed", String(dark));
    byId("theme").textContent = dark ? "Light" : "Dark";
  }
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches);
  byId("theme").addEventListener("click", () =>
    setTheme(document.documentElement.dataset.theme !== "dark"));

  // Charts.
  const WIDTH = 460, HEIGHT = 300, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 34;
  const style = (codec) => {
    const i = codecs.indexOf(codec);
    return { colour: COLOURS[i % COLOURS.length], shape: SHAPES[i % SHAPES.length] };
  };

  function markPath(shape, x, y, r) {
    switch (shape) {
      case "square": return `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`;
      case "diamond": return `M${x},${y - 1.3 * r}L${x + 1.3 * r},${y}L${x},${y + 1.3 * r}L${x - 1.3 * r},${y}z`;
      case "up": return `M${x},${y - 1.2 * r}L${x + 1.1 * r},${y + r}L${x - 1.1 * r},${y + r}z`;
      case "down": return `M${x},${y + 1.2 * r}L${x + 1.1 * r},${y - r}L${x - 1.1 * r},${y - r}z`;
      case "cross": return `M${x - r},${y - r}L${x + r},${y + r}M${x - r},${y + r}L${x + r},${y - r}`;
      default: return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`;
    }
  }

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(v);
    return found;
  }

  function chart(measure) {
    const points = here(data.points).filter((p) => measure in p.measures && !hidden.has(p.codec));
    const published = data.published.filter((p) => p.metric === measure
      && (p.dataset === dataset || byId("foreign").checked));
    const about = data.measures[measure];
    const better = about.higher_is_better ? "higher is better" : "lower is better";
    const box = element("div", { class: "chart" },
      element("h3", {}, named(measure) + " ", element("small", {}, better)));
    if (!points.length && !published.length) {
      box.append(element("p", { class: "quiet" }, "nothing to show"));
      return box;
    }
    const xs = [...points.map((p) => p.bpp.mean), ...published.map((p) => p.bpp)];
    const ys = [...points.flatMap((p) => {
      const v = p.measures[measure];
      return [v.mean, v.low ?? v.mean, v.high ?? v.mean];
    }), ...published.map((p) => p.value)];
    const x0 = Math.log10(Math.min(...xs) / 1.25), x1 = Math.log10(Math.max(...xs) * 1.25);
    const pad = (Math.max(...ys) - Math.min(...ys)) * 0.06 || 0.5;
    const y0 = Math.min(...ys) - pad, y1 = Math.max(...ys) + pad;
    const X = (v) => LEFT + (Math.log10(v) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    const Y = (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
      "aria-label": `${named(measure)} against bits per pixel` });
    for (const v of ticks(y0, y1, 5)) {
      svg.append(element("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: Y(v), y2: Y(v) }),
        element("text", { x: LEFT - 6, y: Y(v) + 4, "text-anchor": "end" }, String(+v.toPrecision(4))));
    }
    const steps = [];
    for (let e = -5; e <= 1; e++) for (const m of [1, 2, 5]) steps.push(m * 10 ** e);
    let last = -Infinity;
    for (const v of steps.filter((s) => Math.log10(s) >= x0 && Math.log10(s) <= x1)) {
      svg.append(element("line", { class: "rule", x1: X(v), x2: X(v), y1: TOP, y2: HEIGHT - BOTTOM }));
      if (X(v) - last > 38) {
        svg.append(element("text", { x: X(v), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" },
          String(+v.toPrecision(1))));
        last = X(v);
      }
    }
    svg.append(element("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, "bits per pixel"));
    for (const codec of codecs) {
      const own = points.filter((p) => p.codec === codec).sort((a, b) => a.bpp.mean - b.bpp.mean);
      const { colour, shape } = style(codec);
      if (own.length > 1) {
        svg.append(element("polyline", { fill: "none", stroke: colour, "stroke-width": 1.6,
          points: own.map((p) => `${X(p.bpp.mean)},${Y(p.measures[measure].mean)}`).join(" ") }));
      }
      for (const p of own) {
        const v = p.measures[measure];
        if (v.low !== null) {
          svg.append(element("line", { x1: X(p.bpp.mean), x2: X(p.bpp.mean), y1: Y(v.low), y2: Y(v.high),
            stroke: colour, "stroke-width": 0.8, opacity: 0.6 }));
        }
        const range = v.low === null ? "" : ` (${shown(v.low)} to ${shown(v.high)})`;
        svg.append(mark(markPath(shape, X(p.bpp.mean), Y(v.mean), 3.6),
          { fill: shape === "cross" ? "none" : colour, stroke: colour, "stroke-width": shape === "cross" ? 2 : 0.5 },
          `${codec}, ${p.setting}\n${number(p.bpp.mean, 4)} bpp, ${number(p.bytes, 0)} bytes\n${about.label} ${shown(v.mean)}${range}`));
      }
    }
    const systems = [...new Set(published.map((p) => p.system))];
    for (const p of published) {
      const i = systems.indexOf(p.system);
      svg.append(mark(markPath(SHAPES[i % 5], X(p.bpp), Y(p.value), 5),
        { fill: "none", stroke: COLOURS[i % COLOURS.length], "stroke-width": 1.6 },
        `${p.system}, published, on ${p.dataset}\n${p.bpp} bpp, ${about.label} ${p.value}\n${p.source}`));
      const toLeft = X(p.bpp) > WIDTH * 0.7;  // there would be no room on the right
      svg.append(element("text", { x: X(p.bpp) + (toLeft ? -8 : 8), y: Y(p.value) + 4,
        "text-anchor": toLeft ? "end" : "start" }, p.system));
    }
    box.append(svg, element("details", {}, element("summary", {}, "as a table"),
      chartTable(measure, points, published)));
    return box;
  }

  function chartTable(measure, points, published) {
    const lines = [...points.map((p) => [p.codec, p.setting, number(p.bpp.mean, 5), shown(p.measures[measure].mean)]),
      ...published.map((p) => [p.system, `published, ${p.dataset}`, String(p.bpp), String(p.value)])];
    const box = element("div", { class: "scroll" });
    box.append(table(["codec", "setting", "bpp", data.measures[measure].label], lines, 2));
    return box;
  }

  function table(head, lines, firstNumber) {
    const right = (i) => (i >= firstNumber ? { class: "number" } : {});
    return element("table", {},
      element("thead", {}, element("tr", {}, ...head.map((text, i) => element("th", { scope: "col", ...right(i) }, text)))),
      element("tbody", {}, ...lines.map((line) => element("tr", {},
        ...line.map((cell, i) => element("td", right(i), cell))))));
  }

  const tip = byId("tip");
  function mark(path, attributes, text) {
    const node = element("path", { d: path, class: "mark", tabindex: 0, role: "img",
      "aria-label": text.replaceAll("\n", "; "), ...attributes });
    const show = () => {
      tip.textContent = visible(text);
      tip.hidden = false;
      const at = node.getBoundingClientRect();
      const left = Math.min(at.left + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
      tip.style.left = `${Math.max(8, left) + scrollX}px`;
      tip.style.top = `${at.bottom + 8 + scrollY}px`;
    };
    const hide = () => { tip.hidden = true; };
    for (const event of ["pointerenter", "focus"]) node.addEventListener(event, show);
    for (const event of ["pointerleave", "blur"]) node.addEventListener(event, hide);
    return node;
  }

  function drawCharts() {
    const grid = byId("chart-grid");
    grid.replaceChildren(...Object.keys(data.measures)
      .filter((measure) => here(data.points).some((p) => measure in p.measures)
        || data.published.some((p) => p.metric === measure && (p.dataset === dataset || byId("foreign").checked)))
      .map(chart));
  }

  function drawLegend() {
    byId("legend").replaceChildren(...codecs.filter((codec) => here(data.points).some((p) => p.codec === codec))
      .map((codec) => {
        const { colour, shape } = style(codec);
        const sample = element("svg", { viewBox: "0 0 18 14", "aria-hidden": "true" },
          element("line", { x1: 0, x2: 18, y1: 7, y2: 7, stroke: colour, "stroke-width": 1.6 }),
          element("path", { d: markPath(shape, 9, 7, 3.6), fill: shape === "cross" ? "none" : colour, stroke: colour }));
        const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(codec)) }, sample, codec);
        button.addEventListener("click", () => {
          if (!hidden.delete(codec)) hidden.add(codec);
          button.setAttribute("aria-pressed", String(!hidden.has(codec)));
          drawCharts();
        });
        return button;
      }));
  }
  byId("foreign").addEventListener("change", drawCharts);

  // Tables of means and BD-rates.
  function drawMeans() {
    const points = here(data.points);
    const measures = Object.keys(data.measures).filter((m) => points.some((p) => m in p.measures));
    const lines = points.map((p) => [p.codec, p.setting, number(p.bytes, 0), number(p.bpp.mean, 5),
      ...measures.map((m) => shown(p.measures[m]?.mean)), number(p.encode_seconds, 2), number(p.decode_seconds, 2)]);
    byId("means-table").replaceChildren(table(["codec", "setting", "bytes", "bpp",
      ...measures.map((m) => data.measures[m].label), "encode, s", "decode, s"], lines, 2));
  }

  function drawRates() {
    const rates = here(data.bd_rates), select = byId("bd-measure");
    const measures = [...new Set(rates.map((r) => r.measure))];
    const kept = measures.includes(select.value) ? select.value : measures[0];
    fill(select, measures.map((m) => [m, named(m).replace(/^MS-SSIM/, "MS-SSIM, dB")]), kept);
    if (!measures.length) {
      byId("bd-table").replaceChildren(element("p", { class: "quiet" }, "no two codecs have a measure at several rates"));
      return;
    }
    const own = rates.filter((r) => r.measure === kept);
    const names = codecs.filter((c) => own.some((r) => r.codec === c));
    const cell = (codec, anchor) => {
      if (codec === anchor) return "";
      const r = own.find((one) => one.codec === codec && one.anchor === anchor);
      if (!r) return "";
      if (r.percent === null) return "no common quality";
      return `${r.percent >= 0 ? "+" : ""}${r.percent.toFixed(1)} % (${Math.round(100 * r.overlap)} %)`;
    };
    byId("bd-table").replaceChildren(table(["codec", ...names.map((n) => "against " + n)],
      names.map((codec) => [codec, ...names.map((anchor) => cell(codec, anchor))]), 1));
  }
  byId("bd-measure").addEventListener("change", drawRates);

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    if (chosen !== undefined) select.value = chosen;
  }

  // Gallery.
  const FIXED = [["original", "original"], ["sketch", "sketch that was coded"], ["decoded_sketch", "decoded sketch"]];
  let divider = 50;

  const entry = () => here(data.gallery)[Number(byId("photograph").value)];
  const label = (item) => `${item.codec}, ${item.setting}`;

  function choices(photo) {
    const found = [["original", "original", photo.original, null]];
    for (const [key, text] of FIXED.slice(1)) {
      photo.items.forEach((item, i) => {
        if (item[key]) found.push([`${i}:${key}`, `${text}: ${label(item)}`, item[key], item]);
      });
    }
    photo.items.forEach((item, i) => {
      if (item.decoded) found.push([`${i}:decoded`, label(item), item.decoded, item]);
    });
    return found;
  }

  function drawPhotograph() {
    const photo = entry();
    byId("gallery-about").textContent = photo
      ? `Drag the divider, or move it with the arrow keys. Pictures are shown as ${data.lossless ? "PNG" : "WebP at quality 90; the run's folder has them as PNG"}.`
      : "There are no pictures in this report.";
    for (const id of ["compare", "strip", "facts-left", "facts-right"]) byId(id).hidden = !photo;
    if (!photo) return;
    const options = choices(photo);
    const first = options.find(([value]) => value.endsWith(":decoded"));
    for (const [id, fallback] of [["left", "original"], ["right", first ? first[0] : "original"]]) {
      const select = byId(id), before = select.selectedOptions[0]?.textContent;
      fill(select, options.map(([value, text]) => [value, text]), fallback);
      const same = options.find(([, text]) => visible(text) === before);
      if (same) select.value = same[0];
    }
    byId("compare").style.aspectRatio = `${photo.width} / ${photo.height}`;
    byId("compare").style.maxWidth = `min(960px, calc(80vh * ${photo.width / photo.height}))`;
    drawSides();
    byId("strip").replaceChildren(...options.map(([value, text, path, item]) => {
      const figure = element("figure", {},
        element("img", { src: path, alt: `${photo.picture}: ${text}`, loading: "lazy", width: photo.width, height: photo.height }),
        element("figcaption", {}, text + (item && value.endsWith(":decoded") ? `: ${item.bytes} bytes, ${number(item.bpp, 4)} bpp` : "")));
      return figure;
    }));
  }

  function drawSides() {
    const photo = entry(), options = choices(photo);
    for (const side of ["left", "right"]) {
      const [, text, path, item] = options.find(([value]) => value === byId(side).value);
      const image = byId(`compare-${side}`);
      image.src = path;
      image.alt = `${photo.picture}: ${text}`;
      const facts = [element("p", {}, text)];
      if (item) {
        const layers = Object.entries(item.layers).map(([name, size]) => `${name} ${size}`).join(", ");
        facts.push(element("p", {}, `${item.bytes} bytes, ${number(item.bpp, 5)} bpp`));
        if (layers) facts.push(element("p", { class: "quiet" }, `bytes: ${layers}`));
        if (item.prompt) facts.push(element("p", { class: "prompt-text" }, `prompt: ${item.prompt}`));
      }
      byId(`facts-${side}`).replaceChildren(...facts);
    }
    moveDivider(divider);
  }

  function moveDivider(percent) {
    divider = Math.min(100, Math.max(0, percent));
    byId("clip").style.clipPath = `inset(0 ${100 - divider}% 0 0)`;
    byId("divider").style.left = `${divider}%`;
    byId("divider").setAttribute("aria-valuenow", String(Math.round(divider)));
    byId("divider").setAttribute("aria-valuetext", `${Math.round(divider)} % left picture`);
  }

  const compare = byId("compare");
  const follow = (event) => {
    const box = compare.getBoundingClientRect();
    moveDivider((event.clientX - box.left) / box.width * 100);
  };
  compare.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    compare.setPointerCapture(event.pointerId);
    follow(event);
    compare.addEventListener("pointermove", follow);
    byId("divider").focus({ preventScroll: true });
    event.preventDefault();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    compare.addEventListener(end, () => compare.removeEventListener("pointermove", follow));
  }
  byId("divider").addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -20, PageUp: 20 };
    if (event.key === "Home") moveDivider(0);
    else if (event.key === "End") moveDivider(100);
    else if (event.key in steps) moveDivider(divider + steps[event.key]);
    else return;
    event.preventDefault();
  });
  for (const side of ["left", "right"]) byId(side).addEventListener("change", drawSides);
  byId("photograph").addEventListener("change", drawPhotograph);
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    byId(id).addEventListener("click", () => {
      const count = here(data.gallery).length;
      byId("photograph").value = String((Number(byId("photograph").value) + step + count) % count);
      drawPhotograph();
    });
  }
  function drawGallery() {
    fill(byId("photograph"), here(data.gallery).map((photo, i) => [String(i), photo.picture]), "0");
    drawPhotograph();
  }

  // All rows: sorted, filtered.
  const FIRST = ["picture", "codec", "setting", "bytes", "bpp"], LAST = ["encode_seconds", "decode_seconds", "seed", "prompt"];
  let sorted = { column: "picture", down: false };
  const numeric = (column) => !["picture", "codec", "setting", "prompt"].includes(column);

  function columns() {
    const present = new Set(here(data.rows).flatMap((row) => Object.keys(row)));
    const measures = Object.keys(data.measures).filter((m) => present.has(m));
    return [...FIRST, ...measures, ...LAST.filter((c) => present.has(c))];
  }

  function drawRows() {
    const words = byId("filter").value.toLowerCase(), codec = byId("filter-codec").value;
    const rows = here(data.rows).filter((row) => (!codec || row.codec === codec)
      && [row.picture, row.codec, row.setting, row.prompt ?? ""].join(" ").toLowerCase().includes(words));
    const { column, down } = sorted;
    rows.sort((a, b) => {
      const x = a[column], y = b[column];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const order = numeric(column) ? x - y : String(x).localeCompare(String(y), undefined, { numeric: true });
      return down ? -order : order;
    });
    byId("row-count").textContent = `${rows.length} rows`;
    const names = columns();
    const head = names.map((name) => {
      const button = element("button", { type: "button" }, name in data.measures ? data.measures[name].label : name.replace("_", " "));
      button.addEventListener("click", () => {
        sorted = { column: name, down: sorted.column === name && !sorted.down };
        drawRows();
        byId("row-table").querySelector(`th[data-column="${name}"] button`).focus();
      });
      return element("th", { scope: "col", "data-column": name, class: numeric(name) ? "number" : null,
        "aria-sort": sorted.column === name ? (down ? "descending" : "ascending") : "none" }, button);
    });
    const body = rows.map((row) => element("tr", {}, ...names.map((name) => {
      const cell = element("td", { class: numeric(name) ? "number" : name === "prompt" ? "prompt" : null },
        name === "bpp" ? number(row.bpp, 5) : shown(row[name]));
      if (name === "prompt" && row.prompt) cell.title = visible(row.prompt);
      return cell;
    })));
    byId("row-table").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...body)));
  }
  byId("filter").addEventListener("input", drawRows);
  byId("filter-codec").addEventListener("change", drawRows);

  // What is missing.
  function drawNotes() {
    const runs = data.runs.filter((run) => run.dataset.name === dataset);
    const lines = [];
    for (const run of runs) {
      const reasons = new Map();
      for (const [name, why] of Object.entries(run.left_out)) reasons.set(why, [...(reasons.get(why) ?? []), name]);
      for (const [why, names] of reasons) lines.push([names.join(", "), why]);
      for (const warning of run.warnings) lines.push(["note", warning]);
      for (const f of run.failures) {
        const whose = [f.codec, f.setting].filter(Boolean).join(", ");
        lines.push([`${f.picture === "*" ? "all pictures" : f.picture}${whose ? ", " + whose : ""}`, f.reason]);
      }
    }
    for (const note of data.notes) lines.push(["report", note]);
    byId("notes-list").replaceChildren(...(lines.length
      ? lines.map(([what, why]) => element("p", {}, element("strong", {}, what), ": " + why))
      : [element("p", {}, "Nothing.")]));
  }

  function drawAll() {
    const runs = data.runs.filter((run) => run.dataset.name === dataset);
    const about = runs.map((run) => {
      const d = run.dataset;
      const size = d.resize ? `, at most ${d.resize} pixels on the shorter side` : "";
      return `${run.name}: ${d.pictures} pictures of ${d.name}${size}`;
    });
    byId("about").textContent = visible(`${about.join("; ")}. Made by picsnet ${data.version}.`);
    fill(byId("filter-codec"), [["", "all"], ...codecs.map((c) => [c, c])], "");
    for (const draw of [drawLegend, drawCharts, drawMeans, drawRates, drawGallery, drawRows, drawNotes]) draw();
  }
  fill(byId("dataset"), data.datasets.map((name) => [name, name]), dataset);
  byId("dataset-label").hidden = data.datasets.length < 2;
  byId("dataset").addEventListener("change", () => { dataset = byId("dataset").value; drawAll(); });
  drawAll();
})();
