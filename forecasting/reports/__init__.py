"""Pages that people read: rendering and templates."""
