/** Sentences that give a reason: the words of those told in two places, and whether two of them are the same. */

/** Digits that are part of a name (`shop-2`) are no figures. */
const figures = /(?<![\w-])\d+(\.\d+)?/g;

/** The figures in them may have moved meanwhile. */
export function isSameReason(a: string | undefined, b: string | undefined): boolean {
  return a?.replace(figures, '#') === b?.replace(figures, '#');
}

/** While a change that was refused is waited with. */
export function whyUnchanged({ why }: { why: string }): string {
  return `the split was not changed: ${why}`;
}
