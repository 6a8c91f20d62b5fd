/** What both stateful reference services keep: lists that only grow and registers that never go back. */

/** One change. Applied twice it changes nothing more, so a log may be read again from anywhere. */
export type Change =
  | { kind: 'append'; list: string; value: string }
  /** Takes effect only with a version above the register's own. */
  | { kind: 'set'; register: string; version: number; value: string };

export interface RegisterValue {
  version: number;
  value: string;
}

export class RegisterState {
  private readonly lists = new Map<string, Set<string>>();
  private readonly registers = new Map<string, RegisterValue>();

  /** False if there was nothing to change: a repeated append, or a version that is not new. */
  apply(change: Change): boolean {
    if (!this.wouldChange(change)) return false;
    if (change.kind === 'append') {
      const list = this.lists.get(change.list) ?? new Set();
      this.lists.set(change.list, list.add(change.value));
    } else {
      this.registers.set(change.register, { version: change.version, value: change.value });
    }
    return true;
  }

  wouldChange(change: Change): boolean {
    if (change.kind === 'append') return !this.lists.get(change.list)?.has(change.value);
    return change.version > (this.registers.get(change.register)?.version ?? 0);
  }

  /** In the order of their appending. */
  list(name: string): string[] {
    return [...(this.lists.get(name) ?? [])];
  }

  /** Version 0 stands for a register that was never set. */
  register(name: string): RegisterValue {
    return this.registers.get(name) ?? { version: 0, value: '' };
  }
}
