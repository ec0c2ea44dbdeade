//! debounce.
