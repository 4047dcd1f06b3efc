"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { byId, element, visible } = look;
  look.followTheme();
  const codecs = Object.keys(data.styles);
  const hidden = new Set(); // series that the legend has switched off
  let dataset = data.datasets[0];

  const number = (value, digits) =>
    (value === null || value === undefined ? "" : value.toFixed(digits));
  function shown(value) {
    if (value === null || value === undefined) return "";
    if (typeof value !== "number" || Number.isInteger(value)) return String(value);
    const size = Math.abs(value);
    return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 4);
  }
  function named(measure) {
    const about = data.measures[measure];
    return about.label + (about.unit ? ` (${about.unit})` : "");
  }
  const counted = (pictures) => `${pictures} ${pictures === 1 ? "picture" : "pictures"}`;
  const unique = (items) => [...new Set(items)];
  const here = (items) => items.filter((item) => item.dataset === dataset);

  // Tables.
  function table(head, lines, firstNumber, firstText = Infinity) {
    const kind = (i) => (i >= firstNumber && i < firstText ? { class: "number" } : {});
    const titles = head.map((text, i) => element("th", { scope: "col", ...kind(i) }, text));
    const body = lines.map((line) => element("tr", {},
      ...line.map((cell, i) => element("td", kind(i), cell))));
    return element("table", {}, element("thead", {}, element("tr", {}, ...titles)),
      element("tbody", {}, ...body));
  }
  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
    if (chosen !== undefined) select.value = chosen;
  }

  // Charts.
  const WIDTH = 460, HEIGHT = 300, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 36;
  const ink = (codec) => {
    const { colour } = data.styles[codec];
    return colour === "#000000" ? "var(--first)" : colour;
  };

  function markPath(shape, x, y, r) {
    const path = {
      square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
      diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
      up: [[0, -1.2], [1.1, 1], [-1.1, 1]],
      down: [[0, 1.2], [1.1, -1], [-1.1, -1]],
    }[shape];
    if (path) return `M${path.map(([a, b]) => `${x + a * r},${y + b * r}`).join("L")}z`;
    if (shape === "cross") {
      return `M${x - r},${y - r}l${2 * r},${2 * r}m0,${-2 * r}l${-2 * r},${2 * r}`;
    }
    return `M${x - r},${y}a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`;
  }
  function codecMark(codec, x, y) {
    const { shape } = data.styles[codec], line = shape === "cross";
    return element("path", { d: markPath(shape, x, y, 3.6), stroke: ink(codec),
      fill: line ? "none" : ink(codec), "stroke-width": line ? 2 : 0.5 });
  }
  const lineOf = (codec) => ({ fill: "none", stroke: ink(codec), "stroke-width": 1.6,
    "stroke-dasharray": data.styles[codec].dashed ? "5 3" : null });
  const hollowMark = (name, x, y) => element("path", { d: markPath(data.hollow[name], x, y, 4.5),
    fill: "transparent", stroke: "var(--ink)", "stroke-width": 1.6 });

  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const found = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(v);
    return found;
  }

  // Only what was measured as here: what was not is listed below the charts.
  const isDrawn = (p) => p.on.includes(dataset)
    || (byId("foreign").checked && p.beside.includes(dataset));
  const publishedOf = (measure) => data.published.filter((p) => p.metric === measure
    && !hidden.has(`published ${p.system}`) && isDrawn(p));
  // Each measure is drawn against the rate of the pictures that have it.
  const rateOf = (measure) => (p) => p.measures[measure].bpp;
  const pointsOf = (measure) => here(data.points).filter((p) => measure in p.measures
    && rateOf(measure)(p) > 0);
  const bounds = ({ mean, low, high }) => [mean, low ?? mean, high ?? mean];

  function chart(measure) {
    const points = pointsOf(measure).filter((p) => !hidden.has(p.codec));
    const published = publishedOf(measure);
    const about = data.measures[measure];
    const better = about.higher_is_better ? "higher is better" : "lower is better";
    const box = element("div", { class: "chart" },
      element("h3", {}, named(measure) + " ", element("small", {}, better)));
    if (!points.length && !published.length) {
      box.append(element("p", { class: "quiet" }, "All of its series are hidden."));
      return box;
    }
    box.append(drawing(measure, points, published));
    const links = (data.figures[dataset]?.[measure] ?? []).map((href) =>
      element("a", { href }, href.slice(href.lastIndexOf(".") + 1).toUpperCase()));
    box.append(element("div", { class: "foot" },
      element("details", {}, element("summary", {}, "as a table"),
        chartTable(measure, points, published)),
      element("span", {}, ...links.flatMap((link) => [link, " "]))));
    return box;
  }

  function drawing(measure, points, published) {
    const about = data.measures[measure], rate = rateOf(measure);
    const xs = [...points.map(rate), ...published.map((p) => p.bpp)];
    const ys = [...points.flatMap((p) => bounds(p.measures[measure])),
      ...published.map((p) => p.value)];
    const x0 = Math.log10(Math.min(...xs) / 1.25), x1 = Math.log10(Math.max(...xs) * 1.25);
    const pad = (Math.max(...ys) - Math.min(...ys)) * 0.06 || 0.5;
    const y0 = Math.min(...ys) - pad, y1 = Math.max(...ys) + pad;
    const X = (v) => LEFT + (Math.log10(v) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    const Y = (v) => HEIGHT - BOTTOM - (v - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
      "aria-label": `${named(measure)} against bits per pixel` });
    axes(svg, x0, x1, y0, y1, X, Y);
    const marks = [], names = [];
    for (const codec of codecs) {
      const own = points.filter((p) => p.codec === codec)
        .sort((a, b) => rate(a) - rate(b));
      svg.append(element("polyline", { ...lineOf(codec),
        points: own.map((p) => `${X(rate(p))},${Y(p.measures[measure].mean)}`).join(" ") }));
      for (const p of own) {
        const v = p.measures[measure], x = X(rate(p)), y = Y(v.mean);
        let range = "";
        if (v.low !== null) {
          svg.append(element("line", { class: "bar95", x1: x, x2: x, y1: Y(v.low), y2: Y(v.high),
            stroke: ink(codec), "stroke-width": 0.8, opacity: 0.6 }));
          range = ` (${shown(v.low)} to ${shown(v.high)})`;
        }
        marks.push({ x, y, node: codecMark(codec, x, y), text: `${codec}, ${p.setting}\n` +
          `${number(v.bpp, 5)} bpp, ` +
          (v.pictures === p.pictures ? `${number(p.bytes, 0)} bytes, ` : "") +
          `${counted(v.pictures)}\n` +
          `${about.label} ${shown(v.mean)}${range}` });
      }
    }
    for (const p of published) {
      const x = X(p.bpp), y = Y(p.value), foreign = !p.on.includes(dataset);
      marks.push({ x, y, node: hollowMark(p.system, x, y), text: `${p.system}, published, on ` +
        `${p.dataset}\n${p.bpp} bpp, ${about.label} ${p.value}\n${p.source}` });
      names.push([x, y, p.system + (foreign ? ", " + p.dataset : "")]);
    }
    const taken = marks.map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
    for (const [x, y, text] of names) label(svg, taken, x, y, text);
    addMarks(svg, marks);
    return svg;
  }

  function axes(svg, x0, x1, y0, y1, X, Y) {
    for (const v of ticks(y0, y1, 5)) {
      svg.append(
        element("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: Y(v), y2: Y(v) }),
        element("text", { x: LEFT - 6, y: Y(v) + 4, "text-anchor": "end" },
          String(+v.toPrecision(4))));
    }
    const rates = [];
    for (let e = -6; e <= 1; e++) for (const m of [1, 2, 5]) rates.push(+`${m}e${e}`);
    const inside = rates.filter((r) => Math.log10(r) >= x0 && Math.log10(r) <= x1);
    const decade = (v) => Number.isInteger(+Math.log10(v).toFixed(6));
    const taken = []; // decades have the first choice of room, then the others
    for (const v of [...inside.filter(decade), ...inside.filter((r) => !decade(r))]) {
      const x = X(v), half = String(v).length * 3.4 + 3;
      svg.append(element("line", { class: "rule", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
      if (taken.some(([a, b]) => x - half < b && x + half > a)) continue;
      taken.push([x - half, x + half]);
      svg.append(
        element("text", { x, y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(v)));
    }
    svg.append(element("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" },
      "bits per pixel"));
  }

  // Beside its mark where there is room; a name that would cover another is left to the tooltip.
  function label(svg, taken, x, y, text) {
    const width = text.length * 6.8;
    for (const [anchor, at, base] of [["start", x + 8, y + 4], ["end", x - 8, y + 4],
      ["middle", x, y - 9], ["middle", x, y + 18]]) {
      const left = at - { start: 0, middle: width / 2, end: width }[anchor];
      const box = [left, base - 11, left + width, base + 2];
      const free = left >= LEFT && box[2] <= WIDTH - 2 && box[1] >= 0 && base <= HEIGHT - BOTTOM
        && taken.every((o) => box[0] > o[2] || box[2] < o[0] || box[1] > o[3] || box[3] < o[1]);
      if (!free) continue;
      taken.push(box);
      svg.append(element("text", { class: "label", x: at, y: base, "text-anchor": anchor }, text));
      return;
    }
  }

  // One stop of the tab key a chart; arrow keys go between its marks, and the pointer has the
  // nearest one, since marks are smaller than fingers.
  const tip = byId("tip");
  const hideTip = () => {
    tip.hidden = true;
    for (const node of document.querySelectorAll(".near")) node.classList.remove("near");
  };
  function showTip({ node, text }) {
    hideTip();
    node.classList.add("near");
    tip.textContent = visible(text);
    tip.hidden = false;
    const at = node.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left + 12, room)) + scrollX}px`;
    tip.style.top = `${at.bottom + 10 + scrollY}px`;
  }
  function addMarks(svg, marks) {
    for (const mark of marks) {
      const attributes = { class: "mark", role: "img", tabindex: mark === marks[0] ? 0 : -1,
        "aria-label": mark.text.replaceAll("\n", "; ") };
      for (const [key, value] of Object.entries(attributes)) {
        mark.node.setAttribute(key, visible(String(value)));
      }
      mark.node.addEventListener("focus", () => showTip(mark));
      mark.node.addEventListener("blur", hideTip);
      svg.append(mark.node);
    }
    svg.addEventListener("keydown", (event) => {
      const at = marks.findIndex((mark) => mark.node === document.activeElement);
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1,
        Home: 0, End: marks.length - 1 }[event.key];
      if (event.key === "Escape") hideTip();
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const next = marks[Math.max(0, Math.min(marks.length - 1, to))].node;
      marks[at].node.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
    const point = (event) => {
      const box = svg.getBoundingClientRect(), scale = box.width / WIDTH;
      const away = (mark) => Math.hypot(box.left + mark.x * scale - event.clientX,
        box.top + mark.y * scale - event.clientY);
      const near = marks.reduce((a, b) => (away(b) < away(a) ? b : a));
      if (away(near) < (event.pointerType === "touch" ? 32 : 20)) showTip(near);
      else hideTip();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => {
      if (event.pointerType !== "touch") hideTip(); // a lifted finger leaves at once
    });
  }
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".chart svg")) hideTip();
  });

  function chartTable(measure, points, published) {
    const lines = [...points.map((p) => {
      const v = p.measures[measure];
      return [p.codec, p.setting, String(v.pictures), number(v.bpp, 5), shown(v.mean),
        v.low === null ? "" : `${shown(v.low)} to ${shown(v.high)}`];
    }), ...published.map((p) =>
      [p.system, `published, ${p.dataset}`, "", String(p.bpp), String(p.value), ""])];
    return element("div", { class: "scroll tall", role: "region", tabindex: 0,
      "aria-label": `${named(measure)} as a table` },
    table(["codec", "setting", "pictures", "bpp", data.measures[measure].label, "95 % interval"],
      lines, 2));
  }

  function drawCharts() {
    hideTip();
    const any = (measure) => pointsOf(measure).length || publishedOf(measure).length;
    byId("chart-grid").replaceChildren(...Object.keys(data.measures).filter(any).map(chart));
    const shownOnes = Object.keys(data.measures).flatMap(publishedOf);
    byId("sources").hidden = !shownOnes.length;
    byId("sources-table").replaceChildren(table(["whose", "dataset", "bpp", "measure", "value",
      "source"], shownOnes.map((p) => [p.system, p.dataset, String(p.bpp),
      p.label, String(p.value), p.source]), 2, 2));
  }

  function drawOtherwise() {
    const lines = data.published.filter((p) => dataset in p.otherwise).map((p) =>
      [p.system, String(p.bpp), p.label, String(p.value), p.otherwise[dataset], p.source]);
    byId("otherwise").hidden = !lines.length;
    byId("otherwise-table").replaceChildren(table(
      ["whose", "bpp", "measure", "value", "how, and how here", "source"], lines, 1, 1));
  }

  function legendButton(key, text, sample) {
    const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(key)) },
      sample, text);
    button.addEventListener("click", () => {
      if (!hidden.delete(key)) hidden.add(key);
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      drawCharts();
    });
    return button;
  }
  function drawLegend() {
    const sample = (...parts) =>
      element("svg", { viewBox: "0 0 18 14", "aria-hidden": "true" }, ...parts);
    const own = codecs.filter((codec) => here(data.points).some((p) => p.codec === codec));
    const others = unique(data.published.filter(isDrawn).map((p) => p.system));
    byId("legend").replaceChildren(
      ...own.map((codec) => legendButton(codec, codec, sample(
        element("line", { ...lineOf(codec), x1: 0, x2: 18, y1: 7, y2: 7 }),
        codecMark(codec, 9, 7)))),
      ...others.map((name) => legendButton(`published ${name}`, `${name}, published`,
        sample(hollowMark(name, 9, 7)))));
  }
  byId("foreign").addEventListener("change", () => { drawLegend(); drawCharts(); });

  // Tables of means and BD-rates.
  function drawMeans() {
    const points = here(data.points);
    const measures = Object.keys(data.measures).filter((m) => points.some((p) => m in p.measures));
    const cell = (p, v) => (!v ? ""
      : shown(v.mean) + (v.pictures === p.pictures ? "" : ` (of ${v.pictures})`));
    const lines = points.map((p) => [p.codec, p.setting, String(p.pictures), number(p.bytes, 0),
      number(p.bpp.mean, 5), ...measures.map((m) => cell(p, p.measures[m])),
      number(p.encode_seconds, 2), number(p.decode_seconds, 2)]);
    byId("means-table").replaceChildren(table(["codec", "setting", "pictures", "bytes", "bpp",
      ...measures.map((m) => data.measures[m].label), "encode, s", "decode, s"], lines, 2));
  }

  function drawRates() {
    const rates = here(data.bd_rates), select = byId("bd-measure");
    const key = (rate) => `${rate.scale} ${rate.measure}`;
    const kinds = [...new Map(rates.map((rate) => [key(rate), rate])).entries()];
    const chosen = kinds.some(([k]) => k === select.value) ? select.value : kinds[0]?.[0];
    fill(select, kinds.map(([k, rate]) =>
      [k, named(rate.measure) + (rate.scale === "dB" ? ", in dB" : "")]), chosen);
    byId("bd-label").hidden = !kinds.length;
    byId("bd-reasons").replaceChildren();
    if (!kinds.length) {
      byId("bd-table").replaceChildren(element("p", {}, data.bd_note
        || "No two codecs have the same measure at two settings or more."));
      return;
    }
    const own = rates.filter((rate) => key(rate) === chosen);
    const names = codecs.filter((codec) => own.some((rate) => rate.codec === codec));
    const reasons = [];
    const cell = (codec, anchor) => {
      const rate = own.find((one) => one.codec === codec && one.anchor === anchor);
      if (!rate) return "";
      if (rate.percent === null) {
        if (!reasons.includes(rate.reason)) reasons.push(rate.reason);
        return `none [${reasons.indexOf(rate.reason) + 1}]`;
      }
      const sign = rate.percent >= 0 ? "+" : "";
      return `${sign}${rate.percent.toFixed(1)} % (${Math.round(100 * rate.overlap)} %)`;
    };
    byId("bd-table").replaceChildren(table(["codec", ...names.map((n) => "against " + n)],
      names.map((codec) => [codec, ...names.map((anchor) => cell(codec, anchor))]), 1));
    const alone = unique(here(data.points).filter((p) => own[0].measure in p.measures)
      .map((p) => p.codec)).filter((codec) => !names.includes(codec));
    const lines = reasons.map((reason, i) => `[${i + 1}] ${reason}`);
    if (alone.length) lines.push(`Not compared, having one setting only: ${alone.join(", ")}`);
    byId("bd-reasons").replaceChildren(
      ...lines.map((line) => element("p", { class: "quiet" }, line)));
  }
  byId("bd-measure").addEventListener("change", drawRates);

  // Gallery.
  const divider = look.makeDivider("left picture");
  const entry = () => here(data.gallery)[Number(byId("photograph").value)];

  // Sketches that several settings share stand there once.
  function shared(photo, key, title) {
    const paths = unique(photo.items.filter((item) => item[key]).map((item) => item[key]));
    return paths.map((path) => {
      const items = photo.items.filter((item) => item[key] === path);
      const whose = unique(items.map((item) => item.codec)).map((codec) => {
        const own = items.filter((item) => item.codec === codec).map((item) => item.setting);
        const all = photo.items.filter((item) => item.codec === codec && item[key]);
        return own.length === all.length && own.length > 1 ? codec : `${codec}, ${own.join(", ")}`;
      });
      const text = paths.length === 1 ? title : `${title} of ${whose.join("; ")}`;
      return { value: `${key} ${path}`, text, path, item: null, group: title };
    });
  }

  function choices(photo) {
    const found = photo.original
      ? [{ value: "original", text: "original", path: photo.original, item: null, group: "" }] : [];
    found.push(...shared(photo, "sketch", "sketch"));
    photo.items.forEach((item, i) => {
      const whose = `${item.codec}, ${item.setting}`;
      if (item.decoded_sketch) {
        found.push({ value: `${i} decoded_sketch`, text: `decoded sketch of ${whose}`,
          path: item.decoded_sketch, item, group: "decoded sketch" });
      }
    });
    photo.items.forEach((item, i) => {
      if (item.decoded) {
        found.push({ value: `${i} decoded`, text: `${item.codec}, ${item.setting}`,
          path: item.decoded, item, group: item.codec });
      }
    });
    return found;
  }

  function fillChoices(select, options, fallback) {
    const before = select.selectedOptions[0]?.textContent;
    select.replaceChildren(...unique(options.map((option) => option.group)).map((group) => {
      const own = options.filter((option) => option.group === group)
        .map(({ value, text }) => element("option", { value }, text));
      return own.length > 1 ? element("optgroup", { label: group }, ...own) : own[0];
    }));
    const same = options.find(({ text }) => visible(text) === before);
    select.value = (same ?? fallback).value;
  }

  function drawPhotograph() {
    const photo = entry(), options = photo ? choices(photo) : [];
    byId("gallery-body").hidden = !options.length;
    byId("gallery-about").textContent = !options.length
      ? "There are no pictures of this dataset in this report."
      : "Drag the divider, or move it with the arrow keys. " + (data.lossless
        ? "Pictures are PNG, just as they were decoded."
        : "Pictures are shown as WebP of quality 90; the run's folder has them as PNG.");
    if (!options.length) return;
    const decoded = options.find(({ value }) => value.endsWith(" decoded"));
    fillChoices(byId("left"), options, options[0]);
    fillChoices(byId("right"), options, decoded ?? options[0]);
    const ratio = photo.width / photo.height;
    look.fit(ratio);
    byId("strip").replaceChildren(...options.map(({ value, text, path, item }) => {
      const rate = item && value.endsWith(" decoded")
        ? `: ${item.bytes} bytes, ${number(item.bpp, 4)} bpp` : "";
      const button = element("button", { type: "button", "data-value": value },
        element("img", { src: path, alt: "", loading: "lazy", width: photo.width,
          height: photo.height }), text + rate);
      button.addEventListener("click", () => {
        byId("right").value = value;
        drawSides();
        byId("compare").scrollIntoView({ block: "nearest" });
      });
      return button;
    }));
    drawSides();
  }

  function facts({ text, item }, photo) {
    const lines = [element("p", {}, text)];
    if (!item) {
      const size = `${photo.width} x ${photo.height} pixels`;
      return [...lines, element("p", { class: "quiet" }, size)];
    }
    lines.push(element("p", {}, `${item.bytes} bytes, ${number(item.bpp, 5)} bpp`));
    const layers = Object.entries(item.layers).map(([name, size]) => `${name} ${size}`).join(", ");
    if (layers) lines.push(element("p", { class: "quiet" }, `bytes: ${layers}`));
    if (item.prompt) lines.push(element("p", { class: "prompt-text" }, `prompt: ${item.prompt}`));
    return lines;
  }

  function drawSides() {
    const photo = entry(), options = choices(photo);
    for (const side of ["left", "right"]) {
      const option = options.find(({ value }) => value === byId(side).value);
      const image = byId(`compare-${side}`);
      image.setAttribute("src", option.path);
      image.setAttribute("alt", visible(`${side}: ${photo.picture}, ${option.text}`));
      byId(`facts-${side}`).replaceChildren(...facts(option, photo));
    }
    for (const button of byId("strip").children) {
      button.setAttribute("aria-pressed", String(button.dataset.value === byId("right").value));
    }
    divider.show();
  }

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
  const TEXTS = ["picture", "codec", "setting", "prompt"];
  const FIRST = ["picture", "codec", "setting", "bytes", "bpp"];
  const LAST = ["encode_seconds", "decode_seconds", "seed", "prompt"];
  const TITLES = { encode_seconds: "encode, s", decode_seconds: "decode, s" };
  const collator = new Intl.Collator(undefined, { numeric: true });
  let sorted = { column: "picture", down: false };

  function columns() {
    const present = new Set(here(data.rows).flatMap((row) => Object.keys(row)));
    return [...FIRST, ...Object.keys(data.measures).filter((m) => present.has(m)),
      ...LAST.filter((column) => present.has(column))];
  }

  function chosenRows() {
    const words = byId("filter").value.trim().toLowerCase(), codec = byId("filter-codec").value;
    const { column, down } = sorted;
    const order = TEXTS.includes(column) ? collator.compare : (x, y) => x - y;
    return here(data.rows).filter((row) => (!codec || row.codec === codec)
      && TEXTS.map((name) => row[name] ?? "").join(" ").toLowerCase().includes(words))
      .sort((a, b) => {
        const x = a[column], y = b[column];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return down ? order(y, x) : order(x, y);
      });
  }

  function rowCell(row, name) {
    const kind = name === "prompt" ? "prompt" : TEXTS.includes(name) ? null : "number";
    const text = name === "bpp" ? number(row.bpp, 5)
      : name.endsWith("_seconds") ? number(row[name], 2) : shown(row[name]);
    return element("td", { class: kind, title: kind === "prompt" ? row.prompt : null }, text);
  }

  // A thousand lines are slow to make and to lay out: each is made once, and what stays is left.
  const made = new Map(), body = element("tbody"), titles = element("tr");
  byId("row-table").append(element("table", {}, element("thead", {}, titles), body));
  function rowLine(row, names) {
    if (!made.has(row)) {
      made.set(row, element("tr", {}, ...names.map((name) => rowCell(row, name))));
    }
    return made.get(row);
  }
  function show(lines) {
    const kept = new Set(lines);
    for (const line of [...body.children]) if (!kept.has(line)) line.remove();
    let next = body.firstChild;
    for (const line of lines) {
      if (line === next) next = next.nextSibling;
      else body.insertBefore(line, next);
    }
  }

  function title(name) {
    const button = element("button", { type: "button" },
      data.measures[name]?.label ?? TITLES[name] ?? name);
    button.addEventListener("click", () => {
      sorted = { column: name, down: sorted.column === name && !sorted.down };
      drawRows();
    });
    return element("th", { scope: "col", "data-column": name,
      class: TEXTS.includes(name) ? "sorter" : "sorter number" }, button);
  }
  function drawTitles() {
    titles.replaceChildren(...columns().map(title));
  }

  function drawRows() {
    const rows = chosenRows(), names = columns();
    byId("row-count").textContent = `${rows.length} rows`;
    for (const cell of titles.children) {
      const direction = sorted.down ? "descending" : "ascending";
      cell.setAttribute("aria-sort", cell.dataset.column === sorted.column ? direction : "none");
    }
    show(rows.map((row) => rowLine(row, names)));
  }
  byId("filter").addEventListener("input", drawRows);
  byId("filter-codec").addEventListener("change", drawRows);

  // What is missing.
  function drawNotes() {
    const lines = [];
    for (const run of data.runs.filter((one) => one.dataset.name === dataset)) {
      const reasons = new Map();
      for (const [name, why] of Object.entries(run.left_out)) {
        reasons.set(why, [...(reasons.get(why) ?? []), name]);
      }
      for (const [why, names] of reasons) lines.push([names.join(", "), why]);
      for (const warning of run.warnings) lines.push(["note", warning]);
      for (const { picture, codec, setting, reason } of run.failures) {
        const what = picture === "*" ? "all pictures" : picture;
        lines.push([[what, codec, setting].filter(Boolean).join(", "), reason]);
      }
    }
    for (const note of data.notes) lines.push(["report", note]);
    byId("notes-list").replaceChildren(...(lines.length
      ? lines.map(([what, why]) => element("p", {}, element("strong", {}, what), ": " + why))
      : [element("p", {}, "Nothing.")]));
  }

  function drawAll() {
    const about = data.runs.filter((run) => run.dataset.name === dataset).map((run) => {
      const { pictures, name, resize } = run.dataset;
      const size = resize ? `, at most ${resize} pixels on the shorter side` : "";
      const against = run.references ? `, FID and KID against ${run.references}` : "";
      return `${run.name}: ${pictures} pictures of ${name}${size}${against}`;
    });
    byId("about").textContent = visible(`${about.join("; ")}. Made by picsnet ${data.version}.`);
    const own = codecs.filter((codec) => here(data.rows).some((row) => row.codec === codec));
    fill(byId("filter-codec"), [["", "all"], ...own.map((codec) => [codec, codec])], "");
    for (const draw of [drawLegend, drawCharts, drawOtherwise, drawMeans, drawRates, drawGallery,
      drawTitles, drawRows, drawNotes]) draw();
  }
  fill(byId("dataset"), data.datasets.map((name) => [name, name]), dataset);
  byId("dataset-label").hidden = data.datasets.length < 2;
  byId("dataset").addEventListener("change", () => {
    dataset = byId("dataset").value;
    drawAll();
  });
  drawAll();
})();
