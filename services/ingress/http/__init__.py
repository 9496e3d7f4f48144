"""The HTTP/1.1 server of the ingress: parser, headers, connections and answers."""
