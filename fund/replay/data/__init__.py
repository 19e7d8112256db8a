"""The bundled daily prices, as files; NOTICE.md says whose they are."""
