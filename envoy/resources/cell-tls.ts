/** TLS to cells: whom a proxy takes for a cell of the service, and what it shows of itself. */
import type { ServiceDocument } from '../../blueprints/schema';
import type { EnvoyMessage } from '../protos';
import { struct } from '../protos';
import { anyOf, type ResourceKey } from './resource';

type Tls = NonNullable<ServiceDocument['tls']>;

/** Stands for the cell's name in `tls.subjectAltName.value`. */
const cellWord = '{cell}';

/** By this key of an instance's metadata Envoy finds the transport socket that is meant for its cell. */
export const socketMatchKey = 'envoy.transport_socket_match';

/**
 * How a cluster speaks to its instances; nothing for a service without TLS. The named cells must show exactly their own
 * name. Any other cell in the cluster, a synthetic one, may be any cell of the service: naming it here would change the
 * cluster when it comes, and Envoy would make all connections anew.
 */
export function transportSockets({ tls, protocol }: ServiceDocument, cells: string[]): EnvoyMessage {
  if (!tls) return {};
  const socket = (san: EnvoyMessage): EnvoyMessage => transportSocket(tls, protocol, san);
  const { value } = tls.subjectAltName;
  if (!value.includes(cellWord)) return { transport_socket: socket({ exact: value }) };
  const exactly = (cell: string): EnvoyMessage => ({ exact: value.replaceAll(cellWord, cell) });
  return {
    transport_socket_matches: [...cells].sort().map((cell) => ({
      name: cell,
      match: struct({ cell }),
      transport_socket: socket(exactly(cell)),
    })),
    transport_socket: socket({ safe_regex: { regex: anyCell(value) } }),
  };
}

/** The cluster of one cell alone: its own name or nothing. */
export function ownTransportSocket({ tls, protocol }: ServiceDocument, cell: string): EnvoyMessage {
  if (!tls) return {};
  const exact = tls.subjectAltName.value.replaceAll(cellWord, cell);
  return { transport_socket: transportSocket(tls, protocol, { exact }) };
}

/** The secrets that the control plane must publish for a cluster to work. */
export function secretsOf({ tls }: ServiceDocument): ResourceKey[] {
  const names = [tls?.trustedCa.sds, tls?.certificate?.sds].filter((name) => name !== undefined);
  return names.map((name) => ({ type: 'secret', name }));
}

function transportSocket(tls: Tls, protocol: ServiceDocument['protocol'], san: EnvoyMessage): EnvoyMessage {
  return {
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': anyOf('envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext'),
      ...(tls.serverName && { sni: tls.serverName }),
      common_tls_context: {
        // Said because Envoy itself would stop at 1.2, and reach no cell that wants 1.3.
        tls_params: { tls_minimum_protocol_version: 'TLSv1_2', tls_maximum_protocol_version: 'TLSv1_3' },
        alpn_protocols: [protocol === 'http/1.1' ? 'http/1.1' : 'h2'],
        ...certificate(tls),
        ...validation(tls, san),
      },
    },
  };
}

/** Names prove nothing without an authority, so there is always one. */
function validation({ trustedCa, subjectAltName: { kind } }: Tls, matcher: EnvoyMessage): EnvoyMessage {
  const match_typed_subject_alt_names = [{ san_type: kind.toUpperCase(), matcher }];
  if (trustedCa.sds === undefined)
    return { validation_context: { trusted_ca: { filename: trustedCa.file }, match_typed_subject_alt_names } };
  return {
    combined_validation_context: {
      default_validation_context: { match_typed_subject_alt_names },
      validation_context_sds_secret_config: secret(trustedCa.sds),
    },
  };
}

function certificate({ certificate }: Tls): EnvoyMessage {
  if (!certificate) return {};
  if (certificate.sds !== undefined) return { tls_certificate_sds_secret_configs: [secret(certificate.sds)] };
  const { chainFile, keyFile } = certificate;
  return { tls_certificates: [{ certificate_chain: { filename: chainFile }, private_key: { filename: keyFile } }] };
}

function secret(name: string): EnvoyMessage {
  return { name, sds_config: { resource_api_version: 'V3', ads: {} } };
}

/** The value with any name that a cell can have in place of the word. */
function anyCell(value: string): string {
  const literal = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return value.split(cellWord).map(literal).join('[a-z0-9]([a-z0-9-]*[a-z0-9])?');
}
