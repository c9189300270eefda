"""Places that reports and alerts go to, one file a kind. What is retried and when is none of their business."""
