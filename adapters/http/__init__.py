"""The HTTP face of Manent: OpenAI's words on the wire, the domain's use cases behind them (Sanic)."""
