"use strict";
(() => {
  const { byId, element, visible } = look;
  look.followTheme();
  const divider = look.makeDivider("left picture");

  const MODES = { pics: "prompt and sketch", pic: "prompt alone", sketch: "sketch alone" };
  const NAMES = { original: "original", sketch: "sketch", decoded_sketch: "decoded sketch",
    picture: "reconstruction" };
  const MAGIC = 0xf5; // the first byte of a .pics file
  const POLL = 400; // milliseconds
  let models = null; // what the server has and allows
  let chosen = null; // the last photograph, to be coded again
  let running = null; // the AbortController of what is being done
  let addresses = []; // of pictures in memory, given back when the next result comes

  class ServerError extends Error {}

  // Talking to the server.

  async function ask(path, options) {
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("the server does not answer; see whether it is running");
    }
    if (response.ok) return response.json();
    let text = `the server answers with status ${response.status}`;
    try {
      text = (await response.json()).error ?? text;
    } catch { /* a proxy's page: the status says enough */ }
    const error = new ServerError(text);
    error.retry = response.status === 503 ? Number(response.headers.get("Retry-After")) : 0;
    throw error;
  }

  // One request that waits its turn, and what is known of it meanwhile.
  async function work(path, body, what, signal) {
    const name = crypto.getRandomValues(new Uint32Array(4)).join("-");
    say(`Sending ${what}`, null);
    const poll = setInterval(async () => {
      try {
        const response = await fetch(`v1/requests/${name}`, { signal });
        if (response.ok && !signal.aborted) tell(await response.json(), what);
      } catch { /* the request itself will say what is wrong */ }
    }, POLL);
    try {
      return await ask(path, { method: "POST", body, signal,
        headers: { Accept: "application/json", "X-Request-Id": name,
          "Content-Type": "application/octet-stream" } });
    } finally {
      clearInterval(poll);
    }
  }

  function tell({ state, seconds, place, usual_seconds: usual }, what) {
    if (running === null) return;
    if (state === "receiving") say(`Sending ${what}`, null);
    else if (state === "waiting") say(`Waiting: place ${place} in the queue`, null);
    else if (state === "sending") say("Receiving the answer", null);
    else if (usual === null) say(`Working on ${what}: ${seconds.toFixed(0)} s`, null);
    else {
      say(`Working on ${what}: ${seconds.toFixed(0)} s of usually ${Math.ceil(usual)} s`,
        Math.min(0.97, seconds / usual));
    }
  }

  function say(text, share) {
    byId("status").textContent = visible(text);
    if (share === null) byId("progress").removeAttribute("value");
    else byId("progress").value = share;
  }

  function complain(text) {
    byId("error").textContent = text === "" ? "" : visible(text);
    byId("error").hidden = text === "";
  }

  // What was dropped.

  function take(file) {
    if (models === null) return complain("The models are still loading; wait a moment.");
    if (file.size > models.limits.bytes) {
      return complain(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MiB; at most ` +
        `${(models.limits.bytes / 2 ** 20).toFixed(0)} MiB are allowed.`);
    }
    return run(file, codeOrDecode);
  }

  async function codeOrDecode(file, signal) {
    const first = new Uint8Array(await file.slice(0, 1).arrayBuffer())[0];
    if (first === MAGIC || file.name.toLowerCase().endsWith(".pics")) return decode(file, signal);
    chosen = file;
    byId("again").disabled = false;
    return encode(file, signal);
  }

  async function run(file, does) {
    running?.abort();
    const mine = running = new AbortController();
    complain("");
    say(`Reading ${file.name}`, null);
    byId("work").hidden = false;
    try {
      await does(file, mine.signal);
    } catch (error) {
      if (error.name === "AbortError" || running !== mine) return;
      complain(error instanceof ServerError ? sentence(error)
        : `This page failed: ${error.message}.`);
    } finally {
      if (running === mine) {
        running = null;
        byId("work").hidden = true;
      }
    }
  }

  function sentence(error) {
    const text = error.message[0].toUpperCase() + error.message.slice(1);
    return error.retry > 1 ? `${text} (in ${error.retry} s)` : text;
  }

  async function encode(file, signal) {
    const mode = byId("mode").value;
    const asked = new URLSearchParams({ mode, parts: "true" });
    if (mode !== "pic" && models.sketch_model.quality) asked.set("quality", byId("quality").value);
    if (mode !== "sketch") {
      asked.set("candidates", byId("candidates").value);
      if (byId("prompt").value.trim()) asked.set("prompt", byId("prompt").value.trim());
    }
    const coded = await work(`v1/encode?${asked}`, file, file.name, signal);
    const pics = bytes(coded.pics);
    const shown = show(file.name, coded, pics);
    const pictures = { original: { address: shown(file), spare: shown(bytes(coded.original),
      "image/jpeg") } };
    for (const part of ["sketch", "decoded_sketch"]) {
      if (coded[part]) pictures[part] = { address: shown(bytes(coded[part]), "image/png") };
    }
    if (mode === "sketch") return compare(pictures, coded, "sketch", "decoded_sketch");
    compare(pictures, coded, "original", pictures.decoded_sketch ? "decoded_sketch" : "original");
    const drawn = await work("v1/decode", pics, "the reconstruction", signal);
    pictures.picture = { address: shown(bytes(drawn.picture), "image/png") };
    offer(pictures.picture.address, file.name);
    return compare(pictures, coded, "original", "picture");
  }

  async function decode(file, signal) {
    say(`Sending ${file.name}`, null);
    const info = await ask("v1/info", { method: "POST", body: file, signal,
      headers: { "Content-Type": "application/octet-stream" } });
    const whole = info.decoder !== null && models.decoder !== null;
    const asked = new URLSearchParams({ parts: "true", sketch_only: String(!whole) });
    const drawn = await work(`v1/decode?${asked}`, file, file.name, signal);
    const shown = show(file.name, { ...info, prompt: drawn.prompt, seconds: drawn.seconds }, file);
    const pictures = {};
    const address = shown(bytes(drawn.picture), "image/png");
    pictures[drawn.kind === "sketch" ? "decoded_sketch" : "picture"] = { address };
    if (drawn.decoded_sketch && drawn.kind !== "sketch") {
      pictures.decoded_sketch = { address: shown(bytes(drawn.decoded_sketch), "image/png") };
    }
    offer(address, file.name);
    const [left, right] = pictures.picture && pictures.decoded_sketch
      ? ["decoded_sketch", "picture"] : Object.keys(pictures).concat(Object.keys(pictures));
    compare(pictures, drawn, left, right);
  }

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stem = (name) => name.replace(/\.[^.]*$/, "") || "picture";

  // The result. Texts out of files are only ever set as text.

  function show(name, figures, pics) {
    for (const address of addresses) URL.revokeObjectURL(address);
    addresses = [];
    const shown = (data, type) => {
      const address = URL.createObjectURL(data instanceof Blob ? data : new Blob([data], { type }));
      addresses.push(address);
      return address;
    };
    byId("result").hidden = false;
    byId("result-title").textContent = visible(name);
    byId("rate").textContent = `${figures.bytes} bytes, ${figures.bpp.toFixed(5)} bits per pixel ` +
      `of ${figures.width} x ${figures.height}`;
    byId("prompt-part").hidden = !figures.prompt;
    byId("prompt-text").textContent = visible(figures.prompt ?? "");
    const rows = Object.entries(figures.layers).filter(([, size]) => size);
    byId("layers").replaceChildren(
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "layer"),
        element("th", { scope: "col", class: "number" }, "bytes"))),
      element("tbody", {}, ...[...rows, ["all", figures.bytes]].map(([layer, size]) =>
        element("tr", {}, element("td", {}, layer),
          element("td", { class: "number" }, String(size))))));
    const seconds = Object.entries(figures.seconds)
      .map(([stage, value]) => `${stage} ${value.toFixed(2)} s`).join(", ");
    byId("seconds").textContent = `Took: ${seconds}`;
    byId("download").href = shown(pics, "application/octet-stream");
    byId("download").setAttribute("download", `${stem(name)}.pics`);
    byId("download").textContent = `Download ${visible(stem(name))}.pics`;
    byId("download-picture").hidden = true;
    if (byId("result").getBoundingClientRect().top > innerHeight / 2) {
      byId("result").scrollIntoView({ block: "start" }); // on a phone it begins below the edge
    }
    return shown;
  }

  function offer(address, name) {
    byId("download-picture").hidden = false;
    byId("download-picture").href = address;
    byId("download-picture").setAttribute("download", `${stem(name)}.png`);
  }

  function compare(pictures, { width, height }, left, right) {
    const some = Object.keys(NAMES).filter((key) => pictures[key]);
    look.fit(width / height);
    byId("compare").hidden = false;
    byId("sides").hidden = false;
    place("left", pictures, left);
    byId("strip").replaceChildren(...some.map((key) => {
      const image = element("img", { alt: "", width, height });
      load(image, pictures[key]);
      const button = element("button", { type: "button", "data-part": key }, image, NAMES[key]);
      button.addEventListener("click", () => choose(key));
      return button;
    }));
    function choose(key) {
      place("right", pictures, key);
      byId("sides").textContent = left === key ? `The ${NAMES[key]}.`
        : `Left of the divider: ${NAMES[left]}. Right: ${NAMES[key]}. Drag it, or use the arrow ` +
          "keys; press a picture below to see it on the right.";
      for (const button of byId("strip").children) {
        button.setAttribute("aria-pressed", String(button.dataset.part === key));
      }
    }
    choose(right);
    divider.show();
  }

  function place(side, pictures, key) {
    load(byId(`compare-${side}`), pictures[key]);
    byId(`compare-${side}`).setAttribute("alt", `${side}: ${NAMES[key]}`);
  }

  // A format that the browser cannot show comes back from the server in one that it can.
  function load(image, { address, spare }) {
    image.onerror = spare ? () => { image.onerror = null; image.src = spare; } : null;
    image.src = address;
  }

  // Choosing.

  byId("file").addEventListener("change", () => {
    const [file] = byId("file").files;
    if (file) take(file);
    byId("file").value = ""; // the same file can be chosen again
  });
  byId("options").addEventListener("submit", (event) => {
    event.preventDefault();
    if (chosen) run(chosen, encode);
  });
  byId("cancel").addEventListener("click", () => running?.abort());
  const ground = document.documentElement;
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      ground.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) ground.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    ground.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) take(file);
    else complain("That was no file; drop a photograph or a .pics file.");
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) take(file);
  });

  function showOptions() {
    const mode = byId("mode").value, quality = models.sketch_model.quality;
    byId("quality-label").hidden = mode === "pic" || !quality;
    byId("quality-value").textContent = byId("quality").value;
    byId("candidates-label").hidden = byId("prompt-label").hidden = mode === "sketch";
  }
  byId("options").addEventListener("input", showOptions);

  async function samples() {
    const names = await ask("samples");
    byId("samples").hidden = !names.length;
    byId("samples").replaceChildren(...names.map((name) => {
      const image = element("img", { src: `samples/${name}`, alt: "", loading: "lazy" });
      const button = element("button", { type: "button" }, image, name);
      button.addEventListener("click", async () => {
        try {
          const response = await fetch(`samples/${name}`);
          if (!response.ok) throw new ServerError(name);
          const blob = await response.blob();
          take(new File([blob], `${name}.png`, { type: blob.type }));
        } catch {
          complain("The sample cannot be fetched; see whether the server is running.");
        }
      });
      return button;
    }));
  }

  async function begin() {
    try {
      models = await ask("v1/models");
    } catch (error) {
      byId("about").textContent = error.retry ? "Loading models..." : sentence(error);
      setTimeout(begin, 1000);
      return;
    }
    const { sketch_model: model, decoder, limits } = models;
    byId("about").textContent = `Sketch model ${model.name}; ` +
      (decoder ? `decoder ${decoder.name}` : "no decoder: sketches alone") +
      `; pictures to ${(limits.pixels / 1e6).toFixed(1)} megapixels and ` +
      `${(limits.bytes / 2 ** 20).toFixed(0)} MiB.`;
    byId("mode").replaceChildren(...models.modes.map((mode) =>
      element("option", { value: mode }, MODES[mode])));
    if (model.quality) {
      const { least, most, step, default: value } = model.quality;
      Object.assign(byId("quality"), { min: least, max: most, step, value });
    }
    byId("candidates").max = limits.candidates;
    byId("candidates").value = Math.min(limits.candidates, decoder ? decoder.candidates : 1);
    showOptions();
  }

  samples().catch(() => {});
  begin();
})();
