/** The exec provider tells a command that is slow, dies, refuses or answers nonsense from one that did what it was asked. */
import { expect } from 'chai';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { RefusedError } from '../../blueprints/records';
import { ExecProvider } from '../../cells/exec-provider';
import { cellSpec } from '../support/cells';
import { blueprintDocument } from '../support/documents';

/** A provider whose command is a script of the shell; the call arrives on its standard input. */
const scripted = (script: string, timeoutS = 20) =>
  new ExecProvider({ name: 'test', command: ['/bin/sh', '-c', script], timeoutS });

/** The command answers this, whatever it is asked. */
const answering = (answer: unknown) => scripted(`cat >/dev/null; cat <<'END'\n${JSON.stringify(answer)}\nEND`);

const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

const instance = (name: string, change: Record<string, unknown> = {}) => ({
  name,
  address: '127.0.0.1',
  port: 9,
  phase: 'provisioning',
  ...change,
});
const spec = cellSpec('shop-x', blueprintDocument({ provider: 'exec:test', resources: { memoryLimitMib: 64 } }));

describe('Exec provider', () => {
  it('hands the call over as JSON and takes the answer', async () => {
    const provider = scripted(`grep -q '"operation":"renew","cell":"shop-x"' && echo '{"renewed":true}'`);
    expect(await provider.renew('shop-x', 60)).to.equal(true);
  });

  it('fails with the command’s own words when it ends with an error', async () => {
    const failure = await failureOf(scripted('echo "quota is used up" >&2; exit 1').observe('shop-x'));
    expect(failure).not.to.be.instanceOf(RefusedError);
    expect(failure?.message).to.contain('exec:test: observe of shop-x').and.contain('exit code 1: quota is used up');
  });

  it('takes exit code 3 for a refusal, with its reason', async () => {
    const failure = await failureOf(scripted('echo "no such region" >&2; exit 3').ensure(spec));
    expect(failure).to.be.instanceOf(RefusedError);
    expect(failure?.message).to.contain('no such region');
  });

  it('ends a command that does not answer in time, with what it started', async () => {
    const failure = await failureOf(scripted('sleep 600 & sleep 600', 0.3).list());
    expect(failure?.message).to.contain('did not answer within 0.3 s');
  });

  it('does not wait for a child that the command left behind', async () => {
    const provider = scripted('(sleep 600 & echo $! >&3) 3>/dev/null; echo "{}"');
    await provider.destroy('shop-x');
  });

  it('says that a command cannot be run, or was killed', async () => {
    const missing = new ExecProvider({ name: 'test', command: ['/usr/bin/no-such-program-here'] });
    expect((await failureOf(missing.list()))?.message)
      .to.contain('cannot be run')
      .and.contain('no-such-program-here');
    expect((await failureOf(scripted('kill -9 $$').list()))?.message).to.contain('was ended by SIGKILL');
  });

  const nonsense: [string, unknown, RegExp][] = [
    ['nothing to do with the question', { hello: 'world' }, /cell: /],
    ['another cell', { cell: { cell: 'shop-y', phase: 'absent' } }, /asked for cell shop-x and answered for "shop-y"/],
    [
      'a phase that is not one',
      { cell: { cell: 'shop-x', instances: [instance('a', { phase: 'fine' })] } },
      /instances\.0\.phase/,
    ],
    [
      'a port that is not one',
      { cell: { cell: 'shop-x', instances: [instance('a', { port: 70_000 })] } },
      /instances\.0\.port/,
    ],
    [
      'ready without a port',
      { cell: { cell: 'shop-x', instances: [instance('a', { phase: 'ready', port: 0 })] } },
      /no address and port/,
    ],
    ['no instances', { cell: { cell: 'shop-x' } }, /cell\.instances: is empty/],
    ['an instance twice', { cell: { cell: 'shop-x', instances: [instance('a'), instance('a')] } }, /the same name/],
  ];
  for (const [what, answer, reason] of nonsense)
    it(`does not believe an answer with ${what}`, async () => {
      expect((await failureOf(answering(answer).observe('shop-x')))?.message).to.match(reason);
    });

  it('does not believe what is not JSON', async () => {
    expect((await failureOf(scripted('echo Apply complete!').list()))?.message).to.contain(
      'not JSON: "Apply complete!"',
    );
    expect((await failureOf(scripted('true').list()))?.message).to.contain('answered nothing');
  });

  it('does not believe that a cell was made that has instances too many or too few', async () => {
    const three = ['shop-x-1', 'shop-x-2', 'shop-x-3'].map((name) => instance(name));
    for (const instances of [three, three.slice(0, 1)])
      expect((await failureOf(answering({ cell: { cell: 'shop-x', instances } }).ensure(spec)))?.message).to.match(
        /was asked for the instances shop-x-1, shop-x-2 and has/,
      );
  });

  describe('with an instance that the command calls ready', () => {
    let server: Server;
    let status = 503;
    before(async () => {
      server = createServer((_request, response) => response.writeHead(status).end());
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    });
    after(() => new Promise((resolve) => server.close(resolve)));

    it('calls it ready once it answers', async () => {
      const { port } = server.address() as AddressInfo;
      const provider = answering({ cell: { cell: 'shop-x', instances: [instance('a', { phase: 'ready', port })] } });
      const early = await provider.observe('shop-x');
      expect(early.phase).to.equal('provisioning');
      expect(early.instances[0]!.reason).to.contain('calls it ready, but /healthz answered 503');
      status = 200;
      expect((await provider.observe('shop-x')).phase).to.equal('ready');
    });
  });
});
