// Small SVG charts: axes with units, lines, points, shaded spans.

import { sizeOf, svg } from "./dom.js";
import { known, ticks } from "./format.js";

const EDGE = { right: 8, top: 6, bottom: 28 };
const LETTER = 6.2;

export class Chart {
  constructor(root, { xLabel, yLabel, square = false }) {
    this.root = root;
    this.labels = [xLabel, yLabel];
    this.square = square;
  }

  // Begins a drawing for these ranges; returns false when there is nothing to draw on.
  begin(xs, ys) {
    const [x, y] = [xs.filter(known), ys.filter(known)];
    [this.width, this.height] = sizeOf(this.root);
    this.parts = [];
    this.left = 44;
    if (!x.length || !y.length || this.width < 40 || this.height < 40) {
      this.root.replaceChildren();
      return false;
    }
    this.rx = padded(Math.min(...x), Math.max(...x), 0.04);
    this.ry = padded(Math.min(...y), Math.max(...y), 0.08);
    if (this.square) this.equalScales();
    this.left = 26 + LETTER * Math.max(...ticks(...this.ry, this.yTicks).map((value) => String(value).length));
    this.root.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    this.drawAxes();
    return true;
  }

  get inner() {
    return [this.width - this.left - EDGE.right, this.height - EDGE.top - EDGE.bottom];
  }

  get yTicks() {
    return Math.max(2, Math.round((this.height - EDGE.top - EDGE.bottom) / 32));
  }

  equalScales() {
    const [w, h] = this.inner;
    const scale = Math.max((this.rx[1] - this.rx[0]) / w, (this.ry[1] - this.ry[0]) / h);
    const widen = ([low, high], size) => [(low + high - scale * size) / 2, (low + high + scale * size) / 2];
    this.rx = widen(this.rx, w);
    this.ry = widen(this.ry, h);
  }

  x(value) {
    return this.left + ((value - this.rx[0]) / (this.rx[1] - this.rx[0])) * this.inner[0];
  }

  y(value) {
    return EDGE.top + this.inner[1] - ((value - this.ry[0]) / (this.ry[1] - this.ry[0])) * this.inner[1];
  }

  drawAxes() {
    const [w, h] = this.inner;
    for (const value of ticks(...this.rx, Math.max(2, Math.round(w / 70)))) {
      this.add("line", { x1: this.x(value), x2: this.x(value), y1: EDGE.top, y2: EDGE.top + h, class: "grid" });
      this.add("text", { x: this.x(value), y: EDGE.top + h + 12, "text-anchor": "middle", class: "axis-text" }, String(value));
    }
    for (const value of ticks(...this.ry, this.yTicks)) {
      this.add("line", { x1: this.left, x2: this.left + w, y1: this.y(value), y2: this.y(value), class: "grid" });
      this.add("text", { x: this.left - 4, y: this.y(value) + 3.5, "text-anchor": "end", class: "axis-text" }, String(value));
    }
    this.add("text", { x: this.left + w / 2, y: this.height - 3, "text-anchor": "middle", class: "axis-label" }, this.labels[0]);
    this.add("text", { x: 0, y: 0, "text-anchor": "middle", class: "axis-label", transform: `translate(10 ${EDGE.top + h / 2}) rotate(-90)` }, this.labels[1]);
  }

  add(tag, attributes, ...children) {
    this.parts.push(svg(tag, attributes, ...children));
  }

  line(xs, ys, cls) {
    let d = "";
    let pen = "M";
    xs.forEach((x, i) => {
      if (known(x) && known(ys[i])) {
        d += `${pen}${this.x(x).toFixed(1)} ${this.y(ys[i]).toFixed(1)}`;
        pen = "L";
      } else {
        pen = "M";
      }
    });
    if (d) this.add("path", { d, class: cls });
  }

  point(x, y, attributes, ...children) {
    if (known(x) && known(y)) this.add("circle", { cx: this.x(x).toFixed(1), cy: this.y(y).toFixed(1), r: 3, ...attributes }, ...children);
  }

  // A shaded span of x.
  span(x0, x1, cls) {
    const [a, b] = [this.x(Math.min(x0, x1)), this.x(Math.max(x0, x1))];
    this.add("rect", { x: a.toFixed(1), y: EDGE.top, width: Math.max(b - a, 1).toFixed(1), height: this.inner[1], class: cls });
  }

  vertical(x, cls, title) {
    this.add("line", { x1: this.x(x), x2: this.x(x), y1: EDGE.top, y2: EDGE.top + this.inner[1], class: cls }, title ? svg("title", {}, title) : null);
  }

  end() {
    this.root.replaceChildren(...this.parts);
  }
}

function padded(low, high, part) {
  const span = high - low || Math.max(Math.abs(high) * 0.01, 1e-3);
  return [low - part * span, high + part * span];
}
