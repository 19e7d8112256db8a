"""An MCP server over stdin and stdout, for an assistant that asks about one fund, read-only."""
