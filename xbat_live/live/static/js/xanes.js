// Spectra while energies are scanned: the present one over the one before, and the edge against the state of charge.

import { Chart } from "./chart.js";
import { byId, setText, svg } from "./dom.js";
import { fixed, known, percent, si } from "./format.js";
import { ramp } from "./map.js";
import { XasPanel } from "./xas.js";

export class XanesPanel {
  constructor(store, resized) {
    this.resized = resized;
    this.store = store;
    this.xas = new XasPanel(store);
    this.spectrum = new Chart(byId("xanes-spectrum"), { xLabel: "energy, eV", yLabel: "absorbance −ln T" });
    this.trend = new Chart(byId("xanes-trend"), { xLabel: "state of charge, %", yLabel: "half-height energy, eV" });
  }

  render() {
    const series = this.store.series.xanes;
    const sweeps = this.xas.shown;
    const shown = sweeps || Boolean(series?.rows.length);
    byId("xanes").hidden = !shown;
    if (shown !== document.body.classList.contains("with-xanes")) {
      document.body.classList.toggle("with-xanes", shown);
      this.resized();
    }
    if (!shown) return;
    if (sweeps) {
      this.xas.render();
      return;
    }
    byId("xas-maps").hidden = byId("xas-legend").hidden = true;
    const scans = new Map();
    for (const row of series.rows) {
      const item = Object.fromEntries(series.columns.map((name, i) => [name, row[i]]));
      if (!scans.has(item.scan)) scans.set(item.scan, []);
      scans.get(item.scan).push(item);
    }
    const all = [...scans.values()].map((rows) => rows.sort((a, b) => a.energy_ev - b.energy_ev));
    this.renderSpectra(all.slice(-2));
    this.renderTrend();
  }

  renderSpectra(last) {
    const rows = last.flat();
    if (!this.spectrum.begin(rows.map((row) => row.energy_ev), rows.map((row) => row.absorbance))) return;
    last.forEach((scan, i) => {
      const now = i === last.length - 1;
      this.spectrum.line(scan.map((row) => row.energy_ev), scan.map((row) => row.absorbance), now ? "line c-dose" : "line faint");
      if (now) scan.forEach((row) => this.spectrum.point(row.energy_ev, row.absorbance, { r: 2, class: "here" }));
    });
    this.spectrum.end();
  }

  renderTrend() {
    const edges = this.store.series.edges;
    const last = edges?.last;
    setText("xanes-edge", last ? `E½ ${fixed(last.edge_ev, 2)} ± ${fixed(last.sigma_ev, 2, "eV")}, white line ${fixed(last.white_line, 2)} at ${fixed(last.white_line_ev, 1, "eV")}` : "first spectrum not complete");
    if (!edges) return;
    const [soc, edge, dose] = [edges.column("soc").map((value) => 100 * value), edges.column("edge_ev"), edges.column("dose_gy")];
    if (!this.trend.begin(soc, edge)) return;
    const most = Math.max(...dose.filter(known), 1);
    soc.forEach((x, i) => {
      const [r, g, b] = ramp((dose[i] ?? 0) / most);
      this.trend.point(x, edge[i], { r: 4, fill: `rgb(${r} ${g} ${b})`, class: "dosed" }, svg("title", {}, `${percent(x / 100, 1)}: ${fixed(edge[i], 2, "eV")}, ${si(dose[i], "Gy")}`));
    });
    this.trend.end();
  }
}
