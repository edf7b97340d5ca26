// What happened, the newest first.

import { byId, make, setText } from "./dom.js";
import { clock } from "./format.js";

const SHOWN = 200;
const ICONS = { info: "·", notice: "➤", warning: "▲", alarm: "✖", operator: "☞" };
const RANK = { info: 0, operator: 1, notice: 1, warning: 2, alarm: 3 };
const SPOKEN = 1; // from this rank on an event is read out

export class EventsPanel {
  constructor(store) {
    this.store = store;
    byId("event-filter").addEventListener("change", () => this.render());
    byId("event-csv").addEventListener("click", () => this.download());
  }

  render() {
    const wanted = byId("event-filter").value;
    const fits = (row) => !wanted || (wanted === "operator" ? row.severity === "operator" : RANK[row.severity] >= RANK[wanted]);
    const rows = this.store.log.filter(fits);
    const shown = rows.slice(-SHOWN).reverse();
    byId("events").replaceChildren(...shown.map(line));
    setText("event-count", rows.length > SHOWN ? `showing ${SHOWN} of ${rows.length}; CSV has all ${this.store.log.length}` : "");
  }

  announce(rows) {
    const spoken = rows.filter((row) => RANK[row.severity] >= SPOKEN);
    if (spoken.length) setText("announce", spoken.slice(-3).map((row) => `${row.what}: ${row.text}`).join(". "));
  }

  download() {
    const quote = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const rows = [["time_utc", "severity", "what", "text", "document"], ...this.store.log.map((row) => [new Date(1000 * row.t).toISOString(), row.severity, row.what, row.text, row.doc])];
    const url = URL.createObjectURL(new Blob([rows.map((row) => row.map(quote).join(",")).join("\n")], { type: "text/csv" }));
    const link = make("a", { href: url, download: `events-${(this.store.get("run").uid ?? "run").slice(0, 8)}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
}

function line(row) {
  const time = make("time", { class: "mono" }, clock(row.t));
  const what = make("b", {}, `${ICONS[row.severity] ?? "·"} ${row.what}`);
  return make("li", { "data-severity": row.severity, "data-testid": "event", "data-what": row.what, title: row.doc ? `document ${row.doc}` : "" }, time, " ", what, " ", make("span", {}, row.text));
}
