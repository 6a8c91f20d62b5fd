/** Takes telemetry out of CloudEvents, structured (one JSON envelope) or binary (`ce_` headers); anything else passes as it is. */
import { headerText, type RecordContext } from './decoder';
import { isObject, own, text } from './json';

export interface Unwrapped {
  value: Buffer;
  /** Of the data; undefined if the record is no event, or does not say. */
  contentType: string | undefined;
}

/** What is wrong with an envelope. */
export class CloudEventError extends Error {}

const specVersionKey = '"specversion"';

/** Throws CloudEventError for an event without readable data. Events in events are not opened. */
export function unwrap(value: Buffer, record: RecordContext | undefined): Unwrapped {
  if (headerText(record?.headers, 'ce_specversion') !== undefined) {
    return { value, contentType: headerText(record?.headers, 'content-type') };
  }
  if (value[0] !== 0x7b || !value.includes(specVersionKey)) return { value, contentType: undefined };
  let event: unknown;
  try {
    event = JSON.parse(value.toString('utf8'));
  } catch {
    // Whoever reads it next says what is wrong with it.
    return { value, contentType: undefined };
  }
  if (!isObject(event) || typeof own(event, 'specversion') !== 'string') return { value, contentType: undefined };
  const contentType = text(own(event, 'datacontenttype'));
  const base64 = own(event, 'data_base64');
  if (typeof base64 === 'string') return { value: Buffer.from(base64, 'base64'), contentType };
  const data = own(event, 'data');
  if (data === undefined || data === null) throw new CloudEventError('the CloudEvent has neither data nor data_base64');
  const asText = typeof data === 'string' ? data : JSON.stringify(data);
  return { value: Buffer.from(asText), contentType };
}
