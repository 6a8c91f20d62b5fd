{{- if ne (len .SANs) 1 }}{{ fail "one name, not more and not none" }}{{ end }}
{{- $name := index .SANs 0 }}
{{- if not (or (and (eq $name.Type "uri") (hasPrefix "spiffe://shop.example/" $name.Value)) (and (eq $name.Type "dns") (eq $name.Value "understudy"))) }}
  {{- fail (printf "%s is no name of a cell" $name.Value) }}
{{- end }}
{
  "sans": {{ toJson .SANs }},
  "keyUsage": ["digitalSignature"],
  "extKeyUsage": ["serverAuth", "clientAuth"]
}
