//! One module per thing that a user does with a cluster.

pub mod applications;
pub mod commands;
pub mod edits;
pub mod first_key;
pub mod identity;
pub mod install;
pub mod kills;
pub mod policy;
pub mod readme;
pub mod refusals;
pub mod removal;
pub mod render;
pub mod restore;
pub mod troubles;

/// Namespace of the network that most steps look at, and its name.
pub const NAMESPACE: &str = "e2e-nice";
pub const NETWORK: &str = "nice";
