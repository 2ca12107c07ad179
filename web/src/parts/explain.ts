/** The words about an alarm and about a tip, as the contents of the drawer. */

import { fetchTips } from "../data/api";
import type { Alarm, Evidence, Tip, Verdict } from "../data/types";
import { h, type Child } from "../dom";
import { count, tipName, words } from "../format";
import { openDrawer } from "./drawer";
import { levelIcon, verdictIcon } from "./icons";

/** Text in which what stands between grave accents is code. */
function prose(text: string): Child[] {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

function optionParts(advice: string): Child[] {
  const parts = advice.split(/(--set '[^']*')/);
  return parts.map((part) => (part.startsWith("--set '") ? h("code", {}, part) : part));
}

/** A button that opens the explanation of a tip of the catalogue. */
export function tipButton(id: string, text = `Tip ${id}`): HTMLElement {
  const open = (event: Event): void => void openTipById((event.currentTarget as HTMLElement).dataset["tip"] ?? id);
  return h("button", { class: "link", attrs: { type: "button", "data-tip": id }, on: { click: open } }, text);
}

export async function openTipById(id: string): Promise<void> {
  const tips = await fetchTips().catch(() => [] as Tip[]);
  const tip = tips.find((one) => one.id === id);
  if (tip) openTip(tip);
  else openDrawer(`Tip ${id}`, h("p", {}, "The catalogue of tips has no entry of this id, or it cannot be reached."));
}

export function openAlarms(alarms: Alarm[]): void {
  const heading = alarms.length === 1 ? "Alarm" : `${count(alarms.length)} alarms`;
  openDrawer(heading, alarms.map(alarmText));
}

function alarmText(alarm: Alarm): HTMLElement {
  return h(
    "section",
    "explained-alarm",
    h(
      "p",
      `alarm-line level-${alarm.level}`,
      levelIcon(alarm.level),
      h("strong", {}, words(alarm.detector)),
      h("span", "muted", `${alarm.level}, step ${count(alarm.step)}`),
    ),
    h("p", {}, `${alarm.message}.`, sinceText(alarm)),
    alarm.advice ? h("p", {}, h("span", "lead", "What to do: "), optionParts(alarm.advice), ".") : null,
    alarm.tip ? h("p", {}, tipButton(alarm.tip, `Read tip ${alarm.tip}`)) : null,
  );
}

function sinceText(alarm: Alarm): string | null {
  if (alarm.since === null || alarm.since >= alarm.step) return null;
  return alarm.since === 0 ? " This may have begun with the run." : ` It began after step ${count(alarm.since)}.`;
}

/** Show a tip with its sources, evidence and verdicts. */
export function openTip(tip: Tip): void {
  openDrawer(
    `${tip.id}  ${tipName(tip)}`,
    h("p", {}, prose(tip.summary)),
    tip.switch ? h("p", {}, h("span", "lead", "Switch: "), h("code", {}, tip.switch)) : null,
    verdictList(tip.verdicts),
    evidenceList(tip.evidence),
    tip.source.length ? [h("h3", {}, "Sources"), h("ul", {}, tip.source.map((one) => h("li", {}, one)))] : null,
  );
}

/** A verdict in words, with its mark. */
export function verdictMark(verdict: string): HTMLElement {
  return h("span", `verdict verdict-${verdict.replaceAll(" ", "-")}`, verdictIcon(verdict), verdict);
}

function verdictList(verdicts: Verdict[]): Child {
  if (!verdicts.length) return h("p", "muted", "No study of poise has a verdict on this tip.");
  return [
    h("h3", {}, "Verdicts of poise's own studies"),
    h(
      "ul",
      "verdicts",
      verdicts.map((one) =>
        h(
          "li",
          {},
          verdictMark(one.verdict),
          h("span", {}, `${one.name}, ${words(one.measure)}`),
          h("span", "muted", one.text ?? "", one.stale ? ` (stale: ${one.stale})` : ""),
        ),
      ),
    ),
  ];
}

function evidenceList(evidence: Evidence[]): Child {
  if (!evidence.length) return null;
  return [
    h("h3", {}, "Published evidence"),
    h(
      "ul",
      "evidence",
      evidence.map((one) =>
        h("li", {}, h("strong", {}, `${one.says}: `), one.text, one.source ? h("span", "muted", ` ${one.source}`) : null),
      ),
    ),
  ];
}
