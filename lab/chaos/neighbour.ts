/** Another tenant of the same host: burns the share of one core, 0 to 1, that it is told on stdin, until stdin closes. */
import { createInterface } from 'node:readline';

const sliceMs = 20;
let share = 0;

function slice(): void {
  const began = performance.now();
  while (performance.now() - began < share * sliceMs);
  setTimeout(slice, (1 - share) * sliceMs);
}

createInterface({ input: process.stdin })
  .on('line', (line) => (share = Math.min(1, Math.max(0, Number(line)))))
  .on('close', () => process.exit(0));
slice();
