"use strict";
// What pages of picsnet have in common: texts, theme, and the divider between two pictures.
const look = (() => {
  const byId = (id) => document.getElementById(id);

  // Texts come out of files and folders: they are only ever set as text or attributes.
  const SVG = new Set(["svg", "path", "line", "text", "polyline"]);
  const SPOKEN = new Set(["aria-label", "alt", "title", "label"]);
  function element(name, attributes = {}, ...children) {
    const node = SVG.has(name) ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined || value === null) continue;
      node.setAttribute(key, SPOKEN.has(key) ? visible(String(value)) : value);
    }
    node.append(...children.map((child) => (typeof child === "string" ? visible(child) : child)));
    return node;
  }

  // Characters that do not show, or turn others round, are shown as their numbers.
  function visible(text) {
    return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu, (c) =>
      c === "\n" ? c : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
  }

  // Theme: the system's, until the button is pressed.
  function followTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)");
    function setTheme(dark) {
      document.documentElement.dataset.theme = dark ? "dark" : "light";
      byId("theme").setAttribute("aria-pressed", String(dark));
      byId("theme").textContent = dark ? "Light" : "Dark";
    }
    const followSystem = () => setTheme(system.matches);
    system.addEventListener("change", followSystem);
    followSystem();
    byId("theme").addEventListener("click", () => {
      system.removeEventListener("change", followSystem);
      setTheme(document.documentElement.dataset.theme !== "dark");
    });
  }

  // The divider of #compare: by pointer and by keys. `left` names what it uncovers.
  function makeDivider(left) {
    const compare = byId("compare"), handle = byId("divider");
    let place = 50;
    function move(percent) {
      place = Math.min(100, Math.max(0, percent));
      byId("clip").style.clipPath = `inset(0 ${100 - place}% 0 0)`;
      handle.style.left = `${place}%`;
      handle.setAttribute("aria-valuenow", String(Math.round(place)));
      handle.setAttribute("aria-valuetext", `${Math.round(place)} % ${left}`);
    }
    const follow = (event) => {
      const box = compare.getBoundingClientRect();
      move((event.clientX - box.left) / box.width * 100);
    };
    const release = () => compare.removeEventListener("pointermove", follow);
    compare.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      compare.setPointerCapture(event.pointerId);
      follow(event);
      compare.addEventListener("pointermove", follow);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    for (const end of ["pointerup", "pointercancel"]) compare.addEventListener(end, release);
    handle.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -20,
        PageUp: 20 };
      if (event.key === "Home") move(0);
      else if (event.key === "End") move(100);
      else if (event.key in steps) move(place + steps[event.key]);
      else return;
      event.preventDefault();
    });
    return { show: () => move(place) };
  }

  // The size at which a picture of this ratio is compared.
  function fit(ratio) {
    byId("compare").style.aspectRatio = String(ratio);
    byId("compare").style.maxWidth = `min(960px, calc(80vh * ${ratio}))`;
  }

  return { byId, element, visible, followTheme, makeDivider, fit };
})();
