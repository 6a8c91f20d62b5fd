/** Eigenvalues and eigenvectors of a symmetric matrix by Jacobi's rotations. */

export interface Eigen {
  /** Descending. */
  values: Float64Array;
  /** One row per eigenvector, each of unit length. */
  vectors: Float64Array[];
}

const mostSweeps = 30;

/** `matrix` has `size` rows of `size` entries, one after the other, and is used up. */
export function symmetricEigen(matrix: Float64Array, size: number): Eigen {
  const a = matrix;
  // Rows of v are the eigenvectors in the making.
  const v = new Float64Array(size * size);
  for (let i = 0; i < size; i++) v[i * size + i] = 1;
  let norm = 0;
  for (const entry of a) norm += entry * entry;
  for (let sweep = 0; sweep < mostSweeps; sweep++) {
    let off = 0;
    for (let p = 0; p < size; p++) for (let q = p + 1; q < size; q++) off += a[p * size + q]! ** 2;
    if (off <= 1e-18 * norm) break;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        const apq = a[p * size + q]!;
        if (apq === 0) continue;
        const theta = (a[q * size + q]! - a[p * size + p]!) / (2 * apq);
        const t = (theta >= 0 ? 1 : -1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const c = 1 / Math.sqrt(t * t + 1);
        const s = t * c;
        for (let k = 0; k < size; k++) {
          const akp = a[k * size + p]!;
          const akq = a[k * size + q]!;
          a[k * size + p] = c * akp - s * akq;
          a[k * size + q] = s * akp + c * akq;
        }
        for (let k = 0; k < size; k++) {
          const apk = a[p * size + k]!;
          const aqk = a[q * size + k]!;
          a[p * size + k] = c * apk - s * aqk;
          a[q * size + k] = s * apk + c * aqk;
          const vpk = v[p * size + k]!;
          const vqk = v[q * size + k]!;
          v[p * size + k] = c * vpk - s * vqk;
          v[q * size + k] = s * vpk + c * vqk;
        }
      }
    }
  }
  const order = Array.from({ length: size }, (_, i) => i).sort((i, j) => a[j * size + j]! - a[i * size + i]!);
  return {
    values: Float64Array.from(order, (i) => a[i * size + i]!),
    vectors: order.map((i) => v.slice(i * size, (i + 1) * size)),
  };
}
