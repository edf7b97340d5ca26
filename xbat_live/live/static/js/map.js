// The sample from above: dose, where the beam was and is, where it may not go, and the way between spots.

import { byId, colour, setText, sizeOf, svg } from "./dom.js";
import { fixed, known, si, ticks } from "./format.js";

const EDGE = { left: 34, right: 8, top: 6, bottom: 20 };
// From dark blue over red to yellow; lightness rises evenly, so it also reads in grey and with every colour blindness.
const RAMP = [[13, 8, 135], [84, 2, 163], [139, 10, 165], [185, 50, 137], [219, 92, 104], [244, 136, 73], [254, 188, 43], [240, 249, 33]];

export class MapPanel {
  constructor(store, clicked) {
    this.store = store;
    this.clicked = clicked;
    this.canvas = byId("map-dose");
    this.drawn = null;
    this.proposed = null;
    byId("map").addEventListener("click", (event) => this.click(event));
  }

  frame() {
    const experiment = this.store.get("experiment");
    const map = this.store.get("map");
    const size = experiment.outline_um ?? (map.nx ? [map.nx * map.cell_x_um, map.ny * map.cell_y_um] : [200, 200]);
    const margin = 0.05 * Math.max(...size);
    const [width, height] = sizeOf(byId("map-box"));
    const scale = Math.min((width - EDGE.left - EDGE.right) / (size[0] + 2 * margin), (height - EDGE.top - EDGE.bottom) / (size[1] + 2 * margin));
    const middle = [EDGE.left + (width - EDGE.left - EDGE.right) / 2, EDGE.top + (height - EDGE.top - EDGE.bottom) / 2];
    const half = [(width - EDGE.left - EDGE.right) / 2 / scale, (height - EDGE.top - EDGE.bottom) / 2 / scale];
    return { width, height, scale, size, half, x: (um) => middle[0] + um * scale, y: (um) => middle[1] + um * scale, back: (px, py) => [(px - middle[0]) / scale, (py - middle[1]) / scale] };
  }

  click(event) {
    const box = byId("map").getBoundingClientRect();
    const [x, y] = this.frame().back(event.clientX - box.left, event.clientY - box.top);
    const [width, height] = this.frame().size;
    if (Math.abs(x) <= width / 2 && Math.abs(y) <= height / 2) this.clicked(x, y);
  }

  propose(place) {
    this.proposed = place;
    this.render(new Set(["spots"]));
  }

  render(changed) {
    const view = this.frame();
    if (view.width < 80 || view.height < 80) return; // not shown on a phone
    const key = `${view.width}x${view.height}`;
    if (changed.has("map") || changed.has("experiment") || key !== this.drawn) {
      this.drawDose(view);
      this.drawBar();
    }
    this.drawn = key;
    this.drawOverlay(view);
    const map = this.store.get("map");
    setText("map-peak", known(map.peak_gy) && map.peak_gy > 0 ? `peak ${si(map.peak_gy, "Gy")}` : "");
  }

  drawDose(view) {
    const map = this.store.get("map");
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this;
    [canvas.width, canvas.height] = [view.width * ratio, view.height * ratio];
    if (!map.nx || !map.levels) return;
    const levels = Uint8Array.from(atob(map.levels), (c) => c.charCodeAt(0));
    const pixels = new Uint8ClampedArray(4 * map.nx * map.ny);
    const table = Array.from({ length: 256 }, (_, level) => this.colourOf(doseOf(map, level)));
    levels.forEach((level, i) => level && pixels.set(table[level], 4 * i));
    const image = new OffscreenCanvas(map.nx, map.ny);
    image.getContext("2d").putImageData(new ImageData(pixels, map.nx, map.ny), 0, 0);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, view.x(map.x0_um), view.y(map.y0_um), map.nx * map.cell_x_um * view.scale, map.ny * map.cell_y_um * view.scale);
  }

  // The colours span two decades up to the limit; what is less fades out.
  get scale() {
    const map = this.store.get("map");
    const most = this.store.get("experiment").dose_limit_gy || map.peak_gy || 1;
    return [most / 100, most];
  }

  colourOf(dose) {
    const [low, high] = this.scale;
    const part = Math.log(dose / low) / Math.log(high / low);
    return [...ramp(part), part < 0 ? Math.max(255 + 255 * part, 25) : 255];
  }

  // The scale of the colours, beside the legend.
  drawBar() {
    const [low, high] = this.scale;
    const root = byId("map-bar");
    root.setAttribute("viewBox", "0 0 170 22");
    const cells = Array.from({ length: 34 }, (_, i) => svg("rect", { x: 5 * i, y: 0, width: 5, height: 8, fill: `rgb(${ramp(i / 33).join(" ")})` }));
    const text = (x, anchor, dose) => svg("text", { x, y: 19, "text-anchor": anchor, class: "axis-text" }, si(dose, "Gy", 2));
    root.replaceChildren(...cells, text(0, "start", low), text(85, "middle", Math.sqrt(low * high)), text(170, "end", high));
  }

  drawOverlay(view) {
    const root = byId("map");
    root.setAttribute("viewBox", `0 0 ${view.width} ${view.height}`);
    const [width, height] = view.size;
    const parts = [definitions(), ...axes(view)];
    parts.push(svg("rect", { x: view.x(-width / 2), y: view.y(-height / 2), width: width * view.scale, height: height * view.scale, class: "outline" }));
    for (const [x0, x1, y0, y1] of this.store.get("experiment").forbidden_um ?? []) {
      parts.push(svg("rect", { x: view.x(x0), y: view.y(y0), width: (x1 - x0) * view.scale, height: (y1 - y0) * view.scale, class: "forbidden-zone", fill: "url(#hatch)" }, svg("title", {}, "forbidden: no new spot may touch it")));
    }
    parts.push(...this.beam(view), ...this.arrows(view), ...this.spots(view), ...this.proposal(view)); // numbers stay readable
    root.replaceChildren(...parts);
  }

  centre(spot) {
    const n = spot.fields.length || 1;
    return [0, 1].map((i) => spot.fields.reduce((sum, place) => sum + (place[i] ?? 0), 0) / n);
  }

  spots(view) {
    return (this.store.state.spots ?? []).flatMap((spot) => {
      const [x, y] = this.centre(spot);
      if (!known(x) || !known(y)) return [];
      const title = svg("title", {}, `spot ${spot.n + 1} at (${fixed(x, 1)}, ${fixed(y, 1)}) µm: ${spot.frames} frames, ${si(spot.dose_gy, "Gy")}${spot.now ? ", now" : ""}`);
      const group = svg("g", { class: spot.now ? "spot now" : "spot spent", "data-testid": "spot", "data-spot": spot.n }, title);
      group.append(svg("circle", { cx: view.x(x), cy: view.y(y), r: 8 }), svg("text", { x: view.x(x), y: view.y(y) + 3.5, "text-anchor": "middle" }, String(spot.n + 1)));
      return [group];
    });
  }

  arrows(view) {
    const spots = this.store.state.spots ?? [];
    return spots.slice(1).flatMap((spot, i) => {
      const [from, to] = [this.centre(spots[i]), this.centre(spot)].map(([x, y]) => [view.x(x), view.y(y)]);
      const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
      if (!(length > 20)) return [];
      const [ux, uy] = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
      const title = svg("title", {}, `relocation ${i + 1}: spot ${spots[i].n + 1} to spot ${spot.n + 1}`);
      return [svg("line", { x1: from[0] + 9 * ux, y1: from[1] + 9 * uy, x2: to[0] - 12 * ux, y2: to[1] - 12 * uy, class: "arrow", "marker-end": "url(#head)", "data-testid": "relocation-arrow" }, title)];
    });
  }

  beam(view) {
    const beam = this.store.get("beam");
    const fwhm = this.store.get("experiment").beam_fwhm_um;
    if (!known(beam.x_um) || !known(beam.y_um)) return [];
    const [w, h] = fwhm ?? [10, 10];
    const title = svg("title", {}, `beam at (${fixed(beam.x_um, 1)}, ${fixed(beam.y_um, 1)}) µm, ${fixed(w, 1)} × ${fixed(h, 1)} µm FWHM`);
    const cross = `M${view.x(beam.x_um) - 5} ${view.y(beam.y_um)}h10M${view.x(beam.x_um)} ${view.y(beam.y_um) - 5}v10`;
    return [svg("g", { class: "beam", "data-testid": "beam" }, title, svg("rect", { x: view.x(beam.x_um - w / 2), y: view.y(beam.y_um - h / 2), width: w * view.scale, height: h * view.scale, rx: 2 }), svg("path", { d: cross }))];
  }

  proposal(view) {
    if (!this.proposed) return [];
    const { x, y, allowed } = this.proposed;
    const beam = this.store.get("beam");
    const [w, h] = this.store.get("experiment").beam_fwhm_um ?? [10, 10];
    const parts = [svg("rect", { x: view.x(x - w / 2), y: view.y(y - h / 2), width: w * view.scale, height: h * view.scale })];
    if (known(beam.x_um)) parts.push(svg("line", { x1: view.x(beam.x_um), y1: view.y(beam.y_um), x2: view.x(x), y2: view.y(y) }));
    return [svg("g", { class: allowed === false ? "proposal refused" : "proposal", "data-testid": "proposal" }, ...parts)];
  }
}

function doseOf(map, level) {
  return level ? map.floor_gy * (map.peak_gy / map.floor_gy) ** ((level - 1) / 254) : 0;
}

function axes(view) {
  const parts = [];
  const [hx, hy] = view.half;
  for (const um of ticks(-hx, hx, Math.max(3, Math.round(view.width / 70)))) {
    parts.push(svg("line", { x1: view.x(um), x2: view.x(um), y1: EDGE.top, y2: view.height - EDGE.bottom, class: "grid" }));
    parts.push(svg("text", { x: view.x(um), y: view.height - 6, "text-anchor": "middle", class: "axis-text" }, String(um)));
  }
  for (const um of ticks(-hy, hy, Math.max(3, Math.round(view.height / 50)))) {
    parts.push(svg("line", { x1: EDGE.left, x2: view.width - EDGE.right, y1: view.y(um), y2: view.y(um), class: "grid" }));
    parts.push(svg("text", { x: EDGE.left - 4, y: view.y(um) + 3.5, "text-anchor": "end", class: "axis-text" }, String(um)));
  }
  return parts;
}

function definitions() {
  const stroke = colour("ink");
  return svg(
    "defs",
    {},
    svg("marker", { id: "head", viewBox: "0 0 10 10", refX: 8, refY: 5, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, svg("path", { d: "M0 0L10 5L0 10z", fill: stroke })),
    svg("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, svg("line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke, "stroke-width": 2 })),
  );
}

export function ramp(part) {
  const place = Math.min(Math.max(part, 0), 1) * (RAMP.length - 1);
  const i = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[i].map((value, c) => Math.round(value + (RAMP[i + 1][c] - value) * (place - i)));
}
