/** A client of grpc-js with xDS: for each line with a number on stdin it makes so many calls, and prints who answered. */
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { register } from '@grpc/grpc-js-xds';
import { createInterface } from 'node:readline';

register();
const client = new Client(process.argv[2]!, credentials.createInsecure());
const asIs = (bytes: Buffer): Buffer => bytes;

function who(): Promise<string> {
  return new Promise((resolve, reject) => {
    const metadata = new Metadata({ waitForReady: true });
    const done = (error: ServiceError | null, answer?: Buffer): void =>
      error ? reject(error) : resolve(answer!.toString());
    client.makeUnaryRequest(
      '/shop.Shop/Who',
      asIs,
      asIs,
      Buffer.alloc(0),
      metadata,
      { deadline: Date.now() + 10_000 },
      done,
    );
  });
}

async function main(): Promise<void> {
  for await (const line of createInterface({ input: process.stdin })) {
    const answered: Record<string, number> = {};
    const failed: string[] = [];
    for (let call = 0; call < Number(line); call += 1) {
      await who().then(
        (name) => (answered[name] = (answered[name] ?? 0) + 1),
        (error: Error) => failed.push(error.message),
      );
    }
    process.stdout.write(`${JSON.stringify({ answered, failed })}\n`);
  }
  process.exit(0);
}

void main();
