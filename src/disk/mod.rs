//! The `disk` layer.
