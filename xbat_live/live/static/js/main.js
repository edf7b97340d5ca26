// Puts the page together: one store, one connection, one panel per concern.

import { BatteryPanel } from "./battery.js";
import { Connection } from "./connection.js";
import { ControlsPanel } from "./controls.js";
import { byId, setText, whenResized } from "./dom.js";
import { DosePanel } from "./dose.js";
import { EventsPanel } from "./events.js";
import { FramePanel } from "./frame.js";
import { MapPanel } from "./map.js";
import { PlumbingPanel } from "./plumbing.js";
import { QualityPanel } from "./quality.js";
import { StatusPanel } from "./status.js";
import { Store } from "./store.js";
import { initTheme } from "./theme.js";
import { TracesPanel } from "./traces.js";
import { XanesPanel } from "./xanes.js";

const CHARTS_EVERY_MS = 200;
const TICK_MS = 250;

// Counters for people who look into what the page does, and for tests.
const stats = { frames: 0, skipped: 0, data: 0, reconnects: 0, errors: [], latencies: [], replies: [], connected: false, everConnected: false, role: "", lastFrame: null, lastMessage: 0, points: 0, framesPerSecond: 0 };
window.S = stats;
window.addEventListener("error", (event) => stats.errors.push(event.message));
window.addEventListener("unhandledrejection", (event) => stats.errors.push(String(event.reason)));

const store = new Store();
const connection = new Connection({ login, connected, data, beat, frame, calm: () => panels.status.over }, stats);
const panels = {
  frame: new FramePanel(stats, (view) => connection.show(view)),
  status: new StatusPanel(store, stats),
  dose: new DosePanel(store),
  map: new MapPanel(store, (x, y) => panels.controls.propose(x, y)),
  traces: new TracesPanel(store),
  quality: new QualityPanel(store),
  battery: new BatteryPanel(store),
  xanes: new XanesPanel(store, () => redrawAll()),
  events: new EventsPanel(store),
  plumbing: new PlumbingPanel(store, stats),
};
panels.controls = new ControlsPanel(store, panels.status, connection, stats);
panels.controls.map = panels.map;
stats.store = store;
stats.map = panels.map;
stats.command = (verb, args) => connection.command(verb, args, "");

let changedSince = new Set();
let chartsAt = 0;
let timer = null;

function data(message) {
  const { changed, fresh, reset } = store.apply(message);
  for (const name of changed) changedSince.add(name);
  if (reset) {
    for (const name of ["log", "series:frames", "map", "spots"]) changedSince.add(name);
    if (!store.frames()) panels.frame.reset();
  } else {
    panels.events.announce(fresh);
  }
  schedule();
}

// Numbers and charts are drawn at most five times per second; frames at once.
function schedule() {
  if (timer !== null) return;
  timer = setTimeout(draw, Math.max(0, chartsAt + CHARTS_EVERY_MS - performance.now()));
}

function draw() {
  timer = null;
  chartsAt = performance.now();
  const changed = changedSince;
  changedSince = new Set();
  const any = (...names) => names.some((name) => changed.has(name));
  stats.points = store.frames()?.rows.length ?? 0;
  panels.status.render();
  panels.dose.render();
  panels.controls.render();
  if (any("log")) panels.events.render();
  if (any("map", "spots", "beam", "experiment", "moves")) panels.map.render(changed);
  if (any("series:frames", "experiment", "run", "moves")) panels.traces.render();
  if (any("series:frames", "quality", "counts", "drift")) panels.quality.render();
  if (any("series:frames", "cell", "moves")) panels.battery.render();
  if (any("series:xanes", "series:edges", "series:xas", "xas_maps", "run")) panels.xanes.render();
}

function beat(message) {
  panels.status.takeBeat(message);
  panels.plumbing.render(message);
}

function frame(header, jpeg, acknowledge) {
  panels.frame.take(header, jpeg, acknowledge);
}

function connected(yes, message) {
  if (yes) {
    stats.everConnected = true;
    panels.status.takeBeat(message);
  }
  panels.controls.render();
}

function login(why) {
  if (why) setText("login-why", `${why} It stands in the address that xbat printed, or in the files operator.token and viewer.token.`);
  const dialog = byId("login");
  dialog.onclose = () => {
    const token = byId("token").value.trim();
    byId("token").value = "";
    if (token) connection.use(token);
    else setTimeout(() => login(""), 0);
  };
  if (!dialog.open) dialog.showModal();
}

function redrawAll() {
  for (const name of ["log", "map", "experiment", "run", "series:frames", "cell", "series:xanes"]) changedSince.add(name);
  panels.traces.stale = true;
  schedule();
}

initTheme(byId("theme"), redrawAll);
new ResizeObserver(redrawAll).observe(byId("grid"));
whenResized(redrawAll);
document.addEventListener("visibilitychange", () => panels.frame.repaint());
setInterval(() => {
  panels.status.tick();
  panels.status.renderProgress(store.get("run"));
}, TICK_MS);
panels.status.render();
panels.dose.render();
panels.controls.render();
connection.open();
