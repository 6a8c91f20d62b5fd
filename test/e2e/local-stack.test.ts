import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client as TemporalClient, Connection } from '@temporalio/client';
import { expect } from 'chai';
import { Kafka, logLevel } from 'kafkajs';
import { Client as PostgresClient } from 'pg';
import { createTopics, topics } from '../../local/kafka';
import { identify, isGroupAlive } from '../../local/process-identity';
import { formatStack, type Stack, startStack } from '../../local/stack';
import { waitUntil } from '../../local/wait';
import { packageRoot } from '../../package-root';
import { searchAttributes } from '../../workflows/messages';
import { Line } from '../support/severed-line';
import type { OwnedStack } from '../support/stack-owner';

const servers = ['kafka', 'temporal', 'postgres'] as const;

describe('The local stack', function () {
  this.timeout(240_000);

  describe('once it is started', () => {
    let stack: Stack;
    const failures: Error[] = [];
    before(async () => {
      stack = await startStack({ parts: servers, onFailure: (error) => failures.push(error) });
    });
    after(() => stack.stop());

    it('serves Kafka with every topic of the settings', async () => {
      const metadata = await withKafkaAdmin(stack, (admin) => admin.fetchTopicMetadata());
      const found = metadata.topics.map(({ name, partitions }) => [name, partitions.length]);
      const wanted = topics(stack.settings.kafka).map(({ topic, partitions }) => [topic, partitions]);
      expect(found).to.deep.include.members(wanted);
    });

    it('keeps only the newest score of a cell', async () => {
      const { scoresTopic } = stack.settings.kafka;
      const resource = { type: 2, name: scoresTopic, configNames: ['cleanup.policy'] };
      const answer = await withKafkaAdmin(stack, (admin) =>
        admin.describeConfigs({ includeSynonyms: false, resources: [resource] }),
      );
      expect(answer.resources[0]?.configEntries[0]?.configValue).to.equal('compact');
    });

    it('serves Temporal with the search attributes of failovers', async () => {
      const connection = await Connection.connect({ address: stack.addresses.temporal });
      try {
        const { namespace } = stack.settings.temporal;
        const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace });
        expect(Object.keys(customAttributes ?? {})).to.include.members(Object.keys(searchAttributes));
      } finally {
        await connection.close();
      }
    });

    it('serves the Temporal UI at the address that it prints first', async () => {
      const [firstLine] = formatStack(stack).split('\n');
      const url = /http:\S+/.exec(firstLine!)?.[0];
      expect(firstLine).to.match(/^Temporal UI/);
      expect((await fetch(url!)).status).to.equal(200);
    });

    it('serves Postgres to who knows the password, and to nobody else', async () => {
      expect(await databaseOf(stack.addresses.postgresUrl)).to.equal('understudy');
      const withoutPassword = new URL(stack.addresses.postgresUrl);
      withoutPassword.password = 'wrong';
      const refused = await databaseOf(withoutPassword.href).catch((error: Error) => error.message);
      expect(refused).to.match(/authentication failed/);
    });

    it('makes topics though the broker hangs up at first, and not where the broker is no more', async () => {
      const [host, port] = stack.addresses.kafka.split(':') as [string, string];
      const rude = createServer((caller) => {
        line.turnTo(Number(port));
        caller.destroy();
      });
      await new Promise<void>((resolve) => rude.listen(0, '127.0.0.1', resolve));
      const line = await Line.start({ host, port: (rude.address() as AddressInfo).port });
      try {
        const wanted = [{ topic: 'made-at-last', partitions: 1, config: {} }];
        const refused = await createTopics('127.0.0.1:1', wanted, () => false).catch((error: Error) => error.message);
        expect(refused).to.include('ECONNREFUSED');
        await createTopics(`127.0.0.1:${line.port}`, wanted);
        expect(await findMark(stack, 'kafka', 'made-at-last')).to.equal(true);
      } finally {
        await line.stop();
        rude.close();
      }
    });

    for (const part of servers) {
      it(`starts ${part} again on the same port with the same data after kill -9`, async () => {
        const mark = await leaveMark(stack, part);
        const before = stack.process(part).pid;
        await stack.process(part).kill('SIGKILL');
        await stack.start(part);
        expect(stack.process(part).pid).not.to.equal(before);
        expect(await findMark(stack, part, mark)).to.equal(true);
      });
    }

    it('tells of a server that dies unasked, with the end of its log', async () => {
      expect(failures).to.deep.equal([]);
      process.kill(stack.process('postgres').pid!, 'SIGKILL');
      const failure = await waitUntil(() => failures[0], { withinMs: 10_000, what: 'the loss is told' });
      expect(failure.message).to.include('postgres ended unasked (killed by SIGKILL)');
      expect(failure.message).to.include('ready to accept connections');
    });
  });

  it('leaves no process, no folder and no port in use when it is stopped', async () => {
    const stack = await startStack({ parts: servers });
    const groups = stack.processes.map(({ pid }) => identify(pid!));
    expect(groups.map(isGroupAlive)).to.deep.equal([true, true, true]);
    await stack.stop();
    expect(groups.map(isGroupAlive)).to.deep.equal([false, false, false]);
    expect(existsSync(stack.dir)).to.equal(false);
  });

  it('can be stopped while it is being started', async () => {
    const ending = new AbortController();
    const running: ReturnType<typeof identify>[] = [];
    const starting = startStack({ parts: servers, signal: ending.signal, onProgress: () => ending.abort() });
    const reason = await starting.then(
      (stack) => stack.processes.forEach(({ pid }) => running.push(identify(pid!))),
      (error: Error) => error.message,
    );
    expect(reason).to.be.a('string');
    expect(running).to.deep.equal([]);
  });

  it('leaves the log that its error names when it cannot be started', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'understudy-broken-'));
    mkdirSync(join(dir, 'kafka', 'data'), { recursive: true });
    writeFileSync(join(dir, 'kafka', 'data', 'meta.properties'), 'version=unreadable\n');
    const reason = await startStack({ dir, keep: false, parts: ['kafka'] }).then(
      async (stack) => stack.stop().then(() => 'it started'),
      (error: Error) => error.message,
    );
    expect(reason).to.include('kafka ended before it served');
    const log = /Whole log: (\S+)/.exec(reason)?.[1];
    expect(existsSync(log!)).to.equal(true);
    rmSync(dir, { recursive: true });
  });

  it('runs twice side by side', async () => {
    const stacks = await Promise.all([startStack({ parts: ['postgres'] }), startStack({ parts: ['postgres'] })]);
    try {
      expect(await Promise.all(stacks.map(({ addresses }) => databaseOf(addresses.postgresUrl)))).to.deep.equal([
        'understudy',
        'understudy',
      ]);
      expect(stacks[0].addresses.postgresUrl).not.to.equal(stacks[1].addresses.postgresUrl);
    } finally {
      await Promise.all(stacks.map((stack) => stack.stop()));
    }
  });

  it('leaves no orphan, not even a cell, when its owner is killed with -9', async () => {
    const program = join(packageRoot, 'dist', 'test', 'support', 'stack-owner.js');
    const owner = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const { dir, pids } = await firstLine<OwnedStack>(owner);
    const groups = pids.map(identify);
    expect(groups.map(isGroupAlive)).to.deep.equal([true, true, true, true]);

    owner.kill('SIGKILL');

    await waitUntil(() => !groups.some(isGroupAlive), { withinMs: 30_000, what: 'all of the stack is gone' });
    await waitUntil(() => !existsSync(dir), { withinMs: 10_000, what: `${dir} is removed` });
  });
});

async function withKafkaAdmin<T>(stack: Stack, use: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> {
  const admin = new Kafka({ brokers: stack.settings.kafka.brokers, logLevel: logLevel.NOTHING }).admin();
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}

async function withPostgres<T>(url: string, use: (client: PostgresClient) => Promise<T>): Promise<T> {
  const client = new PostgresClient({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}

function databaseOf(url: string): Promise<string> {
  return withPostgres(url, async (client) => {
    const { rows } = await client.query<{ name: string }>('select current_database() as name');
    return rows[0]!.name;
  });
}

async function withTemporal<T>(stack: Stack, use: (client: TemporalClient) => Promise<T>): Promise<T> {
  const connection = await Connection.connect({ address: stack.addresses.temporal });
  try {
    return await use(new TemporalClient({ connection }));
  } finally {
    await connection.close();
  }
}

/** Writes something to the server; answers what it is to be found by. */
async function leaveMark(stack: Stack, part: (typeof servers)[number]): Promise<string> {
  const mark = `mark_${Date.now()}`;
  switch (part) {
    case 'kafka':
      await createTopics(stack.addresses.kafka, [{ topic: mark, partitions: 1, config: {} }]);
      return mark;
    case 'postgres':
      await withPostgres(stack.addresses.postgresUrl, (client) => client.query(`create table ${mark} (n int)`));
      return mark;
    case 'temporal':
      await withTemporal(stack, ({ workflow }) =>
        workflow.start('Waiting', { taskQueue: 'nobody', workflowId: mark, args: [] }),
      );
      return mark;
  }
}

async function findMark(stack: Stack, part: (typeof servers)[number], mark: string): Promise<boolean> {
  switch (part) {
    case 'kafka':
      return (await withKafkaAdmin(stack, (admin) => admin.listTopics())).includes(mark);
    case 'postgres':
      return withPostgres(stack.addresses.postgresUrl, async (client) => {
        const { rowCount } = await client.query('select 1 from pg_tables where tablename = $1', [mark]);
        return rowCount === 1;
      });
    case 'temporal':
      return withTemporal(stack, async ({ workflow }) => {
        const { status } = await workflow.getHandle(mark).describe();
        return status.name === 'RUNNING';
      });
  }
}

async function firstLine<T>(child: ChildProcess): Promise<T> {
  for await (const line of createInterface({ input: child.stdout! })) return JSON.parse(line) as T;
  throw new Error('The program ended without a line.');
}
