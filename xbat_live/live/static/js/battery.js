// The cell: what it does now, and voltage against charge with what was irradiated.

import { Chart } from "./chart.js";
import { byId, setText, svg } from "./dom.js";
import { fixed, known, NONE, percent, signed } from "./format.js";

const RATE_OVER = 20;

export class BatteryPanel {
  constructor(store) {
    this.store = store;
    this.chart = new Chart(byId("curve"), { xLabel: "charge since the step began, mAh", yLabel: "voltage, V" });
  }

  render() {
    const cell = this.store.get("cell");
    setText("cell-mode", [cell.mode, cell.status].filter(Boolean).join(", "));
    setText("voltage", fixed(cell.voltage_v, 3, "V"));
    setText("current", signed(cell.current_ma, 4, "mA"));
    setText("soc", percent(cell.soc, 1));
    setText("capacity", signed(cell.capacity_mah, 4, "mAh"));
    const frames = this.store.frames();
    setText("dvdt", frames ? slope(frames) : NONE);
    if (!frames) return;
    const [q, v, open] = [frames.column("capacity_mah"), frames.column("voltage_v"), frames.column("exposure_s")];
    if (!this.chart.begin(q, v)) return;
    this.shade(frames, q, open);
    this.chart.line(q, v, "line c-volt");
    const moves = this.store.state.moves ?? [];
    const t = frames.column("t");
    moves.forEach((move) => {
      const i = t.findIndex((value) => value >= move.t);
      if (i >= 0 && known(q[i])) this.chart.vertical(q[i], "relocation", `${move.kind} ${move.n} after frame ${move.frame}`);
    });
    const last = q.length - 1;
    this.chart.point(q[last], v[last], { class: "here", r: 4 }, svg("title", {}, "now"));
    this.chart.end();
  }

  // The charge over which the beam was on: the exposures themselves, at least a pixel wide each.
  shade(frames, q, exposure) {
    const t = frames.column("t");
    for (let i = 1; i < q.length; i += 1) {
      if (!known(q[i]) || !known(q[i - 1]) || !(t[i] > t[i - 1])) continue;
      const part = Math.min((exposure[i] ?? 0) / (t[i] - t[i - 1]), 1);
      this.chart.span(q[i] - (q[i] - q[i - 1]) * part, q[i], "beam-on");
    }
  }
}

// Slope of the voltage over the last frames, V/h.
function slope(frames) {
  const t = frames.column("t").slice(-RATE_OVER);
  const v = frames.column("voltage_v").slice(-RATE_OVER);
  const use = t.map((value, i) => [value, v[i]]).filter(([, value]) => known(value));
  if (use.length < 4) return NONE;
  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;
  const [mt, mv] = [mean(use.map(([a]) => a)), mean(use.map(([, b]) => b))];
  const above = use.reduce((sum, [a, b]) => sum + (a - mt) * (b - mv), 0);
  const below = use.reduce((sum, [a]) => sum + (a - mt) ** 2, 0);
  return below > 0 ? `${signed((1000 * above) / below, 2, "mV/s")}` : NONE;
}
