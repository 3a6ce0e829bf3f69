"""Simulated OpenAI, Anthropic and Gemini that keep a bill: `async with serve(port=0) as simulator: simulator.url`."""

from services.simulator.server import Simulator, serve

__all__ = ["Simulator", "serve"]
