//! The contract of `Index`, kept by every implementation of it.

mod checks;
mod damage;
mod fixture;
mod operations;
mod random;
