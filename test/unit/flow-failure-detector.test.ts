/** The failure detector goes on looking at the cells it knows when the store does not answer, and tells of a death. */
import { expect } from 'chai';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { FailureDetector, type DetectionPorts } from '../../activities/detect-failures';
import { waitUntil } from '../../local/wait';
import type { RiskEvent } from '../../prediction/contracts';
import { serviceDocument } from '../support/documents';

describe('The failure detector', function () {
  this.timeout(60_000);

  it('is neither blinded nor taken for dead by a store that hangs', async () => {
    let asked = 0;
    const server = createServer((_, response) => {
      asked += 1;
      response.end('ok');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const instance = { name: 'shop-a-1', address: '127.0.0.1', port };
    const service = { name: 'shop', spec: serviceDocument({ policy: { autonomy: 'act' } }) };
    const cell = { name: 'shop-a', service: 'shop', role: 'primary', instances: [instance] };
    let reads = 0;
    const told: RiskEvent[] = [];
    const warned: string[] = [];
    const load = { cell: 'shop-a', shareBp: 5000, coverInstances: 0, measured: true, requestsTotal: 9, errorsTotal: 0 };
    const ports = {
      store: {
        services: async () => [service],
        cells: () => (++reads === 1 ? Promise.resolve([cell]) : new Promise(() => undefined)),
      },
      traffic: { getTraffic: async () => ({ service: 'shop', epoch: 1, proxies: ['envoy'], cells: [load] }) },
      cells: {},
      notifier: { notify: async (event: RiskEvent) => void told.push(event) },
      log: { info: () => undefined, warn: (text: string) => void warned.push(text) },
    } as unknown as DetectionPorts;
    const detector = new FailureDetector(ports);
    const running = detector.run();
    try {
      await waitUntil(() => asked > 0, { withinMs: 20_000, what: 'the cell was seen alive' });
      await waitUntil(() => reads === 2 && detector.turns >= 2, {
        withinMs: 20_000,
        what: 'the store hangs, and the detector turns on',
      });
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await waitUntil(() => told.length > 0, { withinMs: 20_000, what: 'the death was told' });
    } finally {
      detector.stop();
      server.close();
      await running;
    }
    expect(told[0]).to.deep.include({ service: 'shop', cell: 'shop-a', level: 'shift' });
    expect(told[0]?.observed?.state).to.equal('dead');
    expect(warned.join('\n')).to.contain('could not be read within');
  });
});
