// Verdicts on frames, and where the sample drifted.

import { Chart } from "./chart.js";
import { byId, setText, sizeOf, svg } from "./dom.js";
import { fixed, known, NONE, percent, signed } from "./format.js";

const ALARM = 5;

export class QualityPanel {
  constructor(store) {
    this.store = store;
    this.path = new Chart(byId("drift-path"), { xLabel: "x, µm", yLabel: "y, µm", square: true });
  }

  render() {
    const counts = this.store.get("counts");
    const quality = this.store.get("quality");
    const judged = counts.judged ?? 0;
    setText("rejected", judged ? `${counts.rejected} of ${judged} (${percent(counts.rejected / judged, 1)})` : NONE);
    setText("rejected-recent", quality.recent ? `${quality.recent_rejected} of ${quality.recent} (${percent(quality.recent_rejected / quality.recent)})` : NONE);
    const alarm = quality.in_a_row >= ALARM;
    setText("in-a-row", known(quality.in_a_row) ? `${alarm ? "⚠ " : ""}${quality.in_a_row} (alarm at ${ALARM})` : NONE);
    byId("in-a-row").classList.toggle("alarm", alarm);
    const angle = known(quality.blur_angle_deg) ? ` at ${quality.blur_angle_deg.toFixed(0)}°` : "";
    setText("blur", known(quality.blur_px) ? `${quality.blur_px.toFixed(1)}${known(this.store.state.blur_limit_px) ? ` of ${this.store.state.blur_limit_px.toFixed(1)}` : ""} px, ${fixed(1000 * quality.blur_um, 0, "nm")}${angle}` : NONE);
    setText("quality-reason", quality.verdict ? `${quality.accepted ? "✓" : "✗"} ${quality.verdict}: ${quality.reason}` : " ");
    byId("quality-reason").title = quality.reason ?? "";
    this.renderStrip();
    this.renderDrift();
  }

  // The verdicts on the last frames: a block is accepted, a cross rejected.
  renderStrip() {
    const frames = this.store.frames();
    if (!frames) return;
    const root = byId("verdicts");
    const [width] = sizeOf(root);
    const step = 9;
    const [accepted, verdict, n] = ["accepted", "verdict", "n"].map((name) => frames.column(name).slice(-Math.floor(width / step)));
    root.setAttribute("viewBox", `0 0 ${width} 12`);
    root.replaceChildren(
      ...accepted.map((ok, i) => {
        const x = width - step * (accepted.length - i) + 1;
        const d = ok === 0 ? `M${x} 2l7 8M${x + 7} 2l-7 8` : `M${x} 2h7v8h-7z`;
        return svg("path", { d, class: ok === 0 ? "rejected" : ok === 1 ? "accepted" : "unjudged" }, svg("title", {}, `#${n[i]}: ${verdict[i] ?? "not judged"}`));
      }),
    );
  }

  renderDrift() {
    const drift = this.store.get("drift");
    const pixel = this.store.get("run").pixel_size_um ?? this.store.get("experiment").pixel_size_um;
    const both = (um) => (known(um) ? `${signed(1000 * um, 0, "nm")}${known(pixel) ? ` (${signed(um / pixel, 1)} px)` : ""}` : NONE);
    setText("drift-x", both(drift.x_um));
    setText("drift-y", both(drift.y_um));
    setText("drift-speed", known(drift.rate_x_um_min) ? fixed(1000 * Math.hypot(drift.rate_x_um_min, drift.rate_y_um_min), 0, "nm/min") : NONE);
    setText("jitter", known(drift.jitter_x_um) ? fixed(1000 * Math.hypot(drift.jitter_x_um, drift.jitter_y_um), 0, "nm") : NONE);
    setText("confidence", known(drift.confidence) ? `${drift.confidence.toFixed(2)} (≥ 0.50)` : NONE);
    const frames = this.store.frames();
    if (!frames) return;
    const [xs, ys] = [frames.column("drift_x_um"), frames.column("drift_y_um")];
    if (!this.path.begin([0, ...xs], [0, ...ys])) return;
    this.path.line(xs, ys, "line c-path");
    this.path.point(0, 0, { class: "start" });
    this.path.point(xs[xs.length - 1], ys[ys.length - 1], { class: "here", r: 4 });
    this.path.end();
  }
}
