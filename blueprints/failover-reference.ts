/** The page `docs/failovers.md`: the tables by which a failover decides, written from the tables themselves. */
import { guardNames, type GuardName } from '../workflows/guards';
import { failuresThatCount } from '../activities/instance-health';
import { labels, type LabelKind } from '../workflows/label';
import { overrideActions, phases } from '../workflows/messages';
import { acceptedIn } from '../workflows/override';
import { planKinds, type PlanKind } from '../workflows/plan';
import { followers, standings, transitions, type Move } from '../workflows/transitions';

const moveTexts: Record<Move, string> = {
  stay: 'stay',
  begin: 'wait for its turn, make',
  make: 'make',
  warm: 'warm',
  arm: 'arm',
  canary: '**canary**, or what the plan says',
  step: '**step**, once the last was judged good',
  complete: '**all at once**; then the end',
  ordered: '**the share ordered**',
  reduce: '**step back**, gated on the source',
  'give-back': '**all back at once**',
  'send-away': 'rest, or retire if unfit',
  conclude: 'end',
};

const aimTexts: Record<keyof typeof transitions, string> = {
  hold: 'hold: a person, a stop, a guard or no news',
  prepare: 'prepare: risk at level prepare, or a guard',
  take: 'take: risk at level shift',
  complete: 'complete: the source is dead, or a person orders it',
  'ordered-step': 'a share that a person orders',
  'give-back': 'give back: the risk is gone, or drain',
  undo: 'undo: abort, or the synthetic cell failed',
  end: 'end: promote, or nothing is left to be waited for',
};

const guardTexts: Record<GuardName, string> = {
  stop: 'The fleet-wide stop. Freezes everything automatic, the way back and the rescue from a dead cell as well. Only ending the stop lifts it.',
  autonomy:
    'Autonomy `approve`: up to armed. With `approval.byDefault: act` silence is consent after `approval.waitS`; `hold` and `abort` are objections.',
  trust:
    'Trust in the telemetry, with hysteresis: below `trust.prepare` nothing, below `minTrust` up to armed, below `trust.full` a canary. No approval lifts it.',
  breaker:
    'Many cells predicted to fail together: nothing, a person is called and the probable common cause is named. A source that is seen to fail is no mere prediction: the breaker lets it pass.',
  budget:
    '`budget`: failovers and hours of standby within 24 h, failovers of the fleet at once. Beyond them nothing is begun.',
  'cool-down':
    'A cell whose failovers keep turning back: up to armed until its cooldown has passed, which grows each time (`flapping`).',
  portability:
    'The cause would probably follow the traffic (same build just changed, same dependency, same load, same zone): up to what `portability` says.',
  window: '`blockedWindows`: up to armed, or nothing.',
};

const planTexts: Record<PlanKind, string> = {
  'full-canary': 'The canary with all its evidence and every step fit in the time to failure at the earliest (p10).',
  'short-canary': 'A canary with less evidence, then the rest in one step, fits in the probable time (p50).',
  'arm-only':
    'The cell is not ready yet, the load is not measured, or the policy allows no shift without a canary: it stands as cover.',
  'emergency-shift': 'Armed, and even the probable time leaves none for a canary: all at once, judged afterwards.',
};

const labelTexts: Record<LabelKind, string> = {
  confirmed: 'The source was seen to fail after it was predicted to.',
  averted: 'The risk went once the source was relieved of more than half of its traffic.',
  false: 'The source lived past the time predicted under its usual load, or the risk went under it.',
  missed: 'It was seen to fail before anything had predicted it.',
  unknown: 'Over too early, or the relief hides the answer. Nothing may be learnt from it.',
};

export function failoversPage(): string {
  return `# How a failover decides

Written by \`npm run docs:configuration\` from the tables in \`workflows/\`; a test keeps it equal to them.

A failover first settles what it is after: people's orders come first, then the fleet-wide stop, then a confirmed death, then
what is to be undone or given back, then the risk. What it is after and how far its synthetic cell has come give the next move.

## What follows

| what it is after | ${standings.join(' | ')} |
| --- |${' --- |'.repeat(standings.length)}
${Object.entries(transitions)
  .map(
    ([aim, row]) =>
      `| ${aimTexts[aim as keyof typeof transitions]} | ${standings.map((s) => moveTexts[row[s]]).join(' | ')} |`,
  )
  .join('\n')}

Moves in bold change the split. None of them is made beyond the synthetic cell's capacity; canary and steps are not made on a
risk older than \`staleAfterS\`, nor while no load report tells the load. A gate that does not open within \`holdAtMostS\` calls a
person and holds for \`operatorWaitS\`; then the failover ends and leaves the split as it is.

## Which phase follows which

| phase | then |
| --- | --- |
${phases.map((phase) => `| \`${phase}\` | ${followers[phase].map((f) => `\`${f}\``).join(', ') || 'the end'} |`).join('\n')}

## What a person may order, and when

| action | ${phases.join(' | ')} |
| --- |${' --- |'.repeat(phases.length)}
${overrideActions.map((action) => `| \`${action}\` | ${phases.map((p) => (acceptedIn[action].includes(p) ? 'yes' : '')).join(' | ')} |`).join('\n')}

An order can still be refused with a reason: \`approve\` where nothing waits for it, \`step\` beyond what is at stake or the
capacity, \`drain\` and \`abort\` while the source is dead. A later order replaces an earlier one; \`hold\` freezes all that is
automatic until \`resume\`, and a \`step\` is made under it. \`approve\` also lifts the guards below marked as liftable.

## What limits a failover

Each guard says how far a failover may go by itself (nothing, up to armed, a canary, all) and why; the narrowest counts. None of
them stands in the way of the rescue from a cell that is dead, except the stop, a missing approval and, while no stand-in has
been made, the budget.

| guard | what it looks at, and how far it lets go |
| --- | --- |
${guardNames.map((name) => `| ${name} | ${guardTexts[name]} |`).join('\n')}

All but stop and trust are liftable by \`approve\`.

## The plan by lead time

Made anew before every step from the predicted time to failure and the p95 of what making, warming and shifting took in the
service's failovers of the last 24 h (the defaults of \`leadTime\` until five of each are known).

| plan | when |
| --- | --- |
${planKinds.map((kind) => `| \`${kind}\` | ${planTexts[kind]} |`).join('\n')}

## A failure that nobody predicted

Beside the prediction a failure detector makes the health checks of every declared cell of services with autonomy \`advise\` or
more, twice per interval; of cells that speak TLS without an identity of their blueprint's, and of gRPC servers without a health service, it asks whether they accept
connections. A cell that has been seen to work is dead once none of its instances has answered ${failuresThatCount} times in a row and load
reports show no caller answered by it; while it has a share the detector starts the failover, or tells the one that is under way. A stand-in is then made, warmed and armed without a plan or a canary, and
takes all in one change. There is one detector, kept by the workflow \`failure-detection\`; one that dies is replaced within seconds.

## The way back

A source that has been relieved of more than half of its traffic shows little of what ails it. After its risk has gone it is
waited for \`wayBack.calmS\` seconds, twice as long each time the risk comes back with the load, at most \`holdAtMostS\`. Then
\`wayBack.firstBp\` goes back first and \`reductionBp\` in every further step, each after the source has answered well. A person's
\`drain\` does not wait.

## The canary

Its share is what its requests need in the time there is, between \`canaryBp\` and \`canary.maxBp\`. Its verdict is a sequential
test (Wald, 1945) of its error ratio: as good as the better of its peers and the source before the risk, against three times
that, \`maxErrorRatio\`, and never above the SLO. It looks after every report and stops as soon as the evidence suffices. It
is never good before \`canaryMinRequests\` or while everything it could be compared with misses the SLO, never bad by one error
alone, and bad where half of its answers miss the latency objective while its peers meet it. Without a verdict by
\`canaryTimeoutS\` a person is called and the share stays; without a decision it goes back after \`holdAtMostS\` (\`aborted\`), unless
no time is left: then \`emergency-shift\` takes what nobody could judge. With the defaults a verdict takes about 150 requests,
hence some 17 a second of the whole service; for less raise \`canary.maxBp\` or \`canaryTimeoutS\`.

## Was the prediction right?

| label | when |
| --- | --- |
${labels.map((kind) => `| \`${kind}\` | ${labelTexts[kind]} |`).join('\n')}

What the failover was over too early to know is looked for afterwards: the source stays, and is watched until the failure was
due, for as long as the failover stays open (\`cooldownS\`; shorter than \`horizonS\`, it may end as \`unknown\`). To relieve a
source hides what it would have done; two things show it: \`residualBp\` leaves it a small share, and with \`mirror.percent\` of
its service a source without a share is \`quarantined\`: Envoy sends it copies of requests that only read, whose answers are
thrown away, until the label is final. They count as load by their part of its usual traffic; what writing would have
done to it they do not show. \`understudy ledger --incidents FILE\` writes the labels as incidents to train on.
`;
}
