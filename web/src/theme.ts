/** Light or dark: as the system says, unless the reader chose. The choice is kept in this browser. */

import { h } from "./dom";
import { themeIcon } from "./parts/icons";

type Choice = "auto" | "light" | "dark";

const KEY = "poise-theme";
const ORDER: Choice[] = ["auto", "light", "dark"];

function stored(): Choice {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "auto";
  } catch {
    return "auto";
  }
}

/** The button that switches; `changed` is called whenever the colours are different from before. */
export function themeButton(changed: () => void): HTMLElement {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  let choice = stored();
  const button = h("button", { class: "quiet", attrs: { type: "button" } }, themeIcon());

  function apply(): void {
    const dark = choice === "dark" || (choice === "auto" && system.matches);
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
    const label = `Colours: ${choice === "auto" ? "as the system" : choice}`;
    button.setAttribute("aria-label", label);
    button.title = label;
    changed();
  }

  button.addEventListener("click", () => {
    choice = ORDER[(ORDER.indexOf(choice) + 1) % ORDER.length] as Choice;
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      // Without storage the choice lasts until the page is closed.
    }
    apply();
  });
  system.addEventListener("change", apply);
  apply();
  return button;
}
