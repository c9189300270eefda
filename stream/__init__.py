"""From events to snapshots: decoders, sources, event-time steps, graph metrics, the snapshot store, ingestion.

Knows nothing of models or forecasts, and never imports torch.
"""
