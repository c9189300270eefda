"""Places that reports are delivered to, one file a kind. What is retried and when is none of their business."""
