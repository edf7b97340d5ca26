// Small helpers; no style attributes, which the content security policy forbids in markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function setText(id, text) {
  const element = typeof id === "string" ? byId(id) : id;
  if (element.textContent !== text) element.textContent = text;
}

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A colour of the theme; asked for often, and computing styles is dear.
let colours = { theme: null, values: new Map() };

export function colour(name) {
  const { theme } = document.documentElement.dataset;
  if (colours.theme !== theme) colours = { theme, values: new Map() };
  if (!colours.values.has(name)) colours.values.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.values.get(name);
}

// The size of an element on the screen, px. Measured once and then followed: measuring in the middle of a drawing makes the browser lay
// out everything that was drawn before.
const sizes = new WeakMap();
let resized = () => {};
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) sizes.set(target, measure(target));
  resized();
});

export function sizeOf(element) {
  const size = sizes.get(element);
  if (size && size[0] > 1 && size[1] > 1) return size;
  if (!size) observer.observe(element);
  sizes.set(element, measure(element));
  return sizes.get(element);
}

export function whenResized(redraw) {
  resized = redraw;
}

function measure(element) {
  const box = element.getBoundingClientRect();
  return [Math.max(Math.round(box.width), 1), Math.max(Math.round(box.height), 1)];
}
