/** The provider of the made-up cloud, for workers of the reliability matrix: a thin client over HTTP, as providers of real clouds are. */
import type { CellProvider, CellSpec, ObservedCell } from '../../cells/provider';

export class CloudProvider implements CellProvider {
  /** Takes the place of the process provider: blueprints need not know. */
  readonly kind = 'process';

  constructor(private readonly port: number) {}

  ensure(spec: CellSpec): Promise<ObservedCell> {
    return this.ask('ensure', { spec });
  }

  observe(cell: string): Promise<ObservedCell> {
    return this.ask('observe', { cell });
  }

  async destroy(cell: string): Promise<void> {
    await this.ask('destroy', { cell });
  }

  async list(owner?: string): Promise<ObservedCell[]> {
    const all = await this.ask<ObservedCell[]>('list', {});
    return all.filter((cell) => owner === undefined || cell.owner === owner);
  }

  idle(cell: string): Promise<ObservedCell> {
    return this.ask('idle', { cell });
  }

  /** The matrix knows no leases: this cloud keeps its cells for ever. */
  async renew(): Promise<boolean> {
    return false;
  }

  async removeLapsed(): Promise<boolean> {
    return false;
  }

  private async ask<T>(what: string, body: object): Promise<T> {
    const response = await fetch(`http://127.0.0.1:${this.port}/${what}`, {
      method: 'POST',
      body: JSON.stringify(body),
    });
    const answer = (await response.json()) as T & { error?: string };
    if (!response.ok) throw new Error(answer.error ?? `the cloud answered ${response.status}`);
    return answer;
  }
}
