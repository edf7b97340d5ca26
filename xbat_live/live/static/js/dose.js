// Dose at the present spot against its limit, on a logarithmic scale with what the literature says.

import { byId, make, setText, sizeOf, svg } from "./dom.js";
import { duration, fixed, known, NONE, percent, si } from "./format.js";

const WARN = 0.8;
const MANY = 1e8;

export class DosePanel {
  constructor(store) {
    this.store = store;
    byId("dose-info").addEventListener("click", () => {
      const box = byId("dose-how");
      box.hidden = !box.hidden;
      byId("dose-info").setAttribute("aria-expanded", String(!box.hidden));
      this.explain();
    });
  }

  get limit() {
    return this.store.get("experiment").dose_limit_gy ?? this.store.get("run").dose_limit_gy ?? null;
  }

  render() {
    const dose = this.store.get("dose");
    const run = this.store.get("run");
    const experiment = this.store.get("experiment");
    const { limit } = this;
    setText("dose-of", [experiment.material ?? run.material, experiment.layer ?? run.layer].filter(Boolean).join(" in "));
    setText("dose", si(dose.dose_gy, "Gy"));
    setText("dose-limit", si(limit, "Gy"));
    const share = known(dose.dose_gy) && limit ? dose.dose_gy / limit : NaN;
    const pill = byId("dose-share");
    pill.dataset.level = !known(share) ? "" : share >= 1 ? "over" : share >= WARN ? "near" : "fine";
    const icon = { over: "✖", near: "▲", fine: "✓" }[pill.dataset.level] ?? "";
    setText(pill, known(share) ? `${icon} ${percent(share)}` : NONE);
    pill.title = known(dose.fraction) ? `${percent(dose.fraction, 1)} of ${dose.binding || "the binding limit"} with the uncertainty kept free` : "";
    const rateLimit = experiment.rate_limit_gy_s;
    setText("dose-rate", `${si(dose.rate_gy_s, "Gy/s")}${known(rateLimit) ? ` of ${si(rateLimit, "Gy/s")}` : ""}`);
    const left = dose.exposures_left;
    setText("frames-left", !known(left) ? NONE : left > MANY ? "no end" : String(Math.round(left)));
    setText("time-left", known(left) && left < MANY && known(this.cadence()) ? duration(left * this.cadence()) : NONE);
    setText("dose-added", si(dose.added_gy, "Gy"));
    const ratio = experiment.dose?.electrolyte_ratio;
    setText("dose-electrolyte", known(ratio) && known(dose.dose_gy) ? `≈ ${si(ratio * dose.dose_gy, "Gy")}` : NONE);
    const sigma = experiment.dose?.sigma_rel ?? run.sigma_rel;
    const k = experiment.dose?.k_sigma ?? run.k_sigma;
    setText("dose-sigma", known(sigma) ? `± ${(100 * sigma).toFixed(0)} % (1σ), ${fixed(k, 1)}σ kept free` : NONE);
    this.drawGauge(dose.dose_gy, limit, experiment.literature ?? []);
    if (!byId("dose-how").hidden) this.explain();
  }

  // Median time between the last exposures, s.
  cadence() {
    const frames = this.store.frames();
    if (!frames || frames.rows.length < 3) return NaN;
    const t = frames.tail("t", 20);
    const steps = t.slice(1).map((value, i) => value - t[i]).sort((a, b) => a - b);
    return steps[Math.floor(steps.length / 2)];
  }

  drawGauge(dose, limit, literature) {
    const root = byId("gauge");
    const [width, height] = sizeOf(root);
    const marks = literature.filter((item) => known(item.limit_gy));
    const own = this.store.get("experiment").material;
    const values = [dose, limit, ...marks.map((item) => item.limit_gy)].filter((value) => known(value) && value > 0);
    if (!values.length) {
      root.replaceChildren();
      return;
    }
    const low = Math.floor(Math.log10(Math.min(...values.filter((v) => v > 0), (limit ?? 1e5) / 30)));
    const high = Math.ceil(Math.log10(Math.max(...values, limit ?? 1)) + 0.02);
    const [left, right, top, thick] = [6, width - 6, 22, 16];
    const at = (value) => left + ((Math.log10(Math.max(value, 10 ** low)) - low) / (high - low)) * (right - left);
    root.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const parts = [svg("rect", { x: left, y: top, width: right - left, height: thick, rx: 3, class: "gauge-track" })];
    if (known(limit)) {
      parts.push(svg("rect", { x: at(WARN * limit), y: top, width: Math.max(at(limit) - at(WARN * limit), 1), height: thick, class: "gauge-warn" }));
      parts.push(svg("rect", { x: at(limit), y: top, width: Math.max(right - at(limit), 0), height: thick, class: "gauge-over" }));
    }
    if (known(dose) && dose > 0) {
      const level = known(limit) && dose >= limit ? "over" : known(limit) && dose >= WARN * limit ? "near" : "fine";
      parts.push(svg("rect", { x: left, y: top + 3, width: Math.max(at(dose) - left, 1), height: thick - 6, rx: 2, class: `gauge-fill ${level}`, "data-testid": "gauge-fill" }));
    }
    if (known(limit)) {
      parts.push(svg("line", { x1: at(limit), x2: at(limit), y1: top - 5, y2: top + thick + 5, class: "gauge-limit" }));
      const anchor = at(limit) > 0.8 * width ? "end" : at(limit) < 0.2 * width ? "start" : "middle";
      parts.push(svg("text", { x: at(limit), y: top - 8, "text-anchor": anchor, class: "gauge-limit-text" }, `limit ${si(limit, "Gy")}`));
    }
    for (let power = low; power <= high; power += 1) {
      parts.push(svg("line", { x1: at(10 ** power), x2: at(10 ** power), y1: top + thick, y2: top + thick + 4, class: "axis" }));
      const anchor = power === low ? "start" : power === high ? "end" : "middle";
      parts.push(svg("text", { x: at(10 ** power), y: top + thick + 14, "text-anchor": anchor, class: "axis-text" }, si(10 ** power, "Gy", 1)));
    }
    parts.push(...this.literatureMarks(marks, own, at, top + thick, width));
    root.replaceChildren(...parts);
  }

  literatureMarks(marks, own, at, base, width) {
    const parts = [];
    const rows = [-1e9, -1e9, -1e9];
    for (const item of [...marks].sort((a, b) => a.limit_gy - b.limit_gy)) {
      const x = at(item.limit_gy);
      const text = `${si(item.limit_gy, "Gy")} ${short(item, own)}`;
      const length = 6.1 * text.length + 10;
      const start = Math.min(Math.max(x - 4, 2), width - length);
      const row = rows.findIndex((end) => start > end);
      const title = svg("title", {}, `${item.name}: ${si(item.limit_gy, "Gy")} in ${item.material}; protects ${item.protects}. ${item.source} (dose definition: ${item.model})`);
      const tick = svg("g", { class: `mark ${item.advisory ? "advisory" : ""}`, "data-testid": "literature-tick", "data-source": item.source }, title);
      if (row < 0) {
        tick.append(svg("path", { d: `M${x} ${base + 1}l-3 5h6z`, class: "mark-tick" }));
      } else {
        const y = base + 30 + 12 * row;
        rows[row] = start + length;
        tick.append(svg("path", { d: `M${x} ${base + 1}l-3 5h6zM${x} ${base + 6}V${y - 9}`, class: "mark-tick" }));
        tick.append(svg("text", { x: start, y, class: "mark-text" }, text));
      }
      parts.push(tick);
    }
    return parts;
  }

  explain() {
    const experiment = this.store.get("experiment");
    const dose = experiment.dose ?? {};
    const row = (name, value) => [make("dt", {}, name), make("dd", {}, value)];
    const list = make(
      "dl",
      {},
      ...row("formula", "dose = flux × open time × beam profile × energy deposited per fluence in the material (Gy cm²)"),
      ...row("definition", `${dose.model ?? NONE}; thresholds compare only within one definition`),
      ...row("flux", `${known(dose.flux_ph_s) ? dose.flux_ph_s.toExponential(2) : NONE} ph/s at ${si(1e-9 * (dose.i0_reference_na ?? NaN), "A")} in the ion chamber; followed live`),
      ...row("per fluence", known(dose.gy_cm2) ? `${dose.gy_cm2.toExponential(3)} Gy cm² at ${fixed(dose.energy_ev, 0, "eV")}` : NONE),
      ...row("peak", known(dose.peak_per_cm2) ? `${dose.peak_per_cm2.toExponential(3)} of the photons per cm²` : NONE),
      ...row("degraded", this.store.get("dose").degraded || "no: flux by the ion chamber"),
    );
    const sources = (experiment.literature ?? []).map((item) => make("li", {}, `${known(item.limit_gy) ? si(item.limit_gy, "Gy") : si(item.rate_gy_s, "Gy/s")} in ${item.material}: ${item.protects}. ${item.source}`));
    byId("dose-how").replaceChildren(list, make("h3", {}, "Thresholds of the literature"), make("ul", {}, ...sources));
  }
}

function short(item, own) {
  const source = (item.source ?? "").split(/[ ,(]/)[0];
  return item.material === own ? source : `${item.material}, ${source}`;
}
