// Status bar, progress, services, and the veil over data that has grown old.

import { byId, make, setText } from "./dom.js";
import { clock, duration, fixed, known, NONE } from "./format.js";

const STALE_S = 2;
const BEAM_S = 0.6;
const ICONS = { IDLE: "○", RUNNING: "▶", PAUSING: "◒", PAUSED: "❚❚", RESUMING: "◓", RELOCATING: "⇢", STOPPING: "◒", ENDED: "■", "HALTED-DOSE": "✖", ABORTING: "◒", ABORTED: "✖", FAILED: "✖" };
const OVER = new Set(["ENDED", "HALTED-DOSE", "ABORTED", "FAILED"]);

export class StatusPanel {
  constructor(store, stats) {
    this.store = store;
    this.stats = stats;
    this.beat = null;
    this.beatAt = performance.now();
    this.heardAt = null;
    byId("uid").addEventListener("click", () => navigator.clipboard?.writeText(this.store.get("run").uid ?? ""));
  }

  takeBeat(beat) {
    this.beat = beat;
    this.beatAt = performance.now();
    if (known(beat.age_s)) this.heardAt = Date.now() / 1000 - beat.age_s;
  }

  get phase() {
    const phase = this.store.state.steering?.phase;
    const state = this.store.state.state ?? "IDLE";
    const steered = phase && !["READY", "RUNNING", "ENDED"].includes(phase);
    return steered && !OVER.has(state) ? phase : state;
  }

  get over() {
    return OVER.has(this.store.state.state);
  }

  render() {
    const run = this.store.get("run");
    const state = this.phase;
    const pill = byId("state");
    pill.dataset.state = state;
    setText(pill.querySelector(".icon"), ICONS[state] ?? "●");
    setText(pill.querySelector(".word"), state);
    pill.title = this.store.state.state_reason || state;
    const banner = run.replay_of ? "REPLAY" : this.store.state.banner;
    byId("banner").hidden = !banner;
    setText("banner", banner ?? "");
    setText("plan", run.plan_name || "no run yet");
    setText("sample", [run.sample, run.material, run.edge].filter(Boolean).join(" · "));
    setText("scan", run.scan_id ?? NONE);
    byId("uid").hidden = !run.uid;
    setText("uid", (run.uid ?? "").slice(0, 8));
    setText("operator", run.operator || NONE);
    this.renderMachine();
    this.renderProgress(run);
    this.renderServices();
    document.title = run.plan_name ? `${state} · ${run.sample || run.plan_name} · xbat live` : "xbat live";
  }

  renderMachine() {
    const machine = this.store.get("machine");
    setText("ring", fixed(machine.ring_ma, 1, "mA"));
    setText("shutter", machine.shutter ?? NONE);
    const on = machine.shutter !== undefined && (machine.shutter !== "Closed" || (known(machine.opened_s_ago) && machine.opened_s_ago < BEAM_S));
    const lamp = byId("lamp");
    lamp.dataset.on = on ? "1" : "0";
    setText(lamp.querySelector(".icon"), on ? "☢" : "○");
    setText(lamp.querySelector(".word"), on ? "BEAM ON SAMPLE" : "beam off");
  }

  renderProgress(run) {
    const progress = this.store.get("progress");
    const counts = this.store.get("counts");
    const now = this.over ? run.stopped : Date.now() / 1000;
    const elapsed = known(run.started) ? Math.max(now - run.started, 0) : NaN;
    const total = progress.total_s ?? null;
    setText("elapsed", duration(elapsed));
    setText("eta", this.over ? "ended" : known(total) ? duration(Math.max(total - elapsed, 0)) : NONE);
    let part = progress.n_points ? (progress.point ?? 0) / progress.n_points : 0;
    if (known(total) && total > 0) part = Math.max(part, Math.min(elapsed / total, 1));
    if (this.over && run.exit_status === "success") part = 1;
    part = Math.min(part, 1);
    byId("progress-fill").style.width = `${(100 * part).toFixed(1)}%`;
    byId("progress-bar").setAttribute("aria-valuenow", (100 * part).toFixed(0));
    const spots = this.store.state.spots?.length ?? 0;
    const forecast = run.forecast?.spots;
    const energies = progress.n_energies ? `, energy ${progress.energy_index ?? NONE}/${progress.n_energies}` : "";
    const text = progress.point
      ? `point ${progress.point}/${progress.n_points ?? NONE}${energies} · ${counts.frames ?? 0} frames · ${counts.flats ?? 0} flats · spot ${spots}${known(forecast) ? ` of ${forecast} forecast` : ""} · ${(100 * part).toFixed(0)} %`
      : NONE;
    setText("progress-text", text);
  }

  renderServices() {
    const services = this.store.state.services ?? [];
    const box = byId("services");
    const open = services.some((item) => item.state === "starting" || item.state === "failed");
    box.hidden = !services.length || (!open && known(this.store.get("counts").frames) && this.store.get("counts").frames > 0);
    const text = JSON.stringify(services);
    if (text === this.servicesShown) return;
    this.servicesShown = text;
    const icons = { ok: "✓", starting: "…", failed: "✗" };
    box.replaceChildren(
      ...services.map((item) =>
        make("span", { class: "service", "data-state": item.state, title: item.detail }, `${icons[item.state] ?? "·"} ${item.name} ${item.state === "ok" ? "ok" : item.state}`)),
    );
  }

  // Several times per second, whether anything comes or not.
  tick() {
    const silent = (performance.now() - (this.stats.lastMessage ?? 0)) / 1000;
    const age = this.beat && known(this.beat.age_s) ? this.beat.age_s + (performance.now() - this.beatAt) / 1000 : null;
    setText("link", age === null ? NONE : `${age.toFixed(1)} s`);
    const reached = this.stats.connected && silent < STALE_S;
    const stale = this.stats.everConnected && !this.over && (!reached || (age !== null && age > STALE_S));
    if (this.over && (!reached || !this.beat?.connected)) setText("link", "run is over");
    const veil = byId("veil");
    veil.hidden = !stale;
    document.body.classList.toggle("stale", stale);
    if (stale) {
      const since = this.heardAt ? `no data since ${clock(this.heardAt)}` : "no data yet";
      setText("veil-text", reached ? `${since}: the acquisition does not answer` : `${since}: the hub does not answer, trying again`);
    }
  }
}
