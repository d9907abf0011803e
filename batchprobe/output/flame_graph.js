// SPDX-License-Identifier: Apache-2.0
// Search and zoom. Without it the graph can be read as it is.
"use strict";
(() => {
  const root = document.currentScript.closest("svg");
  const isWholePage = document.documentElement === root;
  const status = root.querySelector(".status");
  const atRest = status.textContent;
  // Lowest first, and from left to right.
  const boxes = [...root.querySelectorAll("svg")].map((node) => {
    const [name, weight] = node.querySelector("title").textContent.split("\n");
    const start = Number(node.dataset.s);
    return {
      node, name, weight, start,
      end: start + Number(node.dataset.w),
      y: Number(node.getAttribute("y")),
      label: node.querySelector("text"),
      isHidden: false,
    };
  });
  const byNode = new Map(boxes.map((box) => [box.node, box]));
  const all = boxes[0];
  let view = all;
  let current = all;

  const contains = (outer, inner) => outer.start <= inner.start && inner.end <= outer.end;
  const shown = (box) => `${box.name}: ${box.weight}`;

  function fitted(name, pixels, perLetter) {
    const room = Math.floor((pixels - 6) / perLetter);
    if (name.length <= room) return name;
    return room < 3 ? "" : name.slice(0, room - 1) + "…";
  }

  function draw() {
    const sample = all.label;
    sample.textContent = "m".repeat(20);
    const perLetter = sample.getComputedTextLength() / 20 || 7.3;
    const pixels = root.getBoundingClientRect().width;
    const whole = Math.max(view.end - view.start, 1);
    for (const box of boxes) {
      const isBelow = box.y > view.y && contains(box, view);
      box.isHidden = !isBelow && !(box.y <= view.y && contains(view, box));
      box.node.classList.toggle("out", box.isHidden);
      box.node.classList.toggle("dim", isBelow);
      if (box.isHidden) continue;
      const share = isBelow || box === view ? 1 : (box.end - box.start) / whole;
      const left = isBelow ? 0 : (box.start - view.start) / whole;
      box.node.setAttribute("x", `${100 * left}%`);
      box.node.setAttribute("width", `${100 * share}%`);
      box.label.textContent = fitted(box.name, share * pixels, perLetter);
    }
  }

  function focus(box) {
    current.node.setAttribute("tabindex", "-1");
    current = box;
    box.node.setAttribute("tabindex", "0");
    box.node.focus();
    status.textContent = shown(box);
  }

  function zoom(box) {
    view = box;
    reset.disabled = box === all;
    draw();
    focus(box);
  }

  // The share of the whole that lies in a frame that matches, each part counted once.
  function matchedShare(hits) {
    let sum = 0;
    let reached = -1;
    for (const box of [...hits].sort((a, b) => a.start - b.start || b.end - a.end)) {
      const from = Math.max(box.start, reached);
      if (box.end > from) sum += box.end - from;
      reached = Math.max(reached, box.end);
    }
    return (100 * sum) / Math.max(all.end - all.start, 1);
  }

  function search() {
    let pattern = null;
    input.setCustomValidity("");
    try {
      // Letters of any case, unless a capital is asked for.
      if (input.value) pattern = new RegExp(input.value, /[A-Z]/.test(input.value) ? "" : "i");
    } catch (error) {
      input.setCustomValidity(error.message);
      status.textContent = error.message;
    }
    const hits = boxes.filter((box) => box !== all && pattern !== null && pattern.test(box.name));
    for (const box of boxes) box.node.classList.remove("hit");
    for (const box of hits) box.node.classList.add("hit");
    if (pattern !== null) {
      const share = matchedShare(hits).toFixed(1);
      status.textContent = `${hits.length} frames match, with ${share} % of all`;
    } else if (input.validity.valid) {
      status.textContent = atRest;
    }
  }

  function neighbour(key) {
    const seen = boxes.filter((box) => !box.isHidden);
    const row = seen.filter((box) => box.y === current.y);
    const beside = row.indexOf(current);
    const above = Math.max(...seen.filter((box) => box.y < current.y).map((box) => box.y));
    const below = Math.min(...seen.filter((box) => box.y > current.y).map((box) => box.y));
    switch (key) {
      case "ArrowLeft": return row[beside - 1];
      case "ArrowRight": return row[beside + 1];
      case "ArrowUp": return seen.find((box) => box.y === above && contains(current, box));
      case "ArrowDown": return seen.find((box) => box.y === below && contains(box, current));
      case "Home": return all;
      default: return undefined;
    }
  }

  function element(name, settings) {
    return Object.assign(document.createElementNS("http://www.w3.org/1999/xhtml", name), settings);
  }

  // Made here, so that a file without the script shows no controls that do nothing.
  const input = element("input", { type: "search", placeholder: "search (regexp)" });
  input.setAttribute("aria-label", "search frames, a regular expression");
  const reset = element("button", { type: "button", textContent: "Reset zoom", disabled: true });
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "foreignObject");
  for (const [name, value] of Object.entries({ x: "100%", y: 6, width: 330, height: 30 })) {
    bar.setAttribute(name, value);
  }
  bar.setAttribute("transform", "translate(-330 0)");
  const controls = element("div", { className: "controls" });
  controls.append(input, reset);
  bar.append(controls);
  root.append(bar);

  if (isWholePage) {
    root.setAttribute("width", "100%");
    root.style.minWidth = "700px";
  }
  for (const box of boxes) {
    box.node.setAttribute("role", "button");
    box.node.setAttribute("tabindex", box === all ? "0" : "-1");
  }
  input.addEventListener("input", search);
  reset.addEventListener("click", () => zoom(all));
  root.addEventListener("click", (event) => {
    const box = byNode.get(event.target.closest("svg"));
    if (box) zoom(box);
  });
  root.addEventListener("mouseover", (event) => {
    const box = byNode.get(event.target.closest("svg"));
    if (box) status.textContent = shown(box);
    else search();
  });
  root.addEventListener("focusin", (event) => {
    const box = byNode.get(event.target);
    if (box) status.textContent = shown(box);
  });
  (isWholePage ? document : root).addEventListener("keydown", (event) => {
    const isFind = event.key === "f" && (event.ctrlKey || event.metaKey);
    // A second Ctrl-F is the browser's.
    if (isFind && document.activeElement !== input) {
      event.preventDefault();
      input.select();
      input.focus();
    } else if (event.key === "Escape") {
      input.value = "";
      search();
      zoom(all);
    } else if (byNode.has(event.target) && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const isPress = event.key === "Enter" || event.key === " ";
      const next = isPress ? current : neighbour(event.key);
      if (!next) return;
      event.preventDefault();
      if (isPress) zoom(next);
      else focus(next);
    }
  });
  window.addEventListener("resize", draw);
  draw();
})();
