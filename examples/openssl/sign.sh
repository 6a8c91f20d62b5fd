#!/bin/sh
# Has plain OpenSSL sign the certificates of cells, by an authority whose key has a passphrase: the request on standard input,
# the chain on standard output. CA_CERTIFICATE, CA_KEY and CA_PASSPHRASE_FILE name its files. Exit code 3: refused.
refuse() { echo "$1" >&2; exit 3; }
case $CERTIFICATE_NAME_KIND:$CERTIFICATE_NAME in
  *[!a-zA-Z0-9:/._-]*) refuse "$CERTIFICATE_NAME has characters that no name of a cell has" ;;
  uri:spiffe://shop.example/?*) kind=URI ;;
  dns:understudy) kind=DNS ;;
  *) refuse "$CERTIFICATE_NAME is no name of a cell" ;;
esac
days=$((${CERTIFICATE_LIFETIME_S%.*} / 86400))
[ "$days" -ge 1 ] || refuse "a certificate of ${CERTIFICATE_LIFETIME_S} s: whole days only, so 86400 at least"
# Nothing of the request but its key is taken over.
openssl x509 -req -subj / -CA "$CA_CERTIFICATE" -CAkey "$CA_KEY" -passin "file:$CA_PASSPHRASE_FILE" -days "$days" \
  -set_serial "0x$(openssl rand -hex 16)" -extfile /dev/fd/3 3<<END && cat "$CA_CERTIFICATE"
subjectAltName = critical, $kind:$CERTIFICATE_NAME
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
END
