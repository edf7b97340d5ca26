// The newest frame: decoded off the main thread, painted at once, acknowledged when it is on the screen.

import { byId, setText } from "./dom.js";
import { fixed, known, si, significant } from "./format.js";

const NICE_UM = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500];
const MOST_LATENCIES = 2000;

export class FramePanel {
  constructor(stats, show) {
    this.stats = stats;
    this.canvas = byId("frame");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.box = byId("frame-box");
    this.last = null;
    this.fixedScale = null;
    this.logarithmic = false;
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => {
        for (const other of document.querySelectorAll("[data-view]")) other.setAttribute("aria-pressed", String(other === button));
        this.fixedScale = null;
        this.labelContrast();
        show(button.dataset.view);
      });
    }
    byId("contrast").addEventListener("click", () => {
      this.fixedScale = this.fixedScale || !this.last ? null : { low: this.last.header.low, high: this.last.header.high };
      this.labelContrast();
      this.repaint();
    });
    byId("logscale").addEventListener("click", () => {
      this.logarithmic = !this.logarithmic;
      byId("logscale").setAttribute("aria-pressed", String(this.logarithmic));
      this.repaint();
    });
  }

  labelContrast() {
    setText("contrast", this.fixedScale ? `fixed ${significant(this.fixedScale.low)}–${significant(this.fixedScale.high)}` : "auto");
    byId("contrast").setAttribute("aria-pressed", String(Boolean(this.fixedScale)));
  }

  async take(header, jpeg, acknowledge) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    } catch (error) {
      this.stats.errors.push(`frame ${header.n}: ${error.message}`);
      acknowledge();
      return;
    }
    this.last?.bitmap.close();
    this.last = { header, bitmap };
    if (document.hidden) {
      acknowledge(); // nothing is painted in a hidden tab; the next one comes all the same
      return;
    }
    requestAnimationFrame(() => {
      this.paint(header, bitmap);
      acknowledge();
    });
  }

  paint(header, bitmap) {
    if (this.last.bitmap !== bitmap) {
      this.stats.skipped += 1;
      return;
    }
    this.repaint();
    this.describe(header);
    this.stats.frames += 1;
    this.stats.lastFrame = header;
    if (known(header.sent)) {
      this.stats.latencies.push(Date.now() - 1000 * header.sent);
      if (this.stats.latencies.length > MOST_LATENCIES) this.stats.latencies.shift();
    }
  }

  repaint() {
    if (!this.last) return;
    const { header, bitmap } = this.last;
    if (this.canvas.width !== bitmap.width || this.canvas.height !== bitmap.height) {
      [this.canvas.width, this.canvas.height] = [bitmap.width, bitmap.height];
    }
    this.context.drawImage(bitmap, 0, 0);
    if ((this.fixedScale || this.logarithmic) && header.view !== "difference") this.regrade(header);
    this.drawScale(header, bitmap);
  }

  // Fixed or logarithmic grey: by a table of 256 entries over the pixels.
  regrade(header) {
    const { low, high } = this.fixedScale ?? header;
    const table = new Uint8ClampedArray(256).map((_, level) => {
      const value = header.low + ((header.high - header.low) * level) / 255;
      const part = Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
      return 255 * (this.logarithmic ? Math.log1p(50 * part) / Math.log1p(50) : part);
    });
    const image = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i += 1) {
      const grey = table[pixels[i] & 255];
      pixels[i] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    this.context.putImageData(image, 0, 0);
  }

  drawScale(header, bitmap) {
    if (!(header.pixel_um > 0)) return;
    const context = this.context;
    const field = bitmap.width * header.pixel_um;
    const length = NICE_UM.filter((um) => um <= 0.3 * field).pop();
    if (!length) return;
    const unit = bitmap.width / 654;
    const [x, y, width] = [18 * unit, bitmap.height - 22 * unit, length / header.pixel_um];
    const label = length < 1 ? `${1000 * length} nm` : `${length} µm`;
    context.font = `600 ${18 * unit}px system-ui, sans-serif`;
    const box = Math.max(width, context.measureText(label).width) + 20 * unit;
    context.fillStyle = "rgba(0, 0, 0, 0.62)";
    context.fillRect(x - 10 * unit, y - 26 * unit, box, 40 * unit);
    context.fillStyle = "#fff";
    context.fillRect(x, y, width, 5 * unit);
    context.fillText(label, x, y - 7 * unit);
  }

  describe(header) {
    byId("frame-empty").hidden = true;
    const verdict = header.verdict ?? "";
    const icon = header.accepted ? "✓" : "✗";
    setText("frame-n", known(header.n) ? `#${header.n}` : "–");
    setText("frame-energy", known(header.energy_ev) ? `${header.energy_ev.toFixed(1)} eV` : "");
    const pill = byId("verdict");
    pill.dataset.verdict = this.box.dataset.verdict = verdict && (header.accepted ? "accepted" : "rejected");
    setText(pill, verdict ? `${icon} ${header.accepted ? "ACCEPTED" : `REJECTED: ${verdict}`}` : "");
    pill.title = header.reason ?? "";
    const size = header.full_nx === header.nx ? "" : `, shown ${header.nx} × ${header.ny}`;
    const place = header.field ? `spot ${Number(header.spot) + 1}${header.field}, ` : "";
    const unit = `${significant(header.low)} to ${significant(header.high)} ${header.unit}`;
    const dose = known(header.dose_gy) ? `, ${si(header.dose_gy, "Gy")} after it` : "";
    const exposure = known(header.exposure_s) ? `, ${si(header.exposure_s, "s")}` : "";
    const note = header.note ? `; ${header.note}` : header.colours ? `; ${header.colours}` : "";
    const pixel = header.pixel_um > 0 ? `, ${fixed(1000 * header.pixel_um, 1)} nm/px` : "";
    setText("frame-note", `${place}${header.full_nx} × ${header.full_ny} px${size}${pixel}${exposure}${dose}; grey ${unit}${note}`);
    this.canvas.setAttribute("aria-label", `frame ${header.n}, ${header.accepted ? "accepted" : `rejected: ${verdict}`}`);
    document.documentElement.style.setProperty("--frame-aspect", `${header.nx} / ${header.ny}`);
  }

  reset() {
    this.last?.bitmap.close();
    this.last = null;
    byId("frame-empty").hidden = false;
  }
}
