// What the page knows of a run: the counterpart of xbat_live.live.store.

const MOST_POINTS = 2000;
const MOST_LINES = 1000;

class Series {
  constructor(columns) {
    this.columns = columns;
    this.next = 0;
    this.rows = [];
    this.at = Object.fromEntries(columns.map((name, i) => [name, i]));
  }

  take(first, rows) {
    rows.forEach((row, i) => {
      if (first + i < this.next) return;
      this.next = first + i + 1;
      this.rows.push(row);
    });
    if (this.rows.length > MOST_POINTS) this.rows.splice(0, this.rows.length - MOST_POINTS);
  }

  column(name) {
    const i = this.at[name];
    return this.rows.map((row) => row[i]);
  }

  // The last values of a column.
  tail(name, count) {
    const i = this.at[name];
    return this.rows.slice(-count).map((row) => row[i]);
  }

  get last() {
    const row = this.rows[this.rows.length - 1];
    return row ? Object.fromEntries(this.columns.map((name, i) => [name, row[i]])) : null;
  }
}

export class Store {
  constructor() {
    this.clear();
  }

  clear() {
    this.state = {};
    this.series = {};
    this.log = [];
    this.logNext = 0;
  }

  // Takes over a message `data`; returns the names of what changed.
  apply(message) {
    if (message.reset) this.clear();
    Object.assign(this.state, message.state);
    const changed = new Set(Object.keys(message.state));
    for (const [name, part] of Object.entries(message.series)) {
      this.series[name] ??= new Series(part.columns);
      this.series[name].take(part.first, part.rows);
      changed.add(`series:${name}`);
    }
    const fresh = message.log.rows.filter((_, i) => message.log.first + i >= this.logNext);
    if (fresh.length) {
      this.log.push(...fresh);
      if (this.log.length > MOST_LINES) this.log.splice(0, this.log.length - MOST_LINES);
      changed.add("log");
    }
    this.logNext = Math.max(this.logNext, message.log.first + message.log.rows.length);
    return { changed, fresh, reset: message.reset };
  }

  get(name) {
    return this.state[name] ?? {};
  }

  frames() {
    return this.series.frames ?? null;
  }
}
