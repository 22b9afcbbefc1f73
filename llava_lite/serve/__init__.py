"""An OpenAI-compatible server over a SharedModel. It knows neither torch nor models: it asks, as any other client."""
