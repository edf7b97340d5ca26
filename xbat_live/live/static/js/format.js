// Numbers with their unit, as people read them.

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
export const NONE = "–";

export function known(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function si(value, unit, digits = 3) {
  if (!known(value)) return NONE;
  if (value === 0) return `0 ${unit}`;
  const [factor, prefix] = PREFIXES.find(([f]) => Math.abs(value) >= f * 0.9995) ?? PREFIXES[PREFIXES.length - 1];
  return `${significant(value / factor, digits)} ${prefix}${unit}`;
}

export function significant(value, digits = 3) {
  if (!known(value)) return NONE;
  if (value === 0) return "0";
  const decimals = Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value) * (1 + 1e-12))));
  return value.toFixed(Math.min(decimals, 12));
}

export function fixed(value, decimals, unit = "") {
  return known(value) ? `${value.toFixed(decimals)}${unit ? ` ${unit}` : ""}` : NONE;
}

export function signed(value, decimals, unit = "") {
  return known(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(decimals)}${unit ? ` ${unit}` : ""}` : NONE;
}

export function percent(fraction, decimals = 0) {
  return known(fraction) ? `${(100 * fraction).toFixed(decimals)} %` : NONE;
}

export function duration(seconds) {
  if (!known(seconds) || seconds < 0) return NONE;
  const s = Math.floor(seconds);
  const [h, m, rest] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60), s % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h >= 48 ? `${Math.floor(h / 24)} d ${two(h % 24)} h` : `${two(h)}:${two(m)}:${two(rest)}`;
}

export function clock(unixSeconds) {
  return known(unixSeconds) ? new Date(1000 * unixSeconds).toLocaleTimeString("en-GB") : NONE;
}

export function bytes(value) {
  return known(value) ? `${significant(value / 1e9)} GB` : NONE;
}

// Round numbers for an axis: about `count` of them between low and high.
export function ticks(low, high, count = 5) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const raw = span / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const out = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * span; n += 1) out.push(Math.round(n * step * 1e9) / 1e9);
  return out;
}
