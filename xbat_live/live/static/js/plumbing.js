// What works behind the run.

import { byId, make } from "./dom.js";
import { bytes, duration, fixed, known } from "./format.js";

const BUDGET_MS = 100;

export class PlumbingPanel {
  constructor(store, stats) {
    this.store = store;
    this.stats = stats;
    this.recent = [];
  }

  render(beat) {
    const plumbing = this.store.get("plumbing");
    const stores = this.store.get("stores");
    const quality = this.store.get("quality");
    this.recent.push([performance.now(), this.stats.frames]);
    while (this.recent.length > 2 && performance.now() - this.recent[0][0] > 4000) this.recent.shift();
    const [[t0, n0], [t1, n1]] = [this.recent[0], this.recent[this.recent.length - 1]];
    const rate = t1 > t0 ? (1000 * (n1 - n0)) / (t1 - t0) : 0;
    this.stats.framesPerSecond = rate;
    const items = [
      known(stores.archive_backlog) ? `Tiled backlog ${stores.archive_backlog} docs` : "no archive",
      stores.archive_error ? `archive: ${stores.archive_error}` : null,
      known(stores.disk_free_bytes) ? `disk ${bytes(stores.disk_free_bytes)} free${known(stores.disk_hours) ? ` = ${duration(3600 * stores.disk_hours)}` : ""}` : null,
      known(quality.elapsed_ms) ? `judging ${fixed(quality.elapsed_ms, 0)} ms/frame (budget ${BUDGET_MS})` : null,
      `previews ${rate.toFixed(1)} f/s, ${(plumbing.previews_left_out ?? 0) + this.stats.skipped} left out`,
      plumbing.documents_dropped ? `⚠ ${plumbing.documents_dropped} documents not shown` : null,
      beat ? `${beat.viewers} viewer${beat.viewers === 1 ? "" : "s"}` : null,
      this.stats.role ? `you: ${this.stats.role}` : null,
    ];
    byId("plumbing").replaceChildren(...items.filter(Boolean).map((text) => make("span", {}, text)));
  }
}
