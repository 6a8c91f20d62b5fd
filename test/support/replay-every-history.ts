/** Loaded with every run of the tests: whatever histories a test made on a stack's Temporal, they replay before it stops. */
import { Connection } from '@temporalio/client';
import { beforeStop, type Stack } from '../../local/stack';
import { replayHistoriesAt } from './replay-histories';

beforeStop.add(async (stack: Stack) => {
  const temporal = stack.processes.find(({ name }) => name === 'temporal');
  // Only what still serves can be asked; a test that killed its server has looked for itself.
  if (temporal?.state !== 'serving') return;
  const { address, namespace } = stack.settings.temporal;
  const connection = await Connection.connect({ address, connectTimeout: '5s' }).catch(() => null);
  if (!connection) return;
  try {
    await replayHistoriesAt(connection, namespace);
  } finally {
    await connection.close();
  }
});
