"""Speed and memory, as ratios measured side by side: figures of a run, not promises."""
