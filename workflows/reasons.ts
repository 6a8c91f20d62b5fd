/** Whether two sentences give the same reason: the figures in them may have moved meanwhile. */

/** Digits that are part of a name (`shop-2`) are no figures. */
const figures = /(?<![\w-])\d+(\.\d+)?/g;

export function isSameReason(a: string | undefined, b: string | undefined): boolean {
  return a?.replace(figures, '#') === b?.replace(figures, '#');
}
