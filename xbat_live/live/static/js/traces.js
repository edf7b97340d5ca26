// Dose, drift, blur and voltage against time, with the relocations; uPlot draws them.

import { byId, colour, make, sizeOf } from "./dom.js";
import { known } from "./format.js";

const KINDS = [
  { title: "dose, kGy", lines: [{ column: "dose_gy", factor: 1e-3, stroke: "c-dose", label: "dose" }], limit: (state) => 1e-3 * state.experiment?.dose_limit_gy, zero: true },
  { title: "drift, nm", lines: [{ column: "drift_x_um", factor: 1e3, stroke: "c-x", label: "x" }, { column: "drift_y_um", factor: 1e3, stroke: "c-y", dash: [5, 3], label: "y" }] },
  { title: "blur, px", lines: [{ column: "blur_px", factor: 1, stroke: "c-blur", label: "extent", points: true }], limit: (state) => state.blur_limit_px, zero: true, verdicts: true },
  { title: "voltage, V", lines: [{ column: "voltage_v", factor: 1, stroke: "c-volt", label: "V" }] },
];

export class TracesPanel {
  constructor(store) {
    this.store = store;
    this.plots = [];
    this.stale = false; // colours or sizes are of before
    new ResizeObserver(() => this.resize()).observe(byId("traces"));
  }

  build() {
    for (const { plot } of this.plots) plot.destroy();
    const root = byId("traces");
    root.replaceChildren();
    this.stale = false;
    const [width, height] = this.sizes();
    const sync = uPlot.sync("traces");
    this.plots = KINDS.map((kind, i) => {
      const box = make("div", { class: "trace" });
      root.append(box);
      return { kind, plot: new uPlot(this.options(kind, width, height, sync, i === KINDS.length - 1), this.columns(kind), box) };
    });
  }

  sizes() {
    const [width, height] = sizeOf(byId("traces"));
    return [width, Math.max(Math.floor((height - 16) / KINDS.length), 44)];
  }

  options(kind, width, height, sync, last) {
    const ink = colour("dim");
    const grid = { stroke: colour("grid"), width: 1 };
    const font = "11px system-ui, sans-serif";
    const x = { stroke: ink, grid, font, size: last ? 22 : 0, show: last, ticks: { show: false }, values: (_, all) => all.map((value) => `${value}`) };
    const y = { stroke: ink, grid, font, size: 44, ticks: { show: false }, gap: 3, space: 20 };
    return {
      width,
      height: height + (last ? 16 : 0),
      legend: { show: false },
      cursor: { sync: { key: sync.key }, drag: { x: true, y: false }, points: { size: 5 } },
      padding: [4, 8, last ? 0 : 2, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => range(low, high, kind) } },
      axes: [x, y],
      series: [{}, ...kind.lines.map((line) => ({ label: line.label, stroke: colour(line.stroke), width: 1.5, dash: line.dash, points: { show: Boolean(line.points), size: 3 }, spanGaps: true }))],
      hooks: { draw: [(plot) => this.decorate(plot, kind)] },
    };
  }

  columns(kind) {
    const frames = this.store.frames();
    const started = this.store.get("run").started ?? 0;
    if (!frames) return [[], ...kind.lines.map(() => [])];
    return [frames.column("t").map((t) => (t - started) / 60), ...kind.lines.map(({ column, factor }) => frames.column(column).map((value) => (known(value) ? value * factor : null)))];
  }

  // Relocations, the limit, and crosses where frames were rejected.
  decorate(plot, kind) {
    const { ctx, bbox } = plot;
    const ratio = window.devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 4 * ratio]);
    ctx.strokeStyle = colour("notice");
    const started = this.store.get("run").started ?? 0;
    for (const move of this.store.state.moves ?? []) {
      const x = plot.valToPos((move.t - started) / 60, "x", true);
      line(ctx, x, bbox.top, x, bbox.top + bbox.height);
    }
    const limit = kind.limit?.(this.store.state);
    if (known(limit)) {
      ctx.setLineDash([]);
      ctx.strokeStyle = colour("bad");
      const y = plot.valToPos(limit, "y", true);
      line(ctx, bbox.left, y, bbox.left + bbox.width, y);
    }
    if (kind.verdicts) this.crosses(plot, ctx, ratio);
    title(plot, kind, ratio);
    ctx.restore();
  }

  crosses(plot, ctx, ratio) {
    const frames = this.store.frames();
    if (!frames) return;
    ctx.setLineDash([]);
    ctx.strokeStyle = colour("bad");
    ctx.lineWidth = 2 * ratio;
    const accepted = frames.column("accepted");
    const [times, blur] = plot.data;
    const size = 3.5 * ratio;
    accepted.forEach((ok, i) => {
      if (ok !== 0) return;
      const x = plot.valToPos(times[i], "x", true);
      const y = known(blur[i]) ? plot.valToPos(blur[i], "y", true) : plot.bbox.top + plot.bbox.height - size;
      line(ctx, x - size, y - size, x + size, y + size);
      line(ctx, x - size, y + size, x + size, y - size);
    });
  }

  render() {
    if (sizeOf(byId("traces"))[0] < 80) return; // not shown on a phone
    if (!this.plots.length || this.stale) this.build();
    for (const { kind, plot } of this.plots) plot.setData(this.columns(kind));
  }

  resize() {
    if (!this.plots.length) return;
    const [width, height] = this.sizes();
    this.plots.forEach(({ plot }, i) => plot.setSize({ width, height: height + (i === KINDS.length - 1 ? 16 : 0) }));
  }

}

// What is drawn, in its colour, on a ground that keeps it readable.
function title(plot, kind, ratio) {
  const { ctx, bbox } = plot;
  ctx.font = `600 ${11 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  const words = [[kind.title, "ink"], ...(kind.lines.length > 1 ? kind.lines.map((item) => [item.label + (item.dash ? " ┄" : " ─"), item.stroke]) : [])];
  let x = bbox.left + 5 * ratio;
  ctx.fillStyle = colour("panel");
  ctx.globalAlpha = 0.8;
  ctx.fillRect(x - 3 * ratio, bbox.top, words.reduce((sum, [text]) => sum + ctx.measureText(text).width + 8 * ratio, 0), 14 * ratio);
  ctx.globalAlpha = 1;
  for (const [text, name] of words) {
    ctx.fillStyle = colour(name);
    ctx.fillText(text, x, bbox.top + 1.5 * ratio);
    x += ctx.measureText(text).width + 8 * ratio;
  }
}

function line(ctx, x0, y0, x1, y1) {
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

function range(low, high, kind) {
  if (!known(low) || !known(high)) return [0, 1];
  const span = high - low || Math.abs(high) * 0.02 || 1;
  return [kind.zero ? Math.min(0, low) : low - 0.1 * span, high + 0.3 * span];
}
