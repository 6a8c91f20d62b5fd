/** What Docker's own engine does and Podman, on which the containers of other tests run, does not. */
import { expect } from 'chai';
import { RefusedError } from '../../blueprints/records';
import { containerOf } from '../../cells/docker-container';
import { DockerProvider } from '../../cells/docker-provider';
import { cellSpec, serverBlueprint } from '../support/cells';
import { engineLikeDocker, type EngineLikeDocker } from '../support/engine-like-docker';

const one = { instances: 1, memoryLimitMib: 64 };
const spec = () => cellSpec('shop-x', serverBlueprint('like-docker', [], { provider: 'docker', resources: one }));
const failureOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

describe('The docker provider on an engine that answers as Docker does', () => {
  let engine: EngineLikeDocker;
  let provider: DockerProvider;
  beforeEach(async () => {
    engine = await engineLikeDocker();
    provider = new DockerProvider({ socketPath: engine.socketPath, graceS: 0 });
  });
  afterEach(() => engine.close());

  it('starts the container of another worker, whose name is taken before it can be seen', async () => {
    engine.anotherMakesTheNext(3);
    await provider.ensure(spec());
    expect([...engine.containers.values()].map(({ Status }) => Status)).to.deep.equal(['running']);
  });

  it('says that a cell is gone only once another worker’s removal of its containers has ended', async () => {
    await provider.ensure(spec());
    engine.anotherRemovesTheNext(3);
    await provider.destroy('shop-x');
    expect(engine.containers.size).to.equal(0);
    expect(await provider.list()).to.deep.equal([]);
  });

  it('does not ask again for what the engine refuses for good', async () => {
    engine.refuse('Range of CPUs is from 0.01 to 2.00');
    const failure = await failureOf(provider.ensure(spec()));
    expect(failure).to.be.instanceOf(RefusedError);
    expect(failure?.message).to.contain('Range of CPUs');
  });

  it('refuses a network that is not there, and one whose cells nobody could ask', async () => {
    const on = (network: string) => new DockerProvider({ socketPath: engine.socketPath, graceS: 0, network });
    expect(await failureOf(on('outer').ensure(spec()))).to.be.instanceOf(RefusedError);
    engine.isInternal = true;
    const failure = await failureOf(on('inner').ensure(spec()));
    expect(failure).to.be.instanceOf(RefusedError);
    expect(failure?.message).to.contain('inner is internal');
    expect(engine.containers.size).to.equal(0);
  });
});

describe('The folders of a container whose files are bounded', () => {
  const files = { writable: ['/var/cache'], hidden: ['/root'] };
  const blueprint = serverBlueprint('folders', [], { provider: 'docker', security: { files, user: '65534' } });
  const foldersOn = (isPodman: boolean) => {
    const instance = { instance: 'shop-x-1', port: 8080, network: 'host', identity: undefined, isPodman };
    return containerOf({ cell: 'shop-x', service: 'shop', blueprint }, instance).HostConfig!.Tmpfs as Record<
      string,
      string
    >;
  };

  it('are empty, and programs may unpack what they run in those they write', () => {
    expect(foldersOn(false)).to.deep.equal({
      '/run/understudy': 'size=64m,mode=1777,exec',
      '/root': 'ro,size=4k,mode=000',
      '/var/cache': 'size=64m,mode=1777,exec',
    });
  });

  it('are no more writable on Podman, which adds folders of its own and copies what the image has, unless told otherwise', () => {
    expect(foldersOn(true)).to.deep.equal({
      '/run/understudy': 'size=64m,mode=1777,exec,notmpcopyup',
      '/run': 'ro',
      '/tmp': 'ro',
      '/var/tmp': 'ro',
      '/root': 'ro,size=4k,mode=000,notmpcopyup',
      '/var/cache': 'size=64m,mode=1777,exec,notmpcopyup',
    });
  });
});
