/** Meets an instance as its callers do, and as strangers would: which certificate it shows, and whom it answers. */
import { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { setTimeout as sleep } from 'node:timers/promises';
import { request, type Target } from '../http';
import { certificatesOf, whyNotTrusted } from '../identity/chain';
import { connectionOptions, type TargetTls } from '../identity/target-tls';
import { namesOf } from '../identity/names';
import { selfSigned, type SelfSigned } from '../identity/new-authority';
import { strangers, type IdentityFacts, type Stranger } from './identity-facts';

export interface IdentityMeeting {
  instance: { name: string; address: string; port: number };
  /** Answers 2xx to whom the instance lets in. */
  path: string;
  /** What our callers show, and whom they trust. */
  tls: TargetTls;
  /** The certificate that it is to show; it is given `withinMs` to do so. Left out: whatever it shows is read. */
  expected?: { pem: string; withinMs: number } | undefined;
}

const timeoutMs = 5_000;
const pollMs = 100;

export async function readIdentity({ instance, path, tls, expected }: IdentityMeeting): Promise<IdentityFacts> {
  const { name, address, port } = instance;
  const facts: IdentityFacts = {
    instance: name,
    protocol: null,
    names: [],
    untrusted: null,
    validFrom: null,
    validTo: null,
    answers: [],
    unseen: [],
  };
  const target = { address, port };
  const shown = await meetUntil(target, tls, expected).catch((error: NodeJS.ErrnoException) => error);
  if (shown instanceof Error) {
    const { code = '', message } = shown;
    // It answered with something that is no TLS: that says much, and a closed door says nothing.
    if (!code.startsWith('ERR_SSL') && code !== 'EPROTO') facts.unseen.push(`its certificate (${message || code})`);
  } else {
    const [leaf] = shown.chain;
    facts.protocol = shown.protocol;
    facts.names = leaf ? namesOf(leaf) : [];
    facts.untrusted = whyNotTrusted(shown.chain, certificatesOf(tls.ca)) ?? null;
    facts.validFrom = leaf ? new Date(leaf.validFrom).toISOString() : null;
    facts.validTo = leaf ? new Date(leaf.validTo).toISOString() : null;
  }
  if (facts.unseen.length > 0) return facts;
  const answered = await Promise.all(strangers.map((stranger) => answersTo(stranger, target, path, tls)));
  strangers.forEach((stranger, index) => {
    if (answered[index] === true) facts.answers.push(stranger);
    if (answered[index] === undefined) facts.unseen.push(`whether it answers ${stranger} in ${timeoutMs} ms`);
  });
  return facts;
}

interface Shown {
  chain: X509Certificate[];
  protocol: string;
}

/** What is shown once it is what is expected, or when the time for that is over. */
async function meetUntil(target: Target, tls: TargetTls, expected: IdentityMeeting['expected']): Promise<Shown> {
  const [wanted] = expected ? certificatesOf(expected.pem) : [];
  for (const deadline = Date.now() + (expected?.withinMs ?? 0); ; await sleep(pollMs)) {
    const shown = await meet(target, tls);
    if (!wanted || shown.chain[0]?.fingerprint256 === wanted.fingerprint256 || Date.now() >= deadline) return shown;
  }
}

/** One handshake, in which everything is accepted: it is only looked at. */
function meet({ address, port }: Target, tls: TargetTls): Promise<Shown> {
  return new Promise((resolve, reject) => {
    const options = connectionOptions({ ...tls, name: undefined });
    const socket = connect({ ...options, host: address, port }, () => {
      resolve({ chain: chainOf(socket), protocol: socket.getProtocol() ?? 'unknown' });
      socket.destroy();
    });
    socket.setTimeout(timeoutMs, () => socket.destroy(new Error(`no answer within ${timeoutMs} ms`)));
    // Without an error of its own: it was ended in the middle of the handshake.
    socket.once('close', () => reject(new Error('it ended the connection')));
    socket.once('error', reject);
  });
}

function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = [];
  type Detailed = { raw?: Buffer; issuerCertificate?: Detailed };
  const seen = new Set<Detailed>();
  for (let at = socket.getPeerCertificate(true) as Detailed | undefined; at?.raw && !seen.has(at);) {
    seen.add(at);
    chain.push(new X509Certificate(at.raw));
    at = at.issuerCertificate;
  }
  return chain;
}

/** Whether a request of this stranger's was served; undefined if that could not be told. */
async function answersTo(
  stranger: Stranger,
  target: Target,
  path: string,
  tls: TargetTls,
): Promise<boolean | undefined> {
  try {
    const { status } = await request({ ...target, tls: await tlsOf(stranger, tls) }, path, { timeoutMs });
    // Some servers say in words of HTTP that they want a certificate, or TLS: 400 and 403, or a redirection to it.
    return status < 300 || status > 499;
  } catch (error) {
    return (error as Error).message.startsWith('no answer within') ? undefined : false;
  }
}

/** As a caller, but certified by nobody whom the cell knows. */
let foreign: Promise<SelfSigned> | undefined;

async function tlsOf(stranger: Stranger, { ca }: TargetTls): Promise<TargetTls | undefined> {
  if (stranger === 'plain') return undefined;
  if (stranger === 'without-certificate') return { ca };
  foreign ??= selfSigned('understudy');
  const { certificate, key } = await foreign;
  return { ca, certificate, key };
}
