/** Who an instance shows itself to be, and whom it answers: met at its address, never taken from what it was given. */

/** Clients that nobody has certified. */
export const strangers = ['plain', 'without-certificate', 'foreign-certificate'] as const;
export type Stranger = (typeof strangers)[number];

export const strangerWords: Record<Stranger, string> = {
  plain: 'clients without TLS',
  'without-certificate': 'clients without a certificate',
  'foreign-certificate': "clients with a certificate of another authority's",
};

export interface IdentityFacts {
  instance: string;
  /** `TLSv1.3`; null: it speaks no TLS. */
  protocol: string | null;
  /** Names of its certificate, such as `uri:spiffe://shop.example/cell/shop-a`. */
  names: string[];
  /** Why its certificate does not lead to a trusted authority; null: it does. */
  untrusted: string | null;
  /** ISO 8601; null without a certificate. */
  validFrom: string | null;
  validTo: string | null;
  /** Strangers whose request it answered. */
  answers: Stranger[];
  /** What could not be told, in words. What stands above for it says nothing. */
  unseen: string[];
}
