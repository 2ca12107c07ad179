/** Tables with a name, which scroll by themselves where they are wider than the page. */

import { h, type Child } from "../dom";

/** A row of headings, one per column. */
export function headings(...columns: Child[]): HTMLElement {
  return h("thead", {}, h("tr", {}, columns.map((column) => h("th", { attrs: { scope: "col" } }, column))));
}

/** A row: its heading, then its cells, `td` elements. */
export function row(heading: Child, ...cells: Child[]): HTMLElement {
  return h("tr", {}, h("th", { attrs: { scope: "row" } }, heading), cells);
}

/** A table within a region that scrolls by mouse, touch and keyboard. */
export function scrollTable(name: string, kind: string, ...children: Child[]): HTMLElement {
  const region = { tabindex: 0, role: "region", "aria-label": name };
  return h("div", { class: "table-scroll", attrs: region }, h("table", `facts ${kind}`, children));
}
