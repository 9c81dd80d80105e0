//! From the YAML of a network to the list of services that make it up.
//!
//! [`parse`] reads a document and reports every problem of it at once, with line and column. [`schema`] is the
//! JSON Schema of the same types. [`plan::plan`] turns a topology into the services, their configurations,
//! identities and peers; whatever starts services starts exactly that list.

// No clock, file, socket, thread or randomness of the machine: clippy.toml lists them with reasons.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr))]

mod checks;
mod decimal;
mod diagnostic;
pub mod document;
mod encoding;
mod expand;
pub mod figure;
pub mod plan;
pub mod provenance;
pub mod quantity;
mod read;
mod resolve;
mod schema;
mod structure;
mod suggest;
mod syntax;
mod tree;

pub use diagnostic::{Diagnostic, Diagnostics, Position, Related, Relation, Severity};
pub use document::Topology;
pub use read::{Document, parse};
pub use schema::schema;
pub use tree::FILE_BYTES_MAX;
