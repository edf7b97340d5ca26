// Steering: every command is sent once, answered, and its state shown; what ends a run is asked twice.

import { byId, make, setText } from "./dom.js";
import { fixed, known, si } from "./format.js";

const WHO = "xbat-live-who";
const WHEN = {
  pause: ["RUNNING", "RELOCATING"],
  "pause-now": ["RUNNING", "RELOCATING", "PAUSING"],
  resume: ["PAUSED", "PAUSING"],
  relocate: ["RUNNING", "PAUSED"],
  skip_spot: ["RUNNING", "PAUSED"],
  limit: ["RUNNING", "PAUSED", "PAUSING", "RELOCATING"],
  note: ["RUNNING", "PAUSED", "PAUSING", "RELOCATING"],
  stop: ["RUNNING", "PAUSED", "PAUSING", "RELOCATING"],
  abort: ["RUNNING", "PAUSED", "PAUSING", "RELOCATING", "STOPPING"],
};

export class ControlsPanel {
  constructor(store, status, connection, stats) {
    Object.assign(this, { store, status, connection, stats });
    this.map = null;
    for (const button of document.querySelectorAll("[data-verb]")) button.addEventListener("click", () => this.press(button.dataset.verb));
    document.addEventListener("keydown", (event) => this.key(event));
  }

  get steers() {
    return this.stats.role === "operator";
  }

  render() {
    byId("controls").hidden = !this.steers;
    const state = this.status.phase;
    for (const button of document.querySelectorAll("[data-verb]")) {
      const allowed = (WHEN[button.dataset.verb] ?? []).includes(state);
      if (!button.dataset.title) button.dataset.title = button.title;
      button.disabled = !allowed || !this.stats.connected;
      button.title = allowed ? button.dataset.title : `not while ${state}`;
    }
  }

  key(event) {
    if (!this.steers || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog[open]")) return;
    const state = this.status.phase;
    const verb = { p: state === "PAUSED" ? "resume" : "pause", P: "pause-now", r: "relocate", a: "abort" }[event.key];
    if (!verb) return;
    event.preventDefault();
    const button = document.querySelector(`[data-verb="${verb}"]`);
    if (!button.disabled) this.press(verb);
  }

  press(verb) {
    const asks = { relocate: () => this.askRelocate(), limit: () => this.askLimit(), note: () => this.askNote(), stop: () => this.askEnd("stop"), abort: () => this.askEnd("abort") };
    if (asks[verb]) asks[verb]();
    else if (verb === "pause-now") this.send("pause", { now: true });
    else if (verb === "pause") this.send("pause", { now: false });
    else this.send(verb, {});
  }

  async send(verb, args) {
    this.say(`${verb} …`, "");
    try {
      const reply = await this.connection.command(verb, args, localStorage.getItem(WHO) ?? "");
      this.stats.replies.push(reply);
      const told = reply.message || reply.state || verb;
      this.say(`${reply.ok ? "✓" : "✗"} ${verb}: ${told}`, reply.ok ? "ok" : "refused");
      return reply;
    } catch (error) {
      this.say(`✗ ${verb}: ${error.message}`, "refused");
      return { ok: false, message: error.message };
    }
  }

  say(text, kind) {
    setText("reply", text);
    byId("reply").dataset.kind = kind;
  }

  // A click on the map: what would it cost to go there?
  async propose(x, y) {
    if (!this.steers) return;
    this.map.propose({ x, y });
    setText("map-note", `asking for (${fixed(x, 1)}, ${fixed(y, 1)}) µm …`);
    const answer = await this.send("propose", { x_um: x, y_um: y });
    if (!answer.ok) {
      setText("map-note", `✗ ${answer.message}`);
      this.map.propose(null);
      return;
    }
    this.map.propose({ x, y, allowed: answer.allowed });
    const told = `(${fixed(x, 1)}, ${fixed(y, 1)}) µm: ${fixed(answer.distance_um, 1, "µm")} away, ${si(answer.dose_gy, "Gy")} there now, ${si(answer.predicted_gy, "Gy")} after the next exposure`;
    setText("map-note", `${answer.allowed ? "✓" : "✗"} ${told}${answer.reason ? `; ${answer.reason}` : ""}`);
    if (answer.allowed) this.ask("Relocate", [make("p", {}, `Move to ${told}?`)], "Relocate", () => this.send("relocate", { x_um: x, y_um: y }), () => this.map.propose(null));
  }

  askRelocate() {
    this.ask("Relocate", [make("p", {}, "To the nearest fresh spot, or cancel and click on the map for a place of your own.")], "Nearest fresh spot", () => this.send("relocate", {}));
  }

  askNote() {
    const text = make("textarea", { rows: 3, maxlength: 2000, required: "", "data-testid": "note-text" });
    this.ask("Note", [make("label", {}, "Remark, kept in the run and the ledger", text)], "Note", () => this.send("note", { text: text.value }));
  }

  askLimit() {
    const limits = this.store.get("experiment").limits ?? this.store.state.limits ?? [];
    const name = make("select", { "data-testid": "limit-name" }, ...limits.map((limit) => make("option", { value: limit.name }, `${limit.name}: ${known(limit.limit_gy) ? si(limit.limit_gy, "Gy") : si(limit.rate_gy_s, "Gy/s")} in ${limit.material}`)));
    const value = make("input", { required: "", placeholder: "e.g. 2 MGy", maxlength: 64, "data-testid": "limit-value" });
    const reason = make("input", { maxlength: 2000, placeholder: "needed to loosen", "data-testid": "limit-reason" });
    const confirm = make("input", { type: "checkbox", "data-testid": "limit-confirm" });
    const fields = [make("label", {}, "Limit", name), make("label", {}, "New value, with its unit", value), make("label", {}, "Reason", reason), make("label", { class: "check" }, confirm, " I want a looser limit")];
    this.ask("Change a limit", fields, "Change", () => this.send("limit", { name: name.value, value: value.value, confirm: confirm.checked, reason: reason.value }));
  }

  askEnd(verb) {
    const reason = make("input", { maxlength: 2000, "data-testid": "end-reason" });
    const what = verb === "stop" ? "The frame under way is finished, the shutter closes, all data is kept." : "The shutter closes and the run ends at once. Type nothing, or a reason, and confirm.";
    this.ask(verb === "stop" ? "Stop the run?" : "Abort the run?", [make("p", {}, what), make("label", {}, "Reason", reason)], verb === "stop" ? "Stop, keep data" : "Abort now", () => this.send(verb, { reason: reason.value }), undefined, verb === "abort");
  }

  ask(title, fields, yes, confirmed, cancelled, danger = false) {
    const who = make("input", { value: localStorage.getItem(WHO) ?? "", maxlength: 64, placeholder: "your name", "data-testid": "who" });
    // Enter means the first button that submits: what cannot be undone is never that one.
    const cancel = make("button", { type: danger ? "submit" : "button", value: "cancel", formnovalidate: "", "data-testid": "ask-cancel" }, "Cancel");
    const ok = make("button", { value: "ok", class: danger ? "danger" : "primary", "data-testid": "ask-ok" }, yes);
    byId("ask-form").replaceChildren(make("h3", {}, title), ...fields, make("label", {}, "Who", who), make("menu", {}, cancel, ok));
    const dialog = byId("ask");
    if (!danger) cancel.addEventListener("click", () => dialog.close("cancel"));
    dialog.onclose = () => {
      localStorage.setItem(WHO, who.value.trim());
      if (dialog.returnValue === "ok") confirmed();
      cancelled?.();
    };
    dialog.returnValue = "";
    dialog.showModal();
    fields.map((field) => field.querySelector?.("input, textarea, select")).find(Boolean)?.focus();
  }
}
