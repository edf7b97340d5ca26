// The websocket: token first, acknowledgements, and connecting again when it breaks.

export const VERSION = 1;
const AGAIN_MS = [250, 500, 1000, 2000, 4000];
const CALM_MS = 15000; // when the run is over, its hub has most likely gone with it
const KEY = "xbat-live-token";
const REFUSED = 4401;

export class Connection {
  constructor(handlers, stats) {
    this.handlers = handlers;
    this.stats = stats;
    this.tries = 0;
    this.view = "raw";
    this.pending = new Map();
    this.token = takeToken();
    this.number = 0;
  }

  open() {
    if (!this.token) {
      this.handlers.login("");
      return;
    }
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/live`);
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.send({ type: "auth", token: this.token });
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => this.lost(event);
  }

  use(token) {
    this.token = token;
    sessionStorage.setItem(KEY, token);
    this.open();
  }

  lost(event) {
    this.stats.connected = false;
    this.handlers.connected(false);
    for (const { reject } of this.pending.values()) reject(new Error("the connection broke; it is not known whether the command was carried out"));
    this.pending.clear();
    if (event.code === REFUSED) {
      sessionStorage.removeItem(KEY);
      this.token = null;
      this.handlers.login("That token is not known here.");
      return;
    }
    const wait = this.handlers.calm() ? CALM_MS : AGAIN_MS[Math.min(this.tries, AGAIN_MS.length - 1)];
    this.tries += 1;
    this.stats.reconnects += 1;
    setTimeout(() => this.open(), wait);
  }

  send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ v: VERSION, ...message }));
  }

  show(view) {
    this.view = view;
    this.send({ type: "view", view });
  }

  command(verb, args, who) {
    this.number += 1;
    const id = `${Date.now().toString(36)}-${this.number}`;
    return new Promise((resolve, reject) => {
      if (this.socket?.readyState !== WebSocket.OPEN) {
        reject(new Error("not connected"));
        return;
      }
      this.pending.set(id, { resolve, reject });
      this.send({ type: "command", id, verb, arguments: args, who });
    });
  }

  take(data) {
    this.stats.lastMessage = performance.now();
    if (typeof data !== "string") {
      const length = new DataView(data).getUint32(0);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      this.handlers.frame(header, new Uint8Array(data, 4 + length), () => this.send({ type: "ack", frame: header.seq }));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "welcome") {
      this.tries = 0;
      this.stats.connected = true;
      this.stats.role = message.role;
      this.handlers.connected(true, message);
      if (this.view !== "raw") this.show(this.view);
    } else if (message.type === "data") {
      this.stats.data += 1;
      this.handlers.data(message);
      this.send({ type: "ack", seq: message.seq });
    } else if (message.type === "beat") {
      this.handlers.beat(message);
    } else if (message.type === "reply") {
      this.pending.get(message.id)?.resolve(message);
      this.pending.delete(message.id);
    }
  }
}

// The token stands behind `#`, which browsers never send; it goes out of the address bar and stays in this tab only.
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("k");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given ?? sessionStorage.getItem(KEY);
}
