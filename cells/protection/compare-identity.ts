/** Whether a synthetic cell is who it should be, and as closed to strangers as its source. Pure: facts in, differences out. */
import { nameText, type SubjectName } from '../identity/names';
import type { Weakness } from './compare';
import { strangerWords, type IdentityFacts } from './identity-facts';

export interface DemandedIdentity {
  /** The cell's own. */
  name: SubjectName;
  minRemainingS: number;
}

/** Everything in which an instance's identity falls short of what its blueprint gives it, or of its source's. */
export function weakerIdentity(
  synthetic: readonly IdentityFacts[],
  source: readonly IdentityFacts[],
  demanded: DemandedIdentity,
  now = Date.now(),
): Weakness[] {
  return synthetic.flatMap((own) => {
    const found: Weakness[] = [];
    const add = (what: string, text: string, against: Weakness['against'] = 'blueprint') =>
      found.push({ instance: own.instance, what, against, text });
    if (own.unseen.length > 0) add('identity unread', `could not be read: ${own.unseen.join(', ')}`);
    else if (own.protocol === null) add('tls', 'speaks no TLS, the blueprint gives it an identity');
    else certificateOf(own, demanded, now).forEach(({ what, text }) => add(what, text));
    for (const stranger of own.answers) {
      const isClosedAtSource = source.some(({ answers, unseen }) => unseen.length === 0 && !answers.includes(stranger));
      const whose = isClosedAtSource ? 'its source does not' : 'the blueprint gives it an identity';
      add(
        `answers ${stranger}`,
        `answers ${strangerWords[stranger]}, ${whose}`,
        isClosedAtSource ? 'source' : 'blueprint',
      );
    }
    const newest = source
      .map(({ protocol }) => protocol ?? '')
      .sort()
      .at(-1);
    if (own.protocol !== null && newest !== undefined && own.protocol < newest)
      add('tls version', `speaks ${own.protocol}, its source ${newest}`, 'source');
    return found;
  });
}

function certificateOf(
  { names, untrusted, validFrom, validTo }: IdentityFacts,
  { name, minRemainingS }: DemandedIdentity,
  now: number,
): { what: string; text: string }[] {
  const found: { what: string; text: string }[] = [];
  const add = (what: string, text: string) => found.push({ what, text });
  const own = nameText(name);
  if (!names.includes(own))
    add('identity', `shows the certificate of ${names.join(', ') || 'nobody'}, not its own, ${own}`);
  else if (names.length > 1)
    add('identity', `has a certificate that is also for ${names.filter((each) => each !== own).join(', ')}`);
  if (untrusted !== null) add('authority', `shows a certificate that cannot be trusted: ${untrusted}`);
  if (validFrom !== null && Date.parse(validFrom) > now)
    add('lifetime', `shows a certificate that begins at ${validFrom}`);
  if (validTo !== null) {
    const leftS = Math.floor((Date.parse(validTo) - now) / 1000);
    if (leftS < 0) add('lifetime', `shows a certificate that expired at ${validTo}`);
    else if (leftS < minRemainingS)
      add('lifetime', `shows a certificate that holds for ${leftS} s more, the blueprint wants ${minRemainingS} s`);
  }
  return found;
}

/** What the source itself leaves open, and what of it could not be read: sentences for people. */
export function sourceNotes(source: readonly IdentityFacts[]): string[] {
  return source.flatMap(({ instance, answers, unseen }) => [
    ...(unseen.length > 0 ? [`of the source's ${instance} could not be read: ${unseen.join(', ')}`] : []),
    ...answers.map((stranger) => `the source's ${instance} itself answers ${strangerWords[stranger]}`),
  ]);
}
