//! The `keys` layer.
