//! Values and their invariants: the words that every other layer speaks.
//!
//! Nothing here reads a clock, a file or a socket. A value that exists is valid: constructors
//! parse, and there is no way around them. These types are not serialised; `wire` and `store`
//! have types of their own and turn them into these, and there a peer's word is checked.

pub mod brake;
pub mod id;
pub mod limits;
pub mod path;
pub mod problem;
pub mod recipe;
pub mod record;
pub mod revocation;
pub mod rights;
pub mod shell;
pub mod stat;
pub mod version;
