/** Elements are made here and nowhere else: text arrives as text nodes, so nothing that a run contains is markup. */

export type Child = Node | string | number | null | undefined | false | Child[];

type Listeners = { [E in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[E]) => void };

export interface Options {
  class?: string | undefined;
  /** Attributes; null and false leave one out, true writes it without a value. */
  attrs?: Record<string, string | number | boolean | null | undefined>;
  on?: Listeners;
}

function append(parent: Element, children: Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(parent, child);
    else parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

function setAttributes(element: Element, attrs: Options["attrs"]): void {
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** An element with its class, attributes, listeners and children. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  options: Options | string = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  const { class: name, attrs, on } = typeof options === "string" ? { class: options } : options;
  if (name) element.className = name;
  setAttributes(element, attrs);
  for (const [event, listener] of Object.entries(on ?? {})) {
    element.addEventListener(event, listener as EventListener);
  }
  append(element, children);
  return element;
}

/** An SVG element with its attributes and children. */
export function svg(tag: string, attrs: Options["attrs"] = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attrs);
  append(element, children);
  return element;
}

/** Replace the children of `parent`. */
export function fill(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * Replace the children of `parent`, but keep what is there already, so that the focus, a click and selected text are not lost.
 * Listeners stay as they are: they must not depend on what has changed. The new children are only a pattern, to be made for this call.
 */
export function refill(parent: Element, ...children: Child[]): void {
  const fresh = parent.cloneNode(false) as Element;
  append(fresh, children);
  renew(parent, fresh);
}

/** Make `element` equal to `fresh`, which is of the same kind; see `refill`. */
export function renew(element: Element, fresh: Element): void {
  for (const { name } of [...element.attributes]) if (!fresh.hasAttribute(name)) element.removeAttribute(name);
  for (const { name, value } of fresh.attributes) {
    if (element.getAttribute(name) === value) continue;
    if (name === "style") (element as HTMLElement).style.cssText = value; // an attribute of style would be refused by the page's policy
    else element.setAttribute(name, value);
  }
  const known = [...element.childNodes];
  [...fresh.childNodes].forEach((child, index) => {
    const old = known[index];
    if (!old) element.append(child);
    else if (old.nodeName !== child.nodeName) old.replaceWith(child);
    else if (old instanceof Element) renew(old, child as Element);
    else if (old.nodeValue !== child.nodeValue) old.nodeValue = child.nodeValue;
  });
  known.slice(fresh.childNodes.length).forEach((child) => child.remove());
}

/** Put `elements` into `list` in this order. Those that are in place are left there, and so is the one with the focus, which would lose it. */
export function place(list: Element, elements: Element[]): void {
  elements.forEach((element, index) => {
    const stays = element.parentElement === list && element.contains(document.activeElement);
    while (stays && list.children[index] !== element) list.append(list.children[index] as Element);
    if (list.children[index] !== element) list.insertBefore(element, list.children[index] ?? null);
  });
  while (list.children.length > elements.length) list.lastElementChild?.remove();
}

/** Write `text` only if it differs, so that a screen reader is not told twice. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
