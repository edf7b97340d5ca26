// What the live analysis finds in energy sweeps: edge and reaction against dose, the threshold, maps of the field.

import { Chart } from "./chart.js";
import { byId, make, setText, svg } from "./dom.js";
import { fixed, known, percent, si, significant } from "./format.js";
import { ramp } from "./map.js";

const ALARMS = { threshold: "pixels of high dose stay behind", diverged: "high dose is behind low dose", misfit: "the component spectra do not fit" };
const NAMES = { edge_ev: "edge", dose_gy: "dose", r_factor: "R factor" };

export class XasPanel {
  constructor(store) {
    this.store = store;
    this.drawn = "";
    this.edge = new Chart(byId("xanes-spectrum"), { xLabel: "dose, MGy", yLabel: "edge energy, eV" });
    this.reaction = new Chart(byId("xanes-trend"), { xLabel: "dose, MGy", yLabel: "reacted fraction" });
  }

  get shown() {
    return Boolean(this.store.series.xas?.rows.length);
  }

  render() {
    const series = this.store.series.xas;
    const last = series.last;
    const found = known(last.threshold_gy);
    const between = found ? `threshold ${si(last.threshold_gy, "Gy")} (95 %: ${known(last.threshold_low_gy) ? si(last.threshold_low_gy, "Gy") : "open"} to ${known(last.threshold_high_gy) ? si(last.threshold_high_gy, "Gy") : "open"})` : `no threshold up to ${si(last.high_dose_gy, "Gy")}`;
    const alarm = last.alarm ? ` ▲ ${ALARMS[last.alarm] ?? last.alarm}` : "";
    setText("xanes-edge", `cube ${last.n}${last.place ? ` at ${last.place}` : ""}: ${between}${alarm}`);
    byId("xanes").dataset.alarm = last.alarm ?? "";
    this.renderEdge(series, last);
    this.renderReaction(series, last);
    this.renderMaps();
  }

  renderEdge(series, last) {
    const curves = this.store.get("xas_maps").curves ?? {};
    const dose = (curves.dose_gy ?? []).map(mega);
    const edge = curves.edge_ev ?? [];
    const ends = [mega(last.low_dose_gy), mega(last.high_dose_gy)];
    const energies = [last.low_edge_ev, last.high_edge_ev];
    if (!this.edge.begin([0, ...dose, ...ends], [...edge, ...energies])) return;
    this.threshold(this.edge, last);
    this.edge.line(dose, edge, "line c-dose");
    ["low", "high"].forEach((name, i) => this.edge.point(ends[i], energies[i], { r: 4, class: `dosed ${name}` }, svg("title", {}, `pixels of ${name} dose: ${si(1e6 * ends[i], "Gy")}, ${fixed(energies[i], 2, "eV")}`)));
    this.edge.end();
  }

  // One pair of points per cube: pixels of low and of high dose, as the dose of each grows.
  renderReaction(series, last) {
    const column = (name) => series.column(name);
    const parts = ["low", "high"].map((name) => ({ name, dose: column(`${name}_dose_gy`).map(mega), value: column(`${name}_progress`) }));
    if (!this.reaction.begin([0, ...parts.flatMap((part) => part.dose)], [0, 1, ...parts.flatMap((part) => part.value)])) return;
    this.threshold(this.reaction, last);
    for (const part of parts) {
      this.reaction.line(part.dose, part.value, `line ${part.name === "low" ? "c-path" : "c-high"}`);
      part.dose.forEach((dose, i) => this.reaction.point(dose, part.value[i], { r: 2.5, class: `dosed ${part.name}` }, svg("title", {}, `${part.name} dose, ${si(1e6 * dose, "Gy")}: ${percent(part.value[i])} reacted`)));
    }
    this.reaction.end();
  }

  threshold(chart, last) {
    if (!known(last.threshold_gy)) return;
    const inside = (value, open) => (known(value) ? Math.min(Math.max(mega(value), chart.rx[0]), chart.rx[1]) : open); // an interval may be open
    chart.span(inside(last.threshold_low_gy, chart.rx[0]), inside(last.threshold_high_gy, chart.rx[1]), "threshold-span");
    if (mega(last.threshold_gy) <= chart.rx[1]) chart.vertical(mega(last.threshold_gy), "threshold-line", `threshold ${si(last.threshold_gy, "Gy")}`);
  }

  renderMaps() {
    const { maps = [], number } = this.store.get("xas_maps");
    const key = `${number}/${maps.length}`;
    const box = byId("xas-maps");
    box.hidden = !maps.length;
    byId("xas-legend").hidden = false;
    if (key === this.drawn) return;
    this.drawn = key;
    box.replaceChildren(...maps.map(picture));
  }
}

function picture(map) {
  const canvas = make("canvas", { width: map.nx, height: map.ny, role: "img", "aria-label": `map of ${map.name}`, "data-testid": "xas-map" });
  const pixels = new Uint8ClampedArray(4 * map.nx * map.ny);
  Uint8Array.from(atob(map.levels), (c) => c.charCodeAt(0)).forEach((level, i) => level && pixels.set([...ramp((level - 1) / 254), 255], 4 * i));
  canvas.getContext("2d").putImageData(new ImageData(pixels, map.nx, map.ny), 0, 0);
  const [name, part] = map.name.split(" ");
  const title = name === "fractions" ? `component ${part}` : NAMES[name] ?? name;
  const range = map.unit === "Gy" ? `${si(map.low, "Gy")} to ${si(map.high, "Gy")}` : map.unit === "eV" ? `${fixed(map.low, 1)} to ${fixed(map.high, 1)} eV` : `${significant(map.low, 2)} to ${significant(map.high, 2)}`;
  return make("figure", {}, canvas, make("figcaption", { class: "mono" }, make("b", {}, title), ` ${range}`));
}

function mega(value) {
  return known(value) ? 1e-6 * value : NaN;
}
